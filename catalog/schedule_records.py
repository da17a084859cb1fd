"""The ledger's records of schedules and of their runs. Frozen and typed, like `catalog.records`.

Times of day are those of the wall clock in the schedule's zone, as `HH:MM` or `HH:MM:SS`; instants are nanoseconds
since the epoch, UTC, and 0 means never.
"""

from __future__ import annotations

from enum import Enum
from typing import Annotated, NewType

from msgspec import Meta

from catalog.ids import JobNumber, SetId
from catalog.queue_records import HookResult
from catalog.records import Record

#: Number of a schedule in this catalog, from 1, never given out twice.
ScheduleNumber = NewType("ScheduleNumber", int)
#: Number of a run, from 1, counted through all schedules; never given out twice.
RunNumber = NewType("RunNumber", int)

#: So many ended runs of a schedule are kept, the newest; its statistics count them all.
KEPT_RUNS = 200

_Time = Annotated[str, Meta(pattern=r"\A([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?\Z")]
_Date = Annotated[str, Meta(pattern=r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}\Z")]
_Weekday = Annotated[int, Meta(ge=0, le=6)]

# -- when ------------------------------------------------------------------------------------------------------------


class Once(Record, frozen=True, kw_only=True, tag_field="kind", tag="once"):
    """At one time."""

    date: _Date
    time: _Time = "00:00"


class Interval(Record, frozen=True, kw_only=True, tag_field="kind", tag="interval"):
    """Again and again, counted from `anchor_ns`; minutes and hours as they pass, days by the wall clock."""

    every: Annotated[int, Meta(ge=1, le=1_000_000)]
    #: `minutes`, `hours` or `days`.
    unit: Annotated[str, Meta(pattern=r"\A(minutes|hours|days)\Z")] = "hours"
    #: When it began to count; 0: when the schedule was made.
    anchor_ns: Annotated[int, Meta(ge=0)] = 0


class Daily(Record, frozen=True, kw_only=True, tag_field="kind", tag="daily"):
    """Every day."""

    time: _Time = "00:00"


class Weekly(Record, frozen=True, kw_only=True, tag_field="kind", tag="weekly"):
    """On some days of every week; 0 is Monday."""

    days: Annotated[tuple[_Weekday, ...], Meta(min_length=1, max_length=7)]
    time: _Time = "00:00"


class Monthly(Record, frozen=True, kw_only=True, tag_field="kind", tag="monthly"):
    """Every month; a day that the month has not is its last."""

    day: Annotated[int, Meta(ge=1, le=31)] = 1
    time: _Time = "00:00"


class Yearly(Record, frozen=True, kw_only=True, tag_field="kind", tag="yearly"):
    """Every year; a day that the month has not is its last."""

    month: Annotated[int, Meta(ge=1, le=12)] = 1
    day: Annotated[int, Meta(ge=1, le=31)] = 1
    time: _Time = "00:00"


class Cron(Record, frozen=True, kw_only=True, tag_field="kind", tag="cron"):
    """Five fields: minute, hour, day of the month, month, day of the week."""

    expression: Annotated[str, Meta(min_length=1, max_length=500)]


class Calendar(Record, frozen=True, kw_only=True, tag_field="kind", tag="calendar"):
    """A calendar event as systemd writes them."""

    expression: Annotated[str, Meta(min_length=1, max_length=500)]


Rule = Once | Interval | Daily | Weekly | Monthly | Yearly | Cron | Calendar

# -- what ------------------------------------------------------------------------------------------------------------


class BackUp(Record, frozen=True, kw_only=True, tag_field="kind", tag="backup"):
    """Run a job that is recorded."""

    job: JobNumber
    #: Type of the set that these runs make; empty: the job's own.
    type: str = ""


class Restore(Record, frozen=True, kw_only=True, tag_field="kind", tag="restore"):
    """Restore a set into a folder: a drill, or a copy that is kept up to date."""

    #: The newest complete set of that name, unless it is one set.
    name: Annotated[str, Meta(min_length=1, max_length=600)]
    #: This set; empty: the newest of the name.
    set_id: str = ""
    target: Annotated[str, Meta(pattern=r"\A/[^\0]*\Z")]
    #: What of it; empty: all.
    paths: tuple[str, ...] = ()
    overwrite: bool = False


class Verify(Record, frozen=True, kw_only=True, tag_field="kind", tag="verify"):
    """Read copies back: of these sets and what they build on, on these tapes, or, with neither, of all."""

    sets: tuple[SetId, ...] = ()
    tapes: tuple[str, ...] = ()
    #: Of each tape only so many copies, those read back the longest ago; 0: all.
    sample: Annotated[int, Meta(ge=0, le=10_000)] = 0
    #: What was read back within so many days is not again; 0: everything is.
    unless_days: Annotated[int, Meta(ge=0, le=36_525)] = 0


class Expire(Record, frozen=True, kw_only=True, tag_field="kind", tag="expire"):
    """Let go of the sets that have outlived their retention, by the rules of `tapefs expire`."""

    #: What failed at once.
    failed: bool = False


class CheckRetention(Record, frozen=True, kw_only=True, tag_field="kind", tag="retention"):
    """Tell which sets may go; nothing changes."""


class Clean(Record, frozen=True, kw_only=True, tag_field="kind", tag="cleaning"):
    """Clean drives: those that ask for it, or these by name."""

    drives: tuple[str, ...] = ()


class CheckHealth(Record, frozen=True, kw_only=True, tag_field="kind", tag="health"):
    """Compare what the catalog says with what is there, and look at drives and tapes."""


class CopyCatalog(Record, frozen=True, kw_only=True, tag_field="kind", tag="catalog"):
    """Copy the catalog to a file in a folder, or to tape."""

    #: Empty: to tape.
    folder: Annotated[str, Meta(pattern=r"\A(/[^\0]*)?\Z")] = ""
    #: So many copies stay in the folder; to tape: for how many days. 0: all, for ever.
    keep: Annotated[int, Meta(ge=0, le=36_525)] = 0


class Reclaim(Record, frozen=True, kw_only=True, tag_field="kind", tag="reclaim"):
    """Copy what still lives off the almost empty tapes of a pool."""

    pool: Annotated[str, Meta(min_length=1, max_length=600)]
    below_percent: Annotated[float, Meta(gt=0, le=100)] = 20.0


Action = BackUp | Restore | Verify | Expire | CheckRetention | Clean | CheckHealth | CopyCatalog | Reclaim

# -- the schedule ----------------------------------------------------------------------------------------------------


class Missed(Enum):
    """What becomes of runs for which nobody was there."""

    SKIP = "skip"
    ONCE = "once"
    ALL = "all"


class Overlap(Enum):
    """What becomes of a run that is due while an earlier one goes on."""

    SKIP = "skip"
    QUEUE = "queue"
    CANCEL = "cancel"


class Blackout(Record, frozen=True, kw_only=True):
    """A time of the day in which nothing begins; it may go over midnight."""

    #: The days on which it begins, 0 is Monday; empty: every day.
    days: tuple[_Weekday, ...] = ()
    #: When both are the same it takes the whole day.
    begins: _Time
    ends: _Time


class Course(Record, frozen=True, kw_only=True):
    """What has become of a schedule so far."""

    #: What was due until then was planned, or given up.
    decided_ns: int = 0
    #: Runs that have ended, and how.
    runs: int = 0
    successes: int = 0
    failures: int = 0
    #: Were cancelled, or did not begin.
    cancelled: int = 0
    skipped: int = 0
    #: Of all successes together.
    duration_ns: int = 0
    last_run_ns: int = 0
    last_success_ns: int = 0
    last_failure_ns: int = 0
    #: Of the newest failure, until a run succeeds.
    last_error: str = ""


class Schedule(Record, frozen=True, kw_only=True):
    """What is to be done when."""

    number: ScheduleNumber
    #: UUID.
    schedule_id: str
    name: str
    description: str = ""
    rule: Rule
    #: Name of a time zone in the IANA's database.
    zone: str
    action: Action
    #: Names of hooks in the settings.
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    missed: Missed = Missed.ONCE
    overlap: Overlap = Overlap.SKIP
    blackouts: tuple[Blackout, ...] = ()
    #: A run that falls into one begins at its end; else it is skipped.
    blackout_waits: bool = True
    #: Each run begins up to so much later, always by the same.
    jitter_s: Annotated[int, Meta(ge=0, le=86_400)] = 0
    enabled: bool = True
    tags: tuple[str, ...] = ()
    #: Anything that a client wants to find again, as JSON.
    notes: str = "{}"
    created_at_ns: int = 0
    changed_at_ns: int = 0
    course: Course = Course()


# -- runs ------------------------------------------------------------------------------------------------------------


class RunState(Enum):
    """How far a run is."""

    #: Planned; it begins when it is due.
    WAITING = "waiting"
    #: Its hooks before are run.
    PREPARING = "preparing"
    RUNNING = "running"
    #: How it went is known; its hooks behind are run.
    FINISHING = "finishing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: It never began; `error` says why.
    SKIPPED = "skipped"


#: A run that may still change.
OPEN_RUNS = frozenset({RunState.WAITING, RunState.PREPARING, RunState.RUNNING, RunState.FINISHING})
#: A run that has begun and not ended.
BUSY_RUNS = OPEN_RUNS - {RunState.WAITING}


class ScheduleRun(Record, frozen=True, kw_only=True):
    """One run of a schedule."""

    number: RunNumber
    schedule: ScheduleNumber
    #: The instant of the rule; of a run by hand, when it was asked for.
    planned_ns: int
    #: When it may begin: behind jitter and blackouts.
    due_ns: int
    by_hand: bool = False
    #: So many earlier ones were missed and are made up for by this one, or were given up with it.
    missed: int = 0
    state: RunState = RunState.WAITING
    #: How the action went; known from FINISHING on.
    outcome: RunState | None = None
    #: The run of a job that it has queued: the job, and the job's count of runs then.
    job: JobNumber | None = None
    job_runs: int = 0
    #: How often the action was begun.
    attempts: int = 0
    started_at_ns: int = 0
    finished_at_ns: int = 0
    error: str = ""
    #: For people: what was done.
    result: str = ""
    hooks: tuple[HookResult, ...] = ()
