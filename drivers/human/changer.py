"""A human as the changer: a move is a prompt, and it is done when a drive shows the tape. Blocking; one thread moves.

What lies where is noted (`shelf.py`); what is in a drive is told by eyes that its user has. A tape that was ejected
counts as back on the shelf, so that one prompt can say both: take this one out, put that one in.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from drivers.errors import ChangerError, DeviceFailed, NoSuchElement, NotReady, SlotEmpty, SlotFull
from drivers.human.desk import Answer, Desk, Prompt
from drivers.human.shelf import Shelf, read_shelf, write_shelf
from drivers.interface import Element, ElementKind

#: A drive is looked at so often while a human is waited for.
LOOK_S = 2.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What is in a drive."""

    #: A cartridge is known to be there; one that was ejected and sticks out may not be seen.
    full: bool
    threaded: bool
    #: Its name, by the label that is written on the tape, else by its barcode; None when neither is to be had.
    name: str | None


class Eyes(Protocol):
    """Looks into drives for the changer: whoever has them open. Raises DriveError."""

    def look(self, drive: int) -> Seen:
        """Tell what is there; moves nothing."""
        ...

    def identify(self, drive: int, wanted: str) -> Seen:
        """Thread what is there and read its label; a name is also given to what cannot be the tape `wanted`.

        Raises NotReady when there is nothing.
        """
        ...

    def eject(self, drive: int) -> None:
        """Unthread and eject."""
        ...


