"""A changer by the program mtx, where nothing better reaches the library. Blocking; one thread.

A move is checked against the inventory before it is made, so that what cannot be is said without moving anything.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from drivers.errors import BadAnswer, DeviceFailed, NoSuchElement, SlotEmpty, SlotFull
from drivers.interface import Element, ElementKind
from drivers.mtx.output import Place, Status, parse_sense_lines, parse_status
from drivers.program import Ended, Program, Runner
from drivers.scsi.outcomes import Doing, error_of

#: A library that was just opened looks at all its slots before it answers.
STATUS_S = 300.0
#: A robot that has to go through a large library, and to try again.
MOVE_S = 600.0
#: Believed whatever the exit code is.
_FAILED = re.compile(r"^.*\bMOVE MEDIUM from .* Failed", re.MULTILINE)
INSTALL = "install Debian's package `mtx`"


class MtxChanger:
    """A library as mtx shows it; implements `drivers.interface.Changer`.

    Our slot 0 is mtx's storage element 1; ports come last. A robot that has a cartridge in its hand is not shown.
    """

    def __init__(self, device: str, drives: Sequence[int] = (), *, program: Runner | None = None) -> None:
        """Use the changer at `device`, such as /dev/sg3; touches it only when something is asked.

        `drives` are mtx's numbers of our drives, in our order; none: as mtx counts them.
        """
        self._device = device
        self._numbers = list(drives)
        self._program = program if program is not None else Program("mtx", hint=INSTALL)
        self._closed = False

    def inventory(self) -> list[Element]:
        """Return all drives, then all slots, then all ports."""
        status = self._status()
        drives = [_drive(number, place) for number, place in enumerate(self._ours(status))]
        return [*drives, *(_slot(place) for place in status.slots)]

    def load(self, slot: int, drive: int) -> None:
        """Move a cartridge from a slot into a drive. See `Changer.load`."""
        status = self._status()
        source, target = self._place("slot", slot, status), self._place("drive", drive, status)
        _check_move(f"slot {slot}", source, f"drive {drive}", target)
        self._move("load", source, target)

    def unload(self, drive: int, slot: int) -> None:
        """Move an ejected cartridge from a drive to a slot. See `Changer.unload`."""
        status = self._status()
        source, target = self._place("drive", drive, status), self._place("slot", slot, status)
        _check_move(f"drive {drive}", source, f"slot {slot}", target)
        # mtx wants the slot first, whichever way the cartridge goes.
        self._move("unload", target, source)

    def transfer(self, source: int, target: int) -> None:
        """Move a cartridge from slot to slot. See `Changer.transfer`."""
        status = self._status()
        places = self._place("slot", source, status), self._place("slot", target, status)
        _check_move(f"slot {source}", places[0], f"slot {target}", places[1])
        self._move("transfer", *places)

    def close(self) -> None:
        """Let go of the changer; mtx holds nothing between two calls."""
        self._closed = True

    # -- inside ------------------------------------------------------------------------------------------------------

    def _status(self) -> Status:
        ended = self._run(STATUS_S, "status")
        try:
            return parse_status(ended.output)
        except BadAnswer as error:
            raise BadAnswer(f"{error} (of {self._device}: {ended.shown})") from error

    def _move(self, word: str, first: Place, second: Place) -> None:
        self._run(MOVE_S, word, str(first.number), str(second.number))

    def _run(self, timeout_s: float, *words: str) -> Ended:
        if self._closed:
            raise DeviceFailed("the changer is closed")
        ended = self._program.run(["-f", self._device, *words], timeout_s)
        if ended.code == 0 and _FAILED.search(ended.text) is None:
            return ended
        sense = parse_sense_lines(ended.text)
        error = error_of(sense, Doing.ROBOT, block=0, device=self._device) if sense is not None else None
        command = " ".join(["mtx", "-f", self._device, *words])
        if error is not None:
            raise type(error)(f"{error}; by `{command}`")
        raise DeviceFailed(f"`{command}` failed with exit code {ended.code}: {ended.shown}")

    def _ours(self, status: Status) -> list[Place]:
        """Return the drives in our order."""
        if not self._numbers:
            return status.drives
        by_number = {place.number: place for place in status.drives}
        missing = [number for number in self._numbers if number not in by_number]
        if missing:
            raise DeviceFailed(f"{self._device} has no drive {missing[0]}: mtx shows {len(by_number)}, counted from 0")
        return [by_number[number] for number in self._numbers]

    def _place(self, kind: str, number: int, status: Status) -> Place:
        places = self._ours(status) if kind == "drive" else status.slots
        if not 0 <= number < len(places):
            raise NoSuchElement(f"the library has no {kind} {number}: it has {len(places)}, counted from 0")
        return places[number]


def parse_address(address: str) -> tuple[str, list[int]]:
    """Read a setting such as `/dev/sg3` or `/dev/sg3,1,0`: the device, and mtx's numbers of our drives in our order.

    Raises ValueError.
    """
    device, *numbers = address.split(",")
    if not device.startswith("/") or not all(each.isdecimal() for each in numbers):
        raise ValueError(f"a changer by mtx is mtx:/dev/sg3 or mtx:/dev/sg3,1,0 (mtx's drives), not mtx:{address}")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"a drive of mtx is named twice in mtx:{address}")
    return device, [int(each) for each in numbers]


def _drive(number: int, place: Place) -> Element:
    return Element(ElementKind.DRIVE, number, place.full, place.barcode)


def _slot(place: Place) -> Element:
    return Element(ElementKind.PORT if place.is_port else ElementKind.SLOT, place.number - 1, place.full, place.barcode)


def _check_move(source: str, taken: Place, target: str, put: Place) -> None:
    if not taken.full:
        raise SlotEmpty(f"{source} is empty")
    if put.full:
        raise SlotFull(f"{target} is taken by {put.barcode or 'a cartridge without a barcode'}")
