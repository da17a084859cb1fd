from catalog.ids import SegmentId
from tapefs.bench.eviction import TRACES, _by_worth, _least_recently_used, simulate
from tapefs.staging.worth import MOUNT_S, OFFLINE, Staged, Tape, in_order, run_lengths, weight_of

A, B, C = SegmentId("a"), SegmentId("b"), SegmentId("c")
NOW_S = 10_000.0


def staged(segment: SegmentId, *frames: int, used_s: float = 5000.0) -> list[Staged]:
    return [Staged(segment, frame, 1, used_s, length) for frame, length in run_lengths(frames).items()]


def order(frames: list[Staged], **tapes: Tape) -> list[tuple[str, int]]:
    known = {SegmentId(name): tape for name, tape in tapes.items()}
    return [(each.segment_id, each.frame) for each in in_order(frames, known, NOW_S)]


def test_runs():
    assert run_lengths([]) == {}
    assert run_lengths([0, 1, 2, 5, 7, 8]) == {0: 3, 1: 3, 2: 3, 5: 1, 7: 2, 8: 2}


def test_of_equal_frames_the_oldest_goes_first():
    old, new = staged(A, 0, used_s=10.0), staged(B, 0, used_s=20.0)
    assert order([*new, *old]) == [("a", 0), ("b", 0)]


def test_a_run_goes_before_a_single_frame_that_is_somewhat_older():
    single, run = staged(A, 7, used_s=4000.0), staged(B, *range(100), used_s=5000.0)
    assert order([*single, *run])[-1] == ("a", 7)


def test_no_frame_stays_for_ever():
    single, run = staged(A, 7, used_s=-200_000.0), staged(B, *range(100), used_s=5000.0)
    assert order([*single, *run])[0] == ("a", 7)


def test_what_is_nearer_goes_first():
    frames = [*staged(A, 0), *staged(B, 0), *staged(C, 0)]
    assert order(frames, a=Tape(None), b=Tape(MOUNT_S), c=Tape(0.0)) == [("c", 0), ("b", 0), ("a", 0)]


def test_nothing_costs_more_than_a_tape_that_is_away():
    assert all(weight_of(Tape(MOUNT_S), length) < OFFLINE for length in (1, 10, 1000))
    assert weight_of(Tape(None), 1000) == OFFLINE


def test_of_frames_used_at_this_moment_the_cheap_ones_go_first():
    frames = [*staged(A, 5, used_s=NOW_S), *staged(B, *range(50), used_s=NOW_S)]
    assert order(frames)[-1] == ("a", 5)
    assert order([]) == []


def test_it_saves_locates_where_single_frames_meet_walks():
    """The figures of `scripts/bench eviction`: a quarter fewer here, and nowhere more than a few hundredths more."""
    trace = list(TRACES["single frames and new walks"]())[:18_000]
    old, _ = simulate(trace, _least_recently_used)
    new, _ = simulate(trace, _by_worth)
    assert new < 0.85 * old
