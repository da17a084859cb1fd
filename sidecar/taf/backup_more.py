"""TAF's /api/backup beside the tasks: statistics, how a task is, sets, and the copy that it makes in the background."""

from __future__ import annotations

from datetime import datetime
from functools import partial

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from catalog.ids import JobNumber, SetId
from catalog.records import BackupSet, JobState, SetState
from sidecar.http.answers import json_answer, moment, shown
from sidecar.http.callers import Role
from sidecar.http.calls import Call, Query
from sidecar.http.requests import body_of, number_in_path, page_of
from sidecar.service import Service
from sidecar.taf.backup import STATUSES, amounts, percent_of
from sidecar.taf.browsing import set_called
from sidecar.taf.notification import Said
from sidecar.taf.recovery import group_in, group_of
from tapefs.errors import NotNow
from tapefs.retention.expire import expire, verdicts_of
from tapefs.retention.policy import Wish

_DAY_NS = 86_400 * 10**9
#: What TAF says where nothing was measured yet.
DEFAULT_RATIO, DEFAULT_DURATION_S = 0.65, 3600
_GOOD = (SetState.COMPLETE, SetState.EXPIRED)
_PAGE = (Query("limit", "at most", int), Query("offset", "behind so many", int))


class LastDay(msgspec.Struct, frozen=True, kw_only=True):
    """What was run in the last 24 hours."""

    total_tasks: int
    completed_tasks: int
    failed_tasks: int
    data_backed_up: int


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks by how they are, and what their sets hold."""

    total_tasks: int
    completed_tasks: int
    failed_tasks: int
    running_tasks: int
    pending_tasks: int
    success_rate: float
    total_data_backed_up: int
    compression_ratio: float
    average_task_duration: int
    recent_24h: LastDay


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a scan has found."""

    total_scanned_bytes: int
    total_scanned_files: int


class TaskStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a task is."""

    id: int
    task_name: str
    task_type: str
    status: str
    progress_percent: float
    total_files: int
    total_bytes: int
    processed_files: int
    processed_bytes: int
    compressed_bytes: int
    compression_ratio: float
    scan_status: str
    started_at: datetime | None
    completed_at: datetime | None
    error_message: str | None
    result_summary: Summary
    source_paths: list[str]
    tape_device: str | None
    tape_id: str | None
    description: str
    current_compression_progress: None = None


class SetRow(msgspec.Struct, frozen=True, kw_only=True):
    """A set."""

    set_id: str
    set_name: str
    backup_group: str | None
    backup_type: str
    backup_time: datetime | None
    total_files: int
    total_bytes: int
    tape_id: str | None
    status: str


class SetPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some sets, the newest first."""

    backup_sets: list[SetRow]
    total: int
    limit: int
    offset: int


class BackgroundCopyConfig(msgspec.Struct, frozen=True):
    """TAF's switch of its copy in the background."""

    enabled: bool


class BackgroundCopy(msgspec.Struct, frozen=True):
    """How it is, and why."""

    enabled: bool
    message: str


COPY_SAID = "Files go straight to tape; whether segments are collected on disk first says [backup] spool, or the job"


