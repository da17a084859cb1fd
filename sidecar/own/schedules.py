"""Schedules under /api/v1/schedules: what `tapefs schedule` uses."""

from __future__ import annotations

from functools import partial
from typing import Any

import trio
from starlette.requests import Request
from starlette.responses import Response

from catalog.errors import NotFound
from catalog.ids import JobNumber
from catalog.schedule_records import BUSY_RUNS, RunState, Schedule, ScheduleNumber, ScheduleRun
from sidecar.http.answers import json_answer, moment
from sidecar.http.callers import Role
from sidecar.http.calls import PAGE, Call, Query
from sidecar.http.paging import counted_headers, counted_page, missing, page_answer
from sidecar.http.requests import Invalid, body_of, number_in_path, number_of
from sidecar.own.job_views import hook_view
from sidecar.schedules.new import changed_schedule, new_schedule, refuse_unknown
from sidecar.service import Service
from tapefs.client.schedules import Occurrence, RunView, ScheduleFields, ScheduleView, Statistics
from tapefs.schedule.deeds import describe_action
from tapefs.schedule.policies import change_of_clocks, preview
from tapefs.schedule.rules import describe
from tapefs.schedule.zones import NS_PER_S, aware, zone_of

_PATH = "/api/v1/schedules"
#: Runs to come in one answer.
MOST_TO_COME, USUAL_TO_COME = 1000, 10


