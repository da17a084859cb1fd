"""Jobs as JSON shows them. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from catalog.ids import JobId, JobNumber, SetId
from catalog.queue_records import CheckState, HookResult, TryKind
from catalog.records import BackupSet, Job, JobState
from drivers.interface import Counters
from sidecar.http.answers import moment
from sidecar.jobs.queue import JobView, Run
from tapefs.client.api import Trouble
from tapefs.client.job_fields import Path, asked_of, encoded
from tapefs.client.schedules import HookView
from tapefs.report.records import BufferUse


class JobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a job is asked to do, by the names with which it can be changed; `JobFields` says what is allowed."""

    name: str
    sources: list[Path]
    #: Name of the one file whose content is sent while it runs; empty: the sources are read.
    stream: str
    type: str
    codec: str
    level: int
    threads: int
    checksum: bool
    excludes: list[str]
    exclude_caches: bool
    one_file_system: bool
    min_bytes: int
    max_bytes: int
    min_age_s: int
    max_age_s: int
    verify: bool
    copies: int
    keep_sources: bool
    #: Null: as the settings say.
    spool: bool | None
    description: str
    #: `pool`: as the rule of its pool says.
    retention_days: int | Literal["pool"]
    pool: str
    copy_pools: list[str]
    priority: int
    retries: int
    retry_first_s: int
    retry_longest_s: int
    #: Numbers of jobs.
    after: list[int]
    after_any: bool
    then_verify: str
    #: Names of hooks in the settings.
    hooks_before: list[str]
    hooks_after: list[str]


class MoveView(msgspec.Struct, frozen=True, kw_only=True):
    """A drive has failed under it, and it goes on in another."""

    drive: str
    tape: str | None
    reason: str
    at: datetime | None


class TryView(msgspec.Struct, frozen=True, kw_only=True):
    """A run that ended before its end."""

    kind: TryKind
    reason: str
    at: datetime | None
    #: Of its set so many were committed by then.
    segments: int


class CheckView(msgspec.Struct, frozen=True, kw_only=True):
    """What the verification behind the newest run has found."""

    state: CheckState
    reason: str | None
    since: datetime | None
    at: datetime | None


class ProgressView(msgspec.Struct, frozen=True, kw_only=True):
    """How far the newest run is."""

    stage: str
    files: int
    #: Content read so far, and bytes written to tape for it.
    bytes: int
    stored_bytes: int
    #: While it runs: payload bytes read back.
    verified_bytes: int | UnsetType = UNSET
    path: str
    tape: str


class JobAnswer(JobRequest, frozen=True, kw_only=True):
    """A job."""

    number: JobNumber
    job_id: JobId
    state: JobState
    set_id: SetId | None
    #: What the newest run was to make, and what it has made.
    run_type: str
    set_type: str | None
    error: str | None
    moves: list[MoveView]
    tries: list[TryView]
    #: Of the newest run, those that have ended.
    hooks: list[HookView]
    not_before: datetime | None
    paused_at: datetime | None
    is_pausing: bool
    check: CheckView | None
    runs: int
    created_at: datetime | None
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    progress: ProgressView | None
    #: The newest; `trouble_count` counts all.
    troubles: list[Trouble]
    trouble_count: int
    #: What it waits for, in a sentence.
    waits_for: str | None
    #: So many jobs come before it; null: it does not wait.
    jobs_before: int | None


class JobDetail(JobAnswer, frozen=True, kw_only=True):
    """A job that is shown alone, with what tells whether the drive streamed."""

    drive: Counters | None
    buffer: BufferUse | None


def answer_of(view: JobView, waits_for: str | None, jobs_before: int | None) -> JobAnswer:
    """Return a job as JSON shows it."""
    job, run = view.job, view.run
    return JobAnswer(
        **_request_of(job),
        number=job.number,
        job_id=job.job_id,
        state=job.state,
        set_id=job.set_id,
        run_type=job.run_type or job.type,
        set_type=view.backup_set.type if view.backup_set else None,
        error=job.error or None,
        moves=[
            MoveView(drive=move.drive, tape=move.tape or None, reason=move.reason, at=moment(move.at_ns))
            for move in job.moves
        ],
        tries=[
            TryView(kind=each.kind, reason=each.reason, at=moment(each.at_ns), segments=each.segments)
            for each in job.tries
        ],
        hooks=[hook_view(each) for each in job.hooks],
        not_before=moment(job.not_before_ns),
        paused_at=moment(job.paused_at_ns),
        is_pausing=run is not None and run.is_pausing and job.state is JobState.RUNNING,
        check=_check(job),
        runs=job.runs,
        created_at=moment(job.created_at_ns),
        queued_at=moment(job.queued_at_ns),
        started_at=moment(job.started_at_ns),
        finished_at=moment(job.finished_at_ns),
        progress=_progress(run, view.backup_set, job),
        troubles=[Trouble(path=each.path, reason=each.reason) for each in reversed(run.troubles)] if run else [],
        trouble_count=run.trouble_count if run else view.backup_set.troubled_files if view.backup_set else 0,
        waits_for=waits_for,
        jobs_before=jobs_before,
    )


def hook_view(result: HookResult) -> HookView:
    """Return how a hook went."""
    return HookView(
        name=result.name,
        is_after=result.is_after,
        error=result.error or None,
        output=result.output,
        duration_s=round(result.duration_ns / 1e9, 3),
    )


def _request_of(job: Job) -> dict[str, Any]:
    asked: dict[str, Any] = asked_of(job)
    lists = {name: list(value) for name, value in asked.items() if isinstance(value, tuple)}
    return asked | lists | {"sources": [encoded(source) for source in job.sources]}


def _check(job: Job) -> CheckView | None:
    if job.check is None:
        return None
    return CheckView(
        state=job.check.state,
        reason=job.check.reason or None,
        since=moment(job.check.since_ns),
        at=moment(job.check.at_ns),
    )


def _progress(run: Run | None, backup_set: BackupSet | None, job: Job) -> ProgressView | None:
    if job.state is not JobState.COMPLETED and run is not None and run.progress is not None:
        now = run.progress
        return ProgressView(
            stage=now.stage,
            files=now.files,
            bytes=now.bytes,
            stored_bytes=now.stored_bytes,
            verified_bytes=now.verified_bytes,
            path=now.path,
            tape=now.tape,
        )
    if backup_set is None:
        return None
    return ProgressView(
        stage=job.state.value,
        files=backup_set.files,
        bytes=backup_set.bytes,
        stored_bytes=backup_set.stored_bytes,
        path="",
        tape=backup_set.tapes[-1] if backup_set.tapes else "",
    )
