"""Drive and changer by IBM's itdt: the contracts over a stand-in, as far as they go, and ends that are no good."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from drivers.config import LibraryConfig
from drivers.errors import BadAnswer, DeviceFailed, DriveError, NotReady, NotSupported, WriteFailed
from drivers.interface import BlockNo, Changer, Drive
from drivers.itdt import tool
from drivers.itdt.answers import parse_inventory, parse_verdict
from drivers.itdt.changer import ItdtChanger
from drivers.itdt.drive import ItdtDrive
from drivers.itdt.tool import Itdt
from drivers.program import Ended
from drivers.registry import check_library, open_drive
from tests.drivers.benches import VirtualBench, VirtualLibraryBench
from tests.drivers.contract import (
    FILEMARK,
    ChangerBench,
    ChangerContract,
    DriveBench,
    DriveContract,
    block_of,
    position,
    read_all,
    write,
)
from tests.drivers.itdt.stand_in import ChangerStandIn, DriveStandIn, ended, failed, line


@dataclass
class ItdtBench(VirtualBench):
    """One virtual drive through itdt's stand-in."""

    program: DriveStandIn = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.program = DriveStandIn(self.folder)

    def open(self) -> ItdtDrive:  # type: ignore[override]
        return ItdtDrive(Itdt("/dev/IBMtape0", program=self.program, sleep=self.slept.append), self.folder / "lock")

    slept: list[float] = field(default_factory=list)

    def take_out(self) -> None:
        self.program.let_go()
        super().take_out()


class TestItdtDrive(DriveContract):
    """All but the counters, which begin anew."""

    @pytest.fixture
    def bench(self, tmp_path: Path) -> DriveBench:
        return ItdtBench(tmp_path / "library")

    def test_counters_tell_what_was_done_and_outlive_the_process(self, bench: DriveBench, drive: Drive) -> None:
        write(drive, block_of(0, 100), block_of(1, 200), FILEMARK, sync=True)
        drive.rewind()
        drive.read_into(memoryview(bytearray(1000)))
        drive.locate(BlockNo(2))
        counters = drive.status().counters
        assert (counters.loads, counters.locates) == (1, 1)
        assert (counters.blocks_written, counters.bytes_written) == (2, 300)
        assert (counters.blocks_read, counters.bytes_read) == (1, 100)


class TestItdtChanger(ChangerContract):
    @pytest.fixture
    def library(self, tmp_path: Path) -> ChangerBench:
        return ItdtLibraryBench(tmp_path / "library")


@dataclass
class ItdtLibraryBench(VirtualLibraryBench):
    """The virtual library through itdt's stand-in."""

    def open(self) -> Changer:
        return ItdtChanger(Itdt("/dev/IBMchanger0", program=ChangerStandIn(self.folder)))


@pytest.fixture
def bench(tmp_path: Path) -> ItdtBench:
    return ItdtBench(tmp_path / "library")


@dataclass
class Says:
    """A program that always ends the same way."""

    end: Ended
    name: str = "itdt"

    def run(self, arguments: object, timeout_s: float) -> Ended:
        return self.end


@pytest.mark.parametrize(
    ("end", "message"),
    [
        (ended([], result="FAILED"), "says FAILED"),
        (ended([], result="ABORTED"), "says ABORTED"),
        (ended([], code=3), "exit code 3"),
        (ended([], code=3, status=0), "exits with code 3"),
        (ended([], status=9), "exit code 9"),
        (ended(["Result: FAILED"]), "says FAILED"),
        (ended([], status=-9), "exit code -9"),
        (Ended(0, "", ""), "neither"),
        (Ended(0, "this is no itdt\n", ""), "neither"),
    ],
)
def test_every_sign_of_failure_is_one(end: Ended, message: str) -> None:
    with pytest.raises(DeviceFailed, match=message):
        Itdt("/dev/IBMtape0", program=Says(end)).run("rewind")


def test_one_sign_that_all_is_well_is_enough() -> None:
    assert Itdt("/dev/IBMtape0", program=Says(Ended(0, "x\nExit with code: 0\n", ""))).run("rewind")
    assert parse_verdict("Result: PASSED\nResult: FAILED\nResult: PASSED\nExit with code: 0").result == "FAILED"


def test_a_new_tape_is_waited_for_as_ibms_sample_does(bench: ItdtBench, monkeypatch: pytest.MonkeyPatch) -> None:
    becoming_ready = failed((0x2, 0x0401))
    bench.program.ready = [becoming_ready] * 5
    drive = bench.open()
    drive.load()
    assert bench.slept == [60.0] * 5
    drive.unload()
    bench.program.ready = [becoming_ready] * 40
    with pytest.raises(NotReady, match="two hours"):
        drive.load()
    drive.close()


def test_a_drive_that_is_not_about_to_be_ready_is_not_waited_for(bench: ItdtBench) -> None:
    bench.program.ready = [failed((0x4, 0x4400))]
    drive = bench.open()
    with pytest.raises(DeviceFailed):
        drive.load()
    assert bench.slept == []
    drive.close()


