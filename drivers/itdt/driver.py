"""The driver `itdt`: drives and a changer by IBM's program, as the settings name them. Blocking."""

from __future__ import annotations

from drivers.config import LibraryConfig
from drivers.itdt.changer import ItdtChanger
from drivers.itdt.drive import ItdtDrive
from drivers.itdt.tool import Itdt


def check(library: LibraryConfig) -> None:
    """Raise ValueError with what to write instead when the settings make no sense. Runs nothing."""
    if not library.drives:
        raise ValueError('the driver itdt needs `drives = ["/dev/IBMtape0", ...]`: `itdt scan` shows what there is')
    if "" in library.drives:
        raise ValueError("a drive has an empty name in `drives`")


def open_drive(library: LibraryConfig, number: int) -> ItdtDrive:
    """Open drive `number`, from 0. Raises DriveInUse, DeviceFailed, and ValueError when there is none."""
    if not 0 <= number < len(library.drives):
        raise ValueError(f"there is no drive {number}: tapefs.toml names {len(library.drives)}")
    return ItdtDrive(Itdt(library.drives[number]), library.folder / f"itdt-drive{number}.lock")


def open_changer(library: LibraryConfig) -> ItdtChanger:
    """Open the changer; runs nothing yet."""
    return ItdtChanger(Itdt(library.changer))