class BackupMoreCalls:
    """What else TAF tells of backups."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        base = "/api/backup"
        copying = f"{base}/settings/background-copy"
        by_month = (Query("backup_group", "a month: 2026-11"), *_PAGE)
        return [
            Call(f"{base}/statistics", self.statistics, needs=Role.VIEWER, answer=Statistics),
            Call(f"{base}/tasks/{{task_id}}/status", self.status, needs=Role.VIEWER, answer=TaskStatus),
            Call(f"{base}/backup-sets", self.sets, needs=Role.VIEWER, answer=SetPage, query=by_month),
            Call(
                f"{base}/backup-sets/{{set_id}}", self.delete, methods=["DELETE"], needs=Role.ADMIN, answer=Said,
            ),
            Call(copying, self.copying, needs=Role.VIEWER, answer=BackgroundCopy),
            Call(
                copying, self.set_copying, methods=["POST"], needs=Role.ADMIN, body=BackgroundCopyConfig,
                answer=BackgroundCopy,
            ),
        ]  # fmt: skip

    async def statistics(self, request: Request) -> Response:
        """Count tasks, and what their runs have made."""
        return json_answer(await trio.to_thread.run_sync(self._counted))

    def _counted(self) -> Statistics:
        """Blocking."""
        ledger, now_ns = self._service.ledger, self._service.jobs.now_ns()
        sets = ledger.backup_sets()
        good = [each for each in sets if each.state in _GOOD]
        failed = [each for each in sets if each.state is SetState.FAILED]
        lately = [each for each in sets if each.started_at_ns > now_ns - _DAY_NS]
        plain, stored = sum(each.bytes for each in good), sum(each.stored_bytes for each in good)
        took_ns = [each.finished_at_ns - each.started_at_ns for each in good if each.finished_at_ns]
        ended = len(good) + len(failed)
        return Statistics(
            total_tasks=ledger.job_count(),
            completed_tasks=ledger.job_count((JobState.COMPLETED,)),
            failed_tasks=ledger.job_count((JobState.FAILED,)),
            running_tasks=ledger.job_count((JobState.RUNNING,)),
            pending_tasks=ledger.job_count((JobState.PENDING, JobState.QUEUED)),
            success_rate=round(100 * len(good) / ended, 2) if ended else 0.0,
            total_data_backed_up=plain,
            compression_ratio=round(stored / plain, 4) if plain else DEFAULT_RATIO,
            average_task_duration=sum(took_ns) // len(took_ns) // 10**9 if took_ns else DEFAULT_DURATION_S,
            recent_24h=LastDay(
                total_tasks=len(lately),
                completed_tasks=sum(each.state in _GOOD for each in lately),
                failed_tasks=sum(each.state is SetState.FAILED for each in lately),
                data_backed_up=sum(each.bytes for each in lately if each.state in _GOOD),
            ),
        )

    async def status(self, request: Request) -> Response:
        """Tell how a task is."""
        view = self._service.jobs.view(JobNumber(number_in_path(request, "task_id")))
        job, done = view.job, view.backup_set
        count, read_bytes, stored_bytes = amounts(view)
        progress = view.run.progress if view.run else None
        is_scanning = job.state is JobState.RUNNING and (progress is None or progress.stage == "scan")
        scanned = job.state in (JobState.RUNNING, JobState.COMPLETED)
        status = TaskStatus(
            id=job.number,
            task_name=job.name,
            task_type=job.type,
            status=STATUSES[job.state],
            progress_percent=percent_of(job, read_bytes, 0),
            total_files=count,
            total_bytes=read_bytes,
            processed_files=count,
            processed_bytes=read_bytes,
            compressed_bytes=stored_bytes,
            compression_ratio=round(stored_bytes / read_bytes, 4) if read_bytes else 0.0,
            scan_status="running" if is_scanning else "completed" if scanned else "pending",
            started_at=moment(job.started_at_ns),
            completed_at=moment(job.finished_at_ns),
            error_message=job.error or None,
            result_summary=Summary(total_scanned_bytes=read_bytes, total_scanned_files=count),
            source_paths=[shown(source) for source in job.sources],
            tape_device=None,
            tape_id=done.tapes[0] if done and done.tapes else None,
            description=job.description,
        )
        return json_answer(status)

    async def sets(self, request: Request) -> Response:
        """Show complete sets, newest first."""
        page, group = page_of(request), group_in(request)
        sets = await trio.to_thread.run_sync(self._service.ledger.backup_sets)
        found = [
            each
            for each in reversed(sets)
            if each.state is SetState.COMPLETE and (group is None or group_of(each) == group)
        ]
        rows = [_row(each) for each in page.cut(found)]
        return json_answer(SetPage(backup_sets=rows, total=len(found), limit=page.limit, offset=page.offset))

    async def delete(self, request: Request) -> Response:
        """Let go of a set whatever its age; 409 while something builds on it. What is on tape stays until that goes."""
        service = self._service
        named = await trio.to_thread.run_sync(set_called, service.ledger, str(request.path_params["set_id"]))
        await trio.to_thread.run_sync(partial(self._let_go, named.set_id))
        message = f"Set {named.name} was let go of; its tapes can be written over when nothing else lives on them"
        return json_answer(Said(True, message))

    def _let_go(self, set_id: SetId) -> None:
        """Blocking. Raises NotNow."""
        service, wish = self._service, Wish(named=frozenset({set_id}))
        now_ns = service.jobs.now_ns()
        verdict = next(each for each in verdicts_of(service.ledger, now_ns, wish) if each.backup_set.set_id == set_id)
        if not verdict.goes:
            raise NotNow(f"set {verdict.backup_set.name} stays: {verdict.reason}")
        done = expire(service.home, service.ledger, now_ns, wish, lambda each: each.backup_set.set_id == set_id)
        if set_id not in done.expired:
            raise NotNow(f"set {verdict.backup_set.name} stays: a run has begun to build on it")

    async def copying(self, request: Request) -> Response:
        """Tell that there is no copy in the background."""
        return json_answer(BackgroundCopy(False, COPY_SAID))

    async def set_copying(self, request: Request) -> Response:
        """Take that it is to be off; 409 for on, because there is none."""
        if (await body_of(request, BackgroundCopyConfig)).enabled:
            raise NotNow(f"there is no copy in the background to be switched on. {COPY_SAID}")
        return json_answer(BackgroundCopy(False, COPY_SAID))


def _row(backup_set: BackupSet) -> SetRow:
    return SetRow(
        set_id=backup_set.set_id,
        set_name=backup_set.name,
        backup_group=group_of(backup_set),
        backup_type=backup_set.type,
        backup_time=moment(backup_set.started_at_ns),
        total_files=backup_set.files,
        total_bytes=backup_set.bytes,
        tape_id=backup_set.tapes[0] if backup_set.tapes else None,
        status="active",
    )
