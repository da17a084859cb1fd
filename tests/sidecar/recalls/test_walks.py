"""Walks without processes: in which order tapes are read ahead of readers, what is kept, and when it ends."""

from __future__ import annotations

from catalog.ids import BlockNo, FrameNo, SegmentId, VolumeId
from sidecar.recalls.walks import LEASE_S, Walks
from sidecar.recalls.wanted import Place
from tapefs.mover.messages import FrameRange

A, B = VolumeId("tape-a"), VolumeId("tape-b")
EARLY, LATE, ELSEWHERE = SegmentId("early"), SegmentId("late"), SegmentId("elsewhere")
LIMIT = 1000
#: Frames of ten blocks.
PLACES = {
    EARLY: [Place(A, BlockNo(100), 1000, 100)],
    LATE: [Place(A, BlockNo(2000), 1000, 100)],
    ELSEWHERE: [Place(B, BlockNo(100), 1000, 100)],
}


def frames(segment: SegmentId, first: int, last: int) -> FrameRange:
    return FrameRange(segment, FrameNo(first), FrameNo(last))


def named(*runs: FrameRange, walk: str = "w", walks: Walks | None = None) -> Walks:
    walks = Walks(LIMIT) if walks is None else walks
    walks.renew(walk, 0.0)
    for run in runs:
        numbers = [(run.first, run.last)]
        walks.extend(walk, run.segment_id, numbers, numbers, PLACES[run.segment_id])
    return walks


def taken(walks: Walks, head: int = 0, most: int = 10_000, opened: int = 0) -> list[FrameRange]:
    return [run for run, _ in walks.take(A, head, most, opened)]


def everywhere(_: VolumeId) -> bool:
    return True


def test_in_the_order_of_the_tape_from_the_head_on() -> None:
    """Whatever the order in which the reader comes to it; behind the end it goes on at the front."""
    walks = named(frames(LATE, 0, 4), frames(EARLY, 50, 59), frames(EARLY, 0, 9), frames(ELSEWHERE, 0, 9))
    assert taken(walks, head=300) == [frames(EARLY, 50, 59), frames(LATE, 0, 4), frames(EARLY, 0, 9)]
    assert taken(walks) == []
    assert walks.has_pending(B)
    assert not walks.has_pending(A)


def test_piece_by_piece_while_the_queue_has_little() -> None:
    walks = named(frames(EARLY, 0, 29))
    assert taken(walks, most=100) == [frames(EARLY, 0, 9)]
    assert taken(walks, head=200, most=100, opened=50) == []
    assert taken(walks, head=200, most=100, opened=49) == [frames(EARLY, 10, 19)]


def test_two_readers_of_the_same_frames_have_them_fetched_once() -> None:
    walks = named(frames(EARLY, 0, 9))
    named(frames(EARLY, 5, 14), walk="v", walks=walks)
    assert taken(walks) == [frames(EARLY, 0, 14)]
    assert taken(walks) == []


def test_what_lies_ahead_is_kept_until_the_reader_has_passed_it() -> None:
    walks = named(frames(EARLY, 0, 9))
    taken(walks)
    walks.settled(frames(EARLY, 0, 9))
    assert walks.ahead() == {EARLY: [(0, 9)]}
    walks.passed("w", frames(EARLY, 0, 3))
    assert walks.ahead() == {EARLY: [(4, 9)]}
    walks.end("w")
    assert walks.ahead() == {}


def test_what_is_passed_or_staged_is_not_fetched() -> None:
    walks = named(frames(EARLY, 0, 9))
    walks.passed("w", frames(EARLY, 0, 1))
    walks.settled(frames(EARLY, 4, 5))
    assert taken(walks) == [frames(EARLY, 2, 3), frames(EARLY, 6, 9)]


def test_a_walk_that_nobody_names_again_is_over() -> None:
    walks = named(frames(EARLY, 0, 9))
    assert walks.expire(LEASE_S - 1) == 0
    walks.renew("w", 10.0)
    assert walks.expire(LEASE_S + 1) == 0
    assert walks.expire(LEASE_S + 10) == 1
    assert taken(walks) == []
    assert walks.next_tape(everywhere) is None


def test_walks_share_half_of_the_room() -> None:
    walks = named()
    assert walks.window_bytes == LIMIT // 2
    named(walk="v", walks=walks)
    assert walks.window_bytes == LIMIT // 4


def test_the_tape_of_which_most_is_wanted_comes_next() -> None:
    walks = named(frames(EARLY, 0, 9), frames(ELSEWHERE, 0, 19))
    assert walks.next_tape(everywhere) == B
    assert walks.next_tape(lambda tape: tape != B) == A
    walks.tape_failed(B)
    assert walks.next_tape(everywhere) == A


def test_only_what_a_tape_that_is_being_read_will_give_is_worth_waiting_for() -> None:
    walks = named(frames(EARLY, 0, 9), frames(LATE, 0, 9))

    def nothing(_: int) -> bool:
        return False

    assert not walks.will_fetch(frames(LATE, 0, 1), nothing)
    assert taken(walks, most=100) == [frames(EARLY, 0, 9)]
    assert walks.will_fetch(frames(LATE, 0, 1), nothing)
    assert not walks.will_fetch(frames(EARLY, 0, 1), nothing)  # The queue has it.
    assert not walks.will_fetch(frames(LATE, 9, 10), nothing)
    assert walks.will_fetch(frames(LATE, 9, 10), lambda frame: frame == 10)
    walks.leave(A)
    assert not walks.will_fetch(frames(LATE, 0, 1), nothing)
