"""What a virtual drive remembers between processes: the threaded cartridge and its counters. Blocking.

`drives/N.json` is written by the process that has the drive open and read by the changer; it is not waited for. When it
is torn after a power cut, the counters start again and no cartridge is threaded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from drivers.errors import DeviceFailed
from drivers.interface import Counters, Seconds
from drivers.virtual.durable import replace_file
from drivers.virtual.layout import drive_state_path


class DriveRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `drives/N.json`."""

    version: int = 1
    #: Barcode of the threaded cartridge.
    threaded: str | None = None
    #: Where the head was left on a clean close; None while the drive is open, and after a crash.
    head_block: int | None = None
    #: The switch of its compression; on when it leaves the factory, as those of real ones.
    compresses: bool = True
    counters: Counters = Counters()


def read_drive(folder: Path, number: int) -> DriveRecord:
    """Return what is remembered of drive `number`. Raises DeviceFailed when the file is out of reach."""
    path = drive_state_path(folder, number)
    try:
        return msgspec.json.decode(path.read_bytes(), type=DriveRecord)
    except (FileNotFoundError, msgspec.DecodeError):
        return DriveRecord()
    except OSError as error:
        raise DeviceFailed(f"cannot read {path}: {error.strerror}") from error


def write_drive(folder: Path, number: int, record: DriveRecord) -> None:
    """Remember `record`. Raises DeviceFailed."""
    path = drive_state_path(folder, number)
    try:
        replace_file(path, msgspec.json.encode(record), sync=False)
    except OSError as error:
        raise DeviceFailed(f"cannot write {path}: {error.strerror}") from error


@dataclass(slots=True)
class Tally:
    """Counters while the drive is at work."""

    loads: int = 0
    locates: int = 0
    blocks_read: int = 0
    blocks_written: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    backhitches: int = 0
    underruns: int = 0
    #: Seconds by kind, named as the fields of `Seconds`.
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def resume(cls, counters: Counters) -> Tally:
        """Go on from what was remembered."""
        seconds = msgspec.to_builtins(counters.seconds)
        return cls(
            counters.loads,
            counters.locates,
            counters.blocks_read,
            counters.blocks_written,
            counters.bytes_read,
            counters.bytes_written,
            counters.backhitches,
            counters.underruns,
            seconds,
        )

    def snapshot(self) -> Counters:
        """Return the counters as they are now."""
        return Counters(
            self.loads,
            self.locates,
            self.blocks_read,
            self.blocks_written,
            self.bytes_read,
            self.bytes_written,
            self.backhitches,
            self.underruns,
            Seconds(**self.seconds),
        )
