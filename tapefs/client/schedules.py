"""Schedules: the fields of their calls, their answers, and the calls as functions. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from catalog.schedule_records import Action, Blackout, Missed, Overlap, Rule
from tapefs.client.calling import Ask, Family, Steps, WaitingFamily, call, every

_Name = Annotated[str, Meta(min_length=1, max_length=200)]
_Hooks = Annotated[tuple[_Name, ...], Meta(max_length=20)]
_URL = "/api/v1/schedules"


class ScheduleFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a schedule is asked to be; what is missing in a change stays."""

    name: _Name | UnsetType = UNSET
    description: Annotated[str, Meta(max_length=2000)] | UnsetType = UNSET
    #: When; see the kinds in `catalog.schedule_records`.
    rule: Rule | UnsetType = UNSET
    #: Name of a time zone; of a new schedule the machine's own if it is missing.
    zone: Annotated[str, Meta(min_length=1, max_length=100)] | UnsetType = UNSET
    #: What.
    action: Action | UnsetType = UNSET
    #: Names of hooks in the settings.
    before: _Hooks | UnsetType = UNSET
    after: _Hooks | UnsetType = UNSET
    missed: Missed | UnsetType = UNSET
    overlap: Overlap | UnsetType = UNSET
    blackouts: Annotated[tuple[Blackout, ...], Meta(max_length=50)] | UnsetType = UNSET
    blackout_waits: bool | UnsetType = UNSET
    jitter_s: Annotated[int, Meta(ge=0, le=86_400)] | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    tags: Annotated[tuple[Annotated[str, Meta(max_length=200)], ...], Meta(max_length=100)] | UnsetType = UNSET

    def changes(self) -> dict[str, object]:
        """Return what is set."""
        found = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in found.items() if value is not UNSET}


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """How the runs of a schedule went."""

    runs: int = 0
    successes: int = 0
    failures: int = 0
    cancelled: int = 0
    skipped: int = 0
    #: Of those that succeeded.
    average_s: float | None = None
    last_run_at: datetime | None = None
    last_success_at: datetime | None = None
    last_failure_at: datetime | None = None
    last_error: str | None = None


class ScheduleView(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as the sidecar tells it."""

    number: int
    schedule_id: str
    name: str
    description: str
    rule: Rule
    #: The rule in words.
    when: str
    zone: str
    action: Action
    #: The action in words.
    what: str = ""
    before: tuple[str, ...]
    after: tuple[str, ...]
    missed: Missed
    overlap: Overlap
    blackouts: tuple[Blackout, ...]
    blackout_waits: bool
    jitter_s: int
    enabled: bool
    tags: tuple[str, ...]
    #: `disabled`, `waiting`, `running`, or `over` when nothing is to come.
    state: str
    next_at: datetime | None
    #: What should be known of it; empty: nothing.
    remark: str
    statistics: Statistics
    created_at: datetime | None
    changed_at: datetime | None


class HookView(msgspec.Struct, frozen=True, kw_only=True):
    """How a hook went."""

    name: str
    is_after: bool
    error: str | None
    output: str
    duration_s: float


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a schedule."""

    number: int
    schedule: int
    planned_at: datetime | None
    due_at: datetime | None
    by_hand: bool
    #: Earlier ones that were missed and are given up with it.
    missed: int
    state: str
    job: int | None
    attempts: int
    started_at: datetime | None
    finished_at: datetime | None
    duration_s: float | None
    error: str | None
    result: str | None
    hooks: tuple[HookView, ...]


class Occurrence(msgspec.Struct, frozen=True, kw_only=True):
    """A run to come."""

    planned_at: datetime
    #: Behind jitter and blackouts.
    begins_at: datetime | None
    #: Why it will not run; empty: it will.
    skipped: str = ""


#: `list` is a call there.
_Schedules = list[ScheduleView]


class ScheduleCalls:
    """The calls. Each may raise Unreachable, NoSuchThing, NotNow and UsageError."""

    @call
    @staticmethod
    def list() -> Steps[_Schedules]:
        """Ask for all schedules, oldest first."""
        return every(_URL, ScheduleView)

    @call
    @staticmethod
    def show(number: int) -> Ask[ScheduleView]:
        """Ask for one."""
        return Ask("GET", f"{_URL}/{number}", None, ScheduleView)

    @call
    @staticmethod
    def create(fields: ScheduleFields) -> Ask[ScheduleView]:
        """Make one."""
        return Ask("POST", _URL, _body(fields), ScheduleView)

    @call
    @staticmethod
    def edit(number: int, fields: ScheduleFields) -> Ask[ScheduleView]:
        """Change what is set."""
        return Ask("PATCH", f"{_URL}/{number}", _body(fields), ScheduleView)

    @call
    @staticmethod
    def delete(number: int) -> Ask[None]:
        """Forget one."""
        return Ask("DELETE", f"{_URL}/{number}", None, type(None))

    @call
    @staticmethod
    def enable(number: int, on: bool) -> Ask[ScheduleView]:
        """Have it run from now on, or not."""
        return Ask("POST", f"{_URL}/{number}/{'enable' if on else 'disable'}", None, ScheduleView)

    @call
    @staticmethod
    def run(number: int) -> Ask[RunView]:
        """Have it run now."""
        return Ask("POST", f"{_URL}/{number}/run", None, RunView)

    @call
    @staticmethod
    def stop(number: int) -> Ask[Sequence[RunView]]:
        """Give up what runs."""
        return Ask("POST", f"{_URL}/{number}/stop", None, list[RunView])

    @call
    @staticmethod
    def history(number: int, limit: int, offset: int = 0) -> Steps[Sequence[RunView]]:
        """Ask for the newest runs, the newest first."""
        return (yield from every(f"{_URL}/{number}/runs?offset={offset}", RunView, limit))

    @call
    @staticmethod
    def next(number: int, count: int) -> Ask[Sequence[Occurrence]]:
        """Ask for the next runs."""
        return Ask("GET", f"{_URL}/{number}/next?count={count}", None, list[Occurrence])


class ScheduleClient(ScheduleCalls, Family):
    """The calls, by a blocking client."""


class WaitingScheduleClient(ScheduleCalls, WaitingFamily):
    """The calls, by a trio client."""


def _body(fields: ScheduleFields) -> object:
    return msgspec.to_builtins(fields)
