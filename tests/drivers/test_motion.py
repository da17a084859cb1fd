"""The motion model against published figures, and what the drive accounts for."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from drivers.interface import BlockNo, Seconds
from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.motion import Motion, motion_of
from drivers.virtual.pace import MotionMode, Pace, parse_mode
from drivers.virtual.streaming import BACKHITCH_S
from tests.drivers.benches import MIB, VirtualBench
from tests.drivers.contract import FILEMARK, block_of, read, write

GENERATIONS = [5, 6, 7, 8, 9]


def spread(motion: Motion, count: int = 5000) -> list[int]:
    """Return places spread evenly over the tape."""
    return [int((each + 0.5) / count * motion.generation.capacity_bytes) for each in range(count)]


@pytest.mark.parametrize(
    ("generation", "published_s", "tolerance"),
    [(5, 60, 0.17), (6, 62, 0.17), (7, 56, 0.17), (8, 59, 0.17), (9, 45, 0.02)],
)
def test_mean_locate_from_the_load_point(generation: int, published_s: float, tolerance: float) -> None:
    motion = motion_of(generation)
    mean_s = sum(motion.locate_s(0, byte) for byte in spread(motion)) / 5000
    assert mean_s == pytest.approx(published_s, rel=tolerance)


@pytest.mark.parametrize(("generation", "expected_s"), [(5, 58.4), (6, 58.4), (7, 65.0), (8, 65.1), (9, 45.1)])
def test_mean_locate_stays_as_it_was(generation: int, expected_s: float) -> None:
    """Golden numbers: plans and benchmarks compare across versions only while the model stays."""
    motion = motion_of(generation)
    assert sum(motion.locate_s(0, byte) for byte in spread(motion)) / 5000 == pytest.approx(expected_s, abs=0.1)


@pytest.mark.parametrize(("generation", "published_s"), [(7, 60), (8, 59), (9, 55)])
def test_mean_rewind(generation: int, published_s: float) -> None:
    motion = motion_of(generation)
    assert sum(motion.rewind_s(byte) for byte in spread(motion)) / 5000 == pytest.approx(published_s, rel=0.01)
    assert motion.rewind_s(0) == 0


@pytest.mark.parametrize(
    ("generation", "wrap_gb", "wrap_s"),
    [(5, 18.8, 134), (6, 18.4, 115), (7, 53.6, 179), (8, 57.7, 160), (9, 64.3, 161)],
)
def test_geometry(generation: int, wrap_gb: float, wrap_s: float) -> None:
    motion = motion_of(generation)
    assert motion.generation.wrap_bytes / 1e9 == pytest.approx(wrap_gb, abs=0.06)
    assert motion.read_s(motion.generation.wrap_bytes) == pytest.approx(wrap_s, abs=0.6)


def test_data_runs_to_and_fro() -> None:
    motion = motion_of(8)
    wrap = motion.generation.wrap_bytes
    assert (motion.place(0).wrap, motion.place(0).x_m) == (0, 0)
    assert motion.place(wrap).wrap == 1
    assert motion.place(wrap).x_m == motion.generation.length_m
    assert motion.place(2 * wrap).x_m == 0
    assert [motion.place(52 * each * wrap).band for each in range(4)] == [0, 1, 2, 3]
    assert motion.place(10**15) == motion.place(208 * wrap - 1) or motion.place(10**15).wrap == 207


def test_locate_terms_of_lto8() -> None:
    """Each term of the regression, one at a time."""
    motion = motion_of(8)
    wrap = motion.generation.wrap_bytes
    end_to_end_s = 168_401 * 0.0006192
    quarter, near = wrap // 4, wrap // 4 + wrap // 100
    hundredth_s = end_to_end_s / 100
    assert motion.locate_s(quarter, quarter) == 0
    assert motion.locate_s(quarter, near) == pytest.approx(motion.read_s(near - quarter))
    assert motion.locate_s(near, quarter) == pytest.approx(4.29 + 11.32 + hundredth_s, abs=1e-4)
    assert motion.locate_s(0, 2 * wrap) == pytest.approx(4.29 + 6.69)
    assert motion.locate_s(0, 52 * wrap) == pytest.approx(4.29 + 6.69 + 3.2)
    assert motion.locate_s(0, 53 * wrap) == pytest.approx(4.29 + 6.69 + 3.2 + 5.22 - 6.04 + end_to_end_s)
    assert motion.locate_s(0, wrap - 1) == pytest.approx(4.29 - 6.04 + end_to_end_s, abs=1e-4)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_no_locate_is_negative_or_absurd(generation: int) -> None:
    motion = motion_of(generation)
    chance = random.Random(generation)
    capacity = motion.generation.capacity_bytes
    for _ in range(5000):
        start, target = chance.randrange(capacity), chance.randrange(capacity)
        assert 0 <= motion.locate_s(start, target) < 130


@pytest.mark.parametrize("generation", GENERATIONS)
def test_reading_on_beats_a_locate_up_to_the_break_even(generation: int) -> None:
    motion = motion_of(generation)
    gap = motion.break_even_bytes()
    assert motion.locate_s(0, gap // 2) == pytest.approx(motion.read_s(gap // 2))
    assert motion.locate_s(0, 2 * gap) < motion.read_s(2 * gap)


def test_an_unknown_generation() -> None:
    with pytest.raises(ValueError, match="LTO generation 4"):
        motion_of(4)


# -- what a drive accounts for -------------------------------------------------------------------------------------


@pytest.fixture
def drive(tmp_path: Path) -> VirtualDrive:
    return VirtualBench(tmp_path / "library").loaded()


def seconds(drive: VirtualDrive) -> Seconds:
    return drive.status().counters.seconds


def test_streaming_costs_no_backhitch(drive: VirtualDrive) -> None:
    write(drive, block_of(0), FILEMARK, block_of(2), FILEMARK)
    assert seconds(drive).backhitch == 0
    assert seconds(drive).write == pytest.approx(2000 / 400e6)
    assert seconds(drive).load == 17
    drive.close()


def test_writing_on_after_a_sync_costs_one_backhitch(drive: VirtualDrive) -> None:
    write(drive, block_of(0), FILEMARK, sync=True)
    drive.write_filemarks(0, sync=True)
    assert seconds(drive).backhitch == 0
    write(drive, block_of(2), block_of(3))
    assert seconds(drive).backhitch == BACKHITCH_S
    drive.close()


def test_turning_from_reading_to_writing_costs_a_backhitch(drive: VirtualDrive) -> None:
    write(drive, block_of(0), FILEMARK, sync=True)
    drive.rewind()
    read(drive)
    assert seconds(drive).backhitch == 0
    write(drive, block_of(1))
    assert seconds(drive).backhitch == BACKHITCH_S
    drive.close()


def test_moves_are_counted_and_timed(drive: VirtualDrive) -> None:
    motion = motion_of(9)
    write(drive, block_of(0, MIB), block_of(1, MIB), FILEMARK, sync=True)
    drive.rewind()
    assert seconds(drive).rewind == pytest.approx(motion.rewind_s(2 * MIB))
    drive.locate(BlockNo(1))
    drive.locate(BlockNo(1))
    assert drive.status().counters.locates == 1
    assert seconds(drive).locate == pytest.approx(motion.locate_s(0, MIB))
    drive.locate(BlockNo(0))
    assert seconds(drive).locate == pytest.approx(motion.locate_s(0, MIB) + motion.locate_s(MIB, 0))
    drive.unload()
    assert seconds(drive).load == 17 + 30
    drive.close()


# -- modes ---------------------------------------------------------------------------------------------------------


def test_modes() -> None:
    assert parse_mode("account") == MotionMode(None)
    assert parse_mode("real") == MotionMode(1.0)
    assert parse_mode("scaled:2.5") == MotionMode(2.5)


@pytest.mark.parametrize(
    "text", ["", "Real", "scaled", "scaled:", "scaled:0", "scaled:-1", "scaled:nan", "scaled:inf", "scaled:x"]
)
def test_a_senseless_mode_is_explained(text: str) -> None:
    with pytest.raises(ValueError, match="motion mode"):
        parse_mode(text)


class FakeTime:
    """A clock that only sleeping and `passes` move."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept_s = 0.0

    def now(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept_s += seconds


def test_scaled_time_sleeps_a_fraction() -> None:
    clock = FakeTime()
    Pace(parse_mode("scaled:10"), clock.sleep, clock.now).spend(45)
    assert clock.slept_s == pytest.approx(4.5, abs=0.02)


def test_accounting_never_sleeps() -> None:
    clock = FakeTime()
    Pace(parse_mode("account"), clock.sleep, clock.now).spend(45)
    assert clock.slept_s == 0


def test_small_times_are_saved_up_and_the_hosts_own_time_is_not_added() -> None:
    clock = FakeTime()
    pace = Pace(parse_mode("real"), clock.sleep, clock.now)
    for _ in range(10_000):
        clock.now_s += 0.0002
        pace.spend(0.0006)
    assert clock.now_s - 1000 == pytest.approx(6, abs=0.2)
    assert clock.slept_s == pytest.approx(4, abs=0.2)


def test_drive_and_robot_sleep_their_times(tmp_path: Path) -> None:
    slept: list[float] = []
    bench = VirtualBench(tmp_path / "library")
    drive = VirtualDrive(bench.folder, 0, "scaled:100", sleep=slept.append)
    drive.load()
    drive.unload()
    drive.close()
    VirtualChanger(bench.folder, "scaled:100", sleep=slept.append).unload(0, 0)
    assert slept == pytest.approx([0.17, 0.47, 0.1], abs=0.02)
