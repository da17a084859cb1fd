"""The changer of mounted volumes: nobody. It tells what is mounted where; people move. Blocking; any thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from drivers.errors import ChangerError, DriveError, NoSuchElement
from drivers.interface import Element, ElementKind
from drivers.ltfs.volume import Volume


class LtfsChanger:
    """Drives are the places where volumes are mounted; there are no slots. Implements `drivers.interface.Changer`."""

    def __init__(self, mounts: Sequence[Path], *, any_filesystem: bool = False) -> None:
        """Look at these places."""
        self._mounts = tuple(mounts)
        self._any_filesystem = any_filesystem

    def inventory(self) -> list[Element]:
        """Return the places, each with the name of its volume."""
        return [self._look(number, mount) for number, mount in enumerate(self._mounts)]

    def _look(self, number: int, mount: Path) -> Element:
        try:
            volume = Volume(mount, any_filesystem=self._any_filesystem)
        except DriveError:
            # Nothing is mounted, or nothing that can be used; the drive says which when it is to load.
            return Element(ElementKind.DRIVE, number, False, None)
        volume.close()
        return Element(ElementKind.DRIVE, number, True, volume.name)

    def load(self, slot: int, drive: int) -> None:
        """Volumes are mounted by people. Raises NoSuchElement: there are no slots."""
        raise NoSuchElement(f"there is no slot {slot}: mount the volume at {self._place(drive)}")

    def unload(self, drive: int, slot: int) -> None:
        """Volumes are unmounted by people. Raises ChangerError."""
        raise ChangerError(f"volumes are changed by hand: unmount {self._place(drive)} and mount the other one there")

    def transfer(self, source: int, target: int) -> None:
        """There are no slots. Raises NoSuchElement."""
        raise NoSuchElement(f"there are no slots {source} and {target}: volumes are mounted and unmounted by hand")

    def close(self) -> None:
        """Nothing is held."""

    def _place(self, drive: int) -> Path:
        if not 0 <= drive < len(self._mounts):
            raise NoSuchElement(f"there is no drive {drive}: {len(self._mounts)} are named, counted from 0")
        return self._mounts[drive]
