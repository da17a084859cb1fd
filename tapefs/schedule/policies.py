"""Which runs are planned, and what becomes of one that is due. Pure.

`decide` looks at everything between the instant until which a schedule was decided before and now. What is older than
LATE_S was missed: the machine was off, asleep, or served nobody.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import islice

from catalog.schedule_records import (
    BUSY_RUNS,
    Missed,
    Overlap,
    RunNumber,
    RunState,
    Schedule,
    ScheduleNumber,
    ScheduleRun,
)
from tapefs.errors import UsageError
from tapefs.schedule.blackouts import end_of_blackout
from tapefs.schedule.rules import describe, instants, newest_instants, next_instant
from tapefs.schedule.zones import NS_PER_S, aware, zone_of

#: A run that begins so much later than planned was missed.
LATE_S = 120
#: With Missed.ALL so many are made up for, the newest.
MOST_MADE_UP = 24
#: Missed ones are counted up to here.
MOST_COUNTED = 1000
#: Runs of a schedule that wait, at most.
MOST_WAITING = 24
#: A schedule that was decided so far into the future was so by a clock that went wrong.
CLOCK_WRONG_NS = 26 * 3600 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Decision:
    """What `decide` has found: to be recorded in one step."""

    known_ns: int
    decided_ns: int
    runs: tuple[ScheduleRun, ...] = ()

    @property
    def is_anything(self) -> bool:
        """Is there something to record?"""
        return bool(self.runs) or self.decided_ns < self.known_ns


def decide(schedule: Schedule, now_ns: int) -> Decision:
    """Return the runs of a schedule that are to be recorded now: those that are due, were missed, or are skipped."""
    known_ns = schedule.course.decided_ns
    if known_ns > now_ns:
        # Clocks are put back now and then; nothing is planned again until they are where they were.
        return Decision(known_ns, now_ns if known_ns - now_ns > CLOCK_WRONG_NS else known_ns)
    zone = zone_of(schedule.zone)
    found = newest_instants(schedule.rule, zone, known_ns, now_ns, MOST_COUNTED)
    late = [at_ns for at_ns in found if now_ns - at_ns > LATE_S * NS_PER_S]
    runs = [*_made_up(schedule, late, has_newer=len(late) < len(found), are_more=len(found) >= MOST_COUNTED)]
    runs += [
        _run(schedule, at_ns, missed=_left(schedule, late, place)) for place, at_ns in enumerate(found[len(late) :])
    ]
    return Decision(known_ns, now_ns, tuple(runs))


def _made_up(schedule: Schedule, late: Sequence[int], *, has_newer: bool, are_more: bool) -> Iterator[ScheduleRun]:
    """Yield what becomes of missed runs. One that is due now makes up for them, where one is to."""
    if not late:
        return
    if schedule.missed is Missed.ALL:
        for at_ns in late[-MOST_MADE_UP:]:
            left = len(late) - MOST_MADE_UP if at_ns == late[-MOST_MADE_UP:][0] else 0
            yield _run(schedule, at_ns, missed=max(0, left))
    elif schedule.missed is Missed.SKIP:
        yield _skipped(
            schedule, late[-1], "nobody was there to run it" + _before(len(late) - 1, are_more), len(late) - 1
        )
    elif not has_newer:
        yield _run(schedule, late[-1], missed=len(late) - 1)


def _left(schedule: Schedule, late: Sequence[int], place: int) -> int:
    return len(late) if place == 0 and schedule.missed is Missed.ONCE else 0


def _before(count: int, are_more: bool) -> str:
    return f", nor {'more than ' if are_more else ''}{count:,} before it" if count else ""


def _run(schedule: Schedule, at_ns: int, missed: int = 0) -> ScheduleRun:
    """Return a planned run; a blackout may have it skipped."""
    later_ns = at_ns + jitter_ns(schedule, at_ns)
    free_ns = end_of_blackout(schedule.blackouts, zone_of(schedule.zone), later_ns)
    if free_ns is not None and not schedule.blackout_waits:
        return _skipped(schedule, at_ns, "it falls into a blackout", missed)
    return ScheduleRun(
        number=RunNumber(0),
        schedule=schedule.number,
        planned_ns=at_ns,
        due_ns=later_ns if free_ns is None else free_ns,
        missed=missed,
    )


def _skipped(schedule: Schedule, at_ns: int, error: str, missed: int) -> ScheduleRun:
    return ScheduleRun(
        number=RunNumber(0),
        schedule=schedule.number,
        planned_ns=at_ns,
        due_ns=at_ns,
        missed=missed,
        state=RunState.SKIPPED,
        error=error,
    )


def jitter_ns(schedule: Schedule, at_ns: int) -> int:
    """Return how much later the run of an instant begins: the same whenever it is asked."""
    if not schedule.jitter_s:
        return 0
    digest = hashlib.blake2b(f"{schedule.schedule_id} {at_ns}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (schedule.jitter_s * NS_PER_S)


def by_hand(number: ScheduleNumber, now_ns: int) -> ScheduleRun:
    """Return a run that somebody has asked for; blackouts do not hold it up."""
    return ScheduleRun(number=RunNumber(0), schedule=number, planned_ns=now_ns, due_ns=now_ns, by_hand=True)


# -- a run that is due -----------------------------------------------------------------------------------------------


class Turn(Enum):
    """What becomes of a run that waits."""

    BEGIN = "begin"
    WAIT = "wait"
    SKIP = "skip"
    #: … and the earlier one is cancelled.
    CANCEL_OTHER = "cancel other"


def turn_of(schedule: Schedule, run: ScheduleRun, others: Sequence[ScheduleRun], now_ns: int) -> Turn:
    """Return what becomes now of a WAITING run, `others` being the open runs of the same schedule."""
    if run.due_ns > now_ns:
        return Turn.WAIT
    ahead = [other for other in others if other.number != run.number and other.state in BUSY_RUNS]
    queued = [other for other in others if other.state is RunState.WAITING and _place(other) < _place(run)]
    if not ahead:
        # In their order, of those that may begin.
        return Turn.WAIT if any(other.due_ns <= now_ns for other in queued) else Turn.BEGIN
    if schedule.overlap is Overlap.SKIP:
        return Turn.SKIP
    if schedule.overlap is Overlap.CANCEL:
        return Turn.CANCEL_OTHER
    return Turn.SKIP if len(queued) >= MOST_WAITING else Turn.WAIT


def _place(run: ScheduleRun) -> tuple[int, int]:
    return run.due_ns, run.number


# -- looking ahead ---------------------------------------------------------------------------------------------------


def next_undecided(schedule: Schedule) -> int | None:
    """Return the schedule's first instant that is not decided yet, perhaps in the past; None when there is none."""
    if not schedule.enabled:
        return None
    return next_instant(schedule.rule, zone_of(schedule.zone), schedule.course.decided_ns)


