"""[encryption]: with which keys new tapes are encrypted, and by whom."""

from __future__ import annotations

from typing import Literal

import msgspec

EncryptedBy = Literal["payload", "drive", "auto"]


class EncryptionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With which keys new tapes are encrypted."""

    #: Name of a key (`tapefs key`); empty: new tapes are not encrypted.
    key: str = ""
    #: The same by pool; a pool that is not named here has `key`.
    pools: dict[str, str] = {}
    #: Who encrypts new tapes: `payload` what goes to the drive, `drive` the drive itself, `auto` the drives if all can.
    by: EncryptedBy = "payload"
    #: The same by pool; a pool that is not named here has `by`.
    pools_by: dict[str, EncryptedBy] = {}
    #: File with the passphrase that unlocks the keys it fits when a sidecar starts; relative to the state folder.
    passphrase_file: str = ""

    def key_of(self, pool: str) -> str:
        """Return the key's name for new tapes of a pool; empty for none."""
        return self.pools.get(pool, self.key)

    def by_of(self, pool: str) -> EncryptedBy:
        """Return who encrypts new tapes of a pool, if they are encrypted."""
        return self.pools_by.get(pool, self.by)
