"""Which key a tape is written with. Blocking; any thread may use it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from catalog.records import Volume
from drivers.interface import Drive, DriveKey
from drivers.registry import drive_name
from tapefs.errors import HomeError, KeyUnfit, UsageError
from tapefs.home import Home
from tapefs.keys.driving import can_encrypt, key_for
from tapefs.keys.store import Key, KeyStore
from tapefs.mover.drive_file import says_it_encrypts

if TYPE_CHECKING:
    from tapefs.keys.identity import Recipient


class Seal(NamedTuple):
    """How a tape is encrypted, or the payloads that lie on it."""

    #: Of the key; empty: not at all.
    fingerprint: str = ""
    #: The drive encrypts; else what goes to it is encrypted.
    by_drive: bool = False


def seal_of(volume: Volume) -> Seal:
    """Return how a labelled tape is encrypted."""
    return Seal(volume.key_fingerprint, volume.by_drive)


class TapeKeys:
    """What the settings want of new tapes, and what tapes have that are written already; made anew for each question.

    Copies are of stored bytes. With `wanted`, how their original is encrypted, they go to tapes with that very key if
    the bytes themselves are encrypted. If a drive has encrypted them they go to tapes that a drive encrypts: with the
    key that the settings have for the drives of their pool, else with that of the original. `drive` is the one that
    writes.
    """

    def __init__(self, home: Home, wanted: Seal | None = None, drive: Drive | None = None) -> None:
        self._home = home
        self._settings = home.settings.encryption
        self._store = KeyStore(home.keys)
        self._keys: list[Key] | None = None
        self._all_encrypt: bool | None = None
        self._drive = drive
        self.wanted = wanted

    def of_new_tape(self, pool: str) -> Seal:
        """Return how a tape is to be encrypted that is labelled now.

        Raises UsageError when the settings name a key that is not here; KeyUnfit when a drive is to encrypt, and
        cannot, or the secret that it needs is locked; HomeError, DeviceFailed.
        """
        if self.wanted is not None and self.wanted.fingerprint and not self.wanted.by_drive:
            return self.wanted
        found = self._by_settings(pool)
        if self.wanted is not None and not found.by_drive:
            found = self.wanted
        if found.by_drive:
            self._require_drive(pool)
            self._require_unlocked(found.fingerprint, f"new tapes of pool {pool} are encrypted by the drive")
        return found

    def _by_settings(self, pool: str) -> Seal:
        name = self._settings.key_of(pool)
        found = [key for key in self._known() if name in (key.name, key.title)]
        if name and not found:
            raise UsageError(
                f"new tapes of pool {pool} are to be encrypted with key {name}, which is not here: `tapefs key create` "
                "or `import` it, or change [encryption] in tapefs.toml"
            )
        return Seal(found[-1].fingerprint, self._is_by_drive(pool, found[-1].fingerprint)) if found else Seal()

    def _is_by_drive(self, pool: str, fingerprint: str) -> bool:
        by = self._settings.by_of(pool)
        if by != "auto":
            return by == "drive"
        # No backup fails for it: what cannot be done by all drives, or not without a passphrase, is done the other way.
        is_able = self._drive is None or can_encrypt(self._drive)
        return is_able and self._home.keyring.has(fingerprint) and self._do_all_encrypt()

    def _do_all_encrypt(self) -> bool:
        """As `all_drives_encrypt`, asked once, because a library has thousands of tapes."""
        if self._all_encrypt is None:
            self._all_encrypt = all_drives_encrypt(self._home)
        return self._all_encrypt

    def _require_drive(self, pool: str) -> None:
        if self._drive is not None and not can_encrypt(self._drive):
            raise KeyUnfit(
                f"what goes to pool {pool} is to be encrypted by the drive, and this drive cannot do that, or takes no "
                "keys from this host: use a drive that encrypts, or have tapefs encrypt, with "
                '`by = "payload"` in [encryption] of tapefs.toml'
            )

    def _require_unlocked(self, fingerprint: str, why: str) -> None:
        if self._home.keyring.has(fingerprint):
            return
        key = next((key for key in self._known() if key.fingerprint == fingerprint), None)
        what = f"`tapefs key unlock {key.title}`" if key else f"`tapefs key import` key {fingerprint}, and unlock it"
        raise KeyUnfit(f"{why}, which needs the secret half of the key: {what}")

    def _known(self) -> list[Key]:
        """Return all keys, by name and number; read once, because a library has thousands of tapes."""
        if self._keys is None:
            self._keys = self._store.all_keys()
        return self._keys

    def given(self, volume: Volume) -> Volume:
        """Return a tape that is about to be labelled with its key. Raises as `of_new_tape`."""
        seal = self.of_new_tape(volume.pool)
        return msgspec.structs.replace(volume, key_fingerprint=seal.fingerprint, by_drive=seal.by_drive)

    def is_fit(self, volume: Volume) -> bool:
        """May be written to a tape that is labelled, as far as its key goes? Raises UsageError, HomeError."""
        seal, wanted = seal_of(volume), self.wanted
        if wanted is not None and wanted.fingerprint and not wanted.by_drive:
            return seal == wanted
        if wanted is None:
            return bool(seal.fingerprint) or not self._by_settings(volume.pool).fingerprint
        if seal.fingerprint:
            return seal.by_drive
        return not wanted.fingerprint and not self._by_settings(volume.pool).by_drive

    def obstacle(self, volume: Volume) -> str:
        """Say why its key keeps a labelled tape from being written to; nothing when it does not."""
        try:
            self.require_fit(volume)
        except (KeyUnfit, UsageError, HomeError) as error:
            return str(error)
        return ""

    def require_fit(self, volume: Volume) -> None:
        """Raise KeyUnfit when a labelled tape may not be written to, because of its key or the drive; HomeError."""
        if volume.by_drive:
            self._require_drive(volume.pool)
            self._require_unlocked(volume.key_fingerprint, f"tape {volume.label} is encrypted by the drive")
        self.recipient(volume)

    def recipient(self, volume: Volume) -> Recipient | None:
        """Return what the tape's new data is encrypted with before it goes to the drive; None: it is not.

        A tape keeps its key, whatever the settings say by now. Raises KeyUnfit when it may not be written to: it is not
        encrypted and new data is to be, or its key is not here. Raises UsageError, HomeError.
        """
        if not self.is_fit(volume):
            has = f"encrypted with key {volume.key_fingerprint}" if volume.key_fingerprint else "not encrypted"
            has += " by the drive" if volume.by_drive else ""
            raise KeyUnfit(f"tape {volume.label} is {has}, and what is to be written to it otherwise: use another tape")
        if not volume.key_fingerprint or volume.by_drive:
            return None
        key = next((key for key in self._known() if key.fingerprint == volume.key_fingerprint), None)
        if key is None:
            raise KeyUnfit(
                f"tape {volume.label} is encrypted with key {volume.key_fingerprint}, which is not here: "
                "`tapefs key import` it, or use another tape"
            )
        return key.public

    def drive_key(self, volume: Volume) -> DriveKey | None:
        """Return what the drive encrypts the tape with; None: it does not. Raises KeyUnfit."""
        if not volume.by_drive:
            return None
        self.require_fit(volume)
        return key_for(self._home, volume.key_fingerprint, volume.volume_id)


def all_drives_encrypt(home: Home) -> bool:
    """Do all drives encrypt, by what they said when they were opened last? One that has said nothing does not."""
    names = [drive_name(number) for number in range(home.settings.library.drive_count)]
    return bool(names) and all(says_it_encrypts(home.drives, name) for name in names)


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
