"""How a virtual drive is: TapeAlert flags that somebody has set, and cleaning. Blocking; any process.

`drives/N.alerts.json` is written by whoever wants to see what follows (`write_alerts`), and by the drive when it was
cleaned. It is read whenever a drive is asked for its health. A torn file reads as no flag.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from drivers.errors import CleaningUsedUp, DeviceFailed, IncompatibleMedium, NotReady
from drivers.health import CLEANING_FLAGS, DriveHealth, ErrorCounts, MediumHealth
from drivers.virtual.durable import replace_file
from drivers.virtual.layout import cartridge_folder, drive_state_path, library_lock, read_library
from drivers.virtual.memory import MemoryRecord, read_memory, write_memory

#: What all barcodes of cleaning cartridges begin with, and how often one of them cleans.
CLEANING_PREFIX = "CLN"
CLEANINGS = 50
#: How long a cleaning takes.
CLEAN_S = 120.0
_FLAGS = range(1, 65)


def is_cleaning(barcode: str) -> bool:
    """Tell whether that is a cleaning cartridge."""
    return barcode.startswith(CLEANING_PREFIX)


def read_alerts(folder: Path, number: int) -> frozenset[int]:
    """Return the flags of a drive that are set. Raises DeviceFailed when the file is out of reach."""
    path = _path(folder, number)
    try:
        return frozenset(msgspec.json.decode(path.read_bytes(), type=list[int]))
    except (FileNotFoundError, msgspec.DecodeError):
        return frozenset()
    except OSError as error:
        raise DeviceFailed(f"cannot read {path}: {error.strerror}") from error


def write_alerts(folder: Path, number: int, alerts: Iterable[int]) -> None:
    """Set these flags of a drive, and no others. Raises NoSuchElement, ValueError, DeviceFailed."""
    read_library(folder).bay(number)
    wanted = sorted(set(alerts))
    if wrong := [each for each in wanted if each not in _FLAGS]:
        raise ValueError(f"TapeAlert has the flags 1 to 64, not {wrong[0]}")
    path = _path(folder, number)
    try:
        replace_file(path, msgspec.json.encode(wanted), sync=False)
    except OSError as error:
        raise DeviceFailed(f"cannot write {path}: {error.strerror}") from error


def _path(folder: Path, number: int) -> Path:
    return drive_state_path(folder, number).with_suffix(".alerts.json")


def health_of(alerts: frozenset[int], medium: MediumHealth | None) -> DriveHealth:
    """Return how a drive with these flags is; it corrects nothing, and fails only on request."""
    return DriveHealth(
        alerts=alerts,
        wants_cleaning=bool(alerts & CLEANING_FLAGS),
        writing=ErrorCounts(0, 0),
        reading=ErrorCounts(0, 0),
        medium=medium,
    )


def life_of(memory: MemoryRecord) -> MediumHealth:
    """Return what a chip has counted."""
    return MediumHealth(
        loads=memory.loads,
        written_bytes=memory.written_bytes,
        read_bytes=memory.read_bytes,
        manufacturer="TAPEFS",
        last_drive=memory.drives[1] if len(memory.drives) > 1 else "",
    )


def use_cleaning_cartridge(folder: Path, number: int) -> None:
    """Clean a drive with the cartridge in it, which counts that. Raises as `CanBeCleaned.clean`."""
    with library_lock(folder):
        barcode = read_library(folder).bay(number).barcode
        if barcode is None:
            raise NotReady(f"drive{number} holds no cleaning cartridge: put one in")
        if not is_cleaning(barcode):
            raise IncompatibleMedium(f"{barcode} in drive{number} is no cleaning cartridge")
        cartridge = cartridge_folder(folder, barcode)
        memory = read_memory(cartridge)
        if memory.loads >= CLEANINGS:
            raise CleaningUsedUp(f"{barcode} has cleaned {memory.loads} times: it is used up, put in another one")
        write_memory(cartridge, memory.loaded_by(f"drive{number}"), sync=True)
        write_alerts(folder, number, read_alerts(folder, number) - CLEANING_FLAGS)
