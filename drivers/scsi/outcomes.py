"""What sense data mean: which error, what happened, what the operator does, whether doing it again helps.

`RULES` is the whole table; `docs/faults.md` shows it, made by `scripts/faults-table`. Pure; any thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from drivers.errors import (
    DeviceFailed,
    DriveError,
    DriveInUse,
    EndOfData,
    EndOfMedium,
    IncompatibleMedium,
    NoSuchElement,
    NotEncrypted,
    NotReady,
    NotSupported,
    PositionLost,
    ReadFailed,
    SlotEmpty,
    SlotFull,
    Undecryptable,
    WriteFailed,
    WriteProtected,
    WrongKey,
)
from drivers.scsi.sense import Key, Sense


class Doing(Enum):
    """What a command was for; an error of the medium means another thing for each."""

    READ = "reading"
    WRITE = "writing"
    ERASE = "erasing"
    MOVE = "moving the tape"
    LOAD = "loading"
    ASK = "asking the device"
    ROBOT = "moving a cartridge"


class Again(Enum):
    """Does doing the same again help?"""

    NO = "no"
    #: The command was not done, or its end says that all is well: the driver goes on by itself.
    BY_ITSELF = "the driver does"
    #: Later, when the device is ready.
    LATER = "later"
    #: When the operator has done what the table says.
    AFTERWARDS = "afterwards"


class Medium(DriveError):
    """Stands in the table for ReadFailed or WriteFailed, whichever was being done. Never raised."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row of the table."""

    #: Pattern; None matches everything.
    key: Key
    asc: int | None
    ascq: int | None
    #: What is raised; None for what is no error.
    error: type[DriveError] | None
    #: One sentence, for the operator.
    happened: str
    #: What the operator does, "" for nothing.
    advice: str
    again: Again

    @property
    def codes(self) -> str:
        """Return the pattern as manuals print it, x for what matches everything."""
        parts = (self.key, self.asc, self.ascq)
        return "/".join("xx" if each is None else f"{each:02X}" for each in parts)

    def matches(self, sense: Sense) -> bool:
        """Tell whether this row is about such sense data."""
        return self.key is sense.key and self.asc in (None, sense.asc) and self.ascq in (None, sense.ascq)


def _rows(key: Key, *rows: tuple[int | None, int | None, type[DriveError] | None, Again, str, str]) -> list[Outcome]:
    """Return the rows of one key: code, qualifier, error, whether again helps, what happened, what to do."""
    return [Outcome(key, asc, ascq, error, text, advice, again) for asc, ascq, error, again, text, advice in rows]


_NO, _SELF, _LATER, _THEN = Again.NO, Again.BY_ITSELF, Again.LATER, Again.AFTERWARDS
#: What a drive adds to a command that went well.
CLEANING_REQUESTED = (0x00, 0x17)
_CLEAN = "clean the drive, then go on"
_SUPPLIER = "switch the drive off and on; if it comes again, call its supplier"
_COPY = "do not write to this tape any more; read back what is on it, and write a copy while it can be read"
_KEY = "have the key set in the drive"
_UNKEY = "have the key taken out of the drive, or set for reading of both kinds"
_VERIFY = "nothing: the position is checked before anything is written"

