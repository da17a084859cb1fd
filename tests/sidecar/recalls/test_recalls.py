"""The recall queue without processes: what is joined, what comes next, what is tried elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.ids import BlockNo, FrameNo, SegmentId, VolumeId
from sidecar.recalls.queue import MOST_DEATHS, RecallQueue
from sidecar.recalls.wanted import Place, Waiter
from tapefs.mover.messages import FrameRange
from tapefs.planner.rounds import AGEING_S
from tapefs.planner.tapes import OVERDUE_S
from tapefs.spans import Spans

A, B = VolumeId("tape-a"), VolumeId("tape-b")
ON_A = [Place(A, BlockNo(100))]
ON_BOTH = [Place(A, BlockNo(100)), Place(B, BlockNo(7))]


def frames(first: int, last: int, segment: str = "s") -> FrameRange:
    return FrameRange(SegmentId(segment), FrameNo(first), FrameNo(last))


def waiter(name: str, first: int, last: int, segment: str = "s", since: float = 0, until: float = math.inf) -> Waiter:
    return Waiter(name, frames(first, last, segment), since, until)


def anywhere(_: VolumeId) -> bool:
    return True


def take(queue: RecallQueue, tape: VolumeId) -> list[FrameRange]:
    """Ask for all that is to do on a tape."""
    requests = queue.todo(tape, 0.0)
    queue.ask(tape, requests)
    return [request.frames for request in requests]


def next_tape(queue: RecallQueue, now: float, is_usable: Callable[[VolumeId], bool]) -> VolumeId | None:
    found = queue.next_tape(now, is_usable)
    return found and found[0]


@pytest.fixture
def queue() -> RecallQueue:
    return RecallQueue()


def names(waiters: list[Waiter]) -> list[str]:
    return sorted(each.waiter_id for each in waiters)


def test_overlapping_waiters_are_fetched_once(queue: RecallQueue) -> None:
    queue.wait_for(waiter("1", 0, 5), ON_A)
    queue.wait_for(waiter("2", 3, 9), ON_A)
    assert take(queue, A) == [frames(0, 9)]
    queue.wait_for(waiter("3", 4, 11), ON_A)
    assert take(queue, A) == [frames(10, 11)]
    assert take(queue, A) == []


def test_a_waiter_is_settled_by_its_last_frame(queue: RecallQueue) -> None:
    queue.wait_for(waiter("1", 0, 1), ON_A)
    queue.wait_for(waiter("2", 1, 2), ON_A)
    take(queue, A)
    assert queue.arrived(frames(0, 0)) == []
    assert names(queue.arrived(frames(1, 1))) == ["1"]
    assert names(queue.arrived(frames(2, 7))) == ["2"]
    assert queue.is_idle()


def test_posting_again_changes_nothing(queue: RecallQueue) -> None:
    for _ in range(3):
        queue.wait_for(waiter("1", 0, 1), ON_A)
    assert queue.waiting() == 1
    assert take(queue, A) == [frames(0, 1)]


def test_frames_that_arrive_unasked_settle_too(queue: RecallQueue) -> None:
    queue.wait_for(waiter("1", 5, 5), ON_A)
    assert queue.arrived(frames(9, 9, "unknown")) == []
    assert names(queue.arrived(frames(0, 9))) == ["1"]
    assert take(queue, A) == []


def test_what_a_mover_left_open_is_told_by_what_it_was_asked(queue: RecallQueue) -> None:
    """The answer to one Recall says nothing about the frames of the next."""
    queue.wait_for(waiter("1", 0, 5), ON_A)
    first = take(queue, A)
    queue.wait_for(waiter("2", 6, 9), ON_A)
    second = take(queue, A)
    queue.arrived(frames(0, 2))
    assert queue.still_asked(A, first) == [frames(3, 5)]
    assert queue.still_asked(A, second) == [frames(6, 9)]
    assert queue.still_asked(B, second) == []


def test_a_frame_that_is_asked_for_again_belongs_to_the_second_recall(queue: RecallQueue) -> None:
    """It arrived, was evicted, and is wanted again before the first Recall is answered."""
    queue.wait_for(waiter("1", 0, 5), ON_A)
    first = take(queue, A)
    queue.arrived(frames(0, 5))
    queue.wait_for(waiter("2", 2, 3), ON_A)
    second = take(queue, A)
    assert queue.still_asked(A, first, second) == []
    assert queue.still_asked(A, second) == [frames(2, 3)]


def test_order_is_by_block_on_tape(queue: RecallQueue) -> None:
    queue.wait_for(waiter("1", 8, 8, "late"), [Place(A, BlockNo(500))])
    queue.wait_for(waiter("2", 6, 6, "early"), [Place(A, BlockNo(10))])
    queue.wait_for(waiter("3", 2, 2, "early"), [Place(A, BlockNo(10))])
    assert take(queue, A) == [frames(2, 2, "early"), frames(6, 6, "early"), frames(8, 8, "late")]


def test_places_and_weights_for_the_planner(queue: RecallQueue) -> None:
    """Frames are taken for equally long; who waits weighs more than who orders, and more the longer he waits."""
    place = [Place(A, BlockNo(1000), payload_blocks=500, frames=10)]
    queue.wait_for(waiter("1", 2, 3), place)
    queue.wait_for(waiter("2", 3, 3, since=AGEING_S), place)
    queue.order_frames(frames(8, 9), place, AGEING_S)
    waited, ordered = queue.todo(A, 2 * AGEING_S)
    assert (waited.block, waited.end_block, waited.frames) == (1100, 1200, frames(2, 3))
    assert (ordered.block, ordered.end_block, ordered.frames) == (1400, 1500, frames(8, 9))
    assert waited.weight == pytest.approx(3 + 2 + 0.3)
    assert ordered.weight == pytest.approx(0.3)
    queue.ask(A, [ordered])
    assert [request.frames for request in queue.todo(A, 0)] == [frames(2, 3)]
    assert queue.still_asked(A, [frames(0, 9)]) == [frames(8, 9)]


def test_overdue_tapes_come_first_in_few_drives(queue: RecallQueue) -> None:
    queue.wait_for(waiter("old", 0, 0, "a"), [Place(A, BlockNo(0))])
    for number in range(200):
        queue.wait_for(waiter(str(number), number, number, "b", since=OVERDUE_S), [Place(B, BlockNo(0))])
    now = OVERDUE_S + 1
    assert queue.next_tape(now, anywhere, drives=4, overdue_drives=0) == (A, True)
    assert queue.next_tape(now, anywhere, drives=4, overdue_drives=1) == (B, False)
    assert queue.next_tape(now, anywhere, drives=5, overdue_drives=1) == (A, True)
    assert queue.next_tape(OVERDUE_S, anywhere, drives=4, overdue_drives=0) == (B, False)


def test_most_waiting_tape_comes_first_but_age_counts(queue: RecallQueue) -> None:
    queue.wait_for(waiter("old", 0, 0, "a"), [Place(A, BlockNo(0))])
    for number in range(3):
        queue.wait_for(waiter(str(number), number, number, "b", since=10), [Place(B, BlockNo(0))])
    assert next_tape(queue, 10, anywhere) == B
    assert next_tape(queue, 10, lambda tape: tape != B) == A
    queue.cancel(["0", "1"])
    assert next_tape(queue, 3 * AGEING_S, anywhere) == A


def test_a_tape_with_nothing_to_do_is_never_next(queue: RecallQueue) -> None:
    queue.wait_for(waiter("1", 0, 0), ON_A)
    take(queue, A)
    assert next_tape(queue, 0, anywhere) is None
    assert queue.has_asked(A)


def test_cancel_forgets_what_nobody_else_wants(queue: RecallQueue) -> None:
    queue.wait_for(waiter("1", 0, 9), ON_A)
    queue.wait_for(waiter("2", 8, 8), ON_A)
    queue.order_frames(frames(3, 3), ON_A, 0)
    assert queue.cancel(["1", "nobody"]) == 1
    assert take(queue, A) == [frames(3, 3), frames(8, 8)]


def test_cancel_never_stops_a_tape(queue: RecallQueue) -> None:
    queue.wait_for(waiter("1", 0, 9), ON_A)
    take(queue, A)
    assert queue.cancel(["1"]) == 1
    assert queue.has_asked(A)
    queue.arrived(frames(0, 9))
    assert queue.is_idle()


def test_a_deadline_lets_the_reader_go_and_the_recall_go_on(queue: RecallQueue) -> None:
    queue.wait_for(waiter("1", 0, 3, until=5), ON_A)
    assert queue.expire(4.9) == 0
    assert queue.expire(5) == 1
    assert queue.waiting() == 0
    assert take(queue, A) == [frames(0, 3)]


def test_a_bad_frame_is_looked_for_on_the_other_copy(queue: RecallQueue) -> None:
    queue.wait_for(waiter("1", 0, 9), ON_BOTH)
    assert take(queue, A) == [frames(0, 9)]
    assert queue.failed(A, frames(4, 4)) == []
    assert take(queue, B) == [frames(4, 4)]
    assert queue.failed(A, frames(6, 6)) == []
    assert queue.failed(B, frames(4, 4)) == [frames(4, 4)]
    assert queue.waiting() == 0


def test_frames_bad_on_different_copies_are_all_found(queue: RecallQueue) -> None:
    queue.wait_for(waiter("1", 0, 1), ON_BOTH)
    take(queue, A)
    queue.failed(A, frames(0, 0))
    take(queue, B)
    queue.arrived(frames(0, 0))
    assert names(queue.arrived(frames(1, 1))) == ["1"]


def test_only_waiters_of_the_lost_frame_are_let_go(queue: RecallQueue) -> None:
    queue.wait_for(waiter("1", 0, 4), ON_A)
    queue.wait_for(waiter("2", 6, 8), ON_A)
    take(queue, A)
    assert queue.failed(A, frames(3, 3)) == [frames(3, 3)]
    assert queue.waiting() == 1
    assert queue.wait_for(waiter("3", 3, 3), ON_A) == [frames(3, 3)]  # Refused while the segment is being read.
    queue.arrived(frames(0, 9))
    assert queue.is_idle()
    assert queue.wait_for(waiter("4", 3, 3), ON_A) == []  # Another time it is tried again.


def test_a_tape_that_cannot_be_had_fails_what_is_only_there(queue: RecallQueue) -> None:
    queue.wait_for(waiter("1", 0, 4, "only-a"), ON_A)
    queue.wait_for(waiter("2", 0, 4, "both"), ON_BOTH)
    assert queue.tape_failed(A) == [frames(0, 4, "only-a")]
    assert next_tape(queue, 0, anywhere) == B


def test_no_place_at_all_is_lost_at_once(queue: RecallQueue) -> None:
    assert queue.wait_for(waiter("1", 0, 4), []) == [frames(0, 4)]
    assert queue.is_idle()


def test_what_kills_movers_is_given_up(queue: RecallQueue) -> None:
    queue.wait_for(waiter("1", 0, 4), ON_A)
    for _ in range(MOST_DEATHS - 1):
        assert take(queue, A) == [frames(0, 4)]
        assert queue.mover_died(A) == []
    take(queue, A)
    assert queue.mover_died(A) == [frames(0, 4)]
    assert queue.is_idle()


runs = st.tuples(st.integers(0, 30), st.integers(0, 8)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(st.lists(st.tuples(st.booleans(), runs)), runs)
def test_spans_are_a_set_of_numbers(steps: list[tuple[bool, tuple[int, int]]], probe: tuple[int, int]) -> None:
    spans, plain = Spans(), set[int]()
    for is_add, (first, last) in steps:
        (spans.add if is_add else spans.remove)(first, last)
        numbers = set(range(first, last + 1))
        plain = plain | numbers if is_add else plain - numbers
    assert {number for first, last in spans for number in range(first, last + 1)} == plain
    gaps = [second[0] - first[1] for first, second in zip(spans, list(spans)[1:], strict=False)]
    assert all(gap > 1 for gap in gaps)
    inside = plain & set(range(probe[0], probe[1] + 1))
    assert spans.overlaps(*probe) == bool(inside)
    assert {n for first, last in spans.within(*probe) for n in range(first, last + 1)} == inside


@given(st.lists(st.tuples(st.sampled_from(["wait", "order", "take", "arrive", "fail", "cancel", "die"]), runs)))
def test_nobody_waits_for_what_nobody_fetches(steps: list[tuple[str, tuple[int, int]]]) -> None:
    """Whatever happens in whatever order: every waiter's frames are to do or asked, and an empty queue is idle."""
    queue = RecallQueue()
    for number, (step, run) in enumerate(steps):
        if step == "wait":
            queue.wait_for(waiter(str(number), *run), ON_BOTH)
        elif step == "order":
            queue.order_frames(frames(*run), ON_BOTH, 0)
        elif step == "take":
            take(queue, A if run[0] % 2 else B)
        elif step == "arrive":
            queue.arrived(frames(*run))
        elif step == "fail":
            queue.failed(A if run[0] % 2 else B, frames(*run))
        elif step == "cancel":
            queue.cancel([str(run[0])])
        else:
            queue.mover_died(A if run[0] % 2 else B)
    for _ in range(2):
        for tape in (A, B):
            for wanted in take(queue, tape):
                queue.arrived(wanted)
            for wanted in queue.still_asked(tape, [frames(0, 100)]):
                queue.arrived(wanted)
    assert queue.waiting() == 0
    assert queue.is_idle()


def test_orders_that_somebody_waits_for_are_waited_for() -> None:
    """Until the last of their frames has come; an order that nobody waits for never is."""
    queue = RecallQueue()
    queue.order_frames(frames(0, 3), ON_A, 10)
    assert queue.waited_s(100) == {}
    queue.order_frames(frames(2, 5), ON_A, 20, is_awaited=True)
    queue.order_frames(frames(6, 6), ON_A, 50, is_awaited=True)
    assert queue.waited_s(100) == {ON_A[0].volume_id: 80}
    queue.arrived(frames(2, 6))
    assert queue.waited_s(100) == {}
