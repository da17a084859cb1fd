"""What a mover records of a tape's time in its drive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.errors import StorageFailed
from catalog.lmdb_ledger import LmdbLedger
from drivers.errors import CleaningUsedUp, DiskFull, ReadFailed, WriteFailed
from drivers.virtual.changer import VirtualChanger
from drivers.virtual.condition import write_alerts
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.faults import AnyFault, FaultyDrive, ReadError, WriteError
from drivers.virtual.library import add_blank, create_library
from tapefs.mover.history import RecordingDrive
from tests.catalog.builders import NOW

TAPE = "TP0001L9"
MIB = 1024 * 1024
Make = Callable[..., RecordingDrive]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    create_library(tmp_path / "library", tapes=2, tape_bytes=64 * MIB, drives=1, generation=9)
    VirtualChanger(tmp_path / "library", "account").load(0, 0)
    return tmp_path / "library"


@pytest.fixture
def ledger(tmp_path: Path) -> LmdbLedger:
    return LmdbLedger.create(tmp_path / "ledger", NOW)


@pytest.fixture
def make(folder: Path, ledger: LmdbLedger) -> Make:
    def make(*faults: AnyFault) -> RecordingDrive:
        return RecordingDrive(FaultyDrive(VirtualDrive(folder, 0), list(faults)), "drive0", ledger)

    return make


def test_a_mounting_from_threading_to_ejecting(make: Make, ledger: LmdbLedger) -> None:
    drive = make()
    drive.is_used_for("backup")
    drive.load()
    (begun,) = ledger.mountings(TAPE)
    assert (begun.unloaded_at_ns, begun.purposes, begun.drive) == (0, ("backup",), "drive0")
    for _ in range(3):
        drive.write_block(bytes(1000))
    drive.write_filemarks(1, sync=True)
    drive.rewind()
    drive.is_used_for("verify")
    drive.read_into(memoryview(bytearray(1000)))
    drive.load()  # Only rewinds: it goes on.
    drive.unload()
    (ended,) = ledger.mountings(TAPE)
    assert ended.mounting_id == begun.mounting_id
    assert (ended.written_bytes, ended.read_bytes) == (3000, 1000)
    assert ended.purposes == ("backup", "verify")
    assert ended.unloaded_at_ns >= ended.loaded_at_ns > 0
    medium = ledger.life(TAPE).medium
    assert medium is not None
    assert (medium.loads, medium.written_bytes, medium.read_bytes) == (1, 3000, 1000)
    assert medium.capacity_bytes == 64 * MIB
    drive.load()
    drive.unload()
    assert len(ledger.mountings(TAPE)) == ledger.life(TAPE).mountings == 2
    drive.close()


def test_what_fails_is_there_at_once(make: Make, ledger: LmdbLedger) -> None:
    """A drive that fails does not always come to unloading its tape."""
    drive = make(WriteError(block=1), ReadError(block=0))
    drive.load()
    drive.write_block(bytes(1000))
    with pytest.raises(WriteFailed):
        drive.write_block(bytes(1000))
    (found,) = ledger.mountings(TAPE)
    assert (found.write_failures, found.read_failures) == (1, 0)
    assert found.mishaps[0].kind == "WriteFailed"
    assert "fault on request" in found.mishaps[0].message
    drive.rewind()
    with pytest.raises(ReadFailed):
        drive.read_into(memoryview(bytearray(1000)))
    assert ledger.life(TAPE).read_failures == 1
    drive.close()


def test_a_full_disk_is_no_fault_of_the_tape(make: Make, ledger: LmdbLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    drive = make()
    drive.load()

    def refuse(block: bytes) -> bool:
        raise DiskFull("the disk is full", 0)

    monkeypatch.setattr(drive.inside, "write_block", refuse)
    with pytest.raises(DiskFull):
        drive.write_block(bytes(10))
    (found,) = ledger.mountings(TAPE)
    assert (found.write_failures, len(found.mishaps)) == (0, 1)
    drive.close()


def test_another_process_goes_on_with_the_mounting(make: Make, ledger: LmdbLedger) -> None:
    first = make()
    first.load()
    first.write_block(bytes(1000))
    first.close()
    second = make()
    second.ask()
    second.write_block(bytes(500))
    second.unload()
    second.close()
    (found,) = ledger.mountings(TAPE)
    assert found.written_bytes == 1500
    assert found.unloaded_at_ns


def test_alerts_of_both_looks_and_the_wish_to_be_cleaned(make: Make, ledger: LmdbLedger, folder: Path) -> None:
    drive = make()
    write_alerts(folder, 0, [3])
    drive.load()
    assert not drive.wants_cleaning
    write_alerts(folder, 0, [21])
    drive.unload()
    assert drive.wants_cleaning
    assert ledger.mountings(TAPE)[0].alerts == (3, 21)
    drive.close()


@pytest.mark.log_warnings
def test_a_ledger_that_refuses_fails_no_work(make: Make, ledger: LmdbLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise StorageFailed("no space", retryable=True)

    monkeypatch.setattr(ledger, "note_mounting", refuse)
    drive = make()
    drive.load()
    drive.write_block(bytes(10))
    drive.unload()
    drive.close()


def test_a_cleaning_is_counted_until_the_cartridge_is_used_up(make: Make, ledger: LmdbLedger, folder: Path) -> None:
    changer = VirtualChanger(folder, "account")
    changer.unload(0, 0)
    code = add_blank(folder, tape_bytes=MIB, barcode="CLNU01CU")
    changer.load(2, 0)
    write_alerts(folder, 0, [20])
    drive = make()
    drive.ask()
    assert drive.wants_cleaning
    drive.clean(code)
    drive.ask()
    assert not drive.wants_cleaning
    assert ledger.mountings(code)[0].purposes == ("cleaning",)
    for _ in range(49):
        drive.clean(code)
    with pytest.raises(CleaningUsedUp):
        drive.clean(code)
    life = ledger.life(code)
    assert (life.mountings, life.is_used_up) == (50, True)
    drive.close()
