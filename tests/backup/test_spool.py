"""Segments that go to disk before they go to tape: the same set, a drive that streams, and nothing left behind."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

import tapefs.backup.spool as spool_module
from catalog.errors import StorageFailed
from catalog.records import SetState
from drivers.virtual.faults import EarlyEnd, WriteError
from tapefs.bench.spool import backup_slowly
from tapefs.errors import Cancelled
from tests.backup.rig import Rig
from tests.backup.test_trouble import with_faults
from tests.backup.trees import extract, odd_tree, random_files, snapshot

_MIB = 1024**2


def assert_clean(rig: Rig) -> None:
    """Nothing waits in the spool, and every local trailer belongs to a segment."""
    assert list(rig.home.spool.iterdir()) == []
    segments = {each.segment_id for made in rig.ledger.backup_sets() for each in rig.ledger.segments(made.set_id)}
    assert {path.stem for path in rig.home.trailers.iterdir()} <= segments


def test_a_spooled_set_is_the_same_set(rig: Rig, tmp_path: Path) -> None:
    """Over several segments, with a file that runs over frames."""
    tree = odd_tree(tmp_path)
    random_files(tree / "files", 12, 1_000_000)
    random_files(tree / "large", 1, 4_500_000)
    set_id = rig.backup(tree, spool=True)
    assert len(rig.ledger.segments(set_id)) >= 4
    assert snapshot(Path(f"{extract(rig, tmp_path / 'out')}{tree}")) == snapshot(tree)
    assert_clean(rig)


def test_the_settings_say_whether_and_a_job_may_say_otherwise(
    make_rig: Callable[..., Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real = spool_module.Spooled.__init__
    monkeypatch.setattr(spool_module.Spooled, "__init__", lambda *given: (made.append(1), real(*given))[1])
    rig = make_rig(backup_settings="spool = true")
    tree = random_files(tmp_path / "tree", 3, 1000)
    rig.backup(tree)
    assert len(made) == 1
    rig.backup(tree, spool=False)
    assert len(made) == 1


@pytest.mark.log_warnings
@pytest.mark.parametrize(
    "fault", [WriteError(block=90, barcode="TP0001L9"), EarlyEnd(block=90, barcode="TP0001L9", warning_blocks=0)]
)
def test_a_segment_that_the_tape_refuses_goes_to_the_next_one(
    make_rig: Callable[..., Rig], tmp_path: Path, fault: WriteError | EarlyEnd
) -> None:
    """With those spooled behind it."""
    rig = make_rig(tapes=2)
    with_faults(rig, fault)
    tree = random_files(tmp_path / "tree", 40, 1_000_000)
    set_id = rig.backup(tree, spool=True)
    assert "TP0002L9" in rig.ledger.backup_set(set_id).tapes
    rig.drive.unload()
    restored = rig.ledger.segments(set_id)
    assert [each.number for each in restored] == list(range(len(restored)))
    assert_clean(rig)


def test_a_cancelled_job_leaves_nothing(rig: Rig, tmp_path: Path) -> None:
    looks = []

    def cancel() -> None:
        looks.append(1)
        if len(looks) > 2:
            raise Cancelled("it was cancelled")

    rig.watcher.interrupt = cancel
    tree = tmp_path / "big"
    with tree.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 3_000 * _MIB)
    with pytest.raises(Cancelled):
        rig.backup(tree, spool=True)
    assert_clean(rig)


# -- room ----------------------------------------------------------------------------------------------------------


class FullDisk:
    """A file of the spool on a disk with room for so many bytes."""

    def __init__(self, file: object, room: list[int]) -> None:
        self._file = file
        self._room = room

    def write(self, data: memoryview) -> int:
        self._room[0] -= len(data)
        if self._room[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self._file.write(data)  # type: ignore[attr-defined,no-any-return]

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


@pytest.mark.parametrize("room", [0, 3_000_000, 16_000_000])
def test_a_disk_that_fills_up_ends_the_job_and_harms_nothing(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """What was committed before is good; no tape is set aside; the next run works."""
    tree = random_files(tmp_path / "tree", 40, 1_000_000)
    left, real = [room], tempfile.TemporaryFile
    monkeypatch.setattr(spool_module.tempfile, "TemporaryFile", lambda **options: FullDisk(real(**options), left))
    with pytest.raises(StorageFailed, match="cannot write to the spool: No space left") as caught:
        rig.backup(tree, spool=True)
    assert caught.value.retryable
    monkeypatch.undo()
    assert all(made.state is SetState.FAILED for made in rig.ledger.backup_sets())
    assert_clean(rig)
    rig.backup(tree, spool=True)
    assert rig.ledger.backup_sets()[-1].tapes == ("TP0001L9",)


def test_a_spool_larger_than_the_disk_is_refused_before_a_tape_is_touched(
    make_rig: Callable[..., Rig], tmp_path: Path
) -> None:
    rig = make_rig(backup_settings=f"spool = true\nspool_bytes = {2**60}")
    with pytest.raises(StorageFailed, match=r"lower backup.spool_bytes"):
        rig.backup(random_files(tmp_path / "tree", 1, 1000))
    assert rig.watcher.asked == 0


def test_two_segments_fit_the_spool(
    make_rig: Callable[..., Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments become smaller for it, and never are there more than two."""
    rig = make_rig(tape_bytes=4_000 * _MIB, backup_settings=f"spool = true\nspool_bytes = {20 * _MIB}")
    held, most = [0], [0]
    real_begin, real_close = spool_module.SpoolStage._begin, spool_module.Spooled.close

    def begin(stage: spool_module.SpoolStage, plan: object) -> None:
        real_begin(stage, plan)  # type: ignore[arg-type]
        held[0] += 1
        most[0] = max(most[0], held[0])

    def close(spooled: spool_module.Spooled) -> None:
        held[0] -= 1
        real_close(spooled)

    monkeypatch.setattr(spool_module.SpoolStage, "_begin", begin)
    monkeypatch.setattr(spool_module.Spooled, "close", close)
    set_id = rig.backup(random_files(tmp_path / "tree", 45, 1_000_000))
    sizes = [each.stored_bytes for each in rig.ledger.segments(set_id)]
    assert len(sizes) >= 5
    assert max(sizes) < 10 * _MIB
    assert most[0] <= 2


# -- streaming -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spool", "buffer_bytes"), [(True, 0), (True, 8 * _MIB), (False, 0), (False, 8 * _MIB)])
def test_a_slow_source_makes_the_drive_stop_unless_it_is_spooled(
    tmp_path: Path, spool: bool, buffer_bytes: int
) -> None:
    """100 MB/s against a drive that needs 177: with the spool it stops for the sync behind every segment alone."""
    tree = random_files(tmp_path / "tree", 100, 1_000_000)
    run = backup_slowly(tmp_path / "home", tree, spool=spool, buffer_bytes=buffer_bytes)
    assert run.seconds == pytest.approx(1.0, rel=0.01)
    assert run.segments >= 3
    assert run.buffer.size_bytes == buffer_bytes
    assert run.buffer.starts == (run.segments + run.buffer.stops if buffer_bytes else 0)
    if spool:
        assert run.drive.underruns == 0
        assert run.drive.backhitches == run.segments
    else:
        assert run.drive.underruns >= 3
        assert run.drive.backhitches >= run.segments + 3