#: Looked through from top to bottom; the first row that matches counts. The last of each key matches all of it.
RULES = (
    *_rows(
        Key.NO_SENSE,
        (0x00, 0x01, None, _SELF, "a filemark was met", ""),
        (0x00, 0x02, None, _SELF, "early warning: the end of the tape is near; what was sent is done", ""),
        (0x00, 0x04, None, _SELF, "the head is at the beginning of the tape", ""),
        (0x00, 0x05, EndOfData, _NO, "there is nothing behind the last written block", ""),
        (0x00, 0x07, None, _SELF, "an early warning that somebody programmed; what was sent is done", ""),
        (0x00, 0x17, None, _SELF, "all was done; the drive asks to be cleaned", _CLEAN),
        (None, None, None, _SELF, "all was done", ""),
    ),
    *_rows(
        Key.RECOVERED_ERROR,
        (0x00, 0x17, None, _SELF, "all was done; the drive asks to be cleaned", _CLEAN),
        (None, None, None, _SELF, "all was done, after the drive had tried again", ""),
    ),
    *_rows(
        Key.NOT_READY,
        (0x04, 0x01, NotReady, _LATER, "the device is becoming ready; a new LTO-9 tape takes up to two hours", "wait"),
        (0x04, 0x02, NotReady, _THEN, "a tape is in the drive, but not threaded", "load it"),
        (0x04, 0x03, NotReady, _THEN, "the device waits for a human", "look at the panel of the device"),
        (0x04, 0x12, NotReady, _THEN, "the device is set offline", "set it online at its panel"),
        (0x04, None, NotReady, _LATER, "the device is busy with something that takes long", "wait"),
        (
            0x30,
            0x03,
            NotReady,
            _LATER,
            "a cleaning cartridge is in the drive",
            "wait until it is ejected, then take it out",
        ),
        (0x30, None, IncompatibleMedium, _NO, "the drive cannot use this cartridge", "use one that it can"),
        (0x3A, None, NotReady, _THEN, "no tape is loaded", "put one in"),
        (0x3E, 0x00, NotReady, _LATER, "the device is starting", "wait"),
        (0x53, None, DeviceFailed, _THEN, "the cartridge could not be loaded or ejected", _SUPPLIER),
        (None, None, NotReady, _LATER, "the device is not ready", "look at the panel of the device"),
    ),
    *_rows(
        Key.MEDIUM_ERROR,
        (0x00, 0x02, Medium, _NO, "the physical end of the tape was met", _COPY),
        (0x0C, None, WriteFailed, _NO, "the drive could not write: the tape or the drive is bad", _COPY),
        (0x11, None, Medium, _NO, "the drive could not read the block", "read it from another copy; " + _COPY),
        (0x14, 0x03, Medium, _NO, "the end of data cannot be found: writing was cut off by a power failure", _COPY),
        (0x14, None, Medium, _NO, "the place on the tape cannot be found", _COPY),
        (0x15, None, Medium, _NO, "the place on the tape cannot be reached", _COPY),
        (
            0x30,
            0x02,
            IncompatibleMedium,
            _NO,
            "the drive does not know the format of this tape",
            "use a drive of its generation",
        ),
        (
            0x30,
            0x07,
            DeviceFailed,
            _THEN,
            "cleaning failed: the cleaning cartridge is used up or not for this drive",
            "use another cleaning cartridge",
        ),
        (0x30, None, IncompatibleMedium, _NO, "the drive cannot use this cartridge", "use one that it can"),
        (0x31, None, IncompatibleMedium, _NO, "the tape's format is damaged", "use another tape; " + _COPY),
        (0x33, None, IncompatibleMedium, _NO, "the tape has the wrong length", "use another tape"),
        (0x3B, None, Medium, _NO, "the drive cannot find its place on the tape", _COPY),
        (0x52, None, DeviceFailed, _NO, "the cartridge is damaged", "take it out and have it examined"),
        (
            0x53,
            None,
            DeviceFailed,
            _THEN,
            "the cartridge could not be loaded or ejected",
            "try another cartridge; " + _SUPPLIER,
        ),
        (None, None, Medium, _NO, "the tape is bad there, or the drive is", _COPY),
    ),
    *_rows(
        Key.HARDWARE_ERROR,
        (
            0x10,
            0x01,
            DeviceFailed,
            _THEN,
            "a block came through the wire with a wrong checksum",
            "check cables and adapters",
        ),
        (
            0x15,
            None,
            DeviceFailed,
            _THEN,
            "the robot or the drive could not reach a place",
            "look into the library; " + _SUPPLIER,
        ),
        (0x47, None, DeviceFailed, _THEN, "the wire between host and device has errors", "check cables and adapters"),
        (0x53, None, DeviceFailed, _THEN, "the cartridge could not be loaded or ejected", _SUPPLIER),
        (None, None, DeviceFailed, _NO, "the device has a hardware fault", _SUPPLIER),
    ),
    *_rows(
        Key.ILLEGAL_REQUEST,
        (0x20, 0x00, NotSupported, _NO, "the device does not know the command", "look for newer firmware"),
        (0x21, 0x01, NoSuchElement, _NO, "the library has no such place", "look at its inventory"),
        (0x25, 0x00, DeviceFailed, _NO, "there is no device behind this number", "check the device's address"),
        (0x2C, None, DeviceFailed, _NO, "the command came at a wrong time", ""),
        (
            0x30,
            0x05,
            IncompatibleMedium,
            _NO,
            "the drive can read this cartridge, but not write it",
            "use one of the drive's generation",
        ),
        (0x30, None, IncompatibleMedium, _NO, "the drive cannot use this cartridge", "use one that it can"),
        (0x3B, 0x0D, SlotFull, _NO, "there is a cartridge already where this one should go", "look at the inventory"),
        (0x3B, 0x0E, SlotEmpty, _NO, "there is no cartridge where one should be taken from", "look at the inventory"),
        (0x3B, 0x11, NotReady, _THEN, "the magazine is out", "put it in"),
        (0x3B, 0x12, NotReady, _THEN, "the magazine is out", "put it in"),
        (0x53, 0x02, NotReady, _THEN, "the cartridge is held in the drive", "unload the drive first"),
        (0x53, 0x03, NotReady, _THEN, "the cartridge is threaded in the drive", "unload the drive first"),
        (
            None,
            None,
            NotSupported,
            _NO,
            "the device refuses the command as wrong",
            "look for newer firmware; report this",
        ),
    ),
    *_rows(
        Key.UNIT_ATTENTION,
        (0x28, 0x00, PositionLost, _SELF, "the drive became ready, perhaps with another tape", _VERIFY),
        (0x28, 0x01, None, _SELF, "somebody used the import/export slot", ""),
        (
            0x29,
            None,
            PositionLost,
            _SELF,
            "the device was reset or switched on: its buffer and its position are lost",
            _VERIFY,
        ),
        (0x2A, 0x01, None, _SELF, "another host changed the drive's settings", "nothing: they are set again"),
        (0x2A, 0x03, DriveInUse, _THEN, "another host took the reservation of the drive", "see which host uses it"),
        (
            0x2A,
            0x04,
            DriveInUse,
            _THEN,
            "the reservation of the drive was released by another host",
            "see which host uses it",
        ),
        (0x2A, 0x05, DriveInUse, _THEN, "another host took away the right to use the drive", "see which host uses it"),
        (
            0x2A,
            0x11,
            DeviceFailed,
            _THEN,
            "another host changed the drive's encryption settings",
            "see which host uses it",
        ),
        (0x53, 0x02, PositionLost, _SELF, "somebody wants the cartridge out", _VERIFY),
        (0x5A, 0x01, PositionLost, _SELF, "somebody pressed the eject button", _VERIFY),
        (None, None, None, _SELF, "the device tells of a change that does not matter here", ""),
    ),
    *_rows(
        Key.DATA_PROTECT,
        (
            0x30,
            0x0C,
            WriteProtected,
            _NO,
            "the cartridge can be written once: what is there cannot be overwritten",
            "append to it, or use another one",
        ),
        (
            0x30,
            None,
            IncompatibleMedium,
            _NO,
            "the drive can read this cartridge, but not write it",
            "use one of the drive's generation",
        ),
        (
            0x74,
            0x02,
            NotEncrypted,
            _THEN,
            "the block is not encrypted, and the drive is to read none that is not",
            _UNKEY,
        ),
        (0x74, 0x03, WrongKey, _THEN, "the block is encrypted by the drive, which has another key", _KEY),
        (0x74, 0x04, Medium, _NO, "the block was changed after the drive had encrypted it", _COPY),
        (0x74, None, Undecryptable, _THEN, "the block is encrypted by the drive, which has no key for it", _KEY),
        (None, None, WriteProtected, _THEN, "the cartridge is write-protected", "move its tab or use another one"),
    ),
    *_rows(
        Key.BLANK_CHECK,
        (None, None, EndOfData, _NO, "there is nothing behind the last written block", ""),
    ),
    *_rows(
        Key.ABORTED_COMMAND,
        (None, None, DeviceFailed, _SELF, "the command was broken off on its way", "check cables and adapters"),
    ),
    *_rows(
        Key.VOLUME_OVERFLOW,
        (None, None, EndOfMedium, _NO, "the physical end of the tape is reached", ""),
    ),
)

