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

#: A drive or slot, by its number.
Place = tuple[ElementKind, int]


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
        """Return all drives, then all slots, then all ports."""
        library = self._read()
        drives = [_element(ElementKind.DRIVE, number, each.barcode) for number, each in enumerate(library.drives)]
        kinds = [ElementKind.SLOT] * library.first_port + [ElementKind.PORT] * library.ports
        slots = zip(kinds, library.slots, strict=False)
        return drives + [_element(kind, number, barcode) for number, (kind, barcode) in enumerate(slots)]

    def load(self, slot: int, drive: int) -> None:
        """Move a cartridge from a slot into a drive. See `Changer.load`."""
        self.move((ElementKind.SLOT, slot), (ElementKind.DRIVE, drive))

    def unload(self, drive: int, slot: int) -> None:
        """Move an ejected cartridge from a drive to a slot. See `Changer.unload`."""
        self.move((ElementKind.DRIVE, drive), (ElementKind.SLOT, slot))

    def transfer(self, source: int, target: int) -> None:
        """Move a cartridge from slot to slot. See `Changer.transfer`."""
        self.move((ElementKind.SLOT, source), (ElementKind.SLOT, target))

    def move(self, source: Place, target: Place) -> None:
        """Move a cartridge from any place to any other. Raises as `Changer.unload`."""
        with library_lock(self._folder):
            library = self._read()
            barcode, there = _content(library, source), _content(library, target)
            if barcode is None:
                raise SlotEmpty(f"{_name(source)} is empty")
            if there is not None:
                raise SlotFull(f"{_name(target)} is taken by {there}")
            self._check_unthreaded(source, barcode)
            write_library(self._folder, _with(_with(library, source, None), target, barcode))
        self._pace.spend(MOVE_S)

    def exchange(self, source: Place, first: Place, second: Place) -> None:
        """Move the cartridge of `source` to `first`, and that of `first` to `second`, which may be `source`.

        Raises as `move`; then nothing has moved.
        """
        with library_lock(self._folder):
            library = self._read()
            barcode, other, there = (_content(library, each) for each in (source, first, second))
            if barcode is None or other is None:
                raise SlotEmpty(f"{_name(source if barcode is None else first)} is empty")
            if source == first or (there is not None and second != source):
                raise SlotFull(f"{_name(second)} is taken by {there}")
            self._check_unthreaded(source, barcode)
            self._check_unthreaded(first, other)
            library = _with(_with(library, source, None), second, other)
            write_library(self._folder, _with(library, first, barcode))
        self._pace.spend(2 * MOVE_S)

    def _check_unthreaded(self, place: Place, barcode: str) -> None:
        kind, number = place
        if kind is ElementKind.DRIVE and read_drive(self._folder, number).threaded == barcode:
            raise NotReady(f"{barcode} is threaded in drive{number}: unload the drive first")

    def close(self) -> None:
        """Let go of the robot."""
        self._closed = True

    def _read(self) -> LibraryRecord:
        if self._closed:
            raise DeviceFailed("the changer is closed")
        return read_library(self._folder)


def _element(kind: ElementKind, number: int, barcode: str | None) -> Element:
    return Element(kind, number, barcode is not None, barcode)


def _name(place: Place) -> str:
    kind, number = place
    return f"drive{number}" if kind is ElementKind.DRIVE else f"slot {number}"


def _content(library: LibraryRecord, place: Place) -> str | None:
    kind, number = place
    return library.bay(number).barcode if kind is ElementKind.DRIVE else library.slot(number)


def _with(library: LibraryRecord, place: Place, barcode: str | None) -> LibraryRecord:
    kind, number = place
    return library.with_drive(number, barcode) if kind is ElementKind.DRIVE else library.with_slot(number, barcode)
