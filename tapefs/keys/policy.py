"""Which key a tape is written with. Blocking; any thread may use it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from catalog.records import Volume
from tapefs.errors import HomeError, KeyUnfit, UsageError
from tapefs.home import Home
from tapefs.keys.store import Key, KeyStore

if TYPE_CHECKING:
    from tapefs.keys.identity import Recipient


class TapeKeys:
    """What the settings want of new tapes, and what tapes have that are written already; made anew for each question.

    With `wanted` (a fingerprint, or empty for none) they are to have that very key: copies are of stored bytes.
    """

    def __init__(self, home: Home, wanted: str | None = None) -> None:
        self._settings = home.settings.encryption
        self._store = KeyStore(home.keys)
        self._keys: list[Key] | None = None
        self.wanted = wanted

    def of_new_tape(self, pool: str) -> str:
        """Return the fingerprint of the key for a tape that is labelled now; empty: it is not to be encrypted.

        Raises UsageError when the settings name a key that is not here, HomeError.
        """
        if self.wanted is not None:
            return self.wanted
        name = self._settings.key_of(pool)
        found = [key for key in self._known() if name in (key.name, key.title)]
        if name and not found:
            raise UsageError(
                f"new tapes of pool {pool} are to be encrypted with key {name}, which is not here: `tapefs key create` "
                "or `import` it, or change [encryption] in tapefs.toml"
            )
        return found[-1].fingerprint if found else ""

    def _known(self) -> list[Key]:
        """Return all keys, by name and number; read once, because a library has thousands of tapes."""
        if self._keys is None:
            self._keys = self._store.all_keys()
        return self._keys

    def given(self, volume: Volume) -> Volume:
        """Return a tape that is about to be labelled with its key. Raises as `of_new_tape`."""
        return msgspec.structs.replace(volume, key_fingerprint=self.of_new_tape(volume.pool))

    def is_fit(self, volume: Volume) -> bool:
        """May be written to a tape that is labelled, as far as its key goes? Raises as `of_new_tape`."""
        if self.wanted is not None:
            return volume.key_fingerprint == self.wanted
        return bool(volume.key_fingerprint) or not self.of_new_tape(volume.pool)

    def obstacle(self, volume: Volume) -> str:
        """Say why its key keeps a labelled tape from being written to; nothing when it does not."""
        try:
            self.recipient(volume)
        except (KeyUnfit, UsageError, HomeError) as error:
            return str(error)
        return ""

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
        key = next((key for key in self._known() if key.fingerprint == volume.key_fingerprint), None)
        if key is None:
            raise KeyUnfit(
                f"tape {volume.label} is encrypted with key {volume.key_fingerprint}, which is not here: "
                "`tapefs key import` it, or use another tape"
            )
        return key.public


def sentences(home: Home, fingerprints: Iterable[str]) -> list[str]:
    """Say of each key that something is encrypted with whether that can be read now; empty fingerprints are no key.

    Raises HomeError.
    """
    keys = {key.fingerprint: key for key in KeyStore(home.keys).all_keys()}
    said = []
    for each in sorted(set(fingerprints) - {""}):
        key = keys.get(each)
        if home.keyring.has(each):
            fate = "which is unlocked"
        elif key is None:
            fate = "which is not here: `tapefs key import` it, to read"
        else:
            fate = f"which is locked: `tapefs key unlock {key.title}`, to read"
        said.append(f"It is encrypted with key {f'{key.title}, {each}' if key else each}, {fate}.")
    return said
