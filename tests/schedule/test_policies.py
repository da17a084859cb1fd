"""Which runs are planned, and what becomes of them: months of a virtual clock, with pauses and steps."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.schedule_records import (
    Blackout,
    Calendar,
    Course,
    Cron,
    Daily,
    Interval,
    Missed,
    Overlap,
    RunNumber,
    RunState,
    Schedule,
    ScheduleNumber,
    ScheduleRun,
)
from tapefs.errors import UsageError
from tapefs.schedule.blackouts import check_blackouts, end_of_blackout
from tapefs.schedule.policies import (
    CLOCK_WRONG_NS,
    LATE_S,
    MOST_MADE_UP,
    MOST_WAITING,
    Turn,
    by_hand,
    change_of_clocks,
    check_jitter,
    decide,
    jitter_ns,
    next_due,
    preview,
    turn_of,
)
from tapefs.schedule.zones import zone_of
from tests.catalog.builders import run_of, schedule_of
from tests.schedule.test_rules import ns, shown

replace = msgspec.structs.replace
S = 1_000_000_000
HOUR = 3600 * S
DAY = 24 * HOUR
START = ns("2026-03-20T00:00+01:00")


def nightly(**fields: Any) -> Schedule:
    usual: dict[str, Any] = {"number": ScheduleNumber(1), "course": Course(decided_ns=START)}
    return schedule_of("nightly", **(usual | fields))


class Clock:
    """What the sidecar does with decisions, in memory."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.now_ns = schedule, schedule.course.decided_ns
        self.runs: list[ScheduleRun] = []

    def look(self) -> None:
        decision = decide(self.schedule, self.now_ns)
        if not decision.is_anything:
            return
        course = replace(self.schedule.course, decided_ns=decision.decided_ns)
        self.schedule = replace(self.schedule, course=course)
        taken = {run.planned_ns for run in self.runs}
        self.runs += [run for run in decision.runs if run.planned_ns not in taken]

    def serve(self, until_ns: int, step_ns: int = 30 * S) -> None:
        while self.now_ns < until_ns:
            self.now_ns += step_ns
            self.look()

    def sleep(self, until_ns: int) -> None:
        self.now_ns = until_ns

    @property
    def waiting(self) -> list[ScheduleRun]:
        return [run for run in self.runs if run.state is RunState.WAITING]


def test_months_of_nights_have_one_run_each() -> None:
    """Looked at every ten minutes from March to December, over both changes of the clocks."""
    clock = Clock(nightly())
    clock.serve(ns("2026-12-01T00:00+01:00"), 600 * S)
    nights = (datetime(2026, 12, 1, tzinfo=UTC) - datetime(2026, 3, 20, tzinfo=UTC)).days
    assert len(clock.runs) == nights
    at = shown([run.planned_ns for run in clock.runs], "Europe/Berlin")
    assert [each[:10] for each in at] == sorted({each[:10] for each in at})
    assert {each[11:16] for each in at} == {"02:30", "03:00"}
    assert "2026-03-29T03:00+02:00" in at
    assert "2026-10-25T02:30+02:00" in at


@pytest.mark.parametrize(
    ("missed", "planned", "skipped"),
    [(Missed.SKIP, [], ["24"]), (Missed.ONCE, ["24"], []), (Missed.ALL, ["21", "22", "23", "24"], [])],
)
def test_what_was_missed(missed: Missed, planned: list[str], skipped: list[str]) -> None:
    clock = Clock(nightly(missed=missed))
    clock.serve(START + HOUR)
    clock.sleep(ns("2026-03-24T12:00+01:00"))
    clock.look()
    by_state = {
        state: [each[8:10] for each in shown([run.planned_ns for run in clock.runs if run.state is state], "UTC")]
        for state in (RunState.WAITING, RunState.SKIPPED)
    }
    planned = ["20", *planned] if missed is Missed.ALL else planned
    assert by_state == {RunState.WAITING: planned, RunState.SKIPPED: skipped}
    assert clock.runs[-1].missed == (0 if missed is Missed.ALL else 4)
    clock.serve(ns("2026-03-25T02:31+01:00"), 600 * S)
    assert shown([clock.runs[-1].planned_ns], "Europe/Berlin") == ["2026-03-25T02:30+01:00"]
    assert clock.runs[-1].missed == 0


def test_a_run_that_is_due_makes_up_for_what_was_missed() -> None:
    clock = Clock(nightly(missed=Missed.ONCE))
    clock.sleep(ns("2026-03-24T02:30:20+01:00"))
    clock.look()
    [run] = clock.runs
    assert shown([run.planned_ns], "Europe/Berlin") == ["2026-03-24T02:30+01:00"]
    assert run.missed == 4