_UNKNOWN = Outcome(
    Key.RESERVED, None, None, DeviceFailed, "the device reports an error that is not known here", _SUPPLIER, _NO
)


def outcome_of(sense: Sense) -> Outcome:
    """Return what sense data mean. What they say of filemark, early warning and length is in their own fields."""
    return next((each for each in RULES if each.matches(sense)), _UNKNOWN)


def error_of(sense: Sense, doing: Doing, *, block: int, device: str) -> DriveError | None:
    """Return the error that sense data mean, None when the command was done.

    `block` is the logical block that a failed read or write is about. A deferred error is one of blocks that were
    written before, whatever was being done when it was told.
    """
    outcome = outcome_of(sense)
    error = outcome.error
    if error is None:
        return None
    message = _message(sense, outcome, device, doing)
    if sense.deferred and error is not PositionLost and error is not EndOfMedium:
        return WriteFailed(f"a block that was written before did not reach the tape: {message}", block)
    if error is Medium:
        error = WriteFailed if doing in (Doing.WRITE, Doing.ERASE) else ReadFailed
    if error is WriteFailed or error is ReadFailed:
        return error(f"block {block}: {message}", block)
    return error(message)


def _message(sense: Sense, outcome: Outcome, device: str, doing: Doing) -> str:
    advice = f" ({outcome.advice})" if outcome.advice else ""
    return f"{device}, {doing.value}: {outcome.happened}{advice} [sense {sense.codes}]"


def as_table() -> str:
    """Return the table in Markdown."""
    lines = ["| sense | error | what happened | what to do | does it help to do it again |", "|---|---|---|---|---|"]
    lines += [
        f"| {each.codes} | {_error_name(each)} | {each.happened} | {each.advice or 'nothing'} | {each.again.value} |"
        for each in RULES
    ]
    return "\n".join(lines) + "\n"


def _error_name(outcome: Outcome) -> str:
    if outcome.error is None:
        return "none"
    return "ReadFailed or WriteFailed" if outcome.error is Medium else outcome.error.__name__
