"""TAF's /api/backup/tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import msgspec
import trio
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from catalog.ids import JobNumber
from catalog.ledger import Ledger
from catalog.records import Job, JobState
from catalog.schedule_records import BackUp
from sidecar.access.places import check_fields, check_job
from sidecar.http.answers import json_answer, moment, shown
from sidecar.http.callers import Caller, Role, caller_of
from sidecar.http.calls import Call, Query
from sidecar.http.requests import Invalid, Page, body_of, number_in_path, page_of, text_of
from sidecar.jobs.new import TAF_TYPES, changed_job, check_sources_of, check_type, new_job
from sidecar.jobs.queue import Jobs, JobView
from sidecar.service import Service
from sidecar.taf.backup_models import BackupTask, BackupTemplate, StageStep, TaskMade, TaskQueued
from sidecar.taf.encrypting import check_encryption, is_encrypted
from sidecar.taf.schedule_models import RunOptions, Said
from tapefs.client.job_fields import JobFields
from tapefs.codecs import CODECS
from tapefs.home import Home
from tapefs.taf.env_settings import TafSettings

T = TypeVar("T")

#: TAF knows no `queued`: what waits for a drive is pending.
STATUSES = {state: state.value for state in JobState} | {JobState.QUEUED: "pending"}
#: TAF's stages, and where ours stand among them.
STEPS = ("scan", "prefetch", "compress", "copy", "finalize")
LABELS = ("Scan", "Read ahead", "Compress", "Write to tape", "Finish")
STAGES = {"scan": 0, "write": 3, "index": 4}


#: TAF's paging.
PART = (Query("limit", "at most", int), Query("offset", "behind so many", int))
#: Jobs that are read at once when a list is filtered.
_CHUNK = 200
#: What TAF calls the fields of a job.
NAMES = {"name": "task_name", "sources": "source_paths", "type": "task_type", "excludes": "exclude_patterns"}


class BackupTaskRequest(msgspec.Struct, frozen=True):
    """TAF's body of a new task, and of a change to one; what is missing or null in a change stays.

    Unknown keys are ignored, as TAF does. `encryption_enabled` is checked and kept nowhere. `tape_device` and
    `enable_simple_scan` are taken and have no meaning here: the library chooses drive and tape, and there is one way
    to scan.
    """

    task_name: str | None = None
    source_paths: list[str] | None = None
    task_type: object = UNSET
    exclude_patterns: list[str] | None = None
    compression_enabled: bool | None = None
    encryption_enabled: bool | None = None
    retention_days: int | None = None
    description: str | None = None
    tape_device: str | None = None
    enable_simple_scan: bool | None = None

    def changes(self, codec: str) -> JobFields:
        """Return what is to change. Raises Invalid."""
        body = self if self.task_type is not None else msgspec.structs.replace(self, task_type=UNSET)
        return body.fields(codec)

    def fields(self, codec: str = "zstd") -> JobFields:
        """Return what is asked of a job that has this codec. Raises Invalid."""
        patterns = self.exclude_patterns
        return JobFields(
            name=_or_unset(self.task_name),
            sources=_or_unset(None if self.source_paths is None else [*self.source_paths]),
            type=UNSET if self.task_type is UNSET else check_type(self.task_type, "task_type", TAF_TYPES),
            excludes=_or_unset(None if patterns is None else [_pattern(each) for each in patterns if each.strip()]),
            codec=self._codec(codec),
            description=_or_unset(self.description),
            retention_days=_or_unset(self.retention_days),
        )

    def _codec(self, now: str) -> str | UnsetType:
        """Return another codec only where compression is to be switched on or off: TAF's tasks name none."""
        if self.compression_enabled in (None, CODECS[now].is_compressed):
            return UNSET
        return "zstd" if self.compression_enabled else "tar"


def _pattern(text: str) -> str:
    """Return a pattern of TAF's as ours: its `*/x` meant any depth."""
    return f"**/{text[2:]}" if text.startswith("*/") else text


