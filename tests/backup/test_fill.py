"""The fill buffer: what reaches the drive, when, and what becomes of its errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from drivers.errors import EndOfMedium, WriteFailed
from tapefs.tape.fill import LOW_WATER, FillBuffer, FillCounts

BLOCK = 1000


class Sink:
    """A drive as far as blocks go; `gate` holds it up, `fail_at` is the block it fails with."""

    def __init__(self) -> None:
        self.blocks: list[bytes] = []
        self.gate = threading.Event()
        self.gate.set()
        self.fail_at = -1
        self.warn_at = -1
        self.error: Exception = EndOfMedium("full")

    def write_block(self, block: bytes | memoryview) -> bool:
        self.gate.wait()
        if len(self.blocks) == self.fail_at:
            raise self.error
        self.blocks.append(bytes(block))
        return 0 <= self.warn_at < len(self.blocks)


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def counts() -> FillCounts:
    return FillCounts()


@pytest.fixture
def buffer(sink: Sink, counts: FillCounts) -> Iterator[FillBuffer]:
    """Return a buffer of 16 blocks."""
    buffer = FillBuffer(sink, 16 * BLOCK, counts)  # type: ignore[arg-type]
    yield buffer
    sink.gate.set()
    buffer.close()
    assert not any(thread.name == "tape-feeder" for thread in threading.enumerate())


def block(number: int) -> bytes:
    return number.to_bytes(2, "big") * (BLOCK // 2)


def wait_until(sink: Sink, count: int) -> None:
    """Wait for blocks that must come."""
    for _ in range(2000):
        if len(sink.blocks) >= count:
            return
        threading.Event().wait(0.005)
    raise AssertionError(f"{len(sink.blocks)} blocks came, not {count}")


def test_the_drive_gets_nothing_before_the_buffer_is_full_and_then_all_to_the_low_water_mark(
    sink: Sink, buffer: FillBuffer, counts: FillCounts
) -> None:
    for number in range(16):
        buffer.write_block(block(number))
    assert sink.blocks == []
    assert counts == FillCounts(16 * BLOCK, 0, 0)
    buffer.write_block(block(16))
    kept = 16 // LOW_WATER
    # The seventeenth came before or after the mark was reached.
    wait_until(sink, 16 - kept)
    for _ in range(2000):
        if counts.stops:
            break
        threading.Event().wait(0.005)
    assert len(sink.blocks) in (16 - kept, 17 - kept)
    assert (counts.starts, counts.stops) == (1, 1)
    buffer.drain()
    assert (counts.starts, counts.stops) == (2, 1)
    assert sink.blocks == [block(number) for number in range(17)]


def test_a_block_may_change_behind_us_unless_it_is_read_only(sink: Sink, buffer: FillBuffer) -> None:
    changing = bytearray(block(1))
    buffer.write_block(memoryview(changing))
    changing[:] = block(2)
    buffer.write_block(memoryview(block(3)))
    buffer.drain()
    assert sink.blocks == [block(1), block(3)]


def test_memory_is_bounded_while_the_drive_is_held_up(sink: Sink, buffer: FillBuffer) -> None:
    """The thread that brings blocks waits."""
    sink.gate.clear()
    brought: list[int] = []

    def bring() -> None:
        for number in range(100):
            buffer.write_block(block(number))
            brought.append(number)
        buffer.drain()

    thread = threading.Thread(target=bring)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    assert len(brought) == 16
    sink.gate.set()
    thread.join()
    assert sink.blocks == [block(number) for number in range(100)]


@pytest.mark.parametrize("error", [EndOfMedium("full"), WriteFailed("bad", 3)])
def test_an_error_comes_with_a_later_block_again_and_again(sink: Sink, buffer: FillBuffer, error: Exception) -> None:
    sink.fail_at, sink.error = 5, error

    def write_all() -> None:
        for number in range(100):
            buffer.write_block(block(number))

    with pytest.raises(type(error)):
        write_all()
    with pytest.raises(type(error)):
        buffer.write_block(block(0))
    with pytest.raises(type(error)):
        buffer.drain()
    assert sink.blocks == [block(number) for number in range(5)]


def test_an_error_at_the_end_comes_with_the_drain(sink: Sink, buffer: FillBuffer) -> None:
    sink.fail_at = 0
    buffer.write_block(block(0))
    with pytest.raises(EndOfMedium):
        buffer.drain()


def test_the_early_warning_is_passed_on(sink: Sink, buffer: FillBuffer) -> None:
    sink.warn_at = 3
    for number in range(3):
        assert not buffer.write_block(block(number))
    buffer.drain()
    assert not buffer.end_is_near
    again = FillBuffer(sink, 4 * BLOCK, FillCounts())  # type: ignore[arg-type]
    again.write_block(block(3))
    again.drain()
    assert again.end_is_near


def test_without_memory_every_block_goes_through_at_once(sink: Sink) -> None:
    none = FillBuffer(sink, 0, FillCounts())  # type: ignore[arg-type]
    none.write_block(block(0))
    assert sink.blocks == [block(0)]
    sink.fail_at = 1
    with pytest.raises(EndOfMedium):
        none.write_block(block(1))
    none.close()


def test_a_block_larger_than_the_buffer_passes_through(sink: Sink, buffer: FillBuffer) -> None:
    buffer.write_block(bytes(100 * BLOCK))
    buffer.write_block(block(1))
    buffer.drain()
    assert sink.blocks == [bytes(100 * BLOCK), block(1)]


def test_it_knows_whether_the_drive_would_take_more(sink: Sink, buffer: FillBuffer, counts: FillCounts) -> None:
    """A drive that stands would; one that feeds and leaves the buffer full would not; one that has emptied it would."""
    assert counts.drive_is_hungry
    for number in range(15):
        buffer.write_block(block(number))
    assert counts.drive_is_hungry
    sink.gate.clear()
    thread = threading.Thread(target=lambda: [buffer.write_block(block(number)) for number in range(3)])
    thread.start()
    deadline = time.monotonic() + 60
    while counts.drive_is_hungry and time.monotonic() < deadline:
        time.sleep(0.001)
    is_hungry = counts.drive_is_hungry
    sink.gate.set()
    thread.join()
    assert not is_hungry
    buffer.drain()
    assert counts.drive_is_hungry
