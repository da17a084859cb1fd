"""A drive streams, or backs up: the buffer and the speed matching, with a clock that the test moves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from drivers.interface import Counters
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.generations import GENERATIONS, MB, lto
from drivers.virtual.streaming import BACKHITCH_S, Streaming
from tests.drivers.benches import VirtualBench

BLOCK = 256 * 1024


class Clock:
    """Moves only when told."""

    def __init__(self) -> None:
        self.now_s = 50.0

    def now(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def feed(streaming: Streaming, rate_bytes_s: float, total_bytes: float, start_s: float = 0.0) -> tuple[float, float]:
    """Feed at a steady rate; return when it ended and how long the host was held up."""
    now_s, held_s = start_s, 0.0
    for _ in range(int(total_bytes / BLOCK)):
        now_s += BLOCK / rate_bytes_s
        held_s += streaming.take(BLOCK, now_s)
    return now_s, held_s


@pytest.mark.parametrize("generation", [5, 6, 7, 8, 9])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 1.0, 5.0])
def test_any_host_that_keeps_up_with_the_slowest_speed_streams(generation: int, share: float) -> None:
    tape = lto(generation)
    streaming = Streaming(tape)
    feed(streaming, tape.slowest_bytes_s + share * (tape.rate_bytes_s - tape.slowest_bytes_s), 20_000 * MB)
    assert streaming.underruns == 0


@pytest.mark.parametrize("rate", [50, 100, 130])
def test_a_slower_host_makes_the_tape_stop_again_and_again(rate: int) -> None:
    """A cycle of LTO-9: from half full to empty at the difference of the speeds, then half full again.

    A little quicker, because above a quarter the tape runs faster than at its slowest.
    """
    streaming = Streaming(lto(9))
    feed(streaming, rate * MB, 25_000 * MB)
    drained_s = 500 / (177 - rate)
    filled_s = max(500 / rate, BACKHITCH_S)
    expected = 25_000 / rate / (drained_s + filled_s)
    assert expected < streaming.underruns < 1.4 * expected


def test_a_pause_of_the_host_is_one_back_hitch_however_long() -> None:
    streaming = Streaming(lto(9))
    end_s, _ = feed(streaming, 300 * MB, 3_000 * MB)
    streaming.take(BLOCK, end_s + 3600)
    assert streaming.underruns == 1
    end_s, _ = feed(streaming, 300 * MB, 3_000 * MB, end_s + 3600)
    streaming.take(BLOCK, end_s + 1)
    assert streaming.underruns == 1, "the buffer carries the drive over a second"


def test_a_little_that_never_starts_the_tape_is_no_underrun() -> None:
    streaming = Streaming(lto(9))
    end_s, _ = feed(streaming, 1 * MB, 400 * MB)
    streaming.flush(end_s + 100)
    assert streaming.underruns == 0


def test_a_host_that_bursts_while_the_tape_backs_up_is_held_up_until_it_goes_on() -> None:
    streaming = Streaming(lto(9))
    end_s, _ = feed(streaming, 100 * MB, 501 * MB)
    feed(streaming, 1000 * MB, 10 * MB, end_s + 100)
    assert streaming.underruns == 1
    # 2 s after the buffer ran empty 1,100 MB come at once: more than it holds.
    streaming = Streaming(lto(9))
    end_s, _ = feed(streaming, 300 * MB, 2_000 * MB)
    burst_s = end_s + 500 / 177
    while not streaming.underruns:
        burst_s += 0.1
        streaming.take(1, burst_s)
    held_s = sum(streaming.take(10 * MB, burst_s) for _ in range(110))
    assert held_s == pytest.approx(BACKHITCH_S, abs=0.5)


# -- the drive ---------------------------------------------------------------------------------------------------------


def written(folder: Path, rate_bytes_s: float, motion: str) -> tuple[Counters, float]:
    """Write 1.3 GB as from a source of that rate; return the counters, and the seconds on the clock."""
    bench = VirtualBench(folder)
    clock = Clock()
    drive = VirtualDrive(bench.folder, 0, motion, sleep=clock.sleep, now=clock.now)
    drive.load()
    begin_s, block = clock.now_s, bytes(1024)
    for _ in range(13_000):
        clock.now_s += 1024 / rate_bytes_s
        drive.write_block(block)
    drive.write_filemarks(1, sync=True)
    counters = drive.status().counters
    drive.close()
    return counters, clock.now_s - begin_s


@pytest.fixture
def small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundredth of LTO-9's buffer, so that 13 MB are as 1.3 GB."""
    monkeypatch.setitem(GENERATIONS, 9, replace(lto(9), buffer_bytes=MB))


@pytest.mark.usefixtures("small_buffers")
@pytest.mark.parametrize("motion", ["account", "real"])
def test_the_counters_of_a_drive_tell(tmp_path: Path, motion: str) -> None:
    slow, _ = written(tmp_path / "slow", 100 * MB, motion)
    assert slow.underruns == slow.backhitches > 0
    assert slow.seconds.backhitch == pytest.approx(slow.backhitches * BACKHITCH_S)
    quick, seconds = written(tmp_path / "quick", 2000 * MB, motion)
    assert (quick.underruns, quick.backhitches) == (0, 0)
    if motion == "real":
        assert seconds == pytest.approx(13_312_000 / 400e6, rel=0.5), "a host that is too fast is held up, no more"


@pytest.mark.usefixtures("small_buffers")
def test_the_counters_outlive_the_process(tmp_path: Path) -> None:
    counters, _ = written(tmp_path / "slow", 100 * MB, "account")
    again = VirtualDrive(tmp_path / "slow", 0)
    assert again.status().counters.underruns == counters.underruns
    again.write_filemarks(0, sync=True)
    again.close()
