"""Opening a virtual drive, with the faults that TAPEFS_FAULTS asks for. Blocking; the drive's thread."""

from __future__ import annotations

import os
from pathlib import Path

from drivers.virtual import faults
from drivers.virtual.drive import VirtualDrive


def open_virtual_drive(folder: Path, number: int, motion: str) -> VirtualDrive | faults.FaultyDrive:
    """Open drive `number`, from 0. Raises ValueError for unknown motions and faults, DriveInUse, DeviceFailed."""
    # Read before the drive is opened: a mistake must not leave it locked.
    text = os.environ.get(faults.VARIABLE)
    wanted = faults.parse_faults(text) if text else []
    drive = VirtualDrive(folder, number, motion)
    return faults.FaultyDrive(drive, wanted, number=number) if wanted else drive
