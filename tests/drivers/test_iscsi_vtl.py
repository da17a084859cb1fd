"""The contracts of drives and changers over iSCSI, against the project's own target: all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from drivers.config import IscsiConfig, LibraryConfig
from drivers.errors import DeviceFailed, DriveInUse, PositionLost, TransportFailed
from drivers.interface import BlockNo, Changer, Drive
from drivers.iscsi.driver import open_drive, open_transport
from drivers.registry import open_changer
from drivers.scsi.drive import ScsiDrive
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.library import create_library, take_out
from drivers.vtl.portal.chap import Credentials
from drivers.vtl.portal.target import Target
from drivers.vtl.tape import TapeServer
from tests.drivers.benches import MIB, VirtualBench
from tests.drivers.contract import FILEMARK, ChangerContract, DriveContract, block_of, position, read, read_all, write
from tests.drivers.contract_encryption import EncryptionContract
from tests.drivers.cutter import Cutter
from tests.drivers.tgt import need_libiscsi
from tests.drivers.vtl.served import Serving, serving

TARGET = "iqn.2026-11.test:drive"
LUN = 1


class VtlDriveBench:
    """A drive of the virtual library behind our own target, with TP0001L9 in it, not threaded."""

    def __init__(self, folder: Path) -> None:
        self._virtual = VirtualBench(folder / "library")
        self._notes = folder / "notes"
        self._served = VirtualDrive(self._virtual.folder, 0)
        self._server = TapeServer(self._served)
        self._target = Target(TARGET, {LUN: self._server})
        self.port = self._target.start("127.0.0.1", 0)[1]

    def through(self, cutter: Cutter, patience_s: float = 10) -> ScsiDrive:
        """Open the drive through a wire that can be cut, as a loaded one."""
        url = self.url.replace(str(self.port), str(cutter.port))
        login = IscsiConfig(patience_s=patience_s)
        drive = open_drive(LibraryConfig(driver="iscsi", folder=self._notes, drives=(url,), iscsi=login), 0)
        drive.load()
        return drive

    @property
    def url(self) -> str:
        return f"iscsi://127.0.0.1:{self.port}/{TARGET}/{LUN}"

    def loaded(self) -> ScsiDrive:
        drive = self.open()
        drive.load()
        return drive

    def open(self, initiator: str = "", notes: Path | None = None) -> ScsiDrive:
        """Open it, as another installation with a name and notes of its own."""
        login = IscsiConfig(initiator=initiator)
        config = LibraryConfig(driver="iscsi", folder=notes or self._notes, drives=(self.url,), iscsi=login)
        return open_drive(config, 0)

    def move_by_another_hand(self) -> None:
        """Have the drive stand elsewhere, as after a power cut."""
        with self._server.lock:
            self._served.rewind()

    def take_out(self) -> None:
        self._virtual.take_out()

    def protect(self) -> None:
        self._virtual.protect()

    def make_worm(self) -> None:
        self._virtual.make_worm()

    def put_in(self) -> None:
        self._virtual.put_in()

    def close(self) -> None:
        self._target.stop()
        self._server.close()


class VtlChangerBench:
    """Three slots, two drives, cartridges in slots 0 and 1."""

    def __init__(self, served: Serving, notes: Path) -> None:
        self._config = config_of(served, notes)

    def open(self) -> Changer:
        return open_changer(self._config)

    def open_drive(self, number: int) -> Drive:
        return open_drive(self._config, number)


def config_of(served: Serving, notes: Path) -> LibraryConfig:
    notes.mkdir(exist_ok=True)
    return LibraryConfig(driver="iscsi", folder=notes, drives=(served.url(1), served.url(2)), changer=served.url(0))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[VtlDriveBench]:
    need_libiscsi()
    bench = VtlDriveBench(tmp_path)
    yield bench
    bench.close()


class TestVtlDrive(DriveContract):
    pass


class TestVtlEncryption(EncryptionContract):
    pass


class TestVtlChanger(ChangerContract):
    @pytest.fixture
    def library(self, tmp_path: Path) -> Iterator[VtlChangerBench]:
        need_libiscsi()
        create_library(tmp_path / "library", tapes=3, tape_bytes=16 * MIB, drives=2, generation=9)
        take_out(tmp_path / "library", "TP0003L9", tmp_path / "shelf")
        with serving(tmp_path / "library") as served:
            yield VtlChangerBench(served, tmp_path / "notes")


# -- reservations ------------------------------------------------------------------------------------------------------


def test_a_second_initiator_is_refused_and_told_who_holds_the_drive(bench: VtlDriveBench, tmp_path: Path) -> None:
    """Until the first one lets go; what it writes meanwhile goes on, and the second leaves nothing behind."""
    drive = bench.open("iqn.2026-11.test:first")
    drive.load()
    write(drive, block_of(0))
    for _ in range(2):
        with pytest.raises(DriveInUse, match=r"reserved by another host, iqn\.2026-11\.test:first, whose key is 0x"):
            bench.open("iqn.2026-11.test:second", tmp_path / "second")
    write(drive, block_of(1), FILEMARK, sync=True)
    drive.rewind()
    assert read_all(drive) == [block_of(0), block_of(1), FILEMARK]
    drive.close()
    second = bench.open("iqn.2026-11.test:second", tmp_path / "second")
    second.load()
    assert read_all(second) == [block_of(0), block_of(1), FILEMARK]
    second.close()


# -- connections that break --------------------------------------------------------------------------------------------


@pytest.fixture
def cutter(bench: VtlDriveBench) -> Iterator[Cutter]:
    cutter = Cutter(bench.port)
    yield cutter
    cutter.close()


def test_a_break_between_writes_costs_nothing(bench: VtlDriveBench, cutter: Cutter) -> None:
    """The drive stands where it stood, and says so: the job goes on, every block is on tape once."""
    drive = bench.through(cutter)
    items = []
    for number in range(12):
        items.append(block_of(number, 50_000) if number % 4 < 3 else FILEMARK)
        write(drive, items[-1])
        if number % 3 == 1:
            cutter.cut()
    drive.write_filemarks(0, sync=True)
    assert drive.position() == position(12, 3)
    drive.rewind()
    assert read_all(drive) == items
    drive.close()


def test_an_answer_that_is_lost_is_asked_for(bench: VtlDriveBench, cutter: Cutter) -> None:
    """The block was written, but nobody said so: the position tells, and it is not written again."""
    drive = bench.through(cutter)
    write(drive, block_of(0))
    cutter.swallow_next_answer()
    write(drive, block_of(1))
    cutter.swallow_next_answer()
    write(drive, FILEMARK, block_of(3))
    cutter.swallow_next_answer()
    drive.write_filemarks(1, sync=True)
    drive.rewind()
    assert read_all(drive) == [block_of(0), block_of(1), FILEMARK, block_of(3), FILEMARK]
    drive.close()


def test_breaks_while_reading_and_moving(bench: VtlDriveBench, cutter: Cutter) -> None:
    drive = bench.through(cutter)
    items = [block_of(number) if number % 5 else FILEMARK for number in range(20)]
    write(drive, *items)
    drive.write_filemarks(0, sync=True)
    for number in (17, 3, 10, 0):
        cutter.swallow_next_answer()
        drive.locate(BlockNo(number))
        cutter.cut()
        assert read(drive) == items[number]
        cutter.swallow_next_answer()
        assert read(drive) == items[number + 1]
    cutter.swallow_next_answer()
    drive.rewind()
    assert read_all(drive) == items
    drive.close()


def test_a_drive_that_was_reset_meanwhile_has_lost_its_place(bench: VtlDriveBench, cutter: Cutter) -> None:
    """What stands elsewhere is not written to: not before somebody has rewound and looked."""
    drive = bench.through(cutter)
    write(drive, block_of(0), block_of(1), FILEMARK)
    drive.write_filemarks(0, sync=True)
    cutter.cut()
    bench.move_by_another_hand()
    with pytest.raises((PositionLost, TransportFailed)):
        write(drive, b"astray")
    with pytest.raises(PositionLost):
        write(drive, b"astray")
    drive.rewind()
    assert read_all(drive) == [block_of(0), block_of(1), FILEMARK]
    drive.close()


def test_a_target_that_is_gone_for_good_is_told(bench: VtlDriveBench, cutter: Cutter) -> None:
    drive = bench.through(cutter, patience_s=0)
    write(drive, block_of(0))
    cutter.close()
    with pytest.raises(TransportFailed):
        write(drive, block_of(1))
    drive.close()


def test_chap_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_libiscsi()
    monkeypatch.setenv("TAPEFS_CHAP_SECRET", "our-own-secret1")
    monkeypatch.setenv("TAPEFS_CHAP_TARGET_SECRET", "their-own-secret")
    known = Credentials("backup", b"our-own-secret1", "library", b"their-own-secret")
    login = IscsiConfig(user="backup", target_user="library")
    with serving(tmp_path / "library", known) as served:
        open_transport(served.url(0), login).close()
        with pytest.raises(DeviceFailed, match="cannot log in"):
            open_transport(served.url(0), IscsiConfig())
        with pytest.raises(DeviceFailed, match="cannot log in"):
            open_transport(served.url(0), replace(login, target_user="somebody"))
        monkeypatch.setenv("TAPEFS_CHAP_SECRET", "not-our-secret1")
        with pytest.raises(DeviceFailed, match="cannot log in"):
            open_transport(served.url(0), login)
