"""Getting tapes into the drive without a sidecar: by the robot, or by asking a human. Blocking; one thread."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from drivers.errors import DriveError, NotReady
from drivers.human.changer import HumanChanger
from drivers.interface import Drive, Element, ElementKind
from drivers.registry import drive_name, open_changer, open_drive
from tapefs.errors import NoTape
from tapefs.home import Home
from tapefs.keys.store import KeyStore

#: Asked to do something with a tape; False: it cannot be done.
Ask = Callable[[str], bool]
#: Asked for the passphrase of the key of that title; None: nobody knows it.
AskPassphrase = Callable[[str], bytes | None]

_DRIVE = 0


class Loading:
    """The first drive, and who puts tapes in. A context manager: at the end the tape is back in its slot."""

    def __init__(self, home: Home, ask: Ask, ask_passphrase: AskPassphrase = lambda _: None) -> None:
        """Open drive and changer. Raises drive errors, ValueError."""
        self._home = home
        self._ask = ask
        self._ask_passphrase = ask_passphrase
        self._changer = open_changer(home.library_config)
        try:
            self.drive: Drive = open_drive(home.library_config, _DRIVE)
        except BaseException:
            self._changer.close()
            raise
        self._is_human = isinstance(self._changer, HumanChanger)

    def __enter__(self) -> Loading:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Bring the tape back, unless something went wrong that the drive may have to do with; let go of all."""
        try:
            if error is None:
                self.put_away()
        finally:
            self.drive.close()
            self._changer.close()

    def tapes(self) -> list[str]:
        """Return the barcodes of all tapes in the library, cleaning tapes apart. Raises drive errors."""
        found = {each.barcode for each in self._changer.inventory() if each.full and each.barcode}
        return sorted(label for label in found if not label.startswith("CLN"))

    def put_in(self, label: str) -> None:
        """Have the tape in the drive and threaded. Raises NoTape when it cannot be had, drive errors."""
        if self._is_human:
            self.drive.unload()
            self._request(f"put tape {label} into {drive_name(_DRIVE)}")
        else:
            self._move_in(label)
        try:
            self.drive.load()
        except NotReady as error:
            raise NoTape(f"there is no tape in {drive_name(_DRIVE)}: {error}") from error

    def unlock(self, fingerprint: str) -> bool:
        """Have a key unlocked in this process; False when it is not here or nobody knows its passphrase.

        Raises WrongPassphrase, HomeError.
        """
        store = KeyStore(self._home.keys)
        key = store.of_fingerprint(fingerprint)
        if key is None or not store.can_read(key):
            return False
        passphrase = self._ask_passphrase(key.title)
        if passphrase is None:
            return False
        self._home.keyring.add(store.identity(key, passphrase))
        return True

    def put_away(self) -> None:
        """Eject the tape, and bring it to a slot. Raises NoTape when none is free, drive errors."""
        self.drive.unload()
        if not self._is_human:
            self._clear(_DRIVE)

    def _clear(self, drive: int) -> None:
        """Bring the ejected tape of a drive, if any, to a slot. Raises NoTape when none is free, drive errors."""
        elements = self._changer.inventory()
        if any(each.kind is ElementKind.DRIVE and each.number == drive and each.full for each in elements):
            if not any(each.kind is ElementKind.SLOT for each in elements):
                return  # Volumes are mounted and unmounted by people: it stays where it is.
            slots = [each.number for each in elements if each.kind is ElementKind.SLOT and not each.full]
            if not slots:
                raise NoTape("no slot is free for the tape in the drive: take a tape out of the library")
            self._changer.unload(drive, slots[0])

    def _clear_other(self, drive: int, label: str) -> None:
        """Have another drive give up the tape in it. Raises NoTape when it does not."""
        try:
            other = open_drive(self._home.library_config, drive)
            try:
                other.unload()
            finally:
                other.close()
            self._clear(drive)
        except DriveError as error:
            raise NoTape(f"tape {label} is in {drive_name(drive)}, which does not give it up: {error}") from error

    def _move_in(self, label: str) -> None:
        place = self._place_of(label)
        if place.kind is ElementKind.DRIVE and place.number == _DRIVE:
            return
        self.put_away()
        if not any(each.kind is ElementKind.SLOT for each in self._changer.inventory()):
            raise NoTape(f"mount {label} where {drive_name(_DRIVE)} is: it is read there")
        if place.kind is ElementKind.DRIVE:
            self._clear_other(place.number, label)
        self._changer.load(self._place_of(label).number, _DRIVE)

    def _place_of(self, label: str) -> Element:
        while True:
            for each in self._changer.inventory():
                if each.full and each.barcode == label:
                    return each
            self._request(f"put tape {label} into the library")

    def _request(self, sentence: str) -> None:
        if not self._ask(sentence):
            raise NoTape(f"nobody could {sentence}")
