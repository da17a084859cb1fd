"""Schedules at work: what is due is planned, begun, followed to its end, and noted.

One trio run. The ledger is the truth: a run is recorded before it begins, so that a sidecar that is killed goes on with
it and begins none twice. Kept in memory are the open runs and who works on them. The clock of the wall is looked at
every LOOK_S at least, so that steps of the clock and a machine that slept are noticed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import structlog
import trio

from catalog.errors import CatalogError, Conflict, NotFound, StorageFailed
from catalog.ledger import Ledger
from catalog.notice_records import Facts
from catalog.queue_records import HookResult
from catalog.records import Job, JobState
from catalog.schedule_records import (
    BUSY_RUNS,
    OPEN_RUNS,
    BackUp,
    Overlap,
    Restore,
    RunNumber,
    RunState,
    Schedule,
    ScheduleNumber,
    ScheduleRun,
)
from drivers.errors import DriveError
from sidecar.keeping import sentence_of
from sidecar.schedules.actions import Outcome, Scene, perform, until
from sidecar.schedules.commands import facts_of, failure, run_hook
from tapefs.errors import NotNow, TapefsError
from tapefs.home import Home
from tapefs.schedule.policies import CLOCK_WRONG_NS, Turn, by_hand, decide, next_due, next_undecided, turn_of
from tapefs.schedule.zones import NS_PER_S

if TYPE_CHECKING:
    from sidecar.service import Service

#: The longest sleep.
LOOK_S = 30.0
#: … while a run waits for something that is not ours, as a job that somebody else runs.
BLOCKED_S = 1.0
#: An action whose sidecar was killed so often while it ran has failed.
MOST_ATTEMPTS = 3
#: What may go wrong with an action without being a bug.
_EXPECTED = (TapefsError, CatalogError, DriveError, OSError)
_JOB_OPEN = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.PAUSED})
_OUTCOMES = {
    JobState.COMPLETED: RunState.COMPLETED,
    JobState.FAILED: RunState.FAILED,
    JobState.CANCELLED: RunState.CANCELLED,
}

replace = msgspec.structs.replace
log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Live:
    """A run that somebody works on."""

    run: ScheduleRun
    given_up: trio.Event = field(default_factory=trio.Event)
    #: Why it was given up.
    reason: str = ""

    def give_up(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.given_up.set()


class Scheduler:
    """All schedules."""

    def __init__(self, home: Home, ledger: Ledger, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._home = home
        self._ledger = ledger
        self.now_ns = now_ns
        #: Set, and replaced, when there is something to look at.
        self._changed = trio.Event()
        #: Runs that have not ended, as the ledger has them.
        self._open: dict[RunNumber, ScheduleRun] = {run.number: run for run in ledger.open_schedule_runs()}
        self._live: dict[RunNumber, _Live] = {}
        #: Of each schedule the record for which it was worked out, and its next instant.
        self._next: dict[ScheduleNumber, tuple[Schedule, int | None]] = {}
        #: Held while a schedule is changed, or gets runs.
        self._planning = trio.Lock()
        #: Set while schedules are at work; a sidecar that a command has started runs none.
        self.is_at_work = False
        #: What cannot be looked at: by the name of a schedule, or of the catalog, why.
        self.broken: dict[str, str] = {}
        #: The newest look could not be recorded.
        self.is_in_trouble = False

    # -- for HTTP ----------------------------------------------------------------------------------------------------

    async def put(self, known: Schedule | None, wanted: Schedule) -> Schedule:
        """Record a schedule, or change one. Raises NotFound, Conflict."""
        async with self._planning:
            stored = await trio.to_thread.run_sync(self._ledger.put_schedule, known, wanted, self.now_ns())
        self._ring()
        return stored

    async def delete(self, number: ScheduleNumber) -> None:
        """Forget a schedule, and its runs. Raises NotFound, Conflict while one is under way."""
        async with self._planning:
            await trio.to_thread.run_sync(self._ledger.delete_schedule, number, self.now_ns())
            for run in self.open_runs(number):
                del self._open[run.number]
        self._ring()

    async def run_now(self, number: ScheduleNumber) -> ScheduleRun:
        """Have a schedule run, whether it is enabled or not.

        Raises NotFound; NotNow where no schedules run, or while it runs and is not to queue.
        """
        schedule = self._ledger.schedule(number)
        if not self.is_at_work:
            raise NotNow("schedules run only under `tapefs serve`: start it, then ask again")
        if schedule.overlap is Overlap.SKIP and (busy := self._busy(schedule)):
            raise NotNow(f"schedule {number} ({schedule.name}) is at work already: run {busy[0].number}")
        async with self._planning:
            decided_ns, now_ns = self._ledger.schedule(number).course.decided_ns, self.now_ns()
            work = self._ledger.plan_schedule_runs
            [run] = await trio.to_thread.run_sync(
                work, number, decided_ns, decided_ns, [by_hand(number, now_ns)], now_ns
            )
            self._open[run.number] = run
        self._ring()
        return run

    async def stop(self, number: ScheduleNumber) -> list[ScheduleRun]:
        """Give up what runs of a schedule are open; return them. They end some time later. Raises NotFound, NotNow."""
        schedule = self._ledger.schedule(number)
        runs = self.open_runs(number)
        if not runs:
            raise NotNow(f"schedule {number} ({schedule.name}) does not run: there is nothing to stop")
        for run in runs:
            if run.number in self._live:
                self._live[run.number].give_up("it was stopped")
            elif run.state is RunState.WAITING:
                await self._end(run, RunState.CANCELLED, "it was stopped before it began")
        return runs

    def open_runs(self, number: ScheduleNumber | None = None) -> list[ScheduleRun]:
        """Return the runs that have not ended, of one schedule or of all, oldest first."""
        found = [run for run in self._open.values() if number in (None, run.schedule)]
        return sorted(found, key=lambda run: run.number)

    def health(self) -> str:
        """Return `healthy`, `degraded` (there are schedules, and nobody runs them), or `unhealthy`. Blocking."""
        if self.is_in_trouble or self.broken:
            return "unhealthy"
        is_wanted = not self.is_at_work and any(each.enabled for each in self._ledger.sound_schedules()[0])
        return "degraded" if is_wanted else "healthy"

    def next_ns(self, schedule: Schedule) -> int | None:
        """Return when a schedule is due next; None when it is not."""
        found, now_ns = self._undecided(schedule), self.now_ns()
        return found if found is None or found > now_ns else next_due(schedule, now_ns)

    def _undecided(self, schedule: Schedule) -> int | None:
        """Return the first instant that is not decided yet; it was missed if it is in the past."""
        known = self._next.get(schedule.number)
        if known is None or known[0] != schedule:
            known = self._next[schedule.number] = (schedule, next_undecided(schedule))
        return known[1]

    # -- the task ----------------------------------------------------------------------------------------------------

    async def run(self, service: Service) -> None:
        """Run schedules until cancelled."""
        self.is_at_work = True
        async with trio.open_nursery() as nursery:
            for run in self.open_runs():
                if run.state is not RunState.WAITING:
                    self._begin(service, run, nursery)
            while True:
                changed, sleep_s = self._changed, LOOK_S
                try:
                    sleep_s = await self._look(service, nursery)
                    self.is_in_trouble = False
                except StorageFailed as error:
                    self.is_in_trouble = True
                    log.error("schedules cannot be recorded", error=str(error))
                with trio.move_on_after(sleep_s):
                    await changed.wait()

    def _ring(self) -> None:
        """Have the task look again."""
        self._changed.set()
        self._changed = trio.Event()

    async def _look(self, service: Service, nursery: trio.Nursery) -> float:
        """Plan what is due and begin what may begin; return for how long nothing will be."""
        found, damaged = self._ledger.sound_schedules()
        broken, times = {"schedules": "; ".join(damaged)} if damaged else {}, []
        if damaged and broken["schedules"] != self.broken.get("schedules"):
            log.error("schedules cannot be read, the others go on", error=broken["schedules"])
        for schedule in found:
            name = f"schedule {schedule.name}"
            try:
                await self._look_at(service, schedule, nursery)
                times.append(self._undecided(schedule))
            except StorageFailed:
                raise
            except Exception as error:  # It keeps no other from its time.
                broken[name] = sentence_of(error)
                if broken[name] != self.broken.get(name):
                    log.exception("a schedule cannot be looked at, the others go on", schedule=schedule.name)
        self.broken, now_ns = broken, self.now_ns()
        times += [run.due_ns for run in self._open.values() if run.state is RunState.WAITING]
        if any(run.state is RunState.WAITING and run.due_ns <= now_ns for run in self._open.values()):
            return BLOCKED_S
        soon = min((at_ns for at_ns in times if at_ns is not None and at_ns > now_ns), default=None)
        return LOOK_S if soon is None else min(LOOK_S, (soon - now_ns) / NS_PER_S)

    async def _look_at(self, service: Service, schedule: Schedule, nursery: trio.Nursery) -> None:
        """Plan what is due of a schedule, and begin what may begin."""
        if schedule.enabled:
            with suppress(NotFound):  # It was deleted meanwhile.
                await self._plan(schedule)
        for run in self.open_runs(schedule.number):
            if run.state is RunState.WAITING:
                await self._turn(service, schedule, run, nursery)

    async def _plan(self, schedule: Schedule) -> None:
        """Record what is due by now, or was missed."""
        now_ns, decided_ns = self.now_ns(), schedule.course.decided_ns
        next_ns = self._undecided(schedule)
        if (next_ns is None or now_ns < next_ns) and decided_ns - now_ns <= CLOCK_WRONG_NS:
            return
        # Looking for what was missed in a year takes a second at most.
        decision = await trio.to_thread.run_sync(decide, schedule, now_ns)
        self._next.pop(schedule.number, None)
        if not decision.is_anything:
            return
        async with self._planning:
            if self._ledger.schedule(schedule.number) != schedule:
                return  # It was changed meanwhile: the next look sees it.
            work = self._ledger.plan_schedule_runs
            number, known_ns, until_ns = schedule.number, decision.known_ns, decision.decided_ns
            added = await trio.to_thread.run_sync(work, number, known_ns, until_ns, decision.runs, now_ns)
            self._open |= {run.number: run for run in added if run.state in OPEN_RUNS}
        for run in added:
            log.info("schedule due", schedule=schedule.name, run=run.number, state=run.state.value, why=run.error)

    async def _turn(self, service: Service, schedule: Schedule, run: ScheduleRun, nursery: trio.Nursery) -> None:
        """Begin a run that waits, or do what else becomes of it."""
        if not (schedule.enabled or run.by_hand):
            await self._end(run, RunState.SKIPPED, "the schedule was disabled before it began")
            return
        others = [*self.open_runs(schedule.number), *self._job_at_work(schedule, run)]
        turn = turn_of(schedule, run, others, self.now_ns())
        if turn is Turn.SKIP:
            await self._end(run, RunState.SKIPPED, "an earlier one was still at work")
        elif turn is Turn.CANCEL_OTHER:
            await self._cancel_others(service, schedule)
        elif turn is Turn.BEGIN:
            begun = replace(run, state=RunState.PREPARING, started_at_ns=self.now_ns())
            self._begin(service, await self._change(run, begun), nursery)

    def _busy(self, schedule: Schedule) -> list[ScheduleRun]:
        return [run for run in self.open_runs(schedule.number) if run.state in BUSY_RUNS]

    def _job_at_work(self, schedule: Schedule, run: ScheduleRun) -> list[ScheduleRun]:
        """Return what stands for the schedule's job while it is at work for somebody else."""
        if not isinstance(schedule.action, BackUp) or self._busy(schedule):
            return []
        if self._ledger.job(schedule.action.job).state not in _JOB_OPEN:
            return []
        return [replace(run, number=RunNumber(0), state=RunState.RUNNING)]

    async def _cancel_others(self, service: Service, schedule: Schedule) -> None:
        busy = [self._live[run.number] for run in self._busy(schedule) if run.number in self._live]
        for live in busy:
            live.give_up("the next run of the schedule was due")
        if not busy and isinstance(schedule.action, BackUp):
            try:
                await service.jobs.cancel(schedule.action.job)
            except NotNow:
                return  # It has just ended.

    # -- one run -----------------------------------------------------------------------------------------------------

    def _begin(self, service: Service, run: ScheduleRun, nursery: trio.Nursery) -> None:
        live = self._live[run.number] = _Live(run)
        nursery.start_soon(self._work, service, live)

    async def _work(self, service: Service, live: _Live) -> None:
        """Bring a run from wherever it stands to its end."""
        try:
            schedule = self._ledger.schedule(live.run.schedule)
            if live.run.state is RunState.PREPARING:
                await self._prepare(schedule, live)
            if live.run.state in (RunState.PREPARING, RunState.RUNNING):
                await self._settle(live, await self._act(service, schedule, live))
            await self._finish(schedule, live)
            await self._tell_failure(service, schedule, live.run)
        except StorageFailed as error:
            log.error("a run is left as it is until the next start", run=live.run.number, error=str(error))
        except Exception:  # Damage, or a bug: no other run is to suffer for it.
            log.exception("a run is left as it is until the next start", run=live.run.number)
        finally:
            del self._live[live.run.number]
            self._ring()

    async def _prepare(self, schedule: Schedule, live: _Live) -> None:
        """Run the hooks before; one that fails ends the run, and so do some that were interrupted."""
        if live.run.attempts:
            await self._settle(live, Outcome(RunState.FAILED, "the sidecar ended while hooks ran before it"))
            return
        if not schedule.before:
            return
        live.run = await self._change(live.run, replace(live.run, attempts=1))
        for name in schedule.before:
            result = await run_hook(
                self._home, name, facts_of(self._home, schedule, live.run), live.given_up, is_after=False
            )
            await self._note_hook(live, result)
            if live.given_up.is_set():
                await self._settle(live, Outcome(RunState.CANCELLED, live.reason))
                return
            if result.error:
                await self._settle(live, Outcome(RunState.FAILED, failure((result,))))
                return
        live.run = await self._change(live.run, replace(live.run, attempts=0))

    async def _act(self, service: Service, schedule: Schedule, live: _Live) -> Outcome:
        """Do what the schedule is for."""
        try:
            if isinstance(schedule.action, BackUp):
                return await self._back_up(service, schedule.action, live)
            if live.run.state is RunState.RUNNING and live.run.attempts >= MOST_ATTEMPTS:
                return Outcome(RunState.FAILED, f"the sidecar ended {live.run.attempts} times while it was at work")
            began = replace(live.run, state=RunState.RUNNING, attempts=live.run.attempts + 1)
            live.run = await self._change(live.run, began)
            outcome = await perform(schedule.action, Scene(service, self.now_ns(), live.given_up))
        except _EXPECTED as error:
            return Outcome(RunState.FAILED, str(error) or type(error).__name__)
        except Exception as error:
            log.exception("a schedule's action has failed unexpectedly", schedule=schedule.name, run=live.run.number)
            return Outcome(RunState.FAILED, f"an error that nobody expected, {sentence_of(error)}: see the log")
        if outcome.state is RunState.CANCELLED and live.reason:
            return replace_outcome(outcome, live.reason)
        return outcome

    async def _back_up(self, service: Service, action: BackUp, live: _Live) -> Outcome:
        """Queue the job, once, and follow it to its end."""
        if live.run.job is None and not await self._queue(service, action, live):
            return Outcome(RunState.CANCELLED, live.reason)

        async def give_up() -> None:
            try:
                await service.jobs.cancel(action.job)
            except NotNow:
                return  # It has just ended.

        await until(lambda: self._has_ended(live.run), live.given_up, give_up)
        return self._outcome_of(live.run)

    async def _queue(self, service: Service, action: BackUp, live: _Live) -> bool:
        """Queue the job together with the run; while it is at work for somebody else, wait. False: given up."""
        while not live.given_up.is_set():
            work, now_ns = self._ledger.queue_scheduled_job, self.now_ns()
            try:
                known = live.run
                with trio.CancelScope(shield=True):
                    live.run, job = await trio.to_thread.run_sync(work, known, action.job, action.type, now_ns)
                    self._open[live.run.number] = live.run
                    service.jobs.take_in(job)
            except Conflict:
                await until(
                    lambda: self._ledger.job(action.job).state not in _JOB_OPEN, live.given_up, trio.lowlevel.checkpoint
                )
            else:
                return True
        return False

    def _job(self, run: ScheduleRun) -> Job | None:
        """Return the job, if the run that was queued is still its newest."""
        if run.job is None:
            return None
        try:
            job = self._ledger.job(run.job)
        except NotFound:
            return None
        return job if job.runs == run.job_runs else None

    def _has_ended(self, run: ScheduleRun) -> bool:
        job = self._job(run)
        return job is None or job.state not in _JOB_OPEN

    def _outcome_of(self, run: ScheduleRun) -> Outcome:
        job = self._job(run)
        if job is None or job.state not in _OUTCOMES:
            return Outcome(RunState.FAILED, f"job {run.job} was run anew before anybody had seen how this run ended")
        result = f"job {job.number}" + (f", set {job.set_id}" if job.set_id is not None else "")
        return Outcome(_OUTCOMES[job.state], job.error, result)

    async def _settle(self, live: _Live, outcome: Outcome) -> None:
        """The action has ended: note how."""
        wanted = replace(
            live.run, state=RunState.FINISHING, outcome=outcome.state, error=outcome.error, result=outcome.result
        )
        live.run = await self._change(live.run, wanted)

    async def _finish(self, schedule: Schedule, live: _Live) -> None:
        """Run the hooks behind, those that have not ended yet, and end the run."""
        done = {result.name for result in live.run.hooks if result.is_after}
        job = self._job(live.run)
        facts = facts_of(self._home, schedule, live.run, (job.set_id or "") if job is not None else "")
        for name in schedule.after:
            if name not in done:
                await self._note_hook(live, await run_hook(self._home, name, facts, None, is_after=True))
        state, error = live.run.outcome or RunState.FAILED, live.run.error
        behind = failure(tuple(result for result in live.run.hooks if result.is_after))
        if behind:
            state = RunState.FAILED if state is RunState.COMPLETED else state
            error = f"{error}; {behind}" if error else behind
        live.run = await self._end(live.run, state, error)

    async def _tell_failure(self, service: Service, schedule: Schedule, run: ScheduleRun) -> None:
        """Post a notice of a run that has failed, unless its job or its restore has done so."""
        began = run.job is not None or not failure(tuple(each for each in run.hooks if not each.is_after))
        is_told = run.outcome is RunState.FAILED and began and isinstance(schedule.action, BackUp | Restore)
        if run.state is not RunState.FAILED or is_told:
            return
        text = f"run {run.number} of schedule {schedule.name} has failed: {run.error}"
        facts: Facts = {"schedule": schedule.number, "run": run.number, "error": run.error}
        await service.notices.events.say("schedule.failed", str(schedule.number), text, facts)

    async def _note_hook(self, live: _Live, result: HookResult) -> None:
        live.run = await self._change(live.run, replace(live.run, hooks=(*live.run.hooks, result)))

    # -- the ledger --------------------------------------------------------------------------------------------------

    async def _change(self, known: ScheduleRun, wanted: ScheduleRun) -> ScheduleRun:
        with trio.CancelScope(shield=True):
            work = self._ledger.change_schedule_run
            changed = await trio.to_thread.run_sync(work, known, wanted, self.now_ns())
        if changed.state in OPEN_RUNS:
            self._open[changed.number] = changed
        else:
            self._open.pop(changed.number, None)
        return changed

    async def _end(self, run: ScheduleRun, state: RunState, error: str) -> ScheduleRun:
        ended = await self._change(run, replace(run, state=state, error=error, finished_at_ns=self.now_ns()))
        say = log.warning if state is RunState.FAILED else log.info
        say("scheduled run ended", schedule=run.schedule, run=run.number, state=state.value, error=ended.error)
        self._ring()
        return ended


def replace_outcome(outcome: Outcome, reason: str) -> Outcome:
    """Return a cancelled outcome with the reason why."""
    return Outcome(outcome.state, reason, outcome.result)
