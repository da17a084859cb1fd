"""What a driver's error is in sense data. Pure; any thread."""

from __future__ import annotations

from drivers.errors import (
    DiskFull,
    DriveError,
    EndOfData,
    EndOfMedium,
    IncompatibleMedium,
    NotEncrypted,
    NotReady,
    PositionLost,
    ReadFailed,
    Undecryptable,
    WormOverwrite,
    WriteFailed,
    WriteProtected,
    WrongKey,
)
from drivers.vtl.sense import (
    CANNOT_WRITE_FORMAT,
    END_OF_DATA,
    END_OF_PARTITION,
    INCORRECT_KEY,
    INTERNAL_FAILURE,
    NO_MEDIUM,
    POSITIONING_ERROR,
    READ_ERROR,
    UNABLE_TO_DECRYPT,
    UNENCRYPTED_DATA,
    WORM_OVERWRITE,
    WRITE_ERROR,
    WRITE_FAULT,
    WRITE_PROTECTED,
    Key,
    Sense,
)

#: The first class that fits counts.
_TABLE: tuple[tuple[type[DriveError], Sense], ...] = (
    (NotReady, Sense(Key.NOT_READY, NO_MEDIUM)),
    (WormOverwrite, Sense(Key.DATA_PROTECT, WORM_OVERWRITE)),
    (WriteProtected, Sense(Key.DATA_PROTECT, WRITE_PROTECTED)),
    (IncompatibleMedium, Sense(Key.DATA_PROTECT, CANNOT_WRITE_FORMAT)),
    (WrongKey, Sense(Key.DATA_PROTECT, INCORRECT_KEY)),
    (NotEncrypted, Sense(Key.DATA_PROTECT, UNENCRYPTED_DATA)),
    (Undecryptable, Sense(Key.DATA_PROTECT, UNABLE_TO_DECRYPT)),
    (EndOfMedium, Sense(Key.VOLUME_OVERFLOW, END_OF_PARTITION, end_of_medium=True)),
    (EndOfData, Sense(Key.BLANK_CHECK, END_OF_DATA)),
    (ReadFailed, Sense(Key.MEDIUM_ERROR, READ_ERROR)),
    # The disk below is to blame, not the tape.
    (DiskFull, Sense(Key.HARDWARE_ERROR, WRITE_FAULT)),
    (WriteFailed, Sense(Key.MEDIUM_ERROR, WRITE_ERROR)),
    (PositionLost, Sense(Key.MEDIUM_ERROR, POSITIONING_ERROR)),
    (DriveError, Sense(Key.HARDWARE_ERROR, INTERNAL_FAILURE)),
)


def sense_of(error: DriveError) -> Sense:
    """Return the sense data of an error; without information."""
    return next(sense for kind, sense in _TABLE if isinstance(error, kind))
