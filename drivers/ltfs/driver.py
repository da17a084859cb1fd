"""The driver `ltfs`: places where volumes are mounted, as the settings name them. Blocking."""

from __future__ import annotations

from pathlib import Path

from drivers.config import LibraryConfig
from drivers.errors import DriveError, NoSuchElement
from drivers.ltfs.changer import LtfsChanger
from drivers.ltfs.drive import LtfsDrive, capacity_of
from drivers.ltfs.volume import Volume


def check(library: LibraryConfig) -> None:
    """Raise ValueError with what to write instead when the settings make no sense. Looks at no volume."""
    if not library.drives:
        raise ValueError('the driver ltfs needs `drives = ["/mnt/ltfs", ...]`: where volumes are mounted')
    if library.changer:
        raise ValueError("the driver ltfs has no changer: volumes are mounted and unmounted by hand")
    for place in library.drives:
        if not Path(place).is_absolute():
            raise ValueError(f"{place!r} is no place to mount at: write a whole path, for instance /mnt/ltfs")


def open_drive(library: LibraryConfig, number: int) -> LtfsDrive:
    """Open the place as a drive. Raises DriveInUse, NoSuchElement, DeviceFailed."""
    if not 0 <= number < len(library.drives):
        raise NoSuchElement(f"there is no drive {number}: {len(library.drives)} are named, counted from 0")
    mount = Path(library.drives[number])
    return LtfsDrive(library.folder, number, mount, any_filesystem=library.any_filesystem)


def open_changer(library: LibraryConfig) -> LtfsChanger:
    """Return who tells what is mounted where."""
    return LtfsChanger([Path(place) for place in library.drives], any_filesystem=library.any_filesystem)


def capacity_bytes(library: LibraryConfig, name: str) -> int | None:
    """Return what a mounted volume holds; None when it is not mounted or cannot be used."""
    for place in library.drives:
        try:
            volume = Volume(Path(place), any_filesystem=library.any_filesystem)
        except DriveError:
            continue
        try:
            if volume.name == name:
                return capacity_of(volume)
        except DriveError:
            return None  # What is wrong with it is told when it is loaded.
        finally:
            volume.close()
    return None