def _or_unset(value: T | None) -> T | UnsetType:
    return UNSET if value is None else value


class BackupCalls:
    """Backup tasks: a task is a job, its number is the task's id."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        tasks, one, viewer, operator = "/api/backup/tasks", "/api/backup/tasks/{task_id}", Role.VIEWER, Role.OPERATOR
        filters = (
            Query("status", "as the tasks have it"),
            Query("task_type", "full, incremental, …"),
            Query("q", "part of the name or of the description"),
            *PART,
        )
        return [
            Call(tasks, self.list, needs=viewer, answer=list[BackupTask], query=filters),
            Call(tasks, self.create, methods=["POST"], needs=operator, body=BackupTaskRequest, answer=TaskMade),
            Call("/api/backup/templates", self.templates, needs=viewer, answer=list[BackupTemplate], query=PART),
            Call(one, self.show, needs=viewer, answer=BackupTask),
            Call(one, self.edit, methods=["PUT"], needs=operator, body=BackupTaskRequest, answer=Said),
            Call(one, self.delete, methods=["DELETE"], needs=operator, answer=Said),
            Call(f"{one}/run", self.run, methods=["POST"], needs=operator, answer=TaskQueued, status=202),
            Call(f"{one}/cancel", self.cancel, methods=["POST", "PUT"], needs=operator, answer=Said),
        ]

    async def list(self, request: Request) -> Response:
        """Show tasks, newest first, filtered by status, task_type and text."""
        page, is_wanted = page_of(request), _filter(request)
        status = (text_of(request, "status") or "").lower()
        states = [state for state, name in STATUSES.items() if name == status]
        if text_of(request, "task_type") is None and text_of(request, "q") is None:
            views = self._service.jobs.page(page.limit, page.offset, newest_first=True, states=states)
        else:
            views = await trio.to_thread.run_sync(matching, self._service.jobs, page, states, is_wanted)
        scheduled = await trio.to_thread.run_sync(scheduled_jobs, self._service.ledger)
        return json_answer([self._task(view, scheduled) for view in views])

    async def show(self, request: Request) -> Response:
        """Show one task."""
        view = self._service.jobs.view(_number(request))
        scheduled = await trio.to_thread.run_sync(scheduled_jobs, self._service.ledger)
        return json_answer(self._task(view, scheduled))

    async def create(self, request: Request) -> Response:
        """Record a task; it does not run yet."""
        body, home = await body_of(request, BackupTaskRequest), self._service.home
        check_encryption(home, body.encryption_enabled, "")
        fields = with_defaults(body.fields(), home.settings.taf)
        check_fields(caller_of(request), fields, home.settings.access)
        wanted = await trio.to_thread.run_sync(new_job, fields, self._service.jobs.now_ns(), NAMES)
        job = await self._service.jobs.create(wanted)
        return json_answer(
            TaskMade(
                success=True,
                task_id=job.number,
                message=f"Task {job.number} was created; run it with POST /api/backup/tasks/{job.number}/run",
                task_name=job.name,
                is_template=True,
            )
        )

    async def templates(self, request: Request) -> Response:
        """Show what all tasks are asked to do, newest first."""
        page = page_of(request)
        views = self._service.jobs.page(page.limit, page.offset, newest_first=True)
        return json_answer([_template(view.job, self._service.home) for view in views])

    async def edit(self, request: Request) -> Response:
        """Change what a task is asked to do."""
        number, body = _number(request), await body_of(request, BackupTaskRequest)
        work = partial(_changed, body=body, caller=caller_of(request), home=self._service.home)
        await self._service.jobs.edit(number, work)
        return json_answer(Said(True, f"Task {number} was changed"))

    async def delete(self, request: Request) -> Response:
        """Forget a task; its sets stay. Others than admins need to be allowed its sources."""
        number = _number(request)
        check_job(caller_of(request), self._service.ledger.job(number), self._service.home.settings.access)
        await self._service.jobs.delete(number)
        return json_answer(Said(True, f"Task {number} was deleted; its sets stay"))

    async def run(self, request: Request) -> Response:
        """Queue a task."""
        number = _number(request)
        job = self._service.jobs.view(number).job
        await trio.to_thread.run_sync(check_sources_of, job)
        await self._service.jobs.queue(number)
        return json_answer(
            TaskQueued(
                success=True,
                task_id=number,
                message=f"Task {number} was queued; see GET /api/backup/tasks/{number}",
                run_options=RunOptions(mode="auto", force_rescan=False),
            ),
            202,
        )

    async def cancel(self, request: Request) -> Response:
        """Stop a task that waits or runs."""
        number = _number(request)
        await self._service.jobs.cancel(number)
        return json_answer(Said(True, f"Task {number} is being cancelled"))

    # -- shapes ------------------------------------------------------------------------------------------------------

    def _task(self, view: JobView, scheduled: Mapping[JobNumber, bool]) -> BackupTask:
        """Return a task with all of TAF's fields."""
        job, done = view.job, view.backup_set
        files, read_bytes, stored_bytes = amounts(view)
        totals = self._totals(view, files, read_bytes)
        stage = _stage(view)
        return BackupTask(
            task_id=job.number,
            task_name=job.name,
            task_type=job.type,
            status=STATUSES[job.state],
            progress_percent=percent_of(job, read_bytes, totals[1]),
            total_files=totals[0],
            processed_files=files,
            total_bytes=totals[1],
            total_bytes_actual=totals[1],
            processed_bytes=read_bytes,
            compressed_bytes=stored_bytes,
            compression_ratio=round(stored_bytes / read_bytes, 4) if read_bytes else 0.0,
            created_at=moment(job.created_at_ns),
            started_at=moment(job.started_at_ns),
            completed_at=moment(job.finished_at_ns),
            error_message=job.error or None,
            source_paths=[shown(source) for source in job.sources],
            tape_device=None,
            tape_id=done.tapes[0] if done and done.tapes else None,
            is_template=job.state is JobState.PENDING,
            from_scheduler=job.number in scheduled,
            enabled=scheduled.get(job.number, True),
            description=job.description,
            estimated_archive_count=None,
            operation_status=_operation(view, files),
            operation_stage=STEPS[stage] if stage is not None else None,
            operation_stage_label=LABELS[stage] if stage is not None else None,
            stage_steps=_steps(job, stage),
        )

    def _totals(self, view: JobView, files: int, read_bytes: int) -> tuple[int, int]:
        """Return files and bytes in all: of a running task what its last complete set had, if that is more."""
        if view.job.state is not JobState.RUNNING:
            return files, read_bytes
        earlier = view.run.earlier if view.run is not None else None
        return (max(files, earlier.files), max(read_bytes, earlier.bytes)) if earlier else (files, read_bytes)


