"""A scratch tape in a drive for the doctor: found, put in, looked at, and brought back. Blocking; one thread.

The caller owns the state folder. Nothing is written on a tape that is not blank, or that the ledger knows as written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

from catalog.errors import NotFound
from catalog.ledger import Ledger
from catalog.records import VolumeState
from drivers.errors import DriveError, EndOfData, NotSupported, WriteProtected
from drivers.interface import Changer, Drive, Element, ElementKind
from drivers.registry import drive_name, open_changer, open_drive
from tapefs.doctor.findings import Finding, Grade
from tapefs.doctor.speed import MARK, Speed, erase_test
from tapefs.errors import NoTape, NotBlank, NotNow, TapeError, UsageError, WrongTape
from tapefs.format.identify import foreign_format
from tapefs.home import Home

_ROOM_BYTES = 2**24 - 1


def try_speed(
    home: Home, ledger: Ledger, barcode: str, *, drive: int | None, seconds: float, ask: Callable[[str], None]
) -> Iterator[Finding]:
    """Measure with the tape `barcode`, erase it and bring it back; yield what was found.

    `drive`: which one, None for the first that is free. `ask` has a human put the tape in where there is no robot.
    Raises UsageError, NoTape, NotNow, TapeError, DriveError; then nothing was written, or the tape was erased again.
    """
    _check_ledger(ledger, barcode)
    if home.library_config.changer == "human":
        number = drive or 0
        ask(f"put {barcode} into {drive_name(number)}")
        yield from _in_drive(home, barcode, number, seconds)
        return
    with closing(open_changer(home.library_config)) as changer:
        number, slot = _find(changer, barcode, drive)
        if slot is not None:
            changer.load(slot, number)
        try:
            yield from _in_drive(home, barcode, number, seconds)
        finally:
            if slot is not None:
                changer.unload(number, slot)


def _check_ledger(ledger: Ledger, barcode: str) -> None:
    try:
        volume = ledger.volume_by_code(barcode)
    except NotFound:
        return
    if volume.state is not VolumeState.BLANK or volume.end_block:
        raise NotBlank(f"tape {barcode} is no scratch tape: the ledger knows it as {volume.state.value}")


def _find(changer: Changer, barcode: str, wanted: int | None) -> tuple[int, int | None]:
    """Return the drive to use, and the slot that the tape comes from; None when it is in the drive."""
    elements = changer.inventory()
    place = next((each for each in elements if each.barcode == barcode), None)
    if place is None:
        raise NoTape(f"the library has no tape {barcode}: `tapefs tapes` lists those that there are")
    drives = [each for each in elements if each.kind is ElementKind.DRIVE]
    if wanted is not None and wanted >= len(drives):
        raise UsageError(f"there is no drive {wanted}: the library has {len(drives)}, counted from 0")
    if place.kind is ElementKind.DRIVE:
        if wanted not in (None, place.number):
            raise NotNow(f"tape {barcode} is in {drive_name(place.number)}, not in {drive_name(wanted or 0)}")
        return place.number, None
    return _free(drives, wanted), place.number


def _free(drives: list[Element], wanted: int | None) -> int:
    free = [each.number for each in drives if not each.full and wanted in (None, each.number)]
    if not free:
        raise NotNow("there is a tape in the drive already: bring it back, or choose another one with --drive")
    return free[0]


def _in_drive(home: Home, barcode: str, number: int, seconds: float) -> Iterator[Finding]:
    """Measure with the tape that is in the drive, not threaded or just put in, and leave it so."""
    with closing(open_drive(home.library_config, number)) as drive:
        drive.load()
        try:
            _check_tape(drive, barcode)
            _check_erasable(drive, barcode)
            yield from _measured(drive, drive_name(number), barcode, seconds)
        finally:
            drive.unload()


def _check_tape(drive: Drive, barcode: str) -> None:
    """Raise WrongTape, TapeError, NotBlank when this is not the tape, or not one to be written over."""
    status = drive.status()
    if status.barcode not in (None, barcode):
        raise WrongTape(f"the tape in the drive is {status.barcode}, not {barcode}")
    if status.write_protected:
        raise TapeError(f"tape {barcode} is write-protected: move its tab, or take another one")
    room = memoryview(bytearray(_ROOM_BYTES))
    try:
        length = drive.read_into(room)
    except EndOfData:
        drive.rewind()
        return
    except ValueError:
        length = 0
    first = bytes(room[:length])
    if not first.startswith(MARK):
        whose = foreign_format(first) or ("this program or a filemark" if first else "somebody")
        raise NotBlank(f"tape {barcode} is not blank, there are data of {whose}: take a blank one, or erase it first")
    drive.rewind()


def _check_erasable(drive: Drive, barcode: str) -> None:
    """Raise TapeError when what is to be written could not be erased again, as on a WORM tape; what is left goes."""
    try:
        erase_test(drive)
    except (WriteProtected, NotSupported) as error:
        raise TapeError(f"tape {barcode} could not be erased behind the test, take another one: {error}") from error


def _measured(drive: Drive, about: str, barcode: str, seconds: float) -> Iterator[Finding]:
    try:
        yield from Speed(drive, about, seconds=seconds).measure()
    except DriveError as error:
        yield Finding(grade=Grade.PROBLEM, about=about, says=f"the test was broken off: {error}")
    finally:
        # Also when the operator broke it off: what is on the tape is worth nothing.
        problem = _erased(drive, about, barcode)
    yield problem or Finding(grade=Grade.GOOD, about=about, says=f"tape {barcode} was erased: it is blank again")


def _erased(drive: Drive, about: str, barcode: str) -> Finding | None:
    try:
        erase_test(drive)
    except DriveError as error:
        return Finding(
            grade=Grade.PROBLEM, about=about, says=f"test data are left on tape {barcode}: {error}",
            fix=f"test again with `tapefs doctor --speed {barcode}`, which erases them, or by `mt erase`",
        )  # fmt: skip
    return None
