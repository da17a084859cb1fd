"""TAF's /api/scheduler/…: a scheduled task is a schedule of ours. Trio.

What a task backs up is a job. One that is made for the task from `action_config` is its own: changes to the task change
it, and it goes with the task if it never ran. `Schedule.notes` remembers which that is, and holds `task_metadata`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio
from starlette.requests import Request
from starlette.responses import Response

from catalog.errors import NotFound
from catalog.records import Job, JobState
from catalog.schedule_records import (
    BUSY_RUNS,
    KEPT_RUNS,
    RunState,
    Schedule,
    ScheduleNumber,
    ScheduleRun,
)
from sidecar.http.answers import json_answer, moment
from sidecar.http.callers import Role
from sidecar.http.calls import PAGE, Call, Query
from sidecar.http.request_notes import note_values
from sidecar.http.requests import Invalid, body_of, number_in_path, number_of, page_of, text_of
from sidecar.own.schedules import run_view, statistics_of
from sidecar.schedules.new import changed_schedule
from sidecar.service import Service
from sidecar.taf.schedule_making import TaskMaking, job_of, kind_of, notes_of, refuse_task
from sidecar.taf.schedule_models import (
    LogResult,
    LogRow,
    Logs,
    RunOptions,
    RunSaid,
    Said,
    ScheduledTaskCreate,
    ScheduledTaskResponse,
    ScheduledTaskRunRequest,
    ScheduledTaskUpdate,
    SchedulerStatus,
)
from sidecar.taf.schedule_words import action_config_of, action_kind, config_of
from tapefs.client.schedules import ScheduleFields
from tapefs.errors import NotNow

TASKS = "/api/scheduler/tasks"
MODES = ("auto", "resume", "restart")
#: TAF's.
LOGS_PAGE = 100
#: A run that makes way for another has so long to end.
_MAKE_WAY_S = 30.0
_LOG_STATES = {
    RunState.WAITING: "pending",
    RunState.PREPARING: "running",
    RunState.FINISHING: "running",
    RunState.COMPLETED: "success",
}


class SchedulerCalls:
    """TAF's."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._making = TaskMaking(service)

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        one, admin, operator, viewer = f"{TASKS}/{{task_id}}", Role.ADMIN, Role.OPERATOR, Role.VIEWER
        enabled_only = (Query("enabled_only", "leave out those that are not enabled", bool),)
        task, post = ScheduledTaskResponse, ["POST"]
        return [
            Call(TASKS, self.list, needs=viewer, answer=list[ScheduledTaskResponse], query=enabled_only),
            Call(TASKS, self.create, methods=post, needs=admin, body=ScheduledTaskCreate, answer=task, errors=(404,)),
            Call(f"{TASKS}/unlock-all", self.unlock_all, methods=post, needs=operator, answer=Said),
            Call(one, self.show, needs=viewer, answer=task),
            Call(one, self.edit, methods=["PUT"], needs=admin, body=ScheduledTaskUpdate, answer=task, errors=(409,)),
            Call(one, self.delete, methods=["DELETE"], needs=admin, answer=Said, errors=(409,)),
            Call(
                f"{one}/run", self.run, methods=post, needs=operator, body=ScheduledTaskRunRequest,
                is_body_optional=True, answer=RunSaid, errors=(409,),
            ),
            Call(f"{one}/stop", self.stop, methods=post, needs=operator, answer=Said, errors=(409,)),
            Call(f"{one}/enable", self.enable, methods=post, needs=operator, answer=Said),
            Call(f"{one}/disable", self.disable, methods=post, needs=operator, answer=Said),
            Call(f"{one}/unlock", self.unlock, methods=post, needs=operator, answer=Said, errors=(409,)),
            Call(f"{one}/logs", self.logs, needs=viewer, answer=Logs, query=PAGE),
            Call("/api/scheduler/scheduler/status", self.status, needs=viewer, answer=SchedulerStatus),
        ]  # fmt: skip

    async def list(self, request: Request) -> Response:
        """Show scheduled tasks, oldest first."""
        only = _is_true(request, "enabled_only")
        found = await trio.to_thread.run_sync(self._service.ledger.schedules)
        return json_answer([self._task(each) for each in found if each.enabled or not only])

    async def show(self, request: Request) -> Response:
        """Show one scheduled task."""
        return json_answer(self._task(self._schedule(request)))

    async def create(self, request: Request) -> Response:
        """Make a scheduled task; of a backup, a task that it runs."""
        body = await body_of(request, ScheduledTaskCreate)
        now_ns = self._service.scheduler.now_ns()
        wanted = await trio.to_thread.run_sync(self._making.new, body, now_ns)
        if action_kind(body.action_type) == "backup":
            wanted, made = await self._making.with_backup(
                wanted, body.action_config, body.backup_task_id, body.description
            )
        else:
            refuse_task(body.backup_task_id)
            made = None
        return json_answer(self._task(await self._making.put(None, wanted, made)))

    async def edit(self, request: Request) -> Response:
        """Change a scheduled task; what is missing or null stays."""
        body, known = await body_of(request, ScheduledTaskUpdate), self._schedule(request)
        note_values(request, old=self._task(known))
        wanted = await trio.to_thread.run_sync(self._making.changed, known, body, self._service.scheduler.now_ns())
        made = None
        is_backup = kind_of(known, body.action_type) == "backup"
        if is_backup and (body.action_config is not None or body.backup_task_id is not None or job_of(known) is None):
            config = body.action_config or {}
            wanted, made = await self._making.with_backup(wanted, config, body.backup_task_id, body.description)
        elif not is_backup:
            refuse_task(body.backup_task_id)
        return json_answer(self._task(await self._making.put(known, wanted, made)))

    async def delete(self, request: Request) -> Response:
        """Forget a scheduled task and its runs; not while it runs."""
        schedule = self._schedule(request)
        await self._service.scheduler.delete(schedule.number)
        await self._making.drop_template(notes_of(schedule).template)
        return json_answer(Said(True, f"Scheduled task {schedule.number} was deleted"))

    async def run(self, request: Request) -> Response:
        """Have a task run now, or a backup of it go on where it stopped."""
        schedule, body = self._schedule(request), ScheduledTaskRunRequest()
        if await request.body():
            body = await body_of(request, ScheduledTaskRunRequest)
        mode = (body.mode or "auto").lower()
        if mode not in MODES:
            raise Invalid("enum", ["body", "mode"], f"must be one of {', '.join(MODES)}", body.mode)
        is_paused = self._is_paused(schedule)
        if mode == "resume" or (mode == "auto" and is_paused):
            message = await self._resume(schedule)
        else:
            if is_paused:
                await self._give_way(schedule)
            run = await self._service.scheduler.run_now(schedule.number)
            message = f"Run {run.number} of scheduled task {schedule.number} begins"
        return json_answer(RunSaid(True, message, RunOptions(mode, bool(body.force_rescan))))

    async def stop(self, request: Request) -> Response:
        """Give up what runs of a task wait or are at work."""
        number = self._schedule(request).number
        runs = await self._service.scheduler.stop(number)
        return json_answer(Said(True, f"{len(runs)} runs of scheduled task {number} are being stopped"))

    async def enable(self, request: Request) -> Response:
        """Have a task run from now on."""
        schedule = await self._switch(request, is_on=True)
        return json_answer(Said(True, f"Scheduled task {schedule.number} is enabled"))

    async def disable(self, request: Request) -> Response:
        """Have a task run no more; what runs goes on."""
        schedule = await self._switch(request, is_on=False)
        return json_answer(Said(True, f"Scheduled task {schedule.number} is disabled"))

    async def unlock(self, request: Request) -> Response:
        """Tell that a task is not locked; 409 while it is at work."""
        number = self._schedule(request).number
        if busy := self._busy(number):
            raise NotNow(f"scheduled task {number} is at work, in run {busy[0].number}: stop it; there is no lock")
        return json_answer(Said(True, f"Scheduled task {number} is not locked: nothing outlives a run"))

    async def unlock_all(self, request: Request) -> Response:
        """Tell that no task is locked."""
        busy = len(self._busy(None))
        return json_answer(Said(True, f"No scheduled task is locked; {busy} runs are at work"))

    async def logs(self, request: Request) -> Response:
        """Show the runs of a task that are kept, the newest first."""
        number, page = self._schedule(request).number, page_of(request)
        limit = LOGS_PAGE if number_of(request, "limit") is None else page.limit
        work = partial(self._service.ledger.schedule_runs, number, 2 * KEPT_RUNS)
        runs = await trio.to_thread.run_sync(work)
        rows = [_log_row(run) for run in runs[page.offset : page.offset + limit]]
        return json_answer(Logs(rows, len(runs), limit, page.offset))

    async def status(self, request: Request) -> Response:
        """Tell how the scheduler is."""
        found = await trio.to_thread.run_sync(self._service.ledger.schedules)
        enabled = sum(each.enabled for each in found)
        is_at_work = self._service.scheduler.is_at_work
        return json_answer(SchedulerStatus(is_at_work, len(found), enabled, len(self._busy(None))))

    async def _switch(self, request: Request, *, is_on: bool) -> Schedule:
        service, known = self._service, self._schedule(request)
        now_ns, fields = service.scheduler.now_ns(), ScheduleFields(enabled=is_on)
        work = partial(changed_schedule, service.home, service.ledger, known, fields, now_ns)
        return await service.scheduler.put(known, await trio.to_thread.run_sync(work))

    # -- running -----------------------------------------------------------------------------------------------------

    def _is_paused(self, schedule: Schedule) -> bool:
        job = self._job_of(schedule)
        return job is not None and job.state is JobState.PAUSED

    async def _resume(self, schedule: Schedule) -> str:
        """Have the backup go on where it stopped. Raises NotNow, Conflict."""
        job = self._job_of(schedule)
        if job is None:
            raise NotNow(f"scheduled task {schedule.number} is no backup: only those go on where they stopped")
        await self._service.jobs.resume(job.number)
        return f"Task {job.number} of scheduled task {schedule.number} goes on where it stopped"

    async def _give_way(self, schedule: Schedule) -> None:
        """Cancel the job, which is paused, and let its run end."""
        job = self._job_of(schedule)
        if job is not None:
            await self._service.jobs.cancel(job.number)
        with trio.move_on_after(_MAKE_WAY_S):
            while self._busy(schedule.number):
                await trio.sleep(0.05)

    # -- looking -----------------------------------------------------------------------------------------------------

    def _schedule(self, request: Request) -> Schedule:
        return self._service.ledger.schedule(ScheduleNumber(number_in_path(request, "task_id")))

    def _busy(self, number: ScheduleNumber | None) -> Sequence[ScheduleRun]:
        return [run for run in self._service.scheduler.open_runs(number) if run.state in BUSY_RUNS]

    def _job_of(self, schedule: Schedule) -> Job | None:
        number = job_of(schedule)
        try:
            return None if number is None else self._service.ledger.job(number)
        except NotFound:
            return None

    def _task(self, schedule: Schedule) -> ScheduledTaskResponse:
        """Return a schedule with TAF's fields."""
        figures, job = statistics_of(schedule), self._job_of(schedule)
        next_ns = self._service.scheduler.next_ns(schedule) if schedule.enabled else None
        schedule_type, schedule_config = config_of(schedule.rule, schedule.zone)
        action_type, action_config = action_config_of(schedule.action, job)
        return ScheduledTaskResponse(
            id=schedule.number,
            task_name=schedule.name,
            description=schedule.description or None,
            schedule_type=schedule_type,
            schedule_config=schedule_config,
            action_type=action_type,
            action_config=action_config,
            status=self._status(schedule),
            enabled=schedule.enabled,
            next_run_time=None if next_ns is None else moment(next_ns),
            last_run_time=figures.last_run_at,
            last_success_time=figures.last_success_at,
            last_failure_time=figures.last_failure_at,
            total_runs=figures.runs,
            success_runs=figures.successes,
            failure_runs=figures.failures,
            average_duration=None if figures.average_s is None else round(figures.average_s),
            last_error=figures.last_error,
            tags=[*schedule.tags],
            task_metadata=notes_of(schedule).task_metadata or {},
            created_at=moment(schedule.created_at_ns),
            updated_at=moment(schedule.changed_at_ns),
            backup_task_id=job.number if job is not None else None,
        )

    def _status(self, schedule: Schedule) -> str:
        if self._busy(schedule.number):
            return "running"
        if not schedule.enabled:
            return "inactive"
        return "error" if schedule.course.last_error else "active"


def _is_true(request: Request, name: str) -> bool:
    text = (text_of(request, name) or "false").lower()
    if text not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
        raise Invalid("bool_parsing", ["query", name], "Input should be a valid boolean", text)
    return text in ("true", "1", "yes", "on")


def _log_row(run: ScheduleRun) -> LogRow:
    view = run_view(run)
    return LogRow(
        id=run.number,
        scheduled_task_id=run.schedule,
        execution_id=f"{run.schedule}-{run.number}",
        started_at=view.started_at,
        completed_at=view.finished_at,
        duration=view.duration_s,
        status=_LOG_STATES.get(run.state, run.state.value),
        error_message=view.error,
        result=None if run.outcome is None else LogResult(run.result, run.job),
    )
