"""The level that a run chooses for each frame: the controller, and what slow drives and workers make of it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tapefs.backup.frames import Frame, Pool, Workers, frames_for
from tapefs.backup.levels import LevelControl, Pressure
from tapefs.codecs import AUTO_LEVEL, CODECS, Encoder
from tapefs.codecs.shelf import Shelf
from tapefs.codecs.zstd import ZstdCodec
from tapefs.report.files import read_report
from tapefs.tape.fill import FillCounts
from tests.backup.rig import Rig

FRAME_BYTES = 64 * 1024
WORKERS = 2
#: Compressing is what everything waits for: frames wait for workers, the drive takes all.
PRESSED = Pressure(waiting=WORKERS, finished=0, drive_is_hungry=True, lateness=0.0)
#: The same, seen by workers that have no processor, as the intake has none to fill frames with.
CROWDED = Pressure(waiting=0, finished=0, drive_is_hungry=True, lateness=0.3)
SLOW_DRIVE = Pressure(waiting=WORKERS, finished=0, drive_is_hungry=False, lateness=0.3)
SLOW_WRITER = Pressure(waiting=WORKERS, finished=WORKERS + 1, drive_is_hungry=True, lateness=0.0)
SLOW_SOURCE = Pressure(waiting=0, finished=0, drive_is_hungry=True, lateness=0.0)
BALANCED = Pressure(waiting=1, finished=1, drive_is_hungry=True, lateness=0.0)


def levels(control: LevelControl, *seen: Pressure) -> list[int]:
    return [control.next(each) for each in seen]


@pytest.fixture
def control() -> LevelControl:
    return LevelControl(range(1, 4), WORKERS)


@pytest.mark.parametrize("pressure", [PRESSED, CROWDED])
def test_it_goes_down_step_by_step_while_workers_hold_all_up(control: LevelControl, pressure: Pressure) -> None:
    assert levels(control, *[pressure] * 9) == [3, 3, 2, 2, 2, 1, 1, 1, 1]


@pytest.mark.parametrize("pressure", [SLOW_DRIVE, SLOW_WRITER, SLOW_SOURCE])
def test_it_goes_up_again_when_they_do_not(control: LevelControl, pressure: Pressure) -> None:
    levels(control, *[PRESSED] * 6)
    assert levels(control, *[pressure] * 24) == [*[1] * 7, *[2] * 8, *[3] * 9]


@pytest.mark.parametrize("pressure", [SLOW_DRIVE, SLOW_WRITER, SLOW_SOURCE, BALANCED])
def test_without_need_it_stays_where_it_begins(control: LevelControl, pressure: Pressure) -> None:
    assert set(levels(control, *[pressure] * 100)) == {3}


def test_a_hiccup_changes_nothing(control: LevelControl) -> None:
    assert set(levels(control, *[PRESSED, PRESSED, BALANCED] * 20)) == {3}
    assert set(levels(control, *[PRESSED, PRESSED, SLOW_DRIVE] * 20)) == {3}


class GatedCodec(ZstdCodec):
    """zstd whose encoders wait until they are let on."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Semaphore(0)

    def encoder(self, level: int, shelf: Shelf | None = None) -> Encoder:
        encode = super().encoder(level, shelf)

        def gated(plain: bytes | memoryview) -> bytes | memoryview:
            self.gate.acquire()
            return encode(plain)

        return gated


def levels_of(fills: FillCounts) -> dict[int, int]:
    """Have one worker compress twelve frames that are all there when it begins; return frames by level."""
    codec, pool = GatedCodec(), Pool.of(20, FRAME_BYTES)
    workers = Workers(1, codec, AUTO_LEVEL, pool, fills)
    frames: list[Frame] = []
    for _ in range(12):
        frame = pool.take()
        frame.used = FRAME_BYTES
        workers.submit(frame)
        frames.append(frame)
    for frame in frames:
        codec.gate.release()
        frame.ready.wait()
        assert frame.error is None
        pool.give_back(frame)
    workers.close()
    return dict(workers.levels)


def test_slow_workers_and_a_fast_drive_make_levels_lower() -> None:
    counted = levels_of(FillCounts(drive_is_hungry=True))
    assert sum(counted.values()) == 12
    assert counted[1] >= 4


def test_behind_a_slow_drive_all_frames_have_the_highest() -> None:
    assert levels_of(FillCounts(drive_is_hungry=False)) == {3: 12}


def test_a_fixed_level_stays_and_the_report_counts_frames(tmp_path: Path) -> None:
    rig = Rig(tmp_path, backup_settings=f"frame_bytes = {FRAME_BYTES}\nthreads = 1")
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"".join(number.to_bytes(4, "big") for number in range(1_000_000)))
    for wanted in (AUTO_LEVEL, 2):
        set_id = rig.backup(tree, level=wanted)
        report = read_report(rig.home, set_id)
        assert report is not None
        (segment,) = rig.ledger.segments(set_id)
        assert sum(report.levels.values()) == segment.frames > 50
        assert set(report.levels) <= (set(CODECS["zstd"].auto_levels) if wanted == AUTO_LEVEL else {2})
    rig.close()


def test_there_are_frames_for_everyone() -> None:
    """One at work and one waiting for each worker, and some between the other threads; 200 MiB for 16."""
    assert frames_for(1) >= 6
    assert frames_for(16) * 4 < 200
