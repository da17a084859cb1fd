"""The hooks of jobs: before a run gets a drive, and when it has ended. One trio run.

The ledger is the truth: that they begin is recorded before they do. A hook before is never begun twice; if the sidecar
was killed meanwhile, the run has failed. One behind that had not ended then is begun again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import structlog
import trio

from catalog.errors import NotFound, StorageFailed
from catalog.ids import JobNumber
from catalog.ledger import Ledger
from catalog.queue_records import HookResult
from catalog.records import Job
from sidecar.jobs.going_on import OPEN_STATES
from sidecar.jobs.queue import Jobs
from sidecar.schedules.commands import facts_of_job, failure, run_hook
from tapefs.home import Home

#: While there are jobs with hooks, so often is looked whether one may begin or has ended; a look takes microseconds.
LOOK_S = 0.5

_Work = Callable[[JobNumber, int], Awaitable[None]]

log = structlog.get_logger(__name__)


class JobHooks:
    """Of all jobs."""

    def __init__(self, home: Home, ledger: Ledger, jobs: Jobs, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._home = home
        self._ledger = ledger
        self._jobs = jobs
        self._now_ns = now_ns
        #: Runs whose hooks have begun, and when; those behind are still to come.
        self._begun: dict[JobNumber, int] = {}
        #: Jobs of which hooks run; set when their run has ended meanwhile.
        self._live: dict[JobNumber, trio.Event] = {}
        #: What an earlier sidecar has left is known.
        self._is_ready = False

    def is_idle(self) -> bool:
        """Does no hook run, and is none due?"""
        return self._is_ready and not self._live and not any(self._has_ended(number) for number in self._begun)

    async def run(self) -> None:
        """Run hooks until cancelled."""
        for job in await trio.to_thread.run_sync(self._all):
            if job.hooks_begun_at_ns and (job.state in OPEN_STATES or len(_behind(job)) < len(job.hooks_after)):
                self._begun[job.number] = job.hooks_begun_at_ns
        self._is_ready = True
        async with trio.open_nursery() as nursery:
            while True:
                changed = self._jobs.next_change()
                self._look(nursery)
                is_needed = self._begun or self._live or self._jobs.has_hooks()
                with trio.move_on_after(LOOK_S if is_needed else float("inf")):
                    await changed.wait()

    def _all(self) -> list[Job]:
        """Return all jobs that can be read: of another nobody knows whether a hook is still to run."""
        return self._ledger.job_page(self._ledger.job_count())

    def _look(self, nursery: trio.Nursery) -> None:
        for number, given_up in self._live.items():
            if self._has_ended(number):
                given_up.set()
        for number, begun_at_ns in list(self._begun.items()):
            if number not in self._live and self._has_ended(number):
                del self._begun[number]
                self._live[number] = trio.Event()
                nursery.start_soon(self._work, self._finish, number, begun_at_ns)
        for number in self._jobs.unprepared():
            if number not in self._live:
                self._live[number] = trio.Event()
                nursery.start_soon(self._work, self._prepare, number, self._begun.get(number, 0))

    def _has_ended(self, number: JobNumber) -> bool:
        """Has the run ended whose hooks have begun, or has another begun since?"""
        job = self._job(number)
        if job is None or job.state not in OPEN_STATES:
            return True
        return self._begun.get(number, job.hooks_begun_at_ns) != job.hooks_begun_at_ns

    def _job(self, number: JobNumber) -> Job | None:
        try:
            return self._ledger.job(number)
        except NotFound:
            return None

    async def _work(self, how: _Work, number: JobNumber, begun_at_ns: int) -> None:
        try:
            await how(number, begun_at_ns)
        except NotFound:
            log.info("a job was deleted while its hooks ran", job=number)
        except StorageFailed as error:
            log.error("hooks of a job cannot be recorded", job=number, error=str(error))
        finally:
            del self._live[number]

    async def _prepare(self, number: JobNumber, begun_at_ns: int) -> None:
        """Run the hooks before; the job may begin then, or fails."""
        if begun_at_ns:
            why = failure(self._ledger.job(number).hooks) or "the sidecar ended while hooks ran before the run"
            await self._jobs.give_up(number, why)
            return
        job = await trio.to_thread.run_sync(self._ledger.begin_hooks, number, self._now_ns())
        self._begun[number] = job.hooks_begun_at_ns
        for name in job.hooks_before:
            result = await run_hook(self._home, name, facts_of_job(self._home, job), self._live[number], is_after=False)
            await self._note(job, result)
            if self._live[number].is_set():
                return  # It was cancelled; the hooks behind come next.
            if result.error:
                await self._jobs.give_up(number, failure((result,)))
                return
        self._jobs.prepared(number)

    async def _finish(self, number: JobNumber, begun_at_ns: int) -> None:
        """Run the hooks behind that have not ended yet."""
        job = self._job(number)
        if job is None:
            return
        done = _behind(job) if job.hooks_begun_at_ns == begun_at_ns else set()
        for name in job.hooks_after:
            if name in done:
                continue
            result = await run_hook(self._home, name, facts_of_job(self._home, job), None, is_after=True)
            if result.error:
                log.warning("a hook behind a job has failed", job=number, hook=name, error=result.error)
            await self._note(job, result, begun_at_ns)

    async def _note(self, job: Job, result: HookResult, begun_at_ns: int = 0) -> None:
        with trio.CancelScope(shield=True):
            work, at_ns = self._ledger.note_hook, begun_at_ns or job.hooks_begun_at_ns
            await trio.to_thread.run_sync(work, job.number, at_ns, result, self._now_ns())


def _behind(job: Job) -> set[str]:
    """Return the hooks behind that have ended."""
    return {result.name for result in job.hooks if result.is_after}