def with_defaults(fields: JobFields, settings: TafSettings) -> JobFields:
    """Return a new task with what the settings say of all that do not say it."""
    if fields.retention_days is UNSET:
        fields = msgspec.structs.replace(fields, retention_days=settings.retention_days)
    if fields.codec is UNSET:
        is_there = settings.level is not None and settings.level in CODECS[settings.codec].levels
        level = settings.level if is_there and settings.level is not None else UNSET
        fields = msgspec.structs.replace(fields, codec=settings.codec, level=level)
    return fields


def _number(request: Request) -> JobNumber:
    return JobNumber(number_in_path(request, "task_id"))


def _changed(job: Job, body: BackupTaskRequest, caller: Caller, home: Home) -> Job:
    """Return the task with what the body changes. Blocking; raises Forbidden for what the caller may not name."""
    fields = body.changes(job.codec)
    check_encryption(home, body.encryption_enabled, job.pool)
    check_job(caller, job, home.settings.access)
    check_fields(caller, fields, home.settings.access)
    return changed_job(job, fields, NAMES)


def scheduled_jobs(ledger: Ledger) -> dict[JobNumber, bool]:
    """Return the jobs that schedules run, and of each whether one of these is enabled. Blocking."""
    found: dict[JobNumber, bool] = {}
    for each in ledger.sound_schedules()[0]:
        if isinstance(each.action, BackUp):
            found[each.action.job] = found.get(each.action.job, False) or each.enabled
    return found


