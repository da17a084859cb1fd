"""Locates are noted while frames are recalled, and a drive's motion is learnt from them."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from catalog.ids import FrameNo
from drivers.interface import BlockNo
from drivers.virtual.motion import Coefficients, Motion, motion_of
from tapefs.recall.locates import Line, LocateLog, learn, motion_of_drive
from tapefs.recall.stager import Stager
from tests.backup.test_recall import Archived, archived

__all__ = ["archived"]

TRUTH = Motion(motion_of(8).generation, Coefficients(1 / 7, 3.0, 8.0, 2.0, -5.0, 6.0, 9.0))


def noted(path: Path) -> list[Line]:
    return [msgspec.json.decode(line, type=Line) for line in path.read_bytes().splitlines()]


def write(path: Path, count: int) -> None:
    """Write locates as a drive of other coefficients makes them."""
    chance = random.Random(1)
    places = [chance.randrange(TRUTH.generation.capacity_bytes) for _ in range(count + 1)]
    lines = [
        Line(start=start, target=target, predicted_s=0.0, seconds=TRUTH.locate_s(start, target))
        for start, target in pairwise(places)
    ]
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))


def test_recalls_note_what_the_drive_took(archived: Archived) -> None:
    """The virtual drive moves as predicted, but for filemarks and short blocks, which count as whole ones there."""
    rig, copy = archived.rig, archived.copy
    rig.home.drives.mkdir(exist_ok=True)
    log = LocateLog(rig.home.drives, "drive0", rig.drive)
    stager = Stager(rig.home, rig.ledger, rig.drive, copy.volume_id, archived.heard, log)
    for frame in (30, 2, 17):
        stager.fetch(copy.segment_id, FrameNo(frame), FrameNo(frame))
    stager.close()
    (path,) = rig.home.drives.glob("drive0.lto*.locates")
    lines = noted(path)
    # 17 is a short way ahead of 2: read over.
    assert len(lines) == 2
    assert lines[1].start > lines[1].target > copy.payload_block * copy.block_size
    for line in lines:
        assert line.seconds == pytest.approx(line.predicted_s, abs=0.05)
        assert line.seconds > 1


@pytest.mark.log_warnings
def test_a_disk_that_takes_no_note_does_not_stop_the_recall(archived: Archived, tmp_path: Path) -> None:
    rig = archived.rig
    log = LocateLog(tmp_path / "missing", "drive0", rig.drive)
    rig.drive.locate(BlockNo(0))
    log.locate(BlockNo(archived.copy.payload_block), archived.copy.block_size)
    assert rig.drive.position().block == archived.copy.payload_block


def test_a_motion_is_learnt_and_used(tmp_path: Path) -> None:
    write(tmp_path / "drive0.lto8.locates", 1500)
    learned = learn(tmp_path, "drive0", 8)
    assert learned is not None
    assert learned.error_s < 0.2 < 1 < learned.error_before_s
    assert motion_of_drive(tmp_path, "drive0", 8).coefficients == learned.coefficients
    # Hardly any of these stays on its wrap: only the two together are known.
    assert learned.coefficients.start_s + learned.coefficients.wrap_change_s == pytest.approx(11, abs=0.3)
    assert motion_of_drive(tmp_path, "drive1", 8).coefficients == motion_of(8).coefficients
    assert motion_of_drive(tmp_path, "drive0", 7).coefficients == motion_of(7).coefficients


def test_too_few_locates_and_a_good_model_teach_nothing(tmp_path: Path) -> None:
    assert learn(tmp_path, "drive0", 8) is None
    write(tmp_path / "drive0.lto8.locates", 150)
    assert learn(tmp_path, "drive0", 8) is None
    assert motion_of_drive(tmp_path, "drive0", 8).coefficients == motion_of(8).coefficients


def test_a_long_log_keeps_its_newest_lines_and_a_torn_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "drive0.lto8.locates"
    write(path, 9000)
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert learn(tmp_path, "drive0", 8) is not None
    assert path.read_bytes() == b"".join(whole[:-30].splitlines(keepends=True)[-2000:])


@pytest.mark.log_warnings
def test_an_unreadable_motion_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "drive0.lto8.motion").write_bytes(b"{")
    assert motion_of_drive(tmp_path, "drive0", 8).coefficients == motion_of(8).coefficients


@pytest.mark.parametrize("generation", [0, 4, 10])
def test_any_generation_has_a_motion(tmp_path: Path, generation: int) -> None:
    assert motion_of_drive(tmp_path, "drive0", generation).generation.number in (5, 9)
    assert learn(tmp_path, "drive0", generation) is None
