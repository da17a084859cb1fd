"""How TAF's scheduled tasks are made and changed. Trio; what blocks says so."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec
import trio
from msgspec import UNSET

from catalog.errors import NotFound
from catalog.ids import JobNumber
from catalog.records import Job, JobState
from catalog.schedule_records import BackUp, CheckRetention, Interval, Schedule
from sidecar.http.requests import Invalid, converted
from sidecar.jobs.new import changed_job, check_run_type, new_job
from sidecar.schedules.new import changed_schedule, new_schedule
from sidecar.service import Service
from sidecar.taf.backup import NAMES, BackupTaskRequest, with_defaults
from sidecar.taf.encrypting import check_encryption
from sidecar.taf.schedule_models import Anything, ScheduledTaskCreate, ScheduledTaskUpdate
from sidecar.taf.schedule_words import action_config_of, action_kind, action_of, config_of, renamed, rule_of, zone_name
from tapefs.client.schedules import ScheduleFields

T = TypeVar("T")

_PLACE: list[str | int] = ["body", "action_config"]


class Notes(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a schedule remembers for these calls, in `Schedule.notes`."""

    task_metadata: Anything | None = None
    #: The job that was made for it.
    template: int = 0


class TaskMaking:
    """Makes schedules of bodies, and the jobs that they run."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def new(self, body: ScheduledTaskCreate, now_ns: int) -> Schedule:
        """Return the schedule; a backup's action is still to be set. Blocking."""
        service, kind = self._service, action_kind(body.action_type)
        fields = ScheduleFields(
            name=body.task_name,
            description=body.description or "",
            rule=rule_of(body.schedule_type, body.schedule_config),
            zone=zone_name(body.schedule_config),
            action=CheckRetention() if kind == "backup" else action_of(kind, body.action_config, service.ledger),
            enabled=body.enabled,
            tags=tuple(body.tags or ()),
        )
        notes = _text_of(Notes(task_metadata=body.task_metadata))
        made: Schedule = renamed(lambda: new_schedule(service.home, service.ledger, fields, now_ns, notes))
        return made

    def changed(self, known: Schedule, body: ScheduledTaskUpdate, now_ns: int) -> Schedule:
        """Return the schedule with what the body changes, but for what a backup's job is asked. Blocking."""
        service = self._service
        asked = {"name": body.task_name, "description": body.description, "enabled": body.enabled}
        fields: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        if body.tags is not None:
            fields["tags"] = tuple(body.tags)
        if body.schedule_type is not None or body.schedule_config is not None:
            fields |= _when(known, body)
        kind = kind_of(known, body.action_type)
        if kind != "backup" and (body.action_type is not None or body.action_config is not None):
            fields["action"] = action_of(kind, body.action_config or {}, service.ledger)
        wanted: Schedule = renamed(
            lambda: changed_schedule(service.home, service.ledger, known, ScheduleFields(**fields), now_ns)
        )
        if body.task_metadata is None:
            return wanted
        notes = msgspec.structs.replace(notes_of(known), task_metadata=body.task_metadata)
        return msgspec.structs.replace(wanted, notes=_text_of(notes))

    async def with_backup(
        self, wanted: Schedule, config: Anything, number: int | None, description: str | None
    ) -> tuple[Schedule, Job | None]:
        """Return the schedule with a job, and the job if it was made for it. Raises Invalid, NotFound, NotNow."""
        request = converted(config, BackupTaskRequest, _PLACE)
        request = request if request.task_type is not None else msgspec.structs.replace(request, task_type=UNSET)
        notes, jobs = notes_of(wanted), self._service.jobs
        known = number or (notes.template if job_of(wanted) == notes.template else 0)
        pool = self._service.ledger.job(JobNumber(known)).pool if known else ""
        check_encryption(self._service.home, request.encryption_enabled, pool, _PLACE)
        made = None
        if number is not None:
            job = self._service.ledger.job(JobNumber(number))
            await trio.to_thread.run_sync(_check_same, job, request)
        elif notes.template and job_of(wanted) == notes.template:
            job = await jobs.edit(JobNumber(notes.template), partial(_in_config, request=request))
        else:
            asked = _completed(request, wanted.name, description)
            made = job = await jobs.create(await trio.to_thread.run_sync(self._new_job, asked))
            notes = msgspec.structs.replace(notes, template=job.number)
        run_type = _run_type(job, request) if number is not None else ""
        action = BackUp(job=job.number, type=run_type)
        return msgspec.structs.replace(wanted, action=action, notes=_text_of(notes)), made

    def _new_job(self, request: BackupTaskRequest) -> Job:
        """Blocking."""
        settings, now_ns = self._service.home.settings.taf, self._service.jobs.now_ns()
        return _placed(lambda: new_job(with_defaults(request.fields(), settings), now_ns, NAMES))

    async def put(self, known: Schedule | None, wanted: Schedule, made: Job | None) -> Schedule:
        """Record the schedule. What was made for it goes if that fails, and what it had before if it has no use now."""
        try:
            stored = await self._service.scheduler.put(known, wanted)
        except BaseException:
            if made is not None:
                with trio.CancelScope(shield=True):
                    await self.drop_template(made.number)
            raise
        before = notes_of(known).template if known is not None else 0
        if before and job_of(stored) != before:
            await self.drop_template(before)
        return stored

    async def drop_template(self, number: int) -> None:
        """Forget a job that was made for a schedule, unless it has run or is wanted by another."""
        try:
            job = self._service.ledger.job(JobNumber(number))
        except NotFound:
            return
        schedules = await trio.to_thread.run_sync(self._service.ledger.schedules)
        is_wanted = any(job_of(each) == number for each in schedules)
        if job.state is JobState.PENDING and not job.runs and not is_wanted:
            await self._service.jobs.delete(job.number)


