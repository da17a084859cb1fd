"""Jobs under /api/v1/jobs: what `tapefs backup`, `tapefs job` and `tapefs jobs` use."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated

import msgspec
import trio
from msgspec import UNSET, UnsetType, structs
from starlette.requests import Request
from starlette.responses import Response

from catalog.ids import JobNumber
from catalog.queue_records import HIGHEST_PRIORITY
from catalog.records import Job, JobState
from sidecar.access.places import check_fields, check_job
from sidecar.http.answers import json_answer, moment
from sidecar.http.callers import Caller, Role, caller_of
from sidecar.http.calls import PAGE, Call, Query
from sidecar.http.paging import counted_headers, counted_page, missing
from sidecar.http.requests import Invalid, Page, body_of, number_in_path, text_of
from sidecar.http.turns import in_turns
from sidecar.jobs.going_on import OPEN_STATES
from sidecar.jobs.new import changed_job, check_run_type, check_sources_of, new_job
from sidecar.jobs.pools import with_pools
from sidecar.jobs.queue import JobView
from sidecar.jobs.waiting import waits_for
from sidecar.own.job_views import JobAnswer, JobDetail, answer_of
from sidecar.schedules.commands import check_job_hooks
from sidecar.service import Service
from tapefs.client.job_fields import JobFields
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


class PriorityBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of PUT /api/v1/jobs/N/priority."""

    priority: Annotated[int, msgspec.Meta(ge=0, le=HIGHEST_PRIORITY)]


class PauseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/queue/pause; may be missing."""

    #: Shown to those whose jobs wait.
    reason: Annotated[str, msgspec.Meta(max_length=1000)] = ""


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    """The queue as a whole."""

    is_paused: bool
    reason: str | None
    since: datetime | None
    queued: int
    running: int
    paused: int


STATE = Query("state", "one of the states of jobs, or some behind commas")


class JobCalls:
    """Jobs as our own programs see them."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call("/api/v1/jobs", self.list, needs=Role.VIEWER, answer=list[JobAnswer], query=(*PAGE, STATE)),
            Call(
                "/api/v1/jobs",
                self.create,
                methods=["POST"],
                needs=Role.OPERATOR,
                body=NewJob,
                answer=JobAnswer,
                status=202,
                also=(201,),
            ),
            Call("/api/v1/jobs/{number}", self.show, needs=Role.VIEWER, answer=JobDetail),
            Call(
                "/api/v1/jobs/{number}",
                self.edit,
                methods=["PATCH"],
                needs=Role.OPERATOR,
                body=JobFields,
                answer=JobAnswer,
            ),
            Call("/api/v1/jobs/{number}", self.delete, methods=["DELETE"], needs=Role.OPERATOR, status=204),
            Call(
                "/api/v1/jobs/{number}/run",
                self.run,
                methods=["POST"],
                needs=Role.OPERATOR,
                body=RunBody,
                is_body_optional=True,
                answer=JobAnswer,
                status=202,
            ),
            Call(
                "/api/v1/jobs/{number}/resume",
                self.resume,
                methods=["POST"],
                needs=Role.OPERATOR,
                answer=JobAnswer,
                status=202,
            ),
            Call(
                "/api/v1/jobs/{number}/cancel",
                self.cancel,
                methods=["POST"],
                needs=Role.OPERATOR,
                answer=JobAnswer,
                status=202,
            ),
            Call(
                "/api/v1/jobs/{number}/pause",
                self.pause,
                methods=["POST"],
                needs=Role.OPERATOR,
                answer=JobAnswer,
                status=202,
            ),
            Call(
                "/api/v1/jobs/{number}/priority",
                self.rank,
                methods=["PUT"],
                needs=Role.OPERATOR,
                body=PriorityBody,
                answer=JobAnswer,
            ),
            Call("/api/v1/queue", self.queue, needs=Role.VIEWER, answer=QueueView),
            Call(
                "/api/v1/queue/pause",
                self.pause_queue,
                methods=["POST"],
                needs=Role.OPERATOR,
                body=PauseBody,
                is_body_optional=True,
                answer=QueueView,
            ),
            Call("/api/v1/queue/resume", self.resume_queue, methods=["POST"], needs=Role.OPERATOR, answer=QueueView),
        ]

    async def list(self, request: Request) -> Response:
        """Show jobs, all or those of a `state`, oldest first; where no part is asked for the newest thousand."""
        states, jobs = _states(request), self._service.jobs
        if not {"limit", "offset", "cursor"}.isdisjoint(request.query_params):
            page = counted_page(request)
            found, count = jobs.page(page.limit, page.offset, states=states), self._service.ledger.job_count
            behind = page.offset + page.limit
            has_more = bool(jobs.page(1, behind, states=states))
            if not has_more:  # The one behind may only be one that cannot be read: these have positions, too.
                has_more = behind < await trio.to_thread.run_sync(count, states)
            headers = counted_headers(request, page, None if states else count(), has_more=has_more)
            answer = json_answer(await in_turns(self._view, found), headers=headers)
        else:
            newest = jobs.page(WHOLE_PAGE.limit, newest_first=True, states=states)
            answer = json_answer(await in_turns(self._view, reversed(newest)))
        return missing(answer, self._service.records.count("jobs"))

    async def show(self, request: Request) -> Response:
        """Show one job, and whether the drive streamed in its newest run. The report is read in a thread."""
        view = self._service.jobs.view(_number(request))
        streaming = await trio.to_thread.run_sync(streaming_of, self._service.home, view.job)
        return json_answer(
            JobDetail(**structs.asdict(self._view(view)), drive=streaming.drive, buffer=streaming.buffer)
        )

    async def create(self, request: Request) -> Response:
        """Record a job, and queue it unless `run` is false."""
        body, caller = await body_of(request, NewJob), caller_of(request)
        check_fields(caller, body, self._service.home.settings.access)
        job = await trio.to_thread.run_sync(new_job, body, self._service.jobs.now_ns())
        job = with_pools(job, body, self._pools(), is_new=True)
        check_job_hooks(self._service.home, job)
        known = self._service.jobs.newest(like=job) if body.reuse and (body.run or job.stream) else None
        number = (await self._service.jobs.create(job)).number if known is None else known.number
        if known is not None:
            changes = structs.replace(body, name=UNSET, sources=UNSET, stream=UNSET, type=UNSET)
            await self._service.jobs.edit(number, partial(self._changed, fields=changes, caller=caller))
        if body.run:
            await self._service.jobs.queue(number, "" if known is None or known.type == job.type else job.type)
        return json_answer(self._view(self._service.jobs.view(number)), 202 if body.run else 201)

    async def edit(self, request: Request) -> Response:
        """Change what a job is asked to do; what the body does not name stays."""
        number, body, caller = _number(request), await body_of(request, JobFields), caller_of(request)
        check_fields(caller, body, self._service.home.settings.access)
        await self._service.jobs.edit(number, partial(self._changed, fields=body, caller=caller))
        return json_answer(self._view(self._service.jobs.view(number)))

    async def delete(self, request: Request) -> Response:
        """Forget a job; its sets stay. Others than admins need to be allowed its sources."""
        number = _number(request)
        check_job(caller_of(request), self._service.ledger.job(number), self._service.home.settings.access)
        await self._service.jobs.delete(number)
        return Response(status_code=204)

    async def run(self, request: Request) -> Response:
        """Queue a job."""
        number = _number(request)
        body = await body_of(request, RunBody) if await request.body() else RunBody()
        job = self._service.jobs.view(number).job
        await trio.to_thread.run_sync(check_sources_of, job)
        await self._service.jobs.queue(number, "" if body.type is UNSET else check_run_type(job, body.type))
        return json_answer(self._view(self._service.jobs.view(number)), 202)

    async def resume(self, request: Request) -> Response:
        """Queue a job whose newest run failed or was cancelled, to go on with it."""
        number = _number(request)
        await self._service.jobs.resume(number)
        return json_answer(self._view(self._service.jobs.view(number)), 202)

    async def pause(self, request: Request) -> Response:
        """Have a job wait until it is resumed; a running one stops at the end of its segment."""
        number = _number(request)
        await self._service.jobs.pause(number)
        return json_answer(self._view(self._service.jobs.view(number)), 202)

    async def rank(self, request: Request) -> Response:
        """Give a job another priority, whatever it does."""
        number, body = _number(request), await body_of(request, PriorityBody)
        await self._service.jobs.rank(number, body.priority)
        return json_answer(self._view(self._service.jobs.view(number)))

    async def queue(self, request: Request) -> Response:
        """Say whether the queue is paused, and how many jobs wait, run and are paused."""
        return json_answer(self._queue())

    async def pause_queue(self, request: Request) -> Response:
        """Have no job begin until the queue is resumed; what runs goes on to its end."""
        body = await body_of(request, PauseBody) if await request.body() else PauseBody()
        await self._service.jobs.hold(is_paused=True, reason=body.reason)
        return json_answer(self._queue())

    async def resume_queue(self, request: Request) -> Response:
        """Let jobs begin again."""
        await self._service.jobs.hold(is_paused=False, reason="")
        return json_answer(self._queue())

    def _queue(self) -> QueueView:
        held = self._service.jobs.held
        counts = {state: self._service.ledger.job_count([state]) for state in OPEN_STATES}
        return QueueView(
            is_paused=held.is_paused,
            reason=held.reason or None,
            since=moment(held.at_ns) if held.is_paused else None,
            queued=counts[JobState.QUEUED],
            running=counts[JobState.RUNNING],
            paused=counts[JobState.PAUSED],
        )

    async def cancel(self, request: Request) -> Response:
        """Take a job out of the queue, or have it stop at the next good place."""
        number = _number(request)
        await self._service.jobs.cancel(number)
        return json_answer(self._view(self._service.jobs.view(number)), 202)

    def _view(self, view: JobView) -> JobAnswer:
        before = self._service.jobs.place_of(view.job.number)
        return answer_of(view, waits_for(self._service, view), before)

    def _pools(self) -> Pools:
        return Pools.of(self._service.home, self._service.ledger)

    def _changed(self, job: Job, fields: JobFields, caller: Caller) -> Job:
        """Blocking; in a thread."""
        check_job(caller, job, self._service.home.settings.access)
        changed = changed_job(job, fields)
        if (changed.hooks_before, changed.hooks_after) != (job.hooks_before, job.hooks_after):
            check_job_hooks(self._service.home, changed)
        return with_pools(changed, fields, self._pools(), is_new=False)


def _number(request: Request) -> JobNumber:
    return JobNumber(number_in_path(request, "number"))


def _states(request: Request) -> list[JobState]:
    text = text_of(request, "state")
    if text is None:
        return []
    try:
        return [JobState(each) for each in text.lower().split(",")]
    except ValueError:
        states = ", ".join(state.value for state in JobState)
        raise Invalid("enum", ["query", "state"], f"must be one or some of {states}", text) from None
