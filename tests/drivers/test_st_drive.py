"""StDrive over a model of the kernel's st driver: the contract, and what st and drives do once in a year."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path

import pytest

from drivers.errors import (
    DeviceFailed,
    DeviceGone,
    DriveError,
    DriveInUse,
    NotReady,
    PositionLost,
    ReadFailed,
    WriteFailed,
    WriteProtected,
)
from drivers.interface import BlockNo
from drivers.st.drive import StDrive
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.faults import AnyFault, FaultyDrive, ReadError, Reset, WriteError
from tests.drivers.benches import VirtualBench
from tests.drivers.contract import FILEMARK, MIB, DriveContract, block_of, position, read, read_all, write
from tests.drivers.contract_encryption import EncryptionContract
from tests.drivers.st_model import StModel

BLOCKS = [block_of(number) for number in range(4)]


class Beside(FaultyDrive):
    """The virtual drive as the SCSI side has it: it counts by itself what goes through st, and hears of it as well."""

    blocks_heard_of = 0

    def passed_by(self, *, read: tuple[int, int], written: tuple[int, int], is_warned: bool) -> None:
        self.blocks_heard_of += read[0] + written[0]

    def recommended_order(self, extents: Sequence[tuple[int, int]]) -> list[int] | None:
        self.position()
        return [number for number, _ in sorted(enumerate(extents), key=lambda each: each[1], reverse=True)]


class StBench(VirtualBench):
    """The virtual library below the model of st."""

    virtual: VirtualDrive
    beside: Beside
    model: StModel

    def open(self, *faults: AnyFault) -> StDrive:  # type: ignore[override]
        self.virtual = VirtualDrive(self.folder, 0)
        self.beside = Beside(self.virtual, list(faults))
        self.model = StModel(self.beside)
        return StDrive(self.model, self.beside, sleep=lambda seconds: None)

    def opened(self, *faults: AnyFault) -> StDrive:
        """Return a drive with the tape loaded."""
        drive = self.open(*faults)
        drive.load()
        return drive

    def on_tape(self) -> list[bytes]:
        """Return what is on the tape, by a drive without st."""
        with_tape = VirtualDrive(self.folder, 0)
        with_tape.load()
        items = read_all(with_tape)
        with_tape.close()
        return items


@pytest.fixture
def bench(tmp_path: Path) -> StBench:
    return StBench(tmp_path / "library")


class TestStDrive(DriveContract):
    """The contract."""


class TestStEncryption(EncryptionContract):
    """Keys go past st, and what they mean for a block comes through it."""


class TestModel:
    """What makes the care necessary; the real st does the same, see `uml/guest/inside_nodes.py`."""

    def test_st_alone_writes_a_filemark_where_the_tape_stands(self, bench: StBench) -> None:
        drive = bench.opened()
        write(drive, *BLOCKS)
        bench.virtual.locate(BlockNo(1))
        bench.model.close()
        bench.virtual.close()
        assert bench.on_tape() == [BLOCKS[0], FILEMARK]


# -- filemarks that nobody asked for -------------------------------------------------------------------------------


@pytest.mark.parametrize("then", ["close", "rewind", "locate", "status", "unload", "load", "position", "read"])
def test_st_never_writes_a_filemark_by_itself(bench: StBench, then: str) -> None:
    drive = bench.opened()
    write(drive, *BLOCKS)
    if then == "locate":
        drive.locate(BlockNo(1))
    elif then == "read":
        with pytest.raises(DriveError):
            read(drive)
    elif then != "close":
        getattr(drive, then)()
    drive.close()
    assert bench.on_tape() == BLOCKS


def test_a_reset_while_writing_leaves_what_is_at_the_start(bench: StBench) -> None:
    """After a reset the tape stands at its start, and st does not know: it would write a filemark over the label."""
    drive = bench.opened()
    write(drive, b"label", FILEMARK, *BLOCKS, sync=True)
    bench.virtual.locate(BlockNo(0))
    bench.model.refuse["write"] = [errno.EIO]
    with pytest.raises(PositionLost, match="stands at block 0, not at 6"):
        drive.write_block(b"more")
    with pytest.raises(PositionLost, match="rewind"):
        drive.write_block(b"more")
    drive.close()
    assert bench.on_tape()[:2] == [b"label", FILEMARK]


@pytest.mark.parametrize("call", ["write_block", "write_filemarks", "position", "locate", "read"])
def test_a_reset_that_st_was_told_of_is_position_lost_in_whatever_comes_next(bench: StBench, call: str) -> None:
    drive = bench.opened()
    write(drive, *BLOCKS)
    bench.model.refuse["skip_blocks"] = [errno.EIO]
    bench.virtual.locate(BlockNo(0))
    calls = {
        "write_block": lambda: (drive.status(), drive.write_block(b"x")),
        "write_filemarks": lambda: drive.write_filemarks(1, sync=True),
        "position": drive.position,
        "locate": lambda: drive.locate(BlockNo(2)),
        "read": lambda: (drive.status(), read(drive)),
    }
    with pytest.raises(PositionLost):
        calls[call]()
    drive.rewind()
    assert read(drive) == BLOCKS[0]


def test_a_reset_of_the_bus_by_the_kernel_is_cleared_by_rewinding(bench: StBench) -> None:
    drive = bench.opened()
    write(drive, *BLOCKS, FILEMARK, sync=True)
    drive.rewind()
    bench.model.position_unknown = True
    with pytest.raises(PositionLost, match="reset"):
        read(drive)
    drive.rewind()
    assert read_all(drive) == [*BLOCKS, FILEMARK]


def test_a_reset_of_the_drive(bench: StBench) -> None:
    drive = bench.opened(Reset(block=2))
    with pytest.raises(PositionLost):
        write(drive, *BLOCKS)
    with pytest.raises(PositionLost):
        drive.position()
    drive.rewind()
    assert drive.position() == position(0, 0)


# -- errors with one number and many meanings ----------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EIO, errno.EBUSY, errno.EOVERFLOW, errno.EINVAL])
def test_a_block_that_st_refused_once_is_written_once(bench: StBench, code: int) -> None:
    drive = bench.opened()
    write(drive, *BLOCKS[:2])
    bench.model.refuse["write"] = [code]
    write(drive, *BLOCKS[2:], FILEMARK, sync=True)
    drive.close()
    assert bench.on_tape() == [*BLOCKS, FILEMARK]


def test_a_write_error_is_told_by_the_drive(bench: StBench) -> None:
    drive = bench.opened(WriteError(block=2, times=2))
    with pytest.raises(WriteFailed) as caught:
        write(drive, *BLOCKS)
    assert caught.value.block == 2


def test_no_space_is_not_always_the_end_of_the_tape(bench: StBench) -> None:
    """st says ENOSPC for every error that comes with the bit for end of medium."""
    drive = bench.opened(WriteError(block=2))
    write(drive, *BLOCKS[:2])
    bench.model.refuse["write"] = [errno.ENOSPC, errno.ENOSPC]
    with pytest.raises(WriteFailed):
        write(drive, BLOCKS[2])


@pytest.mark.parametrize("times", [0, 1, 2])
def test_a_write_behind_is_waited_for(bench: StBench, times: int) -> None:
    """Who may not switch it off has st return before the drive has answered: an error would come with another block."""
    drive = bench.opened(*([WriteError(block=2, times=times)] if times else []))
    bench.model.writes_behind = True
    if times == 2:
        with pytest.raises(WriteFailed) as caught:
            write(drive, *BLOCKS)
        assert caught.value.block == 2
    else:
        write(drive, *BLOCKS, FILEMARK, sync=True)
        drive.close()
        assert bench.on_tape() == [*BLOCKS, FILEMARK]


@pytest.mark.parametrize("writes_behind", [False, True])
def test_behind_early_warning_every_block_is_written_and_warned_of(bench: StBench, writes_behind: bool) -> None:
    drive = bench.opened()
    bench.model.writes_behind = writes_behind
    block = block_of(1, MIB)
    while not drive.write_block(block):
        pass
    at = drive.position().block
    for _ in range(4):
        assert drive.write_block(block)
    drive.write_filemarks(1, sync=True)
    assert drive.position() == position(at + 5, 1)
    drive.rewind()
    assert not drive.write_block(block)
    assert not drive.write_block(block)


@pytest.mark.parametrize("times", [1, 2])
def test_reading_once_more_by_scsi(bench: StBench, times: int) -> None:
    drive = bench.opened(ReadError(block=1, times=times))
    write(drive, *BLOCKS, FILEMARK, sync=True)
    drive.rewind()
    assert read(drive) == BLOCKS[0]
    if times == 2:
        with pytest.raises(ReadFailed) as caught:
            read(drive)
        assert caught.value.block == 1
        drive.locate(BlockNo(2))
    else:
        assert read(drive) == BLOCKS[1]
    assert read(drive) == BLOCKS[2]


def test_a_small_buffer_and_then_a_large_one(bench: StBench) -> None:
    drive = bench.opened()
    write(drive, *BLOCKS, FILEMARK, sync=True)
    drive.rewind()
    for number in range(4):
        with pytest.raises(ValueError, match="1000"):
            read(drive, 999)
        assert read(drive, 1000) == BLOCKS[number]
    assert read(drive) == FILEMARK


def test_an_empty_buffer_is_refused(bench: StBench) -> None:
    drive = bench.opened()
    with pytest.raises(ValueError, match="0 bytes"):
        drive.read_into(memoryview(bytearray()))


def test_two_filemarks_are_no_end(bench: StBench) -> None:
    drive = bench.opened()
    items = [FILEMARK, FILEMARK, BLOCKS[0], FILEMARK, FILEMARK, FILEMARK, BLOCKS[1]]
    write(drive, *items)
    drive.rewind()
    assert read_all(drive) == items
    assert read_all(drive) == []
    drive.locate(BlockNo(1))
    assert read_all(drive) == items[1:]


def test_the_other_drive_hears_of_every_block(bench: StBench) -> None:
    """For its counters, and so that it does not rely on a place where the head is not any more."""
    drive = bench.opened()
    write(drive, *BLOCKS, FILEMARK, sync=True)
    # The first block went through it.
    assert bench.beside.blocks_heard_of == 3
    drive.rewind()
    read_all(drive)
    drive.status()
    assert bench.beside.blocks_heard_of == 3 + 4


# -- numbers that are clear ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.EACCES, WriteProtected),
        (errno.ENOMEDIUM, NotReady),
        (errno.ENXIO, DeviceGone),
        (errno.ENODEV, DeviceGone),
        (errno.EBADF, DeviceFailed),
        (errno.ENOTTY, DeviceFailed),
    ],
)
@pytest.mark.parametrize("way", ["write", "read"])
def test_clear_numbers(bench: StBench, code: int, error: type[DriveError], way: str) -> None:
    drive = bench.opened()
    write(drive, *BLOCKS)
    if way == "read":
        drive.rewind()
    bench.model.refuse[way] = [code]
    with pytest.raises(error, match="/dev/nst0") as caught:
        write(drive, b"more") if way == "write" else read(drive)
    assert type(caught.value) is error


def test_somebody_who_asks_for_the_status_is_waited_for(bench: StBench) -> None:
    drive = bench.open()
    bench.model.refuse["reopen"] = [errno.EBUSY] * 3
    drive.load()
    assert bench.model.calls.count("reopen") == 4


def test_somebody_who_keeps_the_node_is_told_of(tmp_path: Path) -> None:
    bench = StBench(tmp_path / "library")
    beside = Beside(VirtualDrive(bench.folder, 0), [])
    model = StModel(beside)
    clock = iter(range(1000))
    drive = StDrive(model, beside, sleep=lambda seconds: None, now=lambda: next(clock))
    model.refuse["reopen"] = [errno.EBUSY] * 100
    with pytest.raises(DriveInUse, match="another process"):
        drive.load()


def test_without_root_the_switches_stay(bench: StBench) -> None:
    drive = bench.open()
    bench.model.refuse["options"] = [errno.EPERM]
    drive.load()
    write(drive, *BLOCKS, FILEMARK, sync=True)
    drive.rewind()
    assert read_all(drive) == [*BLOCKS, FILEMARK]


def test_fixed_blocks_are_switched_off(bench: StBench) -> None:
    drive = bench.opened()
    bench.model.block_size_bytes = 512
    write(drive, *BLOCKS)
    assert bench.model.block_size_bytes == 0


def test_the_order_is_the_drives_and_the_place_stays(tmp_path: Path) -> None:
    bench = StBench(tmp_path)
    drive = bench.opened()
    write(drive, *BLOCKS)
    assert drive.recommended_order([(0, 1), (2, 3)]) == [1, 0]
    # What went through st is told before, and no filemark gets between.
    assert bench.beside.blocks_heard_of == len(BLOCKS) - 1
    write(drive, block_of(9))
    assert drive.position() == position(5, 0)
    drive.rewind()
    assert read_all(drive) == [*BLOCKS, block_of(9)]
    drive.close()
