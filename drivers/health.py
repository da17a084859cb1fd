"""What a drive tells of its health, and of the life of the cartridge in it. Frozen records; any thread.

None, or an empty text, is what a drive does not tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: TapeAlert flags by number, those that others than the tables of SCSI ask for.
CLEAN_NOW, CLEAN_SOON = 20, 21
CLEANING_USED_UP, CLEANING_UNFIT = 22, 23
#: Either asks for a cleaning.
CLEANING_FLAGS = frozenset({CLEAN_NOW, CLEAN_SOON})


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Errors of one direction since the cartridge was loaded, or the drive was switched on: each drive has its way."""

    #: The drive mended them by itself.
    corrected: int | None = None
    #: It could not.
    uncorrected: int | None = None


@dataclass(frozen=True, slots=True)
class MediumHealth:
    """The life of a cartridge, as its memory and its drive tell it."""

    loads: int | None = None
    #: Of the whole life.
    written_bytes: int | None = None
    read_bytes: int | None = None
    #: What it holds at all, and what it has room for from its end of data on.
    capacity_bytes: int | None = None
    remaining_bytes: int | None = None
    length_m: int | None = None
    generation: int | None = None
    is_worm: bool = False
    is_write_protected: bool = False
    manufacturer: str = ""
    serial: str = ""
    #: YYYYMMDD.
    manufactured: str = ""
    #: The drive of the load before this one.
    last_drive: str = ""
    #: Of the whole life: writing and reading that the drive could not do.
    write_errors: int | None = None
    read_errors: int | None = None


@dataclass(frozen=True, slots=True)
class DriveHealth:
    """How a drive is."""

    #: Numbers of the TapeAlert flags that are set.
    alerts: frozenset[int] = frozenset()
    wants_cleaning: bool = False
    temperature_c: int | None = None
    writing: ErrorCounts = field(default_factory=ErrorCounts)
    reading: ErrorCounts = field(default_factory=ErrorCounts)
    #: How often it was cleaned in its life.
    cleanings: int | None = None
    #: None: there is no cartridge, or nothing of it can be told.
    medium: MediumHealth | None = None