def test_what_is_made_up_for_is_bounded() -> None:
    rule = Cron(expression="* * * * *")
    for missed, waiting, skipped in ((Missed.ALL, MOST_MADE_UP, 0), (Missed.ONCE, 1, 0), (Missed.SKIP, 0, 1)):
        clock = Clock(nightly(rule=rule, missed=missed))
        clock.sleep(START + 400 * DAY + 59 * S)
        clock.look()
        on_time = [run for run in clock.runs if clock.now_ns - run.planned_ns <= LATE_S * S]
        late = [run for run in clock.runs if run not in on_time]
        assert len(on_time) == 2
        assert len([run for run in late if run.state is RunState.WAITING]) == (waiting if missed is Missed.ALL else 0)
        assert len([run for run in late if run.state is RunState.SKIPPED]) == skipped
        if missed is Missed.SKIP:
            assert "more than" in late[0].error


@given(
    steps=st.lists(st.tuples(st.booleans(), st.integers(-30 * 3600, 90 * 3600)), max_size=30),
    missed=st.sampled_from(Missed),
    hours=st.integers(1, 30),
)
def test_whatever_the_clock_does_nothing_runs_twice(steps: list[tuple[bool, int]], missed: Missed, hours: int) -> None:
    """Steps back and forth, and times in which nobody looks."""
    rule = Interval(every=hours, unit="hours", anchor_ns=START)
    clock = Clock(nightly(rule=rule, missed=missed, course=Course(decided_ns=START)))
    for looks, seconds in steps:
        clock.now_ns = max(START, clock.now_ns + seconds * S)
        if looks:
            clock.look()
    instants = [run.planned_ns for run in clock.runs]
    assert len(instants) == len(set(instants))
    assert all(run.planned_ns <= run.due_ns for run in clock.runs)
    before = len(clock.runs)
    clock.now_ns = max(clock.now_ns, clock.schedule.course.decided_ns, *instants, 0) + hours * HOUR
    clock.look()
    assert len(clock.runs) > before, "the next one always comes"


def test_a_clock_that_was_years_ahead_stops_nothing() -> None:
    clock = Clock(nightly())
    clock.sleep(START + 70 * 366 * DAY)
    clock.look()
    clock.now_ns = START + 2 * DAY
    clock.look()
    assert clock.schedule.course.decided_ns == clock.now_ns
    clock.serve(START + 4 * DAY, 600 * S)
    assert len(clock.runs) == 3
    clock.now_ns -= CLOCK_WRONG_NS // 2
    assert not decide(clock.schedule, clock.now_ns).is_anything


# -- blackouts -------------------------------------------------------------------------------------------------------

NIGHT = Blackout(begins="22:00", ends="06:00")
WEEKEND = (Blackout(days=(5,), begins="00:00", ends="00:00"), Blackout(days=(6,), begins="00:00", ends="00:00"))
WINDOWS: list[tuple[tuple[Blackout, ...], str, str | None]] = [
    ((NIGHT,), "2026-06-01T21:59:59+02:00", None),
    ((NIGHT,), "2026-06-01T22:00:00+02:00", "2026-06-02T06:00+02:00"),
    ((NIGHT,), "2026-06-02T05:59:59+02:00", "2026-06-02T06:00+02:00"),
    ((NIGHT,), "2026-06-02T06:00:00+02:00", None),
    ((Blackout(days=(0,), begins="22:00", ends="06:00"),), "2026-06-02T03:00:00+02:00", "2026-06-02T06:00+02:00"),
    ((Blackout(days=(0,), begins="22:00", ends="06:00"),), "2026-06-01T03:00:00+02:00", None),
    (WEEKEND, "2026-06-06T12:00:00+02:00", "2026-06-08T00:00+02:00"),
    (
        (*WEEKEND, Blackout(days=(0,), begins="00:00", ends="08:00")),
        "2026-06-06T01:00:00+02:00",
        "2026-06-08T08:00+02:00",
    ),
    ((Blackout(begins="02:15", ends="02:45"),), "2026-03-29T03:00:00+02:00", None),
    ((NIGHT,), "2026-10-25T02:30:00+01:00", "2026-10-25T06:00+01:00"),
    ((Blackout(begins="22:00", ends="02:30"),), "2026-10-25T02:29:00+02:00", "2026-10-25T02:30+02:00"),
]


@pytest.mark.parametrize(("blackouts", "at", "ends"), WINDOWS)
def test_blackouts(blackouts: tuple[Blackout, ...], at: str, ends: str | None) -> None:
    found = end_of_blackout(blackouts, zone_of("Europe/Berlin"), ns(at))
    assert (found and shown([found], "Europe/Berlin")[0]) == ends


def test_a_run_in_a_blackout_waits_or_is_skipped() -> None:
    for waits in (True, False):
        schedule = nightly(blackouts=(NIGHT,), blackout_waits=waits)
        [run] = decide(schedule, ns("2026-03-20T02:30:05+01:00")).runs
        assert run.state is (RunState.WAITING if waits else RunState.SKIPPED)
        if waits:
            assert shown([run.due_ns], "Europe/Berlin") == ["2026-03-20T06:00+01:00"]
    assert [run.state for run in preview(nightly(blackouts=(NIGHT,), blackout_waits=False), START, 2)] == [
        RunState.SKIPPED
    ] * 2


