"""TAF's bodies and answers of the scheduler group."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

Text = Annotated[str, Meta(max_length=2000)]
Tags = Annotated[list[Annotated[str, Meta(max_length=200)]], Meta(max_length=100)]
Anything = dict[str, Any]


class ScheduleConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """When, with TAF's names; which of these a `schedule_type` needs, docs/http/schedules.md says.

    `zone`, `calendar` and `days_of_week` are ours.
    """

    datetime: Annotated[str, Meta(max_length=100)] | None = None
    interval: int | None = None
    #: `minutes`, `hours` or `days`.
    unit: str | None = None
    #: `HH:MM` or `HH:MM:SS`.
    time: str | None = None
    #: 0 is Monday.
    day_of_week: int | None = None
    days_of_week: Annotated[list[int], Meta(max_length=7)] | None = None
    day_of_month: int | None = None
    month: int | None = None
    day: int | None = None
    cron: str | None = None
    calendar: str | None = None
    #: A time zone; the machine's own if it is missing.
    zone: Annotated[str, Meta(min_length=1, max_length=100)] | None = None


class ScheduledTaskCreate(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a new scheduled task."""

    task_name: Annotated[str, Meta(min_length=1, max_length=200)]
    schedule_type: str
    schedule_config: ScheduleConfig
    action_type: str
    action_config: Anything = {}
    description: Text | None = None
    #: A task that is there; else `action_config` says what is to be backed up.
    backup_task_id: Annotated[int, Meta(ge=1)] | None = None
    enabled: bool = True
    tags: Tags | None = None
    task_metadata: Anything | None = None


class ScheduledTaskUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a change; what is missing or null stays."""

    task_name: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    description: Text | None = None
    schedule_type: str | None = None
    schedule_config: ScheduleConfig | None = None
    action_type: str | None = None
    action_config: Anything | None = None
    backup_task_id: Annotated[int, Meta(ge=1)] | None = None
    enabled: bool | None = None
    tags: Tags | None = None
    task_metadata: Anything | None = None


class ScheduledTaskRunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """How a task is to be run by hand."""

    #: `auto`, `resume` or `restart`.
    mode: str | None = "auto"
    #: Every run scans anew; this changes nothing.
    force_rescan: bool | None = False


class ScheduledTaskResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A scheduled task."""

    id: int
    task_name: str
    description: str | None
    schedule_type: str
    schedule_config: ScheduleConfig
    action_type: str
    action_config: Anything
    #: `active`, `inactive`, `running` or `error`.
    status: str
    enabled: bool
    next_run_time: datetime | None
    last_run_time: datetime | None
    last_success_time: datetime | None
    last_failure_time: datetime | None
    total_runs: int
    success_runs: int
    failure_runs: int
    #: Of those that succeeded, in seconds.
    average_duration: int | None
    last_error: str | None
    tags: list[str] | None
    task_metadata: Anything | None
    created_at: datetime | None
    updated_at: datetime | None
    backup_task_id: int | None


class Said(msgspec.Struct, frozen=True):
    """What TAF answers to most calls."""

    success: bool
    message: str


class RunOptions(msgspec.Struct, frozen=True):
    """How a run was asked for."""

    mode: str
    force_rescan: bool


class RunSaid(msgspec.Struct, frozen=True):
    """A run was asked for."""

    success: bool
    message: str
    run_options: RunOptions


class LogResult(msgspec.Struct, frozen=True):
    """What a run has done."""

    message: str
    backup_task_id: int | None


class LogRow(msgspec.Struct, frozen=True, kw_only=True):
    """A run."""

    id: int
    scheduled_task_id: int
    execution_id: str
    started_at: datetime | None
    completed_at: datetime | None
    #: In seconds.
    duration: float | None
    #: `pending`, `running`, `success`, `failed`, `cancelled` or `skipped`.
    status: str
    error_message: str | None
    result: LogResult | None


class Logs(msgspec.Struct, frozen=True):
    """The runs that are kept, the newest first."""

    logs: list[LogRow]
    total: int
    limit: int
    offset: int


class SchedulerStatus(msgspec.Struct, frozen=True):
    """How the scheduler is."""

    running: bool
    total_tasks: int
    enabled_tasks: int
    running_executions: int
