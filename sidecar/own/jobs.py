"""Jobs under /api/v1/jobs: what `tapefs backup` and `tapefs jobs` use."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from catalog.ids import JobId, JobNumber, new_uuid
from catalog.records import BackupSet, Job, JobState
from sidecar.answers import json_answer
from sidecar.jobs import JobView, Run
from sidecar.new_jobs import check_codec, check_name, check_sources, check_type
from sidecar.requests import Invalid, Page, body_of, number_in_path, page_of
from sidecar.service import Service

#: Jobs in one answer when the client does not say.
WHOLE_PAGE = Page(1000, 0)


class EncodedPath(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A path that is not UTF-8, in base64."""

    b64: str


class NewJob(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/jobs."""

    name: str
    sources: list[str | EncodedPath]
    type: str = "full"
    codec: str = "zstd"
    level: int = 3
    excludes: list[Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]] = []


class JobCalls:
    """Jobs as our own programs see them."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Route]:
        """Return the routes of this family."""
        return [
            Route("/api/v1/jobs", self.list, methods=["GET"]),
            Route("/api/v1/jobs", self.create, methods=["POST"]),
            Route("/api/v1/jobs/{number}", self.show, methods=["GET"]),
        ]

    async def list(self, request: Request) -> Response:
        """Show all jobs, oldest first; `limit` and `offset` as everywhere, by default the newest thousand."""
        views = self._service.jobs.views()
        if "limit" in request.query_params or "offset" in request.query_params:
            return json_answer([view_of(view) for view in page_of(request).cut(views)])
        return json_answer([view_of(view) for view in views[-WHOLE_PAGE.limit :]])

    async def show(self, request: Request) -> Response:
        """Show one job."""
        return json_answer(view_of(self._service.jobs.view(JobNumber(number_in_path(request, "number")))))

    async def create(self, request: Request) -> Response:
        """Record a job and queue it."""
        body = await body_of(request, NewJob)
        check_codec(body.codec, body.level)
        name, kind = check_name(body.name, "name"), check_type(body.type, "type")
        paths = [_path_bytes(source, place) for place, source in enumerate(body.sources)]
        sources = await trio.to_thread.run_sync(check_sources, paths, "sources")
        job = Job(
            number=JobNumber(0),
            job_id=JobId(new_uuid()),
            name=name,
            sources=sources,
            type=kind,
            codec=body.codec,
            level=body.level,
            excludes=tuple(body.excludes),
            created_at_ns=self._service.jobs.now_ns(),
        )
        number = (await self._service.jobs.create(job)).number
        await self._service.jobs.queue(number)
        return json_answer(view_of(self._service.jobs.view(number)), 202)


def _path_bytes(source: str | EncodedPath, place: int) -> bytes:
    try:
        return source.encode() if isinstance(source, str) else base64.b64decode(source.b64, validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError) as error:
        raise Invalid("value_error", ["body", "sources", place], f"is no path: {error}") from error


def view_of(view: JobView) -> dict[str, object]:
    """Return a job as JSON shows it."""
    job, run = view.job, view.run
    return {
        "number": job.number,
        "job_id": job.job_id,
        "name": job.name,
        "type": job.type,
        "state": job.state,
        "set_id": job.set_id,
        "error": job.error or None,
        "runs": job.runs,
        "progress": _progress(run, view.backup_set, job),
        "troubles": [{"path": each.path, "reason": each.reason} for each in reversed(run.troubles)] if run else [],
        "trouble_count": run.trouble_count if run else view.backup_set.troubled_files if view.backup_set else 0,
    }


def _progress(run: Run | None, backup_set: BackupSet | None, job: Job) -> dict[str, object] | None:
    if job.state is not JobState.COMPLETED and run is not None and run.progress is not None:
        now = run.progress
        return {
            "stage": now.stage,
            "files": now.files,
            "bytes": now.bytes,
            "stored_bytes": now.stored_bytes,
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