def test_blackouts_leave_some_time() -> None:
    all_day = Blackout(begins="00:00", ends="00:00")
    with pytest.raises(UsageError, match="leave no time"):
        check_blackouts((all_day,), zone_of("UTC"), START)
    check_blackouts((NIGHT, *WEEKEND), zone_of("UTC"), START)


@given(
    begins=st.times(),
    ends=st.times(),
    days=st.sets(st.integers(0, 6), max_size=6),
    at_s=st.integers(START // S, START // S + 400 * 86400),
    zone=st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe", "UTC"]),
)
def test_the_end_of_a_blackout_is_free(begins: Any, ends: Any, days: set[int], at_s: int, zone: str) -> None:
    window = Blackout(days=tuple(days or {1}), begins=f"{begins:%H:%M:%S}", ends=f"{ends:%H:%M:%S}")
    free_ns = end_of_blackout((window,), zone_of(zone), at_s * S)
    if free_ns is not None:
        assert at_s * S < free_ns <= at_s * S + 7 * DAY
        assert end_of_blackout((window,), zone_of(zone), free_ns) is None


# -- jitter ----------------------------------------------------------------------------------------------------------


def test_jitter_is_the_same_whenever_it_is_asked() -> None:
    schedule = nightly(jitter_s=600)
    instants = [START + n * DAY for n in range(200)]
    found = [jitter_ns(schedule, at_ns) for at_ns in instants]
    assert found == [jitter_ns(schedule, at_ns) for at_ns in instants]
    assert all(0 <= each < 600 * S for each in found)
    assert max(found) > 500 * S
    assert min(found) < 100 * S
    [run] = decide(schedule, ns("2026-03-20T02:30:05+01:00")).runs
    assert run.due_ns == run.planned_ns + jitter_ns(schedule, run.planned_ns)
    assert jitter_ns(nightly(), START) == 0
    with pytest.raises(UsageError, match="jitter"):
        check_jitter(nightly(rule=Cron(expression="*/5 * * * *"), jitter_s=300), START)
    check_jitter(schedule, START)


# -- turns -----------------------------------------------------------------------------------------------------------


def waiting(number: int, due_ns: int = START, **fields: Any) -> ScheduleRun:
    return run_of(nightly(), number=RunNumber(number), planned_ns=due_ns, due_ns=due_ns, **fields)


BUSY = waiting(1, state=RunState.RUNNING)


@pytest.mark.parametrize(
    ("overlap", "turn"),
    [(Overlap.SKIP, Turn.SKIP), (Overlap.QUEUE, Turn.WAIT), (Overlap.CANCEL, Turn.CANCEL_OTHER)],
)
@pytest.mark.parametrize("state", [RunState.PREPARING, RunState.RUNNING, RunState.FINISHING])
def test_a_run_meets_an_earlier_one(overlap: Overlap, turn: Turn, state: RunState) -> None:
    schedule, run = nightly(overlap=overlap), waiting(2)
    assert turn_of(schedule, run, [replace(BUSY, state=state), run], START) is turn
    assert turn_of(schedule, run, [run], START) is Turn.BEGIN
    assert turn_of(schedule, run, [replace(BUSY, state=state), run], START - 1) is Turn.WAIT


def test_runs_wait_in_their_order_and_not_without_end() -> None:
    schedule = nightly(overlap=Overlap.QUEUE)
    runs = [waiting(number, START + number) for number in range(2, 4 + MOST_WAITING)]
    turns = [turn_of(schedule, run, runs, START + HOUR) for run in runs]
    assert turns == [Turn.BEGIN] + [Turn.WAIT] * (len(runs) - 1)
    turns = [turn_of(schedule, run, [BUSY, *runs], START + HOUR) for run in runs]
    assert turns == [Turn.WAIT] * MOST_WAITING + [Turn.SKIP] * 2
    late = replace(runs[0], due_ns=START + DAY)
    assert turn_of(schedule, runs[1], [late, runs[1]], START + HOUR) is Turn.BEGIN


# -- looking ahead ---------------------------------------------------------------------------------------------------


def test_what_comes_next() -> None:
    schedule = nightly()
    assert shown([run.planned_ns for run in preview(schedule, START, 2)], "UTC") == [
        "2026-03-20T01:30+00:00",
        "2026-03-21T01:30+00:00",
    ]
    due = next_due(schedule, START)
    assert due is not None
    assert shown([due], "UTC") == ["2026-03-20T01:30+00:00"]
    assert next_due(replace(schedule, enabled=False), START) is None
    assert by_hand(ScheduleNumber(3), START).by_hand


def test_who_uses_calendar_events_is_told_of_spring() -> None:
    event = Calendar(expression="*-*-* 02:30")
    assert "left out" in change_of_clocks(nightly(rule=event), START)
    assert change_of_clocks(nightly(rule=event, zone="Asia/Kathmandu"), START) == ""
    assert change_of_clocks(nightly(rule=Daily(time="02:30")), START) == ""
