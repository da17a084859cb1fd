"""A way to the drive that breaks, before or after each command was done, and comes back: nothing is lost unsaid."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.errors import DeviceGone, DriveInUse, EndOfData, PositionLost, TransportFailed
from drivers.interface import BlockNo
from drivers.scsi.cdb import Op
from drivers.scsi.drive import ScsiDrive
from drivers.scsi.transport import Reply
from drivers.vtl.local import LocalTransport
from drivers.vtl.tape import TapeServer
from tests.drivers.contract import FILEMARK, block_of, position, read, read_all, write
from tests.drivers.scsi.bench import ServedBench

ITEMS = [block_of(0), block_of(1, 3000), FILEMARK, block_of(3), block_of(4, 100), FILEMARK, FILEMARK]


class Breaking:
    """A transport that breaks at one command and is a new connection from then on."""

    max_transfer_bytes = LocalTransport.max_transfer_bytes

    def __init__(self, server: TapeServer) -> None:
        self._server = server
        self._way = LocalTransport(server, "first")
        self.seen: list[int] = []
        #: Number of the command to break at, and whether it is done before.
        self.break_at = -1
        self.is_done = False
        self.resets = False
        self.comes_back = True

    def execute(
        self,
        cdb: bytes,
        *,
        data_in: memoryview | None = None,
        data_out: bytes | memoryview | None = None,
        timeout_s: float,
    ) -> Reply:
        number = len(self.seen)
        self.seen.append(cdb[0])
        if self.break_at < 0 or number < self.break_at:
            return self._way.execute(cdb, data_in=data_in, data_out=data_out, timeout_s=timeout_s)
        if number > self.break_at:
            if not self.comes_back:
                raise DeviceGone("no answer")
            return self._way.execute(cdb, data_in=data_in, data_out=data_out, timeout_s=timeout_s)
        if self.is_done:
            # Where an answer is lost, so are its data.
            room = memoryview(bytearray(len(data_in))) if data_in is not None else None
            self._way.execute(cdb, data_in=room, data_out=data_out, timeout_s=timeout_s)
        if self.resets:
            self._server.reset()
        self._way.close()
        self._way = LocalTransport(self._server, "second")
        raise TransportFailed("the cable was pulled")

    def close(self) -> None:
        self._way.close()


def use(drive: ScsiDrive) -> list[bytes]:
    """Load, write, move, look, read, unload; return what was read."""
    drive.load(compress=False)
    write(drive, *ITEMS, sync=True)
    assert drive.status().loaded
    drive.rewind()
    drive.space_filemarks(1)
    found = [read(drive, 200_000)]
    drive.locate(BlockNo(1))
    found.append(read(drive))
    drive.locate(BlockNo(0))
    with pytest.raises(ValueError, match="1000"):
        read(drive, 10)
    found.append(read(drive))
    drive.seek_end()
    write(drive, block_of(7))
    assert drive.position() == position(8, 3)
    drive.unload()
    assert not drive.status().loaded
    drive.load()
    found += read_all(drive)
    counters = drive.status().counters
    assert (counters.blocks_written, counters.loads) == (5, 2)
    return found


EXPECTED = [block_of(3), block_of(1, 3000), block_of(0), *ITEMS, block_of(7)]


def opened(bench: ServedBench, folder: Path) -> tuple[ScsiDrive, Breaking]:
    way = Breaking(bench.server)
    return ScsiDrive(way, folder), way


def commands_used(tmp_path: Path) -> int:
    drive, way = opened(ServedBench(tmp_path / "probe"), tmp_path / "probe" / "own")
    begun = len(way.seen)
    assert use(drive) == EXPECTED
    drive.close()
    return len(way.seen) - begun


@pytest.mark.parametrize("is_done", [False, True], ids=["not done", "done"])
def test_work_goes_on_at_every_command(tmp_path: Path, is_done: bool) -> None:
    count = commands_used(tmp_path)
    assert count > 30
    for number in range(count - 2):
        bench = ServedBench(tmp_path / str(number))
        drive, way = opened(bench, tmp_path / str(number) / "own")
        way.break_at, way.is_done = len(way.seen) + number, is_done
        assert use(drive) == EXPECTED, f"broken at command {number}: {way.seen[way.break_at]:#x}"
        drive.close()


@pytest.mark.parametrize("is_done", [False, True], ids=["not done", "done"])
def test_a_reset_meanwhile_is_never_taken_for_a_break(tmp_path: Path, is_done: bool) -> None:
    """The drive lost its buffer: what was not synced must not count as written."""
    for at in range(1, len(ITEMS)):
        bench = ServedBench(tmp_path / str(at))
        drive, way = opened(bench, tmp_path / str(at) / "own")
        drive.load()
        write(drive, *ITEMS[:at])
        way.break_at, way.is_done, way.resets = len(way.seen), is_done, True
        with pytest.raises((PositionLost, TransportFailed)):
            write(drive, ITEMS[at])
        with pytest.raises(PositionLost):
            drive.position()
        with pytest.raises(PositionLost):
            write(drive, b"x")
        drive.rewind()
        assert drive.position().block == 0
        drive.close()


def test_a_device_that_is_gone_stays_gone(tmp_path: Path) -> None:
    bench = ServedBench(tmp_path)
    drive, way = opened(bench, tmp_path / "own")
    drive.load()
    write(drive, block_of(0))
    way.break_at, way.comes_back = len(way.seen), False
    with pytest.raises(TransportFailed):
        write(drive, block_of(1))
    with pytest.raises(PositionLost):
        drive.position()
    with pytest.raises(DeviceGone):
        drive.rewind()
    told: list[str] = []
    drive._session.report = told.append
    drive.close()
    assert len(told) == 1
    assert "not let go" in told[0]
    # The dead one still holds the reservation: others are kept out, its own installation takes it over.
    with pytest.raises(DriveInUse, match="another host"):
        ScsiDrive(LocalTransport(bench.server, "another host"), tmp_path / "notes of another host")
    ScsiDrive(LocalTransport(bench.server, "the next process"), tmp_path / "own").close()
    ScsiDrive(LocalTransport(bench.server, "another host"), tmp_path / "notes of another host").close()


def test_a_flush_that_broke_is_given_again(tmp_path: Path) -> None:
    bench = ServedBench(tmp_path)
    drive, way = opened(bench, tmp_path / "own")
    drive.load()
    write(drive, block_of(0), FILEMARK)
    way.break_at, way.is_done = len(way.seen), True
    before = len(way.seen)
    drive.write_filemarks(0, sync=True)
    assert way.seen[before:].count(Op.WRITE_FILEMARKS_6) == 2
    drive.close()
    again = bench.loaded()
    assert read_all(again) == [block_of(0), FILEMARK]
    with pytest.raises(EndOfData):
        read(again)
    again.close()
