"""The ledger's records of the life of tapes: each time one was in a drive, and the sums of all that. Frozen and typed.

A life is the cartridge's, not the volume's: it is kept by `Volume.code`, goes on when the tape is relabelled, and stays
when the tape is forgotten. Cleaning cartridges have one, too.
"""

from __future__ import annotations

from catalog.records import Record

#: So many mountings of a cartridge are kept, the newest; its life counts them all.
KEPT_MOUNTINGS = 200
#: So many mishaps of a mounting are told in words.
KEPT_MISHAPS = 20

#: What `Mounting.purposes` says of a cartridge that has cleaned a drive.
CLEANING = "cleaning"


class Mishap(Record, frozen=True, kw_only=True):
    """Something that a drive could not do with a tape."""

    at_ns: int
    #: The error's class: `WriteFailed`, `ReadFailed`, `PositionLost` …
    kind: str
    #: For people, with the sense data where the drive gave some.
    message: str


class Mounting(Record, frozen=True, kw_only=True):
    """One time that a cartridge was in a drive, from threading to ejecting."""

    #: UUID of this mounting.
    mounting_id: str
    #: What a library or a shelf calls the cartridge.
    code: str
    #: Name of the drive here, and who it is: vendor, model, serial number.
    drive: str
    drive_identity: str = ""
    loaded_at_ns: int
    #: 0: it is still in the drive, or nobody saw it leave.
    unloaded_at_ns: int = 0
    #: What was done with it, in the order in which it began: `backup`, `recall`, `verify` …
    purposes: tuple[str, ...] = ()
    #: By this program, in this mounting.
    written_bytes: int = 0
    read_bytes: int = 0
    #: Writing and reading that failed.
    write_failures: int = 0
    read_failures: int = 0
    #: The drive's own count in this mounting; None: not told.
    corrected_writes: int | None = None
    corrected_reads: int | None = None
    #: Numbers of the TapeAlert flags that were set.
    alerts: tuple[int, ...] = ()
    #: The highest that was told; None: the drive has no sensor.
    temperature_c: int | None = None
    #: The newest of them.
    mishaps: tuple[Mishap, ...] = ()


class MediumFacts(Record, frozen=True, kw_only=True):
    """What the memory of a cartridge said when it was asked last; None or empty for what it does not say."""

    asked_at_ns: int
    loads: int | None = None
    #: Of its whole life, wherever that was.
    written_bytes: int | None = None
    read_bytes: int | None = None
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
    last_drive: str = ""
    write_errors: int | None = None
    read_errors: int | None = None


class AlertSeen(Record, frozen=True, kw_only=True):
    """A TapeAlert flag that was set while the cartridge was in a drive."""

    number: int
    #: In so many mountings, and when the newest of them began.
    mountings: int
    last_at_ns: int


class CartridgeLife(Record, frozen=True, kw_only=True):
    """What is known of a cartridge's whole life here."""

    code: str
    #: How often it was put into a drive here.
    mountings: int = 0
    first_at_ns: int = 0
    last_at_ns: int = 0
    written_bytes: int = 0
    read_bytes: int = 0
    write_failures: int = 0
    read_failures: int = 0
    alerts: tuple[AlertSeen, ...] = ()
    #: When it was erased last; 0: never here.
    erased_at_ns: int = 0
    #: A cleaning cartridge that does not clean any more.
    is_used_up: bool = False
    medium: MediumFacts | None = None
    #: The most it ever held by its own account: what it has lost since is no good sign.
    most_capacity_bytes: int = 0
