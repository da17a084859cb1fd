"""The first load of a new LTO-9 tape: hours in which the drive measures it, told as progress by each driver."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.interface import Busy, Lengthy
from drivers.scsi.drive import ScsiDrive
from drivers.scsi.sense import parse_sense
from drivers.scsi.transport import Reply, Status
from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.layout import cartridge_folder
from drivers.virtual.library import add_blank, create_library
from drivers.virtual.state import read_state
from drivers.vtl.changer import ChangerServer
from drivers.vtl.local import LocalTransport
from drivers.vtl.tape import TapeServer
from tests.drivers.contract import FILEMARK, read_all, write
from tests.drivers.scsi.script import sense
from tests.drivers.scsi.test_drive import LOAD, LOADED, OPEN, READY, Talk
from tests.drivers.vtl.bench import MIB, Hand

#: Modelled; a hundredth of it by the clock.
FIRST_LOAD_S = 100.0
MOTION = "scaled:100"
TUR, LOAD_CDB, LOAD_AT_ONCE = "00 00 00 00 00 00", "1B 00 00 00 01 00", "1B 01 00 00 01 00"
UNLOAD_CDB, ASK = "1B 00 00 00 00 00", "03 00 00 00 FC 00"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A library with one known cartridge in slot 0, and a new one in the drive."""
    folder = tmp_path / "library"
    create_library(folder, tapes=1, tape_bytes=16 * MIB, drives=1, generation=9)
    add_blank(folder, tape_bytes=16 * MIB, first_load_s=FIRST_LOAD_S)
    VirtualChanger(folder).load(1, 0)
    return folder


def first_load_s(folder: Path) -> float:
    return read_state(cartridge_folder(folder, "TP0002L9")).first_load_s


class Heard(list[Busy | None]):
    """What a drive has told of its progress."""

    def shares(self) -> list[float]:
        return [each.share for each in self if each is not None and each.share is not None]

    def check(self, at_least: int) -> None:
        """Shares rise, all is about measuring, and the end was told."""
        assert self[-1] is None
        assert None not in self[:-1]
        assert {each.doing for each in self if each is not None} == {Lengthy.MEASURING}
        shares = self.shares()
        assert len(set(shares)) >= at_least
        assert shares == sorted(shares)
        assert 0 <= shares[0] <= 0.5 < shares[-1] < 1


# -- the virtual drive -----------------------------------------------------------------------------------------------


def test_the_first_load_takes_its_time_once(folder: Path) -> None:
    heard = Heard()
    drive = VirtualDrive(folder, 0)
    drive.watch(heard.append)
    drive.load()
    heard.check(at_least=100)
    assert drive.status().counters.seconds.load == pytest.approx(FIRST_LOAD_S + 17)
    assert first_load_s(folder) == 0
    drive.unload()
    heard.clear()
    drive.load()
    assert heard == []
    drive.close()


def test_a_first_load_that_is_cut_off_begins_anew(folder: Path) -> None:
    class Died(Exception):
        pass

    def dies(busy: Busy | None) -> None:
        if busy is not None and busy.share == 0.5:
            raise Died

    drive = VirtualDrive(folder, 0)
    drive.watch(dies)
    with pytest.raises(Died):
        drive.load()
    assert not drive.status().loaded
    drive.close()
    assert first_load_s(folder) == FIRST_LOAD_S