def next_due(schedule: Schedule, now_ns: int) -> int | None:
    """Return the schedule's next instant; None when it is not enabled, or has none."""
    if not schedule.enabled:
        return None
    return next_instant(schedule.rule, zone_of(schedule.zone), max(now_ns, schedule.course.decided_ns))


def preview(schedule: Schedule, now_ns: int, count: int) -> list[ScheduleRun]:
    """Return the next runs as they would be planned, whether it is enabled or not."""
    found = instants(schedule.rule, zone_of(schedule.zone), now_ns)
    return [_run(schedule, at_ns) for at_ns in islice(found, count)]


def change_of_clocks(schedule: Schedule, now_ns: int) -> str:
    """Return what a user of a calendar event should know of its zone; empty when the clocks do not change there."""
    zone = zone_of(schedule.zone)
    year_ns = 366 * 86_400 * NS_PER_S
    offsets = {aware(now_ns + year_ns * step // 24, zone).utcoffset() for step in range(24)}
    if len(offsets) < 2 or "calendar" not in describe(schedule.rule):
        return ""
    return (
        "as with systemd, a time that does not exist when the clocks go forward is left out on that day; a rule of "
        "another kind (`daily`, cron) runs once behind it"
    )


def check_jitter(schedule: Schedule, now_ns: int) -> None:
    """Raise UsageError when a run could begin behind the next one."""
    coming = preview(schedule, now_ns, 2)
    if len(coming) == 2 and schedule.jitter_s * NS_PER_S >= coming[1].planned_ns - coming[0].planned_ns:
        raise UsageError("the jitter is longer than the time between two runs")
