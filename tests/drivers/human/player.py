"""A human, played: has a virtual library as shelf and drives, does what prompts say, or something else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from drivers.errors import NotReady
from drivers.human.changer import HumanChanger, Seen
from drivers.human.desk import Prompt
from drivers.interface import ElementKind
from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive_state import read_drive
from drivers.virtual.layout import read_library


@dataclass
class Hands:
    """Moves cartridges of the virtual library by their names."""

    folder: Path

    def take_out(self, drive: int) -> None:
        robot = VirtualChanger(self.folder)
        free = next(e.number for e in robot.inventory() if e.kind is ElementKind.SLOT and not e.full)
        robot.unload(drive, free)

    def put_in(self, name: str, drive: int) -> None:
        robot = VirtualChanger(self.folder)
        slot = next(e.number for e in robot.inventory() if e.kind is ElementKind.SLOT and e.barcode == name)
        robot.load(slot, drive)

    def is_full(self, drive: int) -> bool:
        return read_library(self.folder).bay(drive).barcode is not None


@dataclass
class Player:
    """Obeys every prompt at once."""

    hands: Hands
    heard: list[str] = field(default_factory=list)

    def play(self, prompts: list[Prompt]) -> None:
        for prompt in prompts:
            if prompt.text not in self.heard[-1:]:
                self.heard.append(prompt.text)
            self.obey(prompt)

    def obey(self, prompt: Prompt) -> None:
        there = read_library(self.hands.folder).bay(prompt.drive).barcode
        if there is not None and there == prompt.take_out:
            self.hands.take_out(prompt.drive)
        if prompt.put_in is not None and not self.hands.is_full(prompt.drive):
            self.hands.put_in(prompt.put_in, prompt.drive)


@dataclass
class VirtualEyes:
    """Looks into virtual drives; implements `drivers.human.changer.Eyes`."""

    folder: Path
    #: Do the drives tell barcodes?
    tells: bool = True
    #: By barcode: what is written on the tape.
    labels: dict[str, str] = field(default_factory=dict)
    ejected: list[str] = field(default_factory=list)

    def look(self, drive: int) -> Seen:
        barcode = read_library(self.folder).bay(drive).barcode
        threaded = read_drive(self.folder, drive).threaded is not None
        if not self.tells and not threaded:
            return Seen(full=False, threaded=False, name=None)
        return Seen(full=barcode is not None, threaded=threaded, name=barcode if self.tells else None)

    def identify(self, drive: int, wanted: str) -> Seen:
        barcode = read_library(self.folder).bay(drive).barcode
        if barcode is None:
            raise NotReady("no tape")
        name = self.labels.get(barcode, barcode if self.tells else None)
        return Seen(full=True, threaded=True, name=name)

    def eject(self, drive: int) -> None:
        barcode = read_library(self.folder).bay(drive).barcode
        assert barcode is not None
        self.ejected.append(barcode)


def changer_of(folder: Path, notes: Path, drives: int) -> tuple[HumanChanger, Player]:
    """Return a changer for a virtual library and the human who serves it."""
    changer = HumanChanger(notes, drives, look_s=0.01)
    player = Player(Hands(folder))
    changer.desk.on_change = player.play
    changer.eyes = VirtualEyes(folder)
    return changer, player