def _template(job: Job, home: Home) -> BackupTemplate:
    """Return what a task is asked to do with TAF's fields."""
    return BackupTemplate(
        task_id=job.number,
        task_name=job.name,
        task_type=job.type,
        description=job.description,
        source_paths=[shown(source) for source in job.sources],
        tape_device=None,
        compression_enabled=CODECS[job.codec].is_compressed,
        encryption_enabled=is_encrypted(home, job.pool),
        retention_days=max(0, job.retention_days),
        exclude_patterns=list(job.excludes),
        created_at=moment(job.created_at_ns),
    )


def matching(jobs: Jobs, page: Page, states: Sequence[JobState], is_wanted: Callable[[JobView], bool]) -> list[JobView]:
    """Return the page of what is wanted, newest first; jobs behind its end are not read. Blocking."""
    found: list[JobView] = []
    offset = 0
    while len(found) < page.offset + page.limit:
        views = jobs.page(_CHUNK, offset, newest_first=True, states=states)
        found += filter(is_wanted, views)
        offset += len(views)
        if len(views) < _CHUNK:
            break
    return list(page.cut(found))


def _filter(request: Request) -> Callable[[JobView], bool]:
    status, kind, text = (text_of(request, name) for name in ("status", "task_type", "q"))
    if status is not None and status.lower() not in STATUSES.values():
        raise Invalid("enum", ["query", "status"], "must be a task's status", status)

    def is_wanted(view: JobView) -> bool:
        job = view.job
        return (
            (status is None or STATUSES[job.state] == status.lower())
            and (kind is None or job.type == kind.lower())
            and (text is None or text.lower() in f"{job.name}\n{job.description}".lower())
        )

    return is_wanted


def amounts(view: JobView) -> tuple[int, int, int]:
    """Return files, bytes read and bytes stored of the newest run so far."""
    done, run = view.backup_set, view.run
    if view.job.state is not JobState.COMPLETED and run is not None and run.progress is not None:
        return run.progress.files, run.progress.bytes, run.progress.stored_bytes
    return (done.files, done.bytes, done.stored_bytes) if done else (0, 0, 0)


def percent_of(job: Job, read_bytes: int, total_bytes: int) -> float:
    """Return how much is done; unknown totals count as nothing, and only what is complete is 100."""
    if job.state is JobState.COMPLETED:
        return 100.0
    if job.state is not JobState.RUNNING or total_bytes <= read_bytes:
        return 0.0
    return round(100 * read_bytes / total_bytes, 1)


def _stage(view: JobView) -> int | None:
    if view.job.state is JobState.COMPLETED:
        return STAGES["index"]
    progress = view.run.progress if view.run else None
    return STAGES.get(progress.stage) if progress else None


def _steps(job: Job, stage: int | None) -> list[StageStep]:
    """Return TAF's steps.

    Reading, compressing and writing go on at once: while we write, those before count as done.
    """
    return [
        StageStep(code=code, label=label, status=_step(place, job, stage))
        for place, (code, label) in enumerate(zip(STEPS, LABELS, strict=True))
    ]


def _step(place: int, job: Job, stage: int | None) -> str:
    if job.state is JobState.COMPLETED or (stage is not None and place < stage):
        return "completed"
    return "active" if place == stage and job.state is JobState.RUNNING else "pending"


def _operation(view: JobView, files: int) -> str:
    """Return a sentence on what goes on."""
    job, run = view.job, view.run
    if job.state is JobState.RUNNING and run is not None and run.progress is not None:
        return f"{run.progress.stage}: {files} files, {run.progress.path}"
    if job.state is JobState.QUEUED:
        return "waiting for its next try" if job.not_before_ns else "waiting for a drive"
    return job.error or job.state.value
