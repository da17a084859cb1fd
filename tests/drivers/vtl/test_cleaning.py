"""What an emulated drive does with a cleaning cartridge, command by command, and what ScsiDrive makes of that."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.errors import CleaningUsedUp, IncompatibleMedium, NotReady
from drivers.scsi.drive import ScsiDrive
from drivers.scsi.transport import Status
from drivers.virtual.changer import VirtualChanger
from drivers.virtual.condition import CLEANINGS, read_alerts, write_alerts
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.layout import cartridge_folder
from drivers.virtual.library import add_blank, create_library
from drivers.virtual.memory import read_memory, write_memory
from drivers.vtl.local import LocalTransport
from drivers.vtl.tape import TapeServer
from tests.drivers.scsi.bench import FakeClock
from tests.drivers.vtl.bench import MIB, Hand, log

CODE = "CLNU01L1"
READY, WRITE_MARKS = "00 00 00 00 00 00", "10 00 00 00 01 00"
READ_ATTRIBUTES = "8c 00 00 00 00 00 00 00 04 08 00 00 01 00 00 00"


class Bay:
    """A drive and the robot before it; the cleaning cartridge lies in the third slot."""

    def __init__(self, folder: Path, motion: str = "account") -> None:
        self.folder = folder / "library"
        create_library(self.folder, tapes=2, tape_bytes=16 * MIB, drives=1, generation=9)
        add_blank(self.folder, tape_bytes=MIB, barcode=CODE)
        self.server = TapeServer(VirtualDrive(self.folder, 0, motion), is_paced=motion != "account")
        self._notes = folder / "notes"

    def put_in(self, slot: int) -> None:
        VirtualChanger(self.folder).load(slot, 0)
        self.server.inserted()

    def take_out(self, slot: int) -> None:
        self.server.let_go()
        VirtualChanger(self.folder).unload(0, slot)

    def wear_out(self) -> None:
        cartridge = cartridge_folder(self.folder, CODE)
        memory = read_memory(cartridge)
        for _ in range(CLEANINGS):
            memory = memory.loaded_by("another drive")
        write_memory(cartridge, memory, sync=False)

    def open(self, clock: FakeClock | None = None) -> ScsiDrive:
        return ScsiDrive(LocalTransport(self.server, "other"), self._notes, clock=clock or FakeClock())


@pytest.fixture
def bay(tmp_path: Path) -> Iterator[Bay]:
    bay = Bay(tmp_path)
    yield bay
    bay.server.close()


def attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 4
    while at < len(data):
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        found[int.from_bytes(data[at : at + 2], "big")] = data[at + 5 : at + 5 + length]
        at += 5 + length
    return found


def test_a_drive_asks_once_and_is_clean_after_it(bay: Bay) -> None:
    hand = Hand(bay.server)
    bay.put_in(0)
    assert hand(READY).sense == "6 2800"
    assert hand(WRITE_MARKS, b"").sense == ""
    write_alerts(bay.folder, 0, [20])
    asked = hand(WRITE_MARKS, b"")
    # The filemark was written: only the drive's wish is told.
    assert (asked.status, asked.sense) == (Status.CHECK_CONDITION, "1 0017")
    assert hand.where() == (2, 2)
    assert hand(WRITE_MARKS, b"").sense == ""
    assert log(hand, 0x0C)[0x100] == bytes([0, 0, 0, 1])
    hand.good("1b 00 00 00 00 00")
    bay.take_out(0)
    bay.put_in(2)
    assert hand(READY).sense == "2 3A00"
    assert hand(READ_ATTRIBUTES).sense == "2 3A00"
    assert hand("1b 00 00 00 01 00").sense == "2 3A00"
    assert hand("1b 00 00 00 00 00").sense == ""
    assert log(hand, 0x0C)[0x100] == bytes(4)
    assert log(hand, 0x14)[0x01] == bytes([0, 0, 0, 1])
    assert not read_alerts(bay.folder, 0)
    bay.take_out(2)
    bay.put_in(0)
    assert hand(READY).sense == "6 2800"
    assert hand(READY).sense == ""


def test_it_takes_its_time_and_says_why(tmp_path: Path) -> None:
    bay = Bay(tmp_path, "scaled:200")
    hand = Hand(bay.server)
    bay.put_in(2)
    assert hand(READY).sense == "2 3003"
    # The memory of the cartridge says what it is, and how often it cleans.
    known = attributes(hand.good(READ_ATTRIBUTES))
    assert (known[0x0408], known[0x0409]) == (b"\x01", (50).to_bytes(2, "big"))
    deadline_s = time.monotonic() + 60
    while (told := hand(READY).sense) != "2 3A00":
        assert told == "2 3003"
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    bay.take_out(2)
    bay.server.close()


def test_a_cleaning_that_nobody_has_seen_counts(bay: Bay) -> None:
    """The drive was quicker than who looks: its own count tells, without waiting for it to begin."""
    clock = FakeClock()
    write_alerts(bay.folder, 0, [21])
    drive = bay.open(clock)
    assert drive.health().wants_cleaning
    bay.put_in(2)
    drive.clean()
    assert clock.at_s < 2
    assert not drive.health().wants_cleaning
    bay.take_out(2)
    with pytest.raises(NotReady, match="has not begun to clean"):
        drive.clean()
    assert clock.at_s >= 30


def test_a_cartridge_that_is_used_up_is_told_by_its_flag(bay: Bay) -> None:
    clock = FakeClock()
    bay.wear_out()
    drive = bay.open(clock)
    drive.health()
    bay.put_in(2)
    with pytest.raises(CleaningUsedUp, match="TapeAlert 22"):
        drive.clean()
    assert clock.at_s < 2
    bay.take_out(2)


def test_a_tape_with_data_is_no_cleaning_cartridge(bay: Bay) -> None:
    drive = bay.open()
    drive.health()
    bay.put_in(0)
    with pytest.raises(IncompatibleMedium, match="none for cleaning"):
        drive.clean()
