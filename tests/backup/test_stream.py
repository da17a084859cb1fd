"""A stream of unknown length becomes a set of one file that every reader gets whole."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.ids import DirectoryNo, SetId
from catalog.index.model import EntryFlag
from catalog.index.reader import IndexReader
from catalog.records import SetState, VolumeState
from drivers.virtual.faults import WriteError
from tapefs.codecs import CODECS
from tapefs.errors import Cancelled, SourceError
from tapefs.stream_words import StreamState, StreamTask
from tests.backup.rig import Rig
from tests.backup.test_trouble import with_faults
from tests.untape.runs import cartridges, untape

_MIB = 1024**2
PART = _MIB
NAME = "dump.sql"


class Fed:
    """A stream that a test fills."""

    def __init__(self, folder: Path, data: bytes = b"", *, ends: bool = True, part_bytes: int = PART) -> None:
        self.path = folder / "stream"
        self.path.write_bytes(data)
        self.task = StreamTask(file=str(self.path), part_bytes=part_bytes, uid=1234, gid=77)
        self.now = StreamState(bytes=len(data), ended_ns=time.time_ns() if ends else 0)
        self.freed: list[int] = []
        self._changed = threading.Condition()

    def state(self) -> StreamState:
        return self.now

    def wait(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait(seconds)

    def kept(self, up_to: int) -> None:
        self.freed.append(up_to)

    def grow(self, data: bytes, **more: object) -> None:
        with self.path.open("ab") as file:
            file.write(data)
        with self._changed:
            self.now = StreamState(bytes=self.now.bytes + len(data), **more)  # type: ignore[arg-type]
            self._changed.notify_all()


def stored(rig: Rig, inflow: Fed, **fields: object) -> SetId:
    job = rig.queued(f"/{NAME}".encode(), name="dumps", stream=NAME, **fields)
    from tapefs.backup.run import run_backup

    return run_backup(rig.home, rig.ledger, rig.drive, job, rig.watcher, inflow)


def entry_of(rig: Rig, set_id: SetId) -> tuple[int, int, int, int, int, int]:
    reader = IndexReader(rig.home.index(set_id))
    try:
        found = reader.lookup(reader.directory(DirectoryNo(0)), NAME.encode())
        assert found is not None
        entry = found[1]
        has_extents = bool(entry.flags & EntryFlag.SPLIT)
        extents = len(reader.extents(found[0])) if has_extents else 0
        return entry.mode, entry.uid, entry.gid, entry.size, entry.mtime_ns, extents
    finally:
        reader.close()


def untaped(rig: Rig, set_id: SetId, tmp_path: Path) -> bytes:
    out = tmp_path / "untaped"
    done = untape("restore", set_id, *cartridges(rig), "--to", out)
    assert done.code == 0, done.told
    return (out / NAME).read_bytes()


@pytest.mark.parametrize("size", [0, 1, 511, PART - 1, PART, PART + 1, 2 * PART, 3 * PART + 7])
def test_any_length(rig: Rig, tmp_path: Path, size: int) -> None:
    data = random.Random(size).randbytes(size)
    inflow = Fed(tmp_path, data)
    set_id = stored(rig, inflow)
    backup_set = rig.ledger.backup_set(set_id)
    parts = max(1, -(-size // PART))
    assert (backup_set.state, backup_set.segments, backup_set.files) == (SetState.COMPLETE, parts, 1)
    assert backup_set.bytes == size
    extents = 0 if parts == 1 else parts
    assert entry_of(rig, set_id) == (0o100600, 1234, 77, size, inflow.now.ended_ns, extents)
    assert untaped(rig, set_id, tmp_path) == data


def test_gnu_tar_gets_the_parts(rig: Rig, tmp_path: Path) -> None:
    """As docs/format.md says for files in parts: `cat` puts them together."""
    data = random.Random(1).randbytes(2 * PART + 100)
    set_id = stored(rig, Fed(tmp_path, data))
    out = tmp_path / "out"
    out.mkdir()
    cartridge = rig.home.library / "cartridges" / rig.ledger.backup_set(set_id).tapes[0]
    for number in range(3):
        payload = cartridge / f"{3 + 3 * number:05}"
        command = f"zstd -dc < {payload} | tar -xpf - --warning=no-unknown-keyword -C {out}"
        subprocess.run(["bash", "-o", "pipefail", "-c", command], check=True)
    parts = sorted(out.iterdir())
    assert [part.name for part in parts] == [f"{NAME}.tapefs-part-{number:04}" for number in range(3)]
    assert b"".join(part.read_bytes() for part in parts) == data


def test_it_is_taken_while_it_comes_and_its_beginning_let_go(rig: Rig, tmp_path: Path) -> None:
    """A part goes to tape before the next is there; what is committed is told, so that the disk has it no more."""
    pieces = [random.Random(number).randbytes(PART) for number in range(6)]
    inflow = Fed(tmp_path, pieces[0] + pieces[1], ends=False)
    seen: list[int] = []

    def feed() -> None:
        for piece in pieces[2:]:
            deadline = time.monotonic() + 60
            # Not before the part that came first is on tape.
            while not inflow.freed[len(seen) :] and time.monotonic() < deadline:
                time.sleep(0.01)
            seen.append(len(inflow.freed))
            inflow.grow(piece)
        inflow.grow(b"end", ended_ns=5 * 10**9)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        set_id = stored(rig, inflow)
    finally:
        feeder.join()
    assert untaped(rig, set_id, tmp_path) == b"".join(pieces) + b"end"
    assert inflow.freed == sorted(inflow.freed)
    assert inflow.freed[:4] == [PART, 2 * PART, 3 * PART, 4 * PART]
    assert entry_of(rig, set_id)[4] == 5 * 10**9


def test_larger_than_a_tape(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """What does not come to be on one tape is written to the next, from what is still there."""
    rig = make_rig(tapes=6, tape_bytes=16 * _MIB)
    data = random.Random(2).randbytes(24 * _MIB)
    inflow = Fed(tmp_path, data, part_bytes=2 * _MIB)
    set_id = stored(rig, inflow)
    assert len(rig.ledger.backup_set(set_id).tapes) >= 3
    assert untaped(rig, set_id, tmp_path) == data


@pytest.mark.log_warnings
def test_a_tape_that_fails_in_the_middle(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    rig = make_rig(tapes=2, tape_bytes=200 * _MIB)
    with_faults(rig, WriteError(block=20))
    data = random.Random(3).randbytes(8 * _MIB)
    set_id = stored(rig, Fed(tmp_path, data, part_bytes=2 * _MIB))
    assert rig.ledger.backup_set(set_id).state is SetState.COMPLETE
    assert untaped(rig, set_id, tmp_path) == data


@pytest.mark.parametrize("codec", ["pgzip", "tar", "py7zr"])
def test_other_codecs_and_read_back(rig: Rig, tmp_path: Path, codec: str) -> None:
    data = random.Random(4).randbytes(2 * PART + 1)
    level = CODECS[codec].default_level
    set_id = stored(rig, Fed(tmp_path, data), codec=codec, level=level, verify=codec != "py7zr")
    assert untaped(rig, set_id, tmp_path) == data


def test_one_that_breaks_off_is_no_set(rig: Rig, tmp_path: Path) -> None:
    """Two parts are on tape by then; the next backup writes behind them, and nothing of it is shown."""
    inflow = Fed(tmp_path, bytes(2 * PART + 1), ends=False)
    threading.Timer(0.5, lambda: inflow.grow(b"x", broken="the client went away")).start()
    with pytest.raises(SourceError, match="the client went away"):
        stored(rig, inflow)
    (backup_set,) = rig.ledger.backup_sets()
    assert (backup_set.state, backup_set.error) == (SetState.FAILED, "the client went away")
    assert not rig.home.index(backup_set.set_id).exists()
    again = stored(rig, Fed(tmp_path, b"all of it"))
    assert rig.ledger.backup_set(again).state is SetState.COMPLETE
    assert untaped(rig, again, tmp_path) == b"all of it"
    assert [each.state for each in rig.ledger.volumes()].count(VolumeState.APPENDABLE) == 1


def test_cancel_is_heard_while_it_waits(rig: Rig, tmp_path: Path) -> None:
    def cancel() -> None:
        raise Cancelled("it was cancelled")

    rig.watcher.interrupt = cancel
    with pytest.raises(Cancelled):
        stored(rig, Fed(tmp_path, bytes(PART + 1), ends=False))


def test_the_drive_is_lent_while_more_is_waited_for(rig: Rig, tmp_path: Path) -> None:
    inflow = Fed(tmp_path, bytes(PART + 1), ends=False)
    rig.watcher.wanted = lambda: rig.watcher.gave_way == 0
    rig.watcher.meanwhile = lambda: inflow.grow(b"more", ended_ns=time.time_ns())
    set_id = stored(rig, inflow)
    assert rig.watcher.gave_way == 1
    assert untaped(rig, set_id, tmp_path) == bytes(PART + 1) + b"more"


def test_a_job_of_a_stream_that_nobody_sends_fails(rig: Rig) -> None:
    with pytest.raises(SourceError, match=r"dump\.sql is a stream, which nobody sends now"):
        rig.backup(f"/{NAME}".encode(), stream=NAME)