class ScheduleCalls:
    """Schedules as our own programs see them."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        one, admin, operator = f"{_PATH}/{{number}}", Role.ADMIN, Role.OPERATOR
        shown: dict[str, Any] = {"answer": ScheduleView}
        post: dict[str, Any] = {"methods": ["POST"], "needs": operator}
        return [
            Call(_PATH, self.list, needs=Role.VIEWER, answer=list[ScheduleView], query=PAGE),
            Call(_PATH, self.create, methods=["POST"], needs=admin, body=ScheduleFields, status=201, **shown),
            Call(one, self.show, needs=Role.VIEWER, **shown),
            Call(one, self.edit, methods=["PATCH"], needs=admin, body=ScheduleFields, **shown),
            Call(one, self.delete, methods=["DELETE"], needs=admin, status=204),
            Call(f"{one}/enable", self.enable, **post, **shown),
            Call(f"{one}/disable", self.disable, **post, **shown),
            Call(f"{one}/run", self.run, **post, answer=RunView, status=202),
            Call(f"{one}/stop", self.stop, **post, answer=list[RunView], status=202),
            Call(f"{one}/runs", self.history, needs=Role.VIEWER, answer=list[RunView], query=PAGE),
            Call(
                f"{one}/next",
                self.next,
                needs=Role.VIEWER,
                answer=list[Occurrence],
                query=(Query("count", "how many, at most 1000", int),),
            ),
        ]

    async def list(self, request: Request) -> Response:
        """Show all schedules that can be read, oldest first."""
        found, damaged = await trio.to_thread.run_sync(self._service.ledger.sound_schedules)
        answer = page_answer(request, found, self._view, lambda schedule: schedule.number)
        return missing(answer, len(damaged))

    async def create(self, request: Request) -> Response:
        """Make a schedule."""
        fields = await _fields(request)
        service, scheduler = self._service, self._service.scheduler
        work = partial(new_schedule, service.home, service.ledger, fields, scheduler.now_ns())
        stored = await scheduler.put(None, await trio.to_thread.run_sync(work))
        return json_answer(self._view(stored), 201)

    async def show(self, request: Request) -> Response:
        """Show one schedule."""
        return json_answer(self._view(self._schedule(request)))

    async def edit(self, request: Request) -> Response:
        """Change a schedule; what the body does not name stays."""
        return json_answer(self._view(await self._edit(self._schedule(request), await _fields(request))))

    async def delete(self, request: Request) -> Response:
        """Forget a schedule and its history; not while it runs."""
        await self._service.scheduler.delete(_number(request))
        return Response(status_code=204)

    async def enable(self, request: Request) -> Response:
        """Have a schedule run from now on."""
        return json_answer(self._view(await self._edit(self._schedule(request), ScheduleFields(enabled=True))))

    async def disable(self, request: Request) -> Response:
        """Have a schedule run no more; what runs goes on."""
        return json_answer(self._view(await self._edit(self._schedule(request), ScheduleFields(enabled=False))))

    async def run(self, request: Request) -> Response:
        """Have a schedule run now, whether it is enabled or not."""
        return json_answer(run_view(await self._service.scheduler.run_now(_number(request))), 202)

    async def stop(self, request: Request) -> Response:
        """Give up what runs of a schedule wait or are at work."""
        return json_answer([run_view(run) for run in await self._service.scheduler.stop(_number(request))], 202)

    async def history(self, request: Request) -> Response:
        """Show the runs of a schedule that are kept, the newest first."""
        page, schedule = counted_page(request), self._schedule(request)
        work = partial(self._service.ledger.schedule_runs, schedule.number, page.limit + 1, page.offset)
        runs = await trio.to_thread.run_sync(work)
        headers = counted_headers(request, page, None, has_more=len(runs) > page.limit)
        return json_answer([run_view(run) for run in runs[: page.limit]], headers=headers)

    async def next(self, request: Request) -> Response:
        """Show the next `count` runs of a schedule, as if it were enabled, by the clocks of its zone."""
        count = number_of(request, "count")
        if count is not None and not 1 <= count <= MOST_TO_COME:
            raise Invalid("value_error", ["query", "count"], f"must be 1 to {MOST_TO_COME}", count)
        schedule, now_ns = self._schedule(request), self._service.scheduler.now_ns()
        work = partial(preview, schedule, now_ns, USUAL_TO_COME if count is None else count)
        return json_answer([_occurrence(schedule, run) for run in await trio.to_thread.run_sync(work)])

    # -- inside ------------------------------------------------------------------------------------------------------

    def _schedule(self, request: Request) -> Schedule:
        return self._service.ledger.schedule(_number(request))

    async def _edit(self, known: Schedule, fields: ScheduleFields) -> Schedule:
        service, scheduler = self._service, self._service.scheduler
        work = partial(changed_schedule, service.home, service.ledger, known, fields, scheduler.now_ns())
        return await scheduler.put(known, await trio.to_thread.run_sync(work))

    def _job_name(self, number: JobNumber) -> str | None:
        try:
            return self._service.ledger.job(number).name
        except NotFound:
            return None

    def _view(self, schedule: Schedule) -> ScheduleView:
        scheduler = self._service.scheduler
        next_ns = scheduler.next_ns(schedule)
        is_busy = any(run.state in BUSY_RUNS for run in scheduler.open_runs(schedule.number))
        still = "disabled" if not schedule.enabled else "over" if next_ns is None else "waiting"
        fields = {name: getattr(schedule, name) for name in ScheduleView.__struct_fields__ if hasattr(schedule, name)}
        return ScheduleView(
            **fields,
            when=describe(schedule.rule),
            what=describe_action(schedule.action, self._job_name),
            state="running" if is_busy else still,
            next_at=None if next_ns is None else moment(next_ns),
            remark=change_of_clocks(schedule, scheduler.now_ns()),
            statistics=statistics_of(schedule),
            created_at=moment(schedule.created_at_ns),
            changed_at=moment(schedule.changed_at_ns),
        )


async def _fields(request: Request) -> ScheduleFields:
    fields = await body_of(request, ScheduleFields)
    refuse_unknown(await request.body())
    return fields


def _number(request: Request) -> ScheduleNumber:
    return ScheduleNumber(number_in_path(request, "number"))


def statistics_of(schedule: Schedule) -> Statistics:
    """Return how the runs of a schedule went."""
    course = schedule.course
    return Statistics(
        runs=course.runs,
        successes=course.successes,
        failures=course.failures,
        cancelled=course.cancelled,
        skipped=course.skipped,
        average_s=round(course.duration_ns / course.successes / NS_PER_S, 3) if course.successes else None,
        last_run_at=moment(course.last_run_ns),
        last_success_at=moment(course.last_success_ns),
        last_failure_at=moment(course.last_failure_ns),
        last_error=course.last_error or None,
    )


def run_view(run: ScheduleRun) -> RunView:
    """Return a run as JSON shows it."""
    took_ns = run.finished_at_ns - run.started_at_ns if run.started_at_ns and run.finished_at_ns else None
    return RunView(
        number=run.number,
        schedule=run.schedule,
        planned_at=moment(run.planned_ns),
        due_at=moment(run.due_ns),
        by_hand=run.by_hand,
        missed=run.missed,
        state=run.state.value,
        job=run.job,
        attempts=run.attempts,
        started_at=moment(run.started_at_ns),
        finished_at=moment(run.finished_at_ns),
        duration_s=None if took_ns is None else round(took_ns / NS_PER_S, 3),
        error=run.error or None,
        result=run.result or None,
        hooks=tuple(hook_view(each) for each in run.hooks),
    )


def _occurrence(schedule: Schedule, run: ScheduleRun) -> Occurrence:
    """Return a run to come, by the clocks of the schedule's zone."""
    zone, is_skipped = zone_of(schedule.zone), run.state is RunState.SKIPPED
    return Occurrence(
        planned_at=aware(run.planned_ns, zone),
        begins_at=None if is_skipped else aware(run.due_ns, zone),
        skipped=run.error if is_skipped else "",
    )
