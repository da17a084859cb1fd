"""Which key a tape is written with. Blocking; any thread may use it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from catalog.records import Volume
from tapefs.errors import KeyUnfit
from tapefs.home import Home
from tapefs.keys.store import KeyStore

if TYPE_CHECKING:
    from tapefs.keys.identity import Recipient


class TapeKeys:
    """What the settings want of new tapes, and what tapes have that are written already.

    With `wanted` (a fingerprint, or empty for none) they are to have that very key: copies are of stored bytes.
    """

    def __init__(self, home: Home, wanted: str | None = None) -> None:
        self._settings = home.settings.encryption
        self._store = KeyStore(home.keys)
        self.wanted = wanted

    def of_new_tape(self, pool: str) -> str:
        """Return the fingerprint of the key for a tape that is labelled now; empty: it is not to be encrypted.

        Raises NoSuchThing when the settings name a key that is not here, HomeError.
        """
        if self.wanted is not None:
            return self.wanted
        name = self._settings.key_of(pool)
        return self._store.find(name).fingerprint if name else ""

    def given(self, volume: Volume) -> Volume:
        """Return a tape that is about to be labelled with its key. Raises as `of_new_tape`."""
        return msgspec.structs.replace(volume, key_fingerprint=self.of_new_tape(volume.pool))

    def is_fit(self, volume: Volume) -> bool:
        """May be written to a tape that is labelled, as far as its key goes? Raises as `of_new_tape`."""
        if self.wanted is not None:
            return volume.key_fingerprint == self.wanted
        return bool(volume.key_fingerprint) or not self.of_new_tape(volume.pool)

    def recipient(self, volume: Volume) -> Recipient | None:
        """Return what the tape's new data is encrypted with; None for a tape that is not encrypted.

        A tape keeps its key, whatever the settings say by now. Raises KeyUnfit when it may not be written to: it is not
        encrypted and new data is to be, or its key is not here. Raises as `of_new_tape`, too.
        """
        if not self.is_fit(volume):
            has = f"encrypted with key {volume.key_fingerprint}" if volume.key_fingerprint else "not encrypted"
            raise KeyUnfit(f"tape {volume.label} is {has}, and what is to be written to it otherwise: use another tape")
        if not volume.key_fingerprint:
            return None
        key = self._store.of_fingerprint(volume.key_fingerprint)
        if key is None:
            raise KeyUnfit(
                f"tape {volume.label} is encrypted with key {volume.key_fingerprint}, which is not here: "
                "`tapefs key import` it, or use another tape"
            )
        return key.public
