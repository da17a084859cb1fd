"""A changer by IBM's itdt. Blocking; one thread. Never run against the real program: see docs/drives.md."""

from __future__ import annotations

from drivers.errors import BadAnswer, DeviceFailed, NoSuchElement, SlotEmpty, SlotFull
from drivers.interface import Element, ElementKind
from drivers.itdt.answers import Place
from drivers.itdt.tool import Itdt, addresses_of


class ItdtChanger:
    """One library; implements `drivers.interface.Changer`. Elements are numbered in the order of their addresses."""

    def __init__(self, itdt: Itdt) -> None:
        """Use the changer from now on; touches it only when something is asked."""
        self._itdt = itdt
        self._closed = False

    def inventory(self) -> list[Element]:
        """Return all drives, then all slots, then all import/export stations."""
        drives, slots = self._places()
        return [
            *(_element(ElementKind.DRIVE, number, place) for number, place in enumerate(drives)),
            *(_element(_slot_kind(place), number, place) for number, place in enumerate(slots)),
        ]

    def load(self, slot: int, drive: int) -> None:
        """Move a cartridge from a slot into a drive. See `Changer.load`."""
        drives, slots = self._places()
        self._move(("slot", slot, slots), ("drive", drive, drives))

    def unload(self, drive: int, slot: int) -> None:
        """Move an ejected cartridge from a drive to a slot. See `Changer.unload`."""
        drives, slots = self._places()
        self._move(("drive", drive, drives), ("slot", slot, slots))

    def transfer(self, source: int, target: int) -> None:
        """Move a cartridge from slot to slot. See `Changer.transfer`."""
        _, slots = self._places()
        self._move(("slot", source, slots), ("slot", target, slots))

    def close(self) -> None:
        """Let go of the changer; itdt holds nothing between two calls."""
        self._closed = True

    def _places(self) -> tuple[list[Place], list[Place]]:
        """Return drives, and slots with import/export stations behind them."""
        if self._closed:
            raise DeviceFailed("the changer is closed")
        places = self._itdt.inventory()
        unknown = next((each for each in places if each.full is None and each.kind != "robot"), None)
        if unknown is not None:
            raise BadAnswer(f"itdt does not tell whether {unknown.kind} {unknown.address} is full")
        ports = addresses_of(places, "import/export station")
        return addresses_of(places, "drive"), [*addresses_of(places, "slot"), *ports]

    def _move(self, source: tuple[str, int, list[Place]], target: tuple[str, int, list[Place]]) -> None:
        taken, put = _place(*source), _place(*target)
        if not taken.full:
            raise SlotEmpty(f"{source[0]} {source[1]} is empty")
        if put.full:
            raise SlotFull(f"{target[0]} {target[1]} is taken by {put.barcode or 'a cartridge without a barcode'}")
        self._itdt.move(taken.address, put.address)


def _place(kind: str, number: int, places: list[Place]) -> Place:
    if not 0 <= number < len(places):
        raise NoSuchElement(f"the library has no {kind} {number}: it has {len(places)}, counted from 0")
    return places[number]


def _slot_kind(place: Place) -> ElementKind:
    return ElementKind.SLOT if place.kind == "slot" else ElementKind.PORT


def _element(kind: ElementKind, number: int, place: Place) -> Element:
    full = bool(place.full)
    return Element(kind, number, full, place.barcode if full else None)
