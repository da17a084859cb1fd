import os
from pathlib import Path

import pytest

from tapefs.staging import stage
from tapefs.staging.area import StagingArea
from tapefs.staging.stage import SegmentStage
from tapefs.staging.worth import Tape
from tests.staging.content import (
    FRAME_BYTES,
    FRAMES,
    OTHER,
    PLAIN,
    SEGMENT,
    frame_content,
    opened,
    publish_all,
    reboot,
)

TOTAL = len(PLAIN)
SLACK = 2 * 4096 * FRAMES


class Clock:
    """Stands in for the time since the machine was started."""

    def __init__(self) -> None:
        self.now_s = 1000

    def __call__(self) -> int:
        return self.now_s


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stage, "now_s", clock)
    return clock


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "staging"


@pytest.fixture
def area(folder: Path) -> StagingArea:
    return StagingArea(folder)


def test_a_missing_folder_is_empty(area):
    assert area.used_bytes() == 0
    assert area.evict_all() == 0
    assert area.shrink_to(0) == 0


def test_used_bytes_are_allocated_blocks(area, folder):
    with opened(folder) as one, opened(folder, OTHER):
        assert area.used_bytes() == 0
        one.publish(7, frame_content(one, 7))
        assert FRAME_BYTES <= area.used_bytes() <= FRAME_BYTES + 2 * 4096
        publish_all(one)
        assert TOTAL <= area.used_bytes() <= TOTAL + 8192


def test_evict_all_and_of_one_segment(area, folder):
    with opened(folder) as one, opened(folder, OTHER) as two:
        publish_all(one)
        publish_all(two)
        assert area.evict_all([OTHER]) == TOTAL
        assert one.has(range(FRAMES))
        assert two.missing(range(FRAMES)) == list(range(FRAMES))
        pin = one.pin(range(2))
        assert pin is not None
        assert area.evict_all() == TOTAL - 2 * FRAME_BYTES
        pin.release()
        assert area.evict_all() == 2 * FRAME_BYTES
        assert area.used_bytes() == 0