def test_nothing_is_written_where_early_warning_is_not_told(bench: ItdtBench) -> None:
    bench.program.tells_warning = False
    drive = bench.open()
    drive.load()
    for call in (lambda: drive.write_block(b"x"), lambda: drive.write_filemarks(1, sync=True)):
        with pytest.raises(NotSupported, match="early warning"):
            call()
    assert not any(word in call for call in bench.program.calls for word in ("write", "weof"))
    assert read_all(drive) == []
    drive.close()


def test_a_file_that_became_two_blocks_is_no_success(bench: ItdtBench, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the real program cuts what it is to write raw, it is noticed at the first block."""
    drive = bench.open()
    drive.load()
    run = bench.program.run
    monkeypatch.setattr(
        bench.program, "run", lambda words, timeout_s: run([w for w in words if w != "-raw"], timeout_s)
    )
    drive.write_block(b"x" * 65536)
    with pytest.raises(WriteFailed, match="2 blocks"):
        drive.write_block(b"x" * 65537)
    drive.close()


def test_files_are_counted_on_tapes_of_others(bench: ItdtBench) -> None:
    """A process that has not written the tape looks for its filemarks once."""
    first = bench.open()
    first.load()
    write(first, *[item for number in range(5) for item in (block_of(number), FILEMARK)])
    first.unload()
    first.close()
    drive = bench.open()
    drive.load()
    drive.seek_end()
    assert drive.position() == position(10, 5)
    spaced = sum("fsf" in call for call in bench.program.calls)
    assert spaced == 5
    drive.locate(BlockNo(4))
    assert drive.position() == position(4, 2)
    assert sum("fsf" in call for call in bench.program.calls) == spaced
    drive.close()


def test_a_reset_is_told_as_such() -> None:
    end = ended([line("Sense Key", "6"), line("ASC", "29"), line("ASCQ", "00")], result="FAILED", code=1)
    with pytest.raises(DriveError, match="06/29/00"):
        Itdt("/dev/IBMtape0", program=Says(end)).run("rewind")


def test_a_position_that_is_not_told_is_no_position() -> None:
    with pytest.raises(BadAnswer, match="told no block"):
        Itdt("/dev/IBMtape0", program=Says(ended([line("Partition", 0)]))).position()
    told = ended([line("Logical Object Number", "0x1F"), line("Early Warning", "maybe")])
    assert Itdt("/dev/IBMtape0", program=Says(told)).position() == (31, None)


def test_the_rest_of_the_words(bench: ItdtBench) -> None:
    itdt = Itdt("/dev/IBMtape0", program=bench.program)
    itdt.load()
    itdt.erase()
    itdt.erase(short=False)
    assert Itdt("", program=Says(ended(['[{"index": 0, "deviceSpecialFile": "/dev/IBMtape0"}]']))).scan() == [
        {"index": 0, "deviceSpecialFile": "/dev/IBMtape0"}
    ]
    with pytest.raises(BadAnswer, match="no JSON"):
        Itdt("", program=Says(ended([]))).scan()
    bench.program.let_go()


def test_the_program_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DeviceFailed, match="Fix Central"):
        Itdt("/dev/IBMtape0").run("tur")


def test_an_inventory_as_ibms_scripts_read_it() -> None:
    text = """\
Import/Export Station Address 769
  Import/Export State ........... Normal
  Media Present ................. Yes
  Volume Tag .................... TP0009L9
Slot Address ................... 1070
  Slot State .................... Normal
  ASC/ASCQ ...................... 0000
  Media Present ................. Yes
  Source Element Address Valid .. Yes
  Source Element Address ........ 1059
  Volume Tag .................... TP0002L9

Exit with code: 0
"""
    places = [(each.kind, each.address, each.full, each.barcode) for each in parse_inventory(text)]
    assert places == [("import/export station", 769, True, "TP0009L9"), ("slot", 1070, True, "TP0002L9")]
    unsure = "Slot Address 1070\n  Slot State ... Normal\nExit with code: 0\n"
    with pytest.raises(BadAnswer, match="whether slot 1070 is full"):
        ItdtChanger(Itdt("/dev/IBMchanger0", program=Says(Ended(0, unsure, "")))).inventory()
    assert tool.READY_TRIES * tool.READY_PAUSE_S == 2400


def test_the_settings_are_checked(tmp_path: Path) -> None:
    drives = ("/dev/IBMtape0",)
    check_library(LibraryConfig(driver="itdt", folder=tmp_path, drives=drives, changer="/dev/IBMchanger0"))
    check_library(LibraryConfig(driver="itdt", folder=tmp_path, drives=drives, changer="human"))
    with pytest.raises(ValueError, match="IBMchanger0"):
        check_library(LibraryConfig(driver="itdt", folder=tmp_path, drives=drives))
    with pytest.raises(ValueError, match="itdt scan"):
        check_library(LibraryConfig(driver="itdt", folder=tmp_path, changer="/dev/IBMchanger0"))
    with pytest.raises(ValueError, match="no drive 1"):
        open_drive(LibraryConfig(driver="itdt", folder=tmp_path, drives=drives), 1)