def test_a_drive_that_cannot_write_the_tape_does_not_measure_it(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    create_library(folder, tapes=1, tape_bytes=16 * MIB, drives=1, generation=7)
    add_blank(folder, tape_bytes=16 * MIB, generation=5, first_load_s=FIRST_LOAD_S)
    VirtualChanger(folder).load(1, 0)
    drive = VirtualDrive(folder, 0)
    drive.load()
    assert drive.status().counters.seconds.load < FIRST_LOAD_S
    drive.close()


# -- served ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(folder: Path) -> Iterator[TapeServer]:
    server = TapeServer(VirtualDrive(folder, 0, MOTION), is_paced=True)
    yield server
    server.close()


def progress(raw: bytes) -> float | None:
    return parse_sense(raw).progress


def test_a_served_drive_tells_how_far_it_is(server: TapeServer, folder: Path) -> None:
    """NOT READY, becoming ready, with the share in the sense-key specific bytes; asking, too."""
    hand, other = Hand(server), Hand(server, "other")
    assert hand(LOAD_AT_ONCE).sense == ""
    seen = Heard()
    deadline = time.monotonic() + 60
    while (got := hand(TUR)).sense == "2 0401":
        share = progress(got.raw)
        if share is not None:
            seen.append(Busy(Lengthy.MEASURING, share))
            asked = other(ASK).data
            assert (asked[2], asked[12:14]) == (2, b"\4\1") or not asked[2]
        assert hand("08 00 00 10 00 00").sense in ("2 0401", "8 0005")
        assert time.monotonic() < deadline
        time.sleep(0.02)
    seen.append(None)
    seen.check(at_least=5)
    assert got.sense == ""
    assert other(TUR).sense == "6 2800"
    assert first_load_s(folder) == 0
    hand.good(UNLOAD_CDB)
    hand.good(LOAD_AT_ONCE)
    while (got := hand(TUR)).sense == "2 0401":
        assert progress(got.raw) is None
        time.sleep(0.02)


def test_a_load_that_is_waited_for_tells_others(server: TapeServer) -> None:
    hand, other = Hand(server), Hand(server, "other")
    loading = threading.Thread(target=lambda: hand.good(LOAD_CDB))
    loading.start()
    deadline = time.monotonic() + 60
    while other(TUR).sense != "2 0401":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # What needs no tape is answered all the while, and by its own attentions.
    assert other.good("12 00 00 00 24 00")
    assert other("1A 00 3F 00 FF 00").sense == ""
    loading.join(60)
    assert not loading.is_alive()
    assert hand(TUR).sense == ""


def test_the_robot_does_not_take_a_tape_that_is_measured(server: TapeServer, folder: Path) -> None:
    robot = Hand(ChangerServer(VirtualChanger(folder), [server], "LIBRARY1"))
    server.inserted()
    assert robot("A5 00 00 00 01 00 10 01 00 00 00 00").sense == "5 5303"
    hand = Hand(server, greet=False)
    deadline = time.monotonic() + 60
    while hand(TUR).sense:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    robot.good("A5 00 00 00 01 00 10 01 00 00 00 00")


def test_a_server_that_ends_does_not_wait_for_hours(folder: Path) -> None:
    server = TapeServer(VirtualDrive(folder, 0, "real"), is_paced=True)
    hand = Hand(server)
    hand.good(LOAD_AT_ONCE)
    begun_s = time.monotonic()
    server.close()
    assert time.monotonic() - begun_s < 20
    assert first_load_s(folder) == FIRST_LOAD_S


# -- over SCSI -------------------------------------------------------------------------------------------------------


def test_the_scsi_drive_hears_it(server: TapeServer, folder: Path, tmp_path: Path) -> None:
    """A new tape is loaded, labelled and read; meanwhile its progress is told."""
    drive = ScsiDrive(LocalTransport(server), tmp_path / "notes")
    drive._device.clock.sleep = lambda seconds: time.sleep(seconds / 100)
    heard = Heard()
    drive.watch(heard.append)
    drive.load()
    heard.check(at_least=5)
    write(drive, b"label", FILEMARK)
    drive.rewind()
    assert read_all(drive) == [b"label", FILEMARK]
    drive.close()


def test_a_new_mover_can_ask_a_drive_that_measures(server: TapeServer, tmp_path: Path) -> None:
    server.inserted()
    drive = ScsiDrive(LocalTransport(server), tmp_path / "notes")
    assert not drive.status().loaded
    drive.close()


def test_hours_are_no_hang_and_are_told_as_they_pass(tmp_path: Path) -> None:
    """100 minutes at the speed of the fake clock: every step is told, and so is the end."""

    def answer(number: int) -> Reply:
        data = bytearray(sense(2, 0x04, 0x01))
        data[15] = 0x80
        data[16:18] = (number * 65536 // 6000).to_bytes(2, "big")
        return Reply(Status.CHECK_CONDITION, bytes(data))

    waiting = [(READY[0], answer(number)) for number in range(6000)]
    talk = Talk(tmp_path, [*OPEN, (READY[0], "check 02 04 02"), LOAD, *waiting, *LOADED[len(OPEN) + 1 :]])
    heard = Heard()
    talk.drive.watch(heard.append)
    talk.drive.load()
    talk.script.is_over()
    heard.check(at_least=100)
    assert 5900 < talk.script.clock.at_s < 6100
    assert 90 < len(talk.told) < 110


def test_a_drive_that_tells_no_share(tmp_path: Path) -> None:
    waiting = [(READY[0], "check 02 04 01")] * 400
    talk = Talk(tmp_path, [*OPEN, (READY[0], "check 02 04 02"), LOAD, *waiting, *LOADED[len(OPEN) + 1 :]])
    heard = Heard()
    talk.drive.watch(heard.append)
    talk.drive.load()
    kinds = [each.doing for each in heard if each is not None]
    assert kinds[0] is Lengthy.LOADING
    assert kinds[-1] is Lengthy.MEASURING
    assert heard.shares() == []
    assert heard[-1] is None


def test_a_load_that_takes_its_usual_time_tells_nothing(tmp_path: Path) -> None:
    waiting = [(READY[0], "check 02 04 01")] * 20
    talk = Talk(tmp_path, [*OPEN, (READY[0], "check 02 04 02"), LOAD, *waiting, *LOADED[len(OPEN) + 1 :]])
    heard = Heard()
    talk.drive.watch(heard.append)
    talk.drive.load()
    assert heard == []


# -- a long erase ----------------------------------------------------------------------------------------------------


def test_a_long_erase_of_a_paced_drive_tells_how_far_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    create_library(folder, tapes=1, tape_bytes=2 * 2**30, drives=1, generation=9)
    VirtualChanger(folder).load(0, 0)
    server = TapeServer(VirtualDrive(folder, 0, "scaled:20"), is_paced=True)
    drive = ScsiDrive(LocalTransport(server), tmp_path / "notes")
    drive._device.clock.sleep = lambda seconds: time.sleep(min(seconds, 1) / 50)
    drive.load()
    write(drive, b"something", FILEMARK)
    drive.rewind()
    heard: list[Busy | None] = []
    drive.watch(heard.append)
    drive.erase(long=True)
    shares = [each.share for each in heard if each is not None and each.share is not None]
    assert len(set(shares)) >= 3
    assert shares == sorted(shares)
    assert {each.doing for each in heard if each is not None} == {Lengthy.ERASING}
    assert heard[-1] is None
    assert read_all(drive) == []
    drive.close()
    server.close()
