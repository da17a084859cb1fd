"""Benches of the virtual library for the contract suites and the other tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from drivers.interface import Changer, Drive
from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.faults import AnyFault, FaultyDrive
from drivers.virtual.layout import cartridge_folder
from drivers.virtual.library import create_library, set_write_protected, take_out
from drivers.virtual.state import read_state, write_state

MIB = 1024 * 1024
BARCODE = "TP0001L9"


@dataclass
class VirtualBench:
    """One drive with TP0001L9 in it, 16 MiB."""

    folder: Path

    def __post_init__(self) -> None:
        create_library(self.folder, tapes=2, tape_bytes=16 * MIB, drives=1, generation=9)
        self.put_in()

    @property
    def cartridge(self) -> Path:
        return cartridge_folder(self.folder, BARCODE)

    def open(self) -> VirtualDrive:
        return VirtualDrive(self.folder, 0)

    def loaded(self) -> VirtualDrive:
        drive = self.open()
        drive.load()
        return drive

    def take_out(self) -> None:
        VirtualChanger(self.folder).unload(0, 0)

    def protect(self) -> None:
        set_write_protected(self.folder, BARCODE, True)

    def make_worm(self) -> None:
        write_state(self.cartridge, msgspec.structs.replace(read_state(self.cartridge), worm=True))

    def put_in(self) -> None:
        VirtualChanger(self.folder).load(0, 0)


class FaultyBench(VirtualBench):
    """The same through FaultyDrive."""

    def open(self, *faults: AnyFault) -> FaultyDrive:  # type: ignore[override]
        return FaultyDrive(VirtualDrive(self.folder, 0), list(faults))


@dataclass
class VirtualLibraryBench:
    """Three slots, two drives, cartridges in slots 0 and 1."""

    folder: Path

    def __post_init__(self) -> None:
        create_library(self.folder, tapes=3, tape_bytes=16 * MIB, drives=2, generation=9)
        take_out(self.folder, "TP0003L9", self.folder.parent / "shelf")

    def open(self) -> Changer:
        return VirtualChanger(self.folder)

    def open_drive(self, number: int) -> Drive:
        return VirtualDrive(self.folder, number)
