"""The table of drivers: what a setting's driver name opens. Blocking; any thread.

A new driver is one module and one line in `DRIVERS`. Faults on request (TAPEFS_FAULTS) are applied here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drivers.interface import Changer, Drive
from drivers.virtual import faults
from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.layout import cartridge_folder
from drivers.virtual.state import read_state


@dataclass(frozen=True, slots=True)
class Driver:
    """How to open what a driver drives."""

    #: Folder of the library or of the driver's settings, number of the drive, motion mode.
    open_drive: Callable[[Path, int, str], Drive]
    #: Folder, motion mode.
    open_changer: Callable[[Path, str], Changer]
    #: Folder, barcode: bytes of a cartridge that is not in a drive, None where only a drive can tell.
    capacity_bytes: Callable[[Path, str], int | None]


def _open_virtual_drive(folder: Path, number: int, motion: str) -> Drive:
    # Read before the drive is opened: a mistake must not leave it locked.
    text = os.environ.get(faults.VARIABLE)
    wanted = faults.parse_faults(text) if text else []
    drive = VirtualDrive(folder, number, motion)
    return faults.FaultyDrive(drive, wanted, number=number) if wanted else drive


def _virtual_capacity(folder: Path, barcode: str) -> int:
    return read_state(cartridge_folder(folder, barcode)).capacity_bytes


DRIVERS = {
    "virtual": Driver(_open_virtual_drive, VirtualChanger, _virtual_capacity),
}


def _driver(name: str) -> Driver:
    if name not in DRIVERS:
        raise ValueError(f"driver {name!r} is unknown: use one of {', '.join(DRIVERS)}")
    return DRIVERS[name]


def open_drive(driver: str, folder: Path, number: int, motion: str) -> Drive:
    """Open drive `number`, from 0. Raises ValueError for unknown names and modes, DriveInUse, DeviceFailed."""
    return _driver(driver).open_drive(folder, number, motion)


def open_changer(driver: str, folder: Path, motion: str) -> Changer:
    """Open the changer. Raises ValueError for unknown names and modes, DeviceFailed."""
    return _driver(driver).open_changer(folder, motion)


def cartridge_bytes(driver: str, folder: Path, barcode: str) -> int | None:
    """Return the capacity of a cartridge wherever it lies; None where only a drive can tell.

    Raises ValueError for unknown names, DeviceFailed.
    """
    return _driver(driver).capacity_bytes(folder, barcode)


def drive_name(number: int) -> str:
    """Return the name by which people call drive `number`, for instance drive0."""
    return f"drive{number}"
