"""Benches of ScsiDrive and ScsiChanger over the device servers of the virtual library, in this process."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from drivers.scsi.changer import ScsiChanger
from drivers.scsi.device import Clock, Device
from drivers.scsi.drive import ScsiDrive
from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive import VirtualDrive
from drivers.vtl.changer import ChangerServer
from drivers.vtl.local import LocalTransport
from drivers.vtl.tape import TapeServer
from tests.drivers.benches import VirtualBench, VirtualLibraryBench


@dataclass
class FakeClock(Clock):
    """Time that passes only while somebody sleeps."""

    at_s: float = 0.0
    slept_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.now = lambda: self.at_s
        self.sleep = self._sleep

    def _sleep(self, duration_s: float) -> None:
        self.slept_s.append(duration_s)
        self.at_s += duration_s


class ServedBench:
    """A drive of a virtual library behind its device server; one initiator at a time."""

    def __init__(self, folder: Path) -> None:
        self._virtual = VirtualBench(folder / "library")
        self._notes = folder / "notes"
        self._serve()

    def _serve(self) -> None:
        self.drive = VirtualDrive(self._virtual.folder, 0)
        self.server = TapeServer(self.drive)

    def open(self) -> ScsiDrive:
        return ScsiDrive(LocalTransport(self.server), self._notes)

    def loaded(self) -> ScsiDrive:
        drive = self.open()
        drive.load()
        return drive

    def take_out(self) -> None:
        self._virtual.take_out()

    def protect(self) -> None:
        self._virtual.protect()

    def make_worm(self) -> None:
        self._virtual.make_worm()

    def put_in(self) -> None:
        self._virtual.put_in()


class ServedLibrary:
    """A virtual library of three slots and two drives behind device servers, cartridges in slots 0 and 1."""

    def __init__(self, folder: Path) -> None:
        self._notes = folder / "notes"
        virtual = VirtualLibraryBench(folder / "library")
        self.tapes = [TapeServer(VirtualDrive(virtual.folder, number)) for number in range(2)]
        self.server = ChangerServer(VirtualChanger(virtual.folder), self.tapes, "LIBRARY1")

    @property
    def serials(self) -> list[str]:
        return [Device(LocalTransport(each)).serial for each in self.tapes]

    def open(self) -> ScsiChanger:
        return ScsiChanger(LocalTransport(self.server), self.serials)

    def open_drive(self, number: int) -> ScsiDrive:
        return ScsiDrive(LocalTransport(self.tapes[number]), self._notes)
