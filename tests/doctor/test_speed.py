"""The doctor's speed test: what it says of drives, and that only a scratch tape is ever written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from catalog.lmdb_ledger import LmdbLedger
from drivers.errors import DriveError
from drivers.interface import Drive, ElementKind
from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.faults import AnyFault, BreakableDrive, Delay, FaultyDrive, ReadError, WriteError
from drivers.virtual.library import add_blank, create_library, set_write_protected
from tapefs.doctor import scratch
from tapefs.doctor.findings import Finding, Grade
from tapefs.doctor.scratch import try_speed
from tapefs.doctor.speed import MARK, Speed
from tapefs.errors import NoTape, NotBlank, NotNow, TapeError, UsageError
from tapefs.home import Home, open_home
from tests.drivers.contract import read_all
from tests.drivers.tgt import need_libiscsi
from tests.drivers.vtl.served import serving

MIB = 2**20
BARCODE = "TP0002L9"


def init(home: Path, *words: str) -> Home:
    command = [sys.executable, "-m", "tapefs", "--home", str(home), "init", *words]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return open_home(home)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return init(tmp_path / "home", "--tapes", "3", "--tape-size", "64MiB", "--drives", "2")


def measure(home: Home, barcode: str = BARCODE, drive: int | None = None, seconds: float = 0.2) -> list[Finding]:
    with closing(LmdbLedger.open(home.ledger, readonly=True)) as ledger:
        return list(try_speed(home, ledger, barcode, drive=drive, seconds=seconds, ask=pytest.fail))


def worst(findings: list[Finding]) -> Grade:
    return max((each.grade for each in findings), key=list(Grade).index)


def says(findings: list[Finding], words: str) -> Finding:
    [found] = [each for each in findings if words in each.says]
    return found


def on_tape(home: Home, barcode: str = BARCODE) -> list[bytes]:
    """Return what is on a tape that lies in a slot, and bring it back there."""
    changer = VirtualChanger(home.library)
    slot = slot_of(home, barcode)
    changer.load(slot, 0)
    drive = VirtualDrive(home.library, 0)
    drive.load()
    items = read_all(drive)
    drive.unload()
    drive.close()
    changer.unload(0, slot)
    return items


def slot_of(home: Home, barcode: str = BARCODE) -> int:
    elements = VirtualChanger(home.library).inventory()
    [slot] = [each.number for each in elements if each.barcode == barcode and each.kind is ElementKind.SLOT]
    return slot


def put_on(home: Home, *blocks: bytes) -> None:
    changer = VirtualChanger(home.library)
    changer.load(1, 0)
    drive = VirtualDrive(home.library, 0)
    drive.load()
    for block in blocks:
        drive.write_block(block)
    drive.write_filemarks(1, sync=True)
    drive.unload()
    drive.close()
    changer.unload(0, 1)


def test_a_drive_that_is_well(home: Home) -> None:
    """Three sizes of blocks, written and read; then the tape is blank and where it was."""
    found = measure(home)
    assert worst(found) is Grade.GOOD, found
    assert [each.says.split(" ")[0] for each in found].count("writes") == 3
    assert [each.says.split(" ")[0] for each in found].count("reads") == 3
    assert says(found, "it streams")
    assert says(found, "was erased")
    assert on_tape(home) == []
    assert slot_of(home) == 1


def test_another_drive_may_be_named(home: Home) -> None:
    assert {each.about for each in measure(home, drive=1)} == {"drive1"}
    with pytest.raises(UsageError, match="no drive 2"):
        measure(home, drive=2)


@pytest.mark.parametrize("first", [b"VOL1", b"something", b"x" * MIB])
def test_a_tape_with_data_is_not_touched(home: Home, first: bytes) -> None:
    put_on(home, first, b"more")
    with pytest.raises(NotBlank, match="not blank"):
        measure(home)
    assert on_tape(home) == [first, b"more", b""]
    assert slot_of(home) == 1


def test_a_tape_that_begins_with_a_filemark_is_not_blank(home: Home) -> None:
    put_on(home)
    with pytest.raises(NotBlank):
        measure(home)
    assert on_tape(home) == [b""]


def test_a_tape_that_the_ledger_knows_as_written_is_not_even_loaded(home: Home, tmp_path: Path) -> None:
    (tmp_path / "source").write_text("precious")
    command = [sys.executable, "-m", "tapefs", "--home", str(home.path), "backup", str(tmp_path / "source")]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    with pytest.raises(NotBlank, match="ledger knows it as appendable"):
        measure(home, "TP0001L9")


def test_what_a_broken_test_has_left_is_a_scratch_tape(home: Home) -> None:
    put_on(home, MARK, b"test data")
    assert worst(measure(home)) is Grade.GOOD
    assert on_tape(home) == []


def test_a_protected_tape_is_refused(home: Home) -> None:
    set_write_protected(home.library, BARCODE, True)
    with pytest.raises(TapeError, match="write-protected"):
        measure(home)
    assert slot_of(home) == 1


def test_a_tape_that_can_be_written_once_is_refused(home: Home) -> None:
    add_blank(home.library, tape_bytes=64 * MIB, worm=True)
    with pytest.raises(TapeError, match="TP0004LZ could not be erased"):
        measure(home, "TP0004LZ")
    assert on_tape(home, "TP0004LZ") == []


def test_a_tape_that_is_nowhere_and_drives_that_are_full(home: Home) -> None:
    with pytest.raises(NoTape, match="TP0009L9"):
        measure(home, "TP0009L9")
    changer = VirtualChanger(home.library)
    changer.load(0, 0)
    assert {each.about for each in measure(home)} == {"drive1"}
    changer.load(2, 1)
    with pytest.raises(NotNow, match="--drive"):
        measure(home)


def test_a_tape_that_is_in_a_drive_stays_there(home: Home) -> None:
    VirtualChanger(home.library).load(1, 1)
    assert {each.about for each in measure(home)} == {"drive1"}
    assert VirtualChanger(home.library).inventory()[1].barcode == BARCODE
    with pytest.raises(NotNow, match="is in drive1"):
        measure(home, drive=0)


# -- drives that are not well ----------------------------------------------------------------------------------------


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[VirtualDrive]:
    create_library(tmp_path / "library", tapes=1, tape_bytes=64 * MIB, drives=1, generation=9)
    VirtualChanger(tmp_path / "library").load(0, 0)
    drive = VirtualDrive(tmp_path / "library", 0)
    drive.load()
    yield drive
    drive.close()


def findings(drive: Drive, seconds: float = 0.2) -> list[Finding]:
    return list(Speed(drive, "drive0", seconds=seconds).measure())


def test_a_drive_that_is_too_slow_for_its_tape(drive: VirtualDrive) -> None:
    """256 KiB in 8 ms are 33 MB/s, 1 MiB are 131: below the 177 at which an LTO-9 tape still runs."""
    slow = findings(FaultyDrive(drive, [Delay(operation="write_block", seconds=0.008)]))
    warning = says(slow, "back-hitches), which costs")
    assert warning.grade is Grade.WARNING
    assert "177 MB/s and more" in warning.says
    assert warning.fix


class Flipping(FaultyDrive):
    """Gives one block back with a bit that is another one."""

    def __init__(self, drive: BreakableDrive, flip: int) -> None:
        super().__init__(drive, [])
        self.flip = flip

    def read_into(self, buffer: memoryview) -> int:
        block = self.position().block
        length = super().read_into(buffer)
        if block == self.flip:
            buffer[length // 2] ^= 1
        return length


@pytest.mark.parametrize("block", [2, 5])
def test_a_block_that_comes_back_as_another_one(drive: VirtualDrive, block: int) -> None:
    found = findings(Flipping(drive, block))
    bad = says(found, f"block {block - 2} of ")
    assert bad.grade is Grade.PROBLEM
    assert "do not use this drive" in bad.fix


def test_a_block_that_cannot_be_read_back(drive: VirtualDrive) -> None:
    found = findings(FaultyDrive(drive, [ReadError(block=4)]))
    assert says(found, "cannot be read: block 4").grade is Grade.PROBLEM


class Refusing(FaultyDrive):
    """Takes no blocks of 1 MiB, as adapters do."""

    def write_block(self, block: bytes | memoryview) -> bool:
        if len(block) > MIB // 2:
            raise ValueError(f"a block has 1 to {MIB // 2} bytes here, not {len(block)}")
        return super().write_block(block)


def test_blocks_that_do_not_go_through(drive: VirtualDrive) -> None:
    found = findings(Refusing(drive, []))
    assert says(found, "blocks of 1024 KiB do not go through").grade is Grade.WARNING
    assert [each.says.split(" ")[0] for each in found].count("reads") == 2


@pytest.mark.parametrize("fault", [WriteError(block=3), WriteError(block=1)])
def test_a_failure_while_writing_leaves_a_blank_tape(
    home: Home, monkeypatch: pytest.MonkeyPatch, fault: AnyFault
) -> None:
    def faulty(config: object, number: int) -> Drive:
        return FaultyDrive(VirtualDrive(home.library, number), [fault])

    monkeypatch.setattr(scratch, "open_drive", faulty)
    found = measure(home)
    assert says(found, "the test was broken off").grade is Grade.PROBLEM
    assert says(found, "was erased")
    assert on_tape(home) == []
    assert slot_of(home) == 1


def test_an_operator_who_breaks_it_off_gets_the_tape_back_blank(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(FaultyDrive):
        def write_block(self, block: bytes | memoryview) -> bool:
            if self.position().block > 5:
                raise KeyboardInterrupt
            return super().write_block(block)

    monkeypatch.setattr(scratch, "open_drive", lambda config, number: Interrupted(VirtualDrive(home.library, 0), []))
    with pytest.raises(KeyboardInterrupt):
        measure(home)
    assert on_tape(home) == []
    assert slot_of(home) == 1


def test_a_tape_that_cannot_be_erased_again_is_told(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clinging(FaultyDrive):
        def erase(self, *, long: bool) -> None:
            if self.status().counters.blocks_written:
                raise DriveError("it does not want to")
            super().erase(long=long)

    monkeypatch.setattr(scratch, "open_drive", lambda config, number: Clinging(VirtualDrive(home.library, 0), []))
    problem = says(measure(home), "test data are left on tape TP0002L9: it does not want to")
    assert problem.grade is Grade.PROBLEM
    assert on_tape(home)[0] == MARK


# -- the command, and iSCSI ------------------------------------------------------------------------------------------


def command(home: Path, *words: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-m", "tapefs", "--home", str(home), "doctor", *words]
    return subprocess.run(arguments, input=typed, capture_output=True, text=True, timeout=120)


def test_the_barcode_is_repeated(home: Home) -> None:
    for done in (
        command(home.path, "--speed", BARCODE, "--again", "TP0003L9"),
        command(home.path, "--speed", BARCODE, typed="yes\n"),
    ):
        assert done.returncode == 2
        assert "nothing was done" in done.stderr
    assert command(home.path, "--speed", BARCODE).returncode == 1
    assert command(home.path, "--again", BARCODE).returncode == 2
    assert VirtualDrive(home.library, 0).status().counters.loads == 0


@pytest.mark.parametrize("point", ["doctor.speed.write.before", "doctor.speed.erase.before"])
def test_a_test_that_was_killed_is_done_again(home: Home, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    words = ("--speed", BARCODE, "--again", BARCODE, "--seconds", "0.1")
    monkeypatch.setenv("TAPEFS_CRASH_AT", point)
    assert command(home.path, *words).returncode == -9
    monkeypatch.delenv("TAPEFS_CRASH_AT")
    done = command(home.path, *words)
    assert done.returncode == 0, done.stderr
    VirtualChanger(home.library).unload(0, 1)
    assert on_tape(home) == []


def test_by_iscsi_with_the_barcode_typed(tmp_path: Path) -> None:
    need_libiscsi()
    with serving(tmp_path / "library", tape_bytes=64 * MIB) as served:
        drives = [word for lun in (1, 2) for word in ("--drive", served.url(lun))]
        init(tmp_path / "home", "--driver", "iscsi", "--changer", served.url(0), *drives)
        done = command(tmp_path / "home", "--speed", BARCODE, "--seconds", "0.2", typed=f"{BARCODE}\n")
        assert done.returncode == 0, done.stderr
        assert "reads" in done.stdout
        assert "it is blank again" in done.stdout
        [slot] = [each for each in VirtualChanger(served.folder).inventory() if each.barcode == BARCODE]
        assert (slot.kind, slot.number) == (ElementKind.SLOT, 1)