class HumanChanger:
    """A shelf and a human before some drives; implements `drivers.interface.Changer`.

    Without eyes a human's word is believed; who uses the tape then must read its label.
    """

    def __init__(self, folder: Path, drives: int, *, desk: Desk | None = None, look_s: float = LOOK_S) -> None:
        """Read the notes in `folder`. Raises DeviceFailed."""
        #: Where the prompts lie.
        self.desk = desk if desk is not None else Desk()
        self.eyes: Eyes | None = None
        self._folder = folder
        self._look_s = look_s
        self._closed = False
        # Notes are also changed by `add`, in another thread.
        self._lock = threading.Lock()
        self._shelf = read_shelf(folder).grown(drives)
        self._drives = drives

    # -- what is where -----------------------------------------------------------------------------------------------

    def inventory(self) -> list[Element]:
        """Return all drives, then the shelf, as it was noted."""
        if self._closed:
            raise DeviceFailed("the changer is closed")
        shelf = self._shelf
        drives = shelf.drives[: self._drives]
        return [
            *(Element(ElementKind.DRIVE, number, each is not None, each) for number, each in enumerate(drives)),
            *(Element(ElementKind.SLOT, number, each is not None, each) for number, each in enumerate(shelf.slots)),
        ]

    def add(self, barcodes: Iterable[str]) -> list[str]:
        """Note tapes that lie on the shelf now; return those that were not known. Raises ChangerError, DeviceFailed."""
        wanted = list(dict.fromkeys(barcodes))
        wrong = next((each for each in wanted if not (each.isascii() and each.isalnum() and each.isupper())), None)
        if wrong is not None:
            raise ChangerError(f"{wrong!r} is no barcode: it has capital letters and digits only")
        new = [each for each in wanted if each not in self._shelf.tapes()]
        for each in new:
            self._change(partial(_with_new, barcode=each))
        return new

    def remove(self, barcode: str) -> None:
        """Forget a tape that is not on the shelf any more. Raises ChangerError: SlotEmpty, or it is in a drive."""
        if barcode in self._shelf.drives:
            raise ChangerError(f"{barcode} is in drive{self._shelf.drives.index(barcode)}")
        if barcode not in self._shelf.slots:
            raise SlotEmpty(f"{barcode} is not on the shelf")
        self._change(lambda shelf: shelf.with_slot(shelf.slots.index(barcode), None))

    # -- moves -------------------------------------------------------------------------------------------------------

    def load(self, slot: int, drive: int) -> None:
        """Have a human put a tape into a drive; returns when it is there. See `Changer.load`.

        Also raises NotReady when interrupted, ChangerError when the human declines, and what the eyes raise.
        """
        barcode = _check_move(f"slot {slot}", self._slot(slot), f"drive{drive}", self._drive(drive))
        self.desk.begin_wait()
        prompt = self.desk.ask(drive, take_out=self._shelf.leaving[drive], put_in=barcode)
        try:
            self._wait_in(prompt, barcode)
        finally:
            self.desk.over(drive)
        self._change(lambda shelf: shelf.with_slot(slot, None).with_drive(drive, barcode))

    def unload(self, drive: int, slot: int) -> None:
        """Have a human take an ejected tape out, at the latest when another one is to be put in. See `Changer.unload`.

        Returns at once: the tape counts as being on the shelf.
        """
        barcode = _check_move(f"drive{drive}", self._drive(drive), f"slot {slot}", self._slot(slot))
        if self.eyes is not None and self.eyes.look(drive).threaded:
            raise NotReady(f"{barcode} is threaded in drive{drive}: unload the drive first")
        self._change(lambda shelf: shelf.with_slot(slot, barcode).with_drive(drive, None, leaving=barcode))
        self.desk.ask(drive, take_out=barcode, put_in=None)

    def transfer(self, source: int, target: int) -> None:
        """Note another place; nobody has to move anything for that. See `Changer.transfer`."""
        barcode = _check_move(f"slot {source}", self._slot(source), f"slot {target}", self._slot(target))
        self._change(lambda shelf: shelf.with_slot(source, None).with_slot(target, barcode))

    def interrupt(self) -> None:
        """Have a `load` that waits end with NotReady; from any thread."""
        self.desk.interrupt()

    def close(self) -> None:
        """Let go; a prompt that is open stays in the notes as what is to be taken out."""
        self._closed = True

    # -- waiting for the human ---------------------------------------------------------------------------------------

    def _wait_in(self, prompt: Prompt, barcode: str) -> None:
        """Return when the tape is in the drive; refuse others."""
        answer: Answer | None = None
        while True:
            verdict = self._judge(prompt, barcode, is_told=answer is Answer.DONE)
            if verdict is None:
                return
            prompt = verdict
            answer = self.desk.wait_answer(prompt, self._look_s)
            if answer is Answer.DECLINED:
                raise ChangerError(f"tape {barcode} cannot be put into drive{prompt.drive} now, says the operator")

    def _judge(self, prompt: Prompt, barcode: str, *, is_told: bool) -> Prompt | None:
        """Return None when this is the tape, else the prompt that goes on."""
        if self.eyes is None:
            return None if is_told else prompt
        seen = self.eyes.look(prompt.drive)
        # One that was ejected is not threaded anew by us, unless we are told that it is another one.
        is_old = seen.name is not None and seen.name == prompt.take_out and not seen.threaded
        if not is_told and (is_old or not (seen.full or seen.threaded)):
            return prompt
        try:
            found = seen if is_old else self.eyes.identify(prompt.drive, barcode)
        except NotReady:
            return self._refuse(prompt, "no tape is in")
        # Nobody can name a blank tape without a barcode: who uses it makes sure that it is blank.
        if found.name in (barcode, None):
            return None
        if found.threaded:
            self.eyes.eject(prompt.drive)
        return self._refuse(prompt, f"{found.name} is in", found.name)

    def _refuse(self, prompt: Prompt, what: str, take_out: str | None = None) -> Prompt:
        out = take_out if take_out is not None else prompt.take_out
        return self.desk.ask_again(prompt, take_out=out, refused=f"{what} drive{prompt.drive}, not {prompt.put_in}: ")

    # -- notes -------------------------------------------------------------------------------------------------------

    def _slot(self, number: int) -> str | None:
        return _at("slot", self._shelf.slots, number)

    def _drive(self, number: int) -> str | None:
        return _at("drive", self._shelf.drives[: self._drives], number)

    def _change(self, change: Callable[[Shelf], Shelf]) -> None:
        with self._lock:
            shelf = change(self._shelf).grown(self._drives)
            write_shelf(self._folder, shelf)
            self._shelf = shelf


def _with_new(shelf: Shelf, barcode: str) -> Shelf:
    return shelf.with_slot(shelf.slots.index(None), barcode)


def _at(kind: str, places: tuple[str | None, ...], number: int) -> str | None:
    if not 0 <= number < len(places):
        raise NoSuchElement(f"the library has no {kind} {number}: it has {len(places)}, counted from 0")
    return places[number]


def _check_move(source: str, barcode: str | None, target: str, there: str | None) -> str:
    """Return the tape that is to be moved."""
    if barcode is None:
        raise SlotEmpty(f"{source} is empty")
    if there is not None:
        raise SlotFull(f"{target} is taken by {there}")
    return barcode
