"""The window of a walk: what is joined, found and let go."""

from __future__ import annotations

from catalog.ids import SegmentId, SegmentNo
from tapefs.mount.tree_order import Stretch
from tapefs.mount.window import Window

A, B = SegmentId("a"), SegmentId("b")
FRAME = 1000
GRAIN = 4000


def frames_of(stretch: Stretch) -> tuple[int, int, int]:
    last = (stretch.offset + stretch.length - 1) // FRAME
    return stretch.offset // FRAME, last, (last + 1) * FRAME


def stretch(segment: SegmentId, offset: int, length: int) -> Stretch:
    return Stretch(SegmentNo(0), segment, offset, length)


def window() -> Window:
    return Window(frames_of, GRAIN)


def test_small_files_are_one_item_and_their_frames_named_once() -> None:
    ahead = window()
    assert ahead.add(stretch(A, 512, 300)) == [(A, 0)]
    assert ahead.add(stretch(A, 900, 50)) == []
    assert ahead.add(stretch(A, 950, 100)) == [(A, 1)]
    assert len(ahead) == 1
    assert ahead.ahead_bytes == 1050 - 512
    assert ahead.find(A, 512) == ahead.find(A, 1049) == 0
    assert ahead.find(A, 511) is ahead.find(A, 1050) is ahead.find(B, 512) is None


def test_a_large_file_is_several_items() -> None:
    ahead = window()
    assert ahead.add(stretch(A, 0, 10_000)) == [(A, number) for number in range(10)]
    assert len(ahead) == 3
    assert ahead.find(A, 9_999) == 2
    assert ahead.bytes_to(2) == 8_000
    assert ahead.drop_before(2) == [(A, number) for number in range(8)]
    assert ahead.ahead_bytes == 2_000
    assert ahead.find(A, 7_999) is None


def test_a_frame_stays_while_something_ahead_wants_it() -> None:
    """As in an incremental set: between two files of a frame comes one of another segment."""
    ahead = window()
    assert ahead.add(stretch(A, 0, 500)) == [(A, 0)]
    assert ahead.add(stretch(B, 0, 500)) == [(B, 0)]
    assert ahead.add(stretch(A, 500, 300)) == []
    assert ahead.drop_before(1) == []
    assert ahead.drop_before(2) == [(B, 0)]
    assert ahead.drop_before(3) == [(A, 0)]
    assert ahead.ahead_bytes == 0


def test_the_same_content_twice_is_there_once() -> None:
    ahead = window()
    ahead.add(stretch(A, 0, 500))
    assert ahead.add(stretch(A, 0, 500)) == []
    assert (len(ahead), ahead.ahead_bytes) == (1, 500)


def test_files_in_any_order_are_found() -> None:
    ahead = window()
    for offset in (50_000_000, 10_000_000, 90_000_000):
        ahead.add(stretch(A, offset, 100))
    assert [ahead.find(A, offset + 50) for offset in (10_000_000, 50_000_000, 90_000_000)] == [1, 0, 2]
