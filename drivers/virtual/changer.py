"""The robot of a virtual library. Blocking; one thread, but any number of processes may have one.

Every move is made under `library.lock` and is one atomic replacement of `library.json`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from drivers.errors import DeviceFailed, NotReady, SlotEmpty, SlotFull
from drivers.interface import Element, ElementKind
from drivers.virtual.drive_state import read_drive
from drivers.virtual.layout import LibraryRecord, library_lock, read_library, write_library
from drivers.virtual.motion import MOVE_S
from drivers.virtual.pace import Pace, parse_mode


class VirtualChanger:
    """The robot of a virtual library; implements `drivers.interface.Changer`.

    A move takes about ten seconds in the modes `real` and `scaled:N`; no drive's counters hold it.
    """

    def __init__(self, folder: Path, motion: str = "account", *, sleep: Callable[[float], None] = time.sleep) -> None:
        """Open the robot. Raises DeviceFailed, and ValueError for an unknown motion."""
        self._pace = Pace(parse_mode(motion), sleep)
        self._folder = folder
        self._closed = False
        read_library(folder)

    def inventory(self) -> list[Element]:
        """Return all drives, then all slots."""
        library = self._read()
        drives = [_element(ElementKind.DRIVE, number, each.barcode) for number, each in enumerate(library.drives)]
        return drives + [_element(ElementKind.SLOT, number, each) for number, each in enumerate(library.slots)]

    def load(self, slot: int, drive: int) -> None:
        """Move a cartridge from a slot into a drive. See `Changer.load`."""
        with library_lock(self._folder):
            library = self._read()
            barcode, there = library.slot(slot), library.bay(drive).barcode
            _check_move(f"slot {slot}", barcode, f"drive{drive}", there)
            write_library(self._folder, library.with_slot(slot, None).with_drive(drive, barcode))
        self._pace.spend(MOVE_S)

    def unload(self, drive: int, slot: int) -> None:
        """Move an ejected cartridge from a drive to a slot. See `Changer.unload`."""
        with library_lock(self._folder):
            library = self._read()
            barcode, there = library.bay(drive).barcode, library.slot(slot)
            _check_move(f"drive{drive}", barcode, f"slot {slot}", there)
            if read_drive(self._folder, drive).threaded == barcode:
                raise NotReady(f"{barcode} is threaded in drive{drive}: unload the drive first")
            write_library(self._folder, library.with_drive(drive, None).with_slot(slot, barcode))
        self._pace.spend(MOVE_S)

    def transfer(self, source: int, target: int) -> None:
        """Move a cartridge from slot to slot. See `Changer.transfer`."""
        with library_lock(self._folder):
            library = self._read()
            barcode, there = library.slot(source), library.slot(target)
            _check_move(f"slot {source}", barcode, f"slot {target}", there)
            write_library(self._folder, library.with_slot(source, None).with_slot(target, barcode))
        self._pace.spend(MOVE_S)

    def close(self) -> None:
        """Let go of the robot."""
        self._closed = True

    def _read(self) -> LibraryRecord:
        if self._closed:
            raise DeviceFailed("the changer is closed")
        return read_library(self._folder)


def _element(kind: ElementKind, number: int, barcode: str | None) -> Element:
    return Element(kind, number, barcode is not None, barcode)


def _check_move(source: str, barcode: str | None, target: str, there: str | None) -> None:
    if barcode is None:
        raise SlotEmpty(f"{source} is empty")
    if there is not None:
        raise SlotFull(f"{target} is taken by {there}")
