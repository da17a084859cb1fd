"""Jobs under /api/v1/jobs: what `tapefs backup`, `tapefs job` and `tapefs jobs` use."""

from __future__ import annotations

from functools import partial

import msgspec
import trio
from msgspec import UNSET, UnsetType, structs
from starlette.requests import Request
from starlette.responses import Response

from catalog.ids import JobNumber
from catalog.records import BackupSet, Job, JobState
from sidecar.answers import json_answer, moment
from sidecar.callers import Role
from sidecar.calls import Call
from sidecar.job_pools import with_pools
from sidecar.jobs import JobView, Run
from sidecar.new_jobs import changed_job, check_run_type, check_sources, new_job
from sidecar.requests import Page, body_of, number_in_path, page_of
from sidecar.service import Service
from sidecar.waiting import waits_for
from tapefs.client.job_fields import JobFields, asked_of, encoded
from tapefs.report.present import streaming_of
from tapefs.retention.pools import Pools

#: Jobs in one answer when the client does not say.
WHOLE_PAGE = Page(1000, 0)


class NewJob(JobFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/jobs: `name` and `sources` are required."""

    #: Queue it at once; else it is a template until somebody runs it.
    run: bool = True
    #: Run the newest job of that name with the same sources, if there is one: what else the body names is changed in
    #: it, but for `type`, which is that of this run's set only.
    reuse: bool = False


class RunBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/jobs/N/run; may be missing."""

    #: Of the set that this run makes; the job's own if it is not said.
    type: str | UnsetType = UNSET


class JobCalls:
    """Jobs as our own programs see them."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call("/api/v1/jobs", self.list, needs=Role.VIEWER),
            Call("/api/v1/jobs", self.create, methods=["POST"], needs=Role.OPERATOR),
            Call("/api/v1/jobs/{number}", self.show, needs=Role.VIEWER),
            Call("/api/v1/jobs/{number}", self.edit, methods=["PATCH"], needs=Role.OPERATOR),
            Call("/api/v1/jobs/{number}", self.delete, methods=["DELETE"], needs=Role.OPERATOR),
            Call("/api/v1/jobs/{number}/run", self.run, methods=["POST"], needs=Role.OPERATOR),
            Call("/api/v1/jobs/{number}/resume", self.resume, methods=["POST"], needs=Role.OPERATOR),
            Call("/api/v1/jobs/{number}/cancel", self.cancel, methods=["POST"], needs=Role.OPERATOR),
        ]

    async def list(self, request: Request) -> Response:
        """Show all jobs, oldest first; `limit` and `offset` as everywhere, by default the newest thousand."""
        views = self._service.jobs.views()
        if "limit" in request.query_params or "offset" in request.query_params:
            return json_answer([self._view(view) for view in page_of(request).cut(views)])
        return json_answer([self._view(view) for view in views[-WHOLE_PAGE.limit :]])

    async def show(self, request: Request) -> Response:
        """Show one job, and whether the drive streamed in its newest run. The report is read in a thread."""
        view = self._service.jobs.view(_number(request))
        streaming = await trio.to_thread.run_sync(streaming_of, self._service.home, view.job)
        return json_answer({**self._view(view), **streaming})

    async def create(self, request: Request) -> Response:
        """Record a job, and queue it unless `run` is false."""
        body = await body_of(request, NewJob)
        job = await trio.to_thread.run_sync(new_job, body, self._service.jobs.now_ns())
        job = with_pools(job, body, self._pools(), is_new=True)
        known = self._service.jobs.newest(like=job) if body.reuse and body.run else None
        number = (await self._service.jobs.create(job)).number if known is None else known.number
        if known is not None:
            changes = structs.replace(body, name=UNSET, sources=UNSET, type=UNSET)
            await self._service.jobs.edit(number, partial(self._changed, fields=changes))
        if body.run:
            await self._service.jobs.queue(number, "" if known is None or known.type == job.type else job.type)
        return json_answer(self._view(self._service.jobs.view(number)), 202 if body.run else 201)

    async def edit(self, request: Request) -> Response:
        """Change what a job is asked to do; what the body does not name stays."""
        number, body = _number(request), await body_of(request, JobFields)
        await self._service.jobs.edit(number, partial(self._changed, fields=body))
        return json_answer(self._view(self._service.jobs.view(number)))

    async def delete(self, request: Request) -> Response:
        """Forget a job; its sets stay."""
        await self._service.jobs.delete(_number(request))
        return Response(status_code=204)

    async def run(self, request: Request) -> Response:
        """Queue a job."""
        number = _number(request)
        body = await body_of(request, RunBody) if await request.body() else RunBody()
        job = self._service.jobs.view(number).job
        await trio.to_thread.run_sync(check_sources, job.sources, "sources")
        await self._service.jobs.queue(number, "" if body.type is UNSET else check_run_type(job, body.type))
        return json_answer(self._view(self._service.jobs.view(number)), 202)

    async def resume(self, request: Request) -> Response:
        """Queue a job whose newest run failed or was cancelled, to go on with it."""
        number = _number(request)
        await self._service.jobs.resume(number)
        return json_answer(self._view(self._service.jobs.view(number)), 202)

    async def cancel(self, request: Request) -> Response:
        """Take a job out of the queue, or have it stop at the next good place."""
        number = _number(request)
        await self._service.jobs.cancel(number)
        return json_answer(self._view(self._service.jobs.view(number)), 202)

    def _view(self, view: JobView) -> dict[str, object]:
        return {**view_of(view), "waits_for": waits_for(self._service, view)}

    def _pools(self) -> Pools:
        return Pools.of(self._service.home, self._service.ledger)

    def _changed(self, job: Job, fields: JobFields) -> Job:
        """Blocking; in a thread."""
        return with_pools(changed_job(job, fields), fields, self._pools(), is_new=False)


def _number(request: Request) -> JobNumber:
    return JobNumber(number_in_path(request, "number"))


def view_of(view: JobView) -> dict[str, object]:
    """Return a job as JSON shows it."""
    job, run = view.job, view.run
    return {
        "number": job.number,
        "job_id": job.job_id,
        **_request_of(job),
        "state": job.state,
        "set_id": job.set_id,
        "run_type": job.run_type or job.type,
        "set_type": view.backup_set.type if view.backup_set else None,
        "error": job.error or None,
        "moves": [
            {"drive": move.drive, "tape": move.tape or None, "reason": move.reason, "at": moment(move.at_ns)}
            for move in job.moves
        ],
        "runs": job.runs,
        "created_at": moment(job.created_at_ns),
        "queued_at": moment(job.queued_at_ns),
        "started_at": moment(job.started_at_ns),
        "finished_at": moment(job.finished_at_ns),
        "progress": _progress(run, view.backup_set, job),
        "troubles": [{"path": each.path, "reason": each.reason} for each in reversed(run.troubles)] if run else [],
        "trouble_count": run.trouble_count if run else view.backup_set.troubled_files if view.backup_set else 0,
    }


def _request_of(job: Job) -> dict[str, object]:
    """Return what the job is asked to do, by the names with which it can be changed."""
    chosen = asked_of(job)
    chosen["sources"] = [_shown(source) for source in job.sources]
    return chosen


def _shown(source: bytes) -> object:
    path = encoded(source)
    return path if isinstance(path, str) else structs.asdict(path)


def _progress(run: Run | None, backup_set: BackupSet | None, job: Job) -> dict[str, object] | None:
    if job.state is not JobState.COMPLETED and run is not None and run.progress is not None:
        now = run.progress
        return {
            "stage": now.stage,
            "files": now.files,
            "bytes": now.bytes,
            "stored_bytes": now.stored_bytes,
            "verified_bytes": now.verified_bytes,
            "path": now.path,
            "tape": now.tape,
        }
    if backup_set is None:
        return None
    return {
        "stage": job.state.value,
        "files": backup_set.files,
        "bytes": backup_set.bytes,
        "stored_bytes": backup_set.stored_bytes,
        "path": "",
        "tape": backup_set.tapes[-1] if backup_set.tapes else "",
    }