def test_shrinking_takes_what_was_used_longest_ago(folder, clock):
    area = StagingArea(folder, clock)
    with opened(folder) as one, opened(folder, OTHER) as two:
        publish_all(one)
        clock.now_s += 5000
        publish_all(two)
        clock.now_s += 10
        one.touch(range(8, FRAMES))
        # The first half of `one` is oldest; then `two`, as a longer run than the other half and used before it.
        area.shrink_to(TOTAL + 8 * FRAME_BYTES + SLACK // 2)
        assert one.missing(range(FRAMES)) == list(range(8))
        assert two.has(range(FRAMES))
        clock.now_s += 10
        two.touch(range(12, 16))
        area.shrink_to(12 * FRAME_BYTES + SLACK // 2)
        assert one.has(range(8, FRAMES))
        assert two.missing(range(FRAMES)) == list(range(12))
        area.shrink_to(4 * FRAME_BYTES + 3 * 4096)
        assert area.used_bytes() <= 4 * FRAME_BYTES + 3 * 4096


def test_shrinking_takes_runs_before_single_frames_and_what_is_near_first(folder, clock):
    area = StagingArea(folder, clock)
    with opened(folder) as one, opened(folder, OTHER) as two:
        for frame in range(0, FRAMES, 4):
            one.publish(frame, frame_content(one, frame))
        clock.now_s += 100
        publish_all(two)
        clock.now_s += 100
        area.shrink_to(10 * FRAME_BYTES + SLACK // 2)
        assert one.missing(range(FRAMES)) == [frame for frame in range(FRAMES) if frame % 4]
        left = FRAMES - len(two.missing(range(FRAMES)))
        assert left in range(5, 9)
        area.shrink_to(left * FRAME_BYTES + SLACK // 2, tapes={OTHER: Tape(None)})
        assert not one.has(range(1))
        assert FRAMES - len(two.missing(range(FRAMES))) == left


def test_removing_leaves_only_what_is_open(area, folder):
    with opened(folder) as one, opened(folder, OTHER) as two:
        publish_all(one)
        publish_all(two)
        pin = two.pin(range(3, 4))
        assert area.remove([SEGMENT, OTHER]) == 2 * TOTAL - FRAME_BYTES
        assert area.segments() == [OTHER]
        assert two.read(3 * FRAME_BYTES, FRAME_BYTES) == frame_content(two, 3)
        pin.release()
        area.remove([OTHER])
        assert {path.name for path in folder.iterdir()} == {"lock"}


def test_shrinking_spares_pinned_frames(area, folder):
    with opened(folder) as one, opened(folder, OTHER) as two:
        publish_all(one)
        publish_all(two)
        pinned = {SEGMENT: [(2, 3), (15, 15)], OTHER: [(0, 15)]}
        assert area.shrink_to(0, pinned=pinned) == 13 * FRAME_BYTES
        assert one.missing(range(FRAMES)) == [0, 1, *range(4, 15)]
        assert two.has(range(FRAMES))
        assert area.missing({SEGMENT: [(0, 5)], OTHER: [(3, 3)]}) == 4
        assert area.evict_all([OTHER], {OTHER: [(1, 1), (4, 20)]}) == 3 * FRAME_BYTES
        assert two.missing(range(FRAMES)) == [0, 2, 3]


def test_shrinking_stops_at_the_limit(area, folder, clock):
    with opened(folder) as one:
        for frame in range(FRAMES):
            clock.now_s += 1
            one.publish(frame, frame_content(one, frame))
        assert area.shrink_to(TOTAL + SLACK) == 0
        assert area.shrink_to(TOTAL - 3 * FRAME_BYTES // 2) == 2 * FRAME_BYTES
        assert one.missing(range(FRAMES)) == [0, 1]


def test_shrinking_spares_kept_segments_and_pins(area, folder, clock):
    with opened(folder) as one, opened(folder, OTHER) as two:
        publish_all(one)
        clock.now_s += 10
        publish_all(two)
        pin = two.pin(range(1))
        assert pin is not None
        assert area.shrink_to(0, keep=[SEGMENT]) == TOTAL - FRAME_BYTES
        assert one.has(range(FRAMES))
        assert two.has(range(1))
        assert two.read(0, FRAME_BYTES) == PLAIN[:FRAME_BYTES]
        pin.release()
        assert area.shrink_to(0) == TOTAL + FRAME_BYTES
        assert area.used_bytes() == 0


def test_shrinking_frees_what_a_killed_mover_left(area, folder):
    with opened(folder) as one:
        fd = os.open(folder / f"{SEGMENT}.plain", os.O_WRONLY)
        os.pwrite(fd, b"x" * 50_000, 3 * FRAME_BYTES)
        os.close(fd)
        assert area.used_bytes() > 0
        assert area.shrink_to(0) == 0
        assert area.used_bytes() == 0
        publish_all(one)
        assert one.read(0, TOTAL) == PLAIN


def test_emptying_removes_what_an_earlier_boot_left(area, folder, monkeypatch):
    with opened(folder) as one:
        publish_all(one)
    reboot(monkeypatch)
    assert area.evict_all() >= TOTAL
    assert area.used_bytes() == 0
    assert area.segments() == []
    assert SegmentStage.open(folder, SEGMENT) is None


def test_what_an_earlier_boot_left_goes_first_in_the_order_of_its_use(area, folder, monkeypatch, clock):
    with opened(folder) as one:
        for frame in range(FRAMES):
            clock.now_s += 1
            one.publish(frame, frame_content(one, frame))
    reboot(monkeypatch, later_s=5000)
    clock.now_s = 10
    with opened(folder, OTHER) as two:
        publish_all(two)
        area.shrink_to(2 * TOTAL - 4 * FRAME_BYTES)
        assert two.has(range(FRAMES))
        with opened(folder) as one:
            left = one.doubtful(range(FRAMES))
        assert left == list(range(left[0], FRAMES))
        assert left[0] in range(4, 6)


def test_reviving_the_area(area, folder, monkeypatch):
    with opened(folder) as one, opened(folder, OTHER) as two:
        publish_all(one)
        two.publish(3, frame_content(two, 3))
    reboot(monkeypatch)
    assert area.doubtful() == []
    assert area.adopt() == 2
    assert area.adopt() == 0
    runs = area.doubtful()
    assert sorted(runs, key=str) == sorted([(SEGMENT, range(FRAMES)), (OTHER, range(3, 4))], key=str)
    assert sum(area.revive(*run) for run in runs) == FRAMES + 1
    assert area.doubtful() == []
    with opened(folder) as one, opened(folder, OTHER) as two:
        assert one.read(0, TOTAL) == PLAIN
        assert two.missing(range(FRAMES)) == [frame for frame in range(FRAMES) if frame != 3]


def test_foreign_files_are_left_alone(area, folder):
    with opened(folder) as one:
        publish_all(one)
        (folder / "notes.plain").write_text("mine")
        (folder / "readme").write_text("mine")
        assert area.segments() == [SEGMENT]
        area.evict_all()
        assert (folder / "notes.plain").read_text() == "mine"
