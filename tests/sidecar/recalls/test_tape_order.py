"""Rounds on one tape: what is planned together, what joins, where the head is thought to be."""

from __future__ import annotations

from catalog.ids import FrameNo, SegmentId
from drivers.virtual.motion import motion_of
from sidecar.recalls.queue import Request
from sidecar.recalls.tape_order import TapeOrder
from tapefs.mover.messages import FrameRange

BLOCK = 256 * 1024
WRAP = motion_of(8).generation.wrap_bytes // BLOCK
GB = 10**9 // BLOCK


def wanted(block: int, blocks: int = GB, segment: str = "s", first: int = 0, weight: float = 1.0) -> Request:
    return Request(block, block + blocks, weight, FrameRange(SegmentId(segment), FrameNo(first), FrameNo(first + 9)))


def begin(order: TapeOrder, *requests: Request) -> list[Request]:
    begun = order.plan(requests)
    order.begin(begun)
    return begun.requests


def test_a_round_is_in_the_order_of_the_tape_not_of_its_blocks() -> None:
    order = TapeOrder(motion_of(8), BLOCK)
    here, back, beside = wanted(0), wanted(5 * WRAP), wanted(2 * WRAP - 2 * GB)
    assert begin(order, here, beside, back) == [here, beside, back]
    # There, at the far end of the tape, also the ninth wrap begins; the sixth begins at the near end.
    assert begin(order, wanted(6 * WRAP), wanted(9 * WRAP)) == [wanted(9 * WRAP), wanted(6 * WRAP)]


def test_what_follows_on_joins_and_all_else_is_held_back() -> None:
    order = TapeOrder(motion_of(8), BLOCK)
    begin(order, wanted(10 * GB))
    behind, next_one, far = wanted(5 * GB), wanted(11 * GB, first=10), wanted(50 * WRAP)
    assert order.joining([behind, next_one, far]) == [next_one]
    # Its end is where the next may join.
    after = wanted(12 * GB, first=20)
    assert order.joining([behind, after, far]) == [after]


def test_joins_are_limited_only_while_others_are_held_back() -> None:
    far = wanted(50 * WRAP)
    for others, all_join in (([], True), ([far], False)):
        order = TapeOrder(motion_of(8), BLOCK)
        begin(order, wanted(10 * GB))
        joined = [bool(order.joining([wanted(11 * GB + each * GB, first=10 * each), *others])) for each in range(200)]
        assert all(joined) == all_join
        assert joined[0]


def test_the_head_is_where_reading_on_has_come() -> None:
    """The last that arrived was far behind the last that was asked: what follows there is near."""
    order = TapeOrder(motion_of(8), BLOCK)
    begin(order, wanted(0, first=0))
    far = wanted(100 * GB, segment="t")
    assert order.joining([far]) == []
    order.arrived(FrameRange(SegmentId("s"), FrameNo(990), FrameNo(999)))
    assert order.joining([far]) == [far]


def test_arrivals_before_the_last_asked_and_of_others_move_nothing() -> None:
    order = TapeOrder(motion_of(8), BLOCK)
    begin(order, wanted(100 * GB))
    order.arrived(FrameRange(SegmentId("s"), FrameNo(0), FrameNo(3)))
    order.arrived(FrameRange(SegmentId("other"), FrameNo(0), FrameNo(900)))
    follows = wanted(101 * GB)
    assert order.joining([follows]) == [follows]


def test_streams_are_read_from_front_to_end_whatever_the_tape_would_prefer() -> None:
    """To go back in one is to begin it anew: nothing is planned so, and nothing behind the head joins."""
    order = TapeOrder(motion_of(8), BLOCK, is_forwards=True)
    far, near, here = wanted(9 * WRAP), wanted(6 * WRAP, first=50), wanted(6 * WRAP)
    assert begin(order, far, near, here) == [here, near, far]
    just_before, next_one = wanted(9 * WRAP - 2 * GB), wanted(9 * WRAP + GB, first=10)
    assert order.joining([just_before, next_one]) == [next_one]