def _when(known: Schedule, body: ScheduledTaskUpdate) -> dict[str, object]:
    """Return rule and zone as a change has them; of one that names only the other half, this half stays."""
    kind, config = config_of(known.rule, known.zone)
    config = body.schedule_config or config
    rule = rule_of(body.schedule_type or kind, config)
    if isinstance(rule, Interval) and isinstance(known.rule, Interval):
        same = msgspec.structs.replace(rule, anchor_ns=known.rule.anchor_ns) == known.rule
        rule = known.rule if same else rule
    return {"rule": rule, "zone": zone_name(config)}


def kind_of(known: Schedule, wanted: str | None) -> str:
    """Return the type of action that a changed task has. Raises Invalid."""
    return action_kind(wanted) if wanted is not None else action_config_of(known.action, None)[0]


def job_of(schedule: Schedule) -> JobNumber | None:
    """Return the job that it runs."""
    return schedule.action.job if isinstance(schedule.action, BackUp) else None


def refuse_task(number: int | None) -> None:
    """Raise Invalid for a backup task of something that is no backup."""
    if number is not None:
        raise Invalid("value_error", ["body", "backup_task_id"], "only the action backup runs a task", number)


def _placed(check: Callable[[], T]) -> T:
    """Run a check; what it refuses stands in `action_config`."""
    try:
        return check()
    except Invalid as error:
        problem = error.problem
        raise Invalid(problem["type"], [*_PLACE, *problem["loc"][1:]], problem["msg"], problem["input"]) from error


def _completed(request: BackupTaskRequest, name: str, description: str | None) -> BackupTaskRequest:
    """Return what a new job is asked, with the schedule's name."""
    return msgspec.structs.replace(
        request,
        task_name=name if request.task_name is None else request.task_name,
        description=description if request.description is None else request.description,
    )


def _in_config(job: Job, request: BackupTaskRequest) -> Job:
    """Return the job with what `action_config` changes. Blocking."""
    return _placed(lambda: changed_job(job, request.changes(job.codec), NAMES))


def _check_same(job: Job, request: BackupTaskRequest) -> None:
    """Refuse an `action_config` that asks something of a task that it is not asked. Blocking."""
    plain = msgspec.structs.replace(request, task_type=UNSET)
    if _in_config(job, plain) != job:
        message = f"task {job.number} is asked something else: change it by PUT /api/backup/tasks/{job.number}"
        raise Invalid("value_error", _PLACE, message)


def _run_type(job: Job, request: BackupTaskRequest) -> str:
    if request.task_type is UNSET:
        return ""
    return _placed(lambda: check_run_type(job, str(request.fields().type)))


def notes_of(schedule: Schedule) -> Notes:
    """Return what the schedule remembers."""
    return msgspec.json.decode(schedule.notes, type=Notes)


def _text_of(notes: Notes) -> str:
    return msgspec.json.encode(notes).decode()
