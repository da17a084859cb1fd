"""The job queue: which backup runs next, how far it is, what went wrong, and how it ends in the ledger.

One trio run. The ledger is the truth about states; kept in memory are the order of the queue, progress and troubles.
Reading the ledger takes microseconds and is done in place, writing waits for the disk and goes to a thread.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import structlog
import trio

from catalog.ids import JobNumber, SetId
from catalog.ledger import Ledger
from catalog.records import MOST_MOVES, BackupSet, DriveMove, Job, JobState, SetState
from sidecar.bell import Bell
from sidecar.health import OTHER_DRIVE_S
from sidecar.movers import Call, Mover, MoverDied
from sidecar.new_jobs import CHAIN_TYPES
from tapefs.errors import NotNow
from tapefs.home import Home
from tapefs.mover.messages import Cancel, Progress, Report, Trouble
from tapefs.report.ending import end_interrupted

#: Troubles kept for each run; beyond them they are only counted.
NEWEST_TROUBLES = 100
#: Runs that ended and are still remembered with progress and troubles.
NEWEST_RUNS = 1000

#: What a mover says, too, when a verification has failed.
_SET_IS_COMPLETE = "its set is complete"
_WHOLE = (SetState.SEALED, SetState.COMPLETE)

OPEN_STATES = (JobState.QUEUED, JobState.RUNNING)

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Run:
    """A run of a job, from its dispatch to a mover on."""

    job: JobNumber
    progress: Progress | None = None
    troubles: deque[Trouble] = field(default_factory=lambda: deque(maxlen=NEWEST_TROUBLES))
    trouble_count: int = 0
    is_cancelled: bool = False
    call: Call | None = None
    mover: Mover | None = None
    #: Set when nobody works on it any more; the ledger may say a moment earlier how the job ended.
    ended: trio.Event = field(default_factory=trio.Event)

    async def attach(self, call: Call, mover: Mover) -> None:
        """A mover works on it now; it is told at once when the run was cancelled meanwhile."""
        self.call, self.mover = call, mover
        if self.is_cancelled:
            await self._tell_cancel()

    async def cancel(self) -> None:
        """Have the run stop at the next good place; it ends some time later."""
        self.is_cancelled = True
        await self._tell_cancel()

    async def _tell_cancel(self) -> None:
        if self.call is not None and self.mover is not None:
            # A mover that has died ends the run by that.
            with suppress(MoverDied):
                await self.mover.tell(Cancel(target=self.call.number))

    def note(self, report: Report) -> None:
        """Keep what the mover tells about the run."""
        if isinstance(report, Progress):
            self.progress = report
        elif isinstance(report, Trouble):
            self.troubles.append(report)
            self.trouble_count += 1


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as it is shown: its record, its newest set and what is known of its newest run."""

    job: Job
    backup_set: BackupSet | None
    run: Run | None


class Jobs:
    """All jobs and the queue of those to run."""

    def __init__(self, home: Home, ledger: Ledger, bell: Bell, now_ns: Callable[[], int] = time.time_ns) -> None:
        """Take over the jobs that are queued in the ledger; `bell` is rung when there is something to do."""
        self._home = home
        self._ledger = ledger
        self._bell = bell
        self.now_ns = now_ns
        queued = [job for job in ledger.jobs() if job.state is JobState.QUEUED]
        self._queue = deque(job.number for job in sorted(queued, key=lambda job: (job.queued_at_ns, job.number)))
        self._running: dict[JobNumber, Run] = {}
        self._ended: dict[JobNumber, Run] = {}
        #: The runs so far of those that are queued to go on with another drive.
        self._moved: dict[JobNumber, Run] = {}

    # -- for HTTP ----------------------------------------------------------------------------------------------------

    def view(self, number: JobNumber) -> JobView:
        """Return one job. Raises NotFound."""
        return self._view(self._ledger.job(number), self._ledger.backup_set)

    def views(self) -> list[JobView]:
        """Return all jobs, oldest first."""
        sets = {backup_set.set_id: backup_set for backup_set in self._ledger.backup_sets()}
        return [self._view(job, sets.__getitem__) for job in self._ledger.jobs()]

    async def create(self, job: Job) -> Job:
        """Record a new job; it does not run before `queue`."""
        return await trio.to_thread.run_sync(self._ledger.add_job, job)

    async def edit(self, number: JobNumber, change: Callable[[Job], Job]) -> Job:
        """Change what a job is asked to do. `change` runs in a thread. Raises NotFound, NotNow, Conflict."""
        known = await self._rested(number)
        wanted = await trio.to_thread.run_sync(change, known)
        return await trio.to_thread.run_sync(self._ledger.edit_job, known, wanted, self.now_ns())

    async def delete(self, number: JobNumber) -> None:
        """Forget a job; its sets stay. Raises NotFound, NotNow, Conflict."""
        await self._rested(number)
        await trio.to_thread.run_sync(self._ledger.delete_job, number, self.now_ns())
        self._ended.pop(number, None)

    async def _rested(self, number: JobNumber) -> Job:
        """Return a job that neither waits nor runs. Raises NotFound, NotNow."""
        job = self._ledger.job(number)
        if number in self._running and job.state not in OPEN_STATES:
            await self._running[number].ended.wait()
            job = self._ledger.job(number)
        if number in self._running or number in self._queue:
            raise NotNow(
                f"task {number} ({job.name}) is {job.state.value} already: wait until it has ended, or cancel it"
            )
        return job

    def newest(self, like: Job) -> Job | None:
        """Return the newest job with that name and these sources whose sets can be of that type."""
        found = [job for job in self._ledger.jobs() if _course(job) == _course(like)]
        return max(found, key=lambda job: job.number, default=None)

    async def queue(self, number: JobNumber, run_type: str = "") -> Job:
        """Have the job run, to make a set of its type or of another. Raises NotFound, NotNow while it waits or runs."""
        await self._rested(number)
        queued = await trio.to_thread.run_sync(self._ledger.queue_job, number, self.now_ns(), run_type)
        self._ended.pop(number, None)
        self._queue.append(number)
        self._bell.ring()
        return queued

    async def resume(self, number: JobNumber) -> Job:
        """Have the newest run go on behind its last committed segment. Raises NotFound, NotNow, Conflict."""
        await self._rested(number)
        queued = await trio.to_thread.run_sync(partial(self._ledger.queue_job, number, self.now_ns(), resume=True))
        self._ended.pop(number, None)
        self._queue.append(number)
        self._bell.ring()
        return queued

    async def cancel(self, number: JobNumber) -> None:
        """Take the job out of the queue, or ask its mover to stop. Raises NotFound, NotNow when it does neither."""
        job = self._ledger.job(number)
        if number in self._queue:
            self._queue.remove(number)
            self._moved.pop(number, None)
            why = "it was cancelled while it waited for a drive" if job.moves else "cancelled before it began"
            await self._finish(number, JobState.CANCELLED, why)
        elif number in self._running and job.state in OPEN_STATES:
            await self._running[number].cancel()
        else:
            raise NotNow(f"task {number} ({job.name}) is {job.state.value}: there is nothing to cancel")

    # -- for the drives ----------------------------------------------------------------------------------------------

    def has_queued(self) -> bool:
        """Does a job wait for a drive?"""
        return bool(self._queue)

    def has_queued_for(self, drive: str, drives_up: Collection[str]) -> bool:
        """Does a job wait that this drive may run? `drives_up`: those that work."""
        return self._next_for(drive, drives_up) is not None

    def _next_for(self, drive: str, drives_up: Collection[str]) -> JobNumber | None:
        """Return the first job that the drive may run: a run that it has failed leaves it to others for a while."""
        for number in self._queue:
            moves = self._ledger.job(number).moves
            others = set(drives_up) - {drive} - {move.drive for move in moves}
            if not others or all(move.drive != drive for move in moves):
                return number
            if self.now_ns() - moves[-1].at_ns > OTHER_DRIVE_S * 1e9:
                return number
        return None

    def has_running(self) -> bool:
        """Does a mover work on a job?"""
        return bool(self._running)

    def is_idle(self) -> bool:
        """Is no job queued or running?"""
        return not self._queue and not self._running

    def begin_next(self, drive: str, drives_up: Collection[str]) -> Run:
        """Take the next job for the drive out of the queue; there must be one. `end` or `leave_drive` must follow."""
        number = self._next_for(drive, drives_up)
        if number is None:
            raise AssertionError("no job waits for this drive")
        self._queue.remove(number)
        run = self._running[number] = Run(number)
        if (before := self._moved.pop(number, None)) is not None:
            run.troubles, run.trouble_count = before.troubles, before.trouble_count
        return run

    async def leave_drive(self, run: Run, move: DriveMove) -> Job:
        """The run's drive has failed: queue it to go on with another, or end it if that cannot be or has been often.

        It is the next then; what was committed stays.
        """
        if run.is_cancelled:
            return await self.end(run, JobState.CANCELLED, move.reason)
        with trio.CancelScope(shield=True):
            job = await trio.to_thread.run_sync(leave_drive, self._home, self._ledger, run.job, move)
        if job.state is not JobState.QUEUED:
            return await self.end(run, job.state, job.error)
        self._moved[run.job] = run
        self._queue.appendleft(run.job)
        self._over(run)
        log.warning("job leaves its drive", job=run.job, name=job.name, drive=move.drive, tape=move.tape or None)
        return job

    async def end(self, run: Run, state: JobState, error: str) -> Job:
        """The run is over: bring set and job to an end in the ledger, unless the mover has. `error` says why it failed.

        A set that is SEALED stays as it is: it is whole on tape, and FinishSets completes it.
        """
        try:
            job = await self._finish(run.job, state, error)
        finally:
            self._remember(run)
            self._over(run)
        log.info("job ended", job=run.job, name=job.name, state=job.state.value, error=job.error)
        return job

    def _over(self, run: Run) -> None:
        """No mover works on the run any more."""
        run.call = run.mover = None
        self._running.pop(run.job, None)
        run.ended.set()
        self._bell.ring()

    async def fail_queued(self, reason: str, *, spares_moved: bool) -> None:
        """Fail all jobs that wait for a drive; with `spares_moved` not the runs that a drive has failed before."""
        for number in list(self._queue):
            moves = self._ledger.job(number).moves
            if moves and spares_moved:
                continue
            self._queue.remove(number)
            self._moved.pop(number, None)
            await self._finish(number, JobState.FAILED, story_of(moves, number) if moves else reason)

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _finish(self, number: JobNumber, state: JobState, error: str) -> Job:
        with trio.CancelScope(shield=True):
            job = await trio.to_thread.run_sync(finish, self._home, self._ledger, number, state, error, self.now_ns())
        return job

    def _remember(self, run: Run) -> None:
        self._ended.pop(run.job, None)
        self._ended[run.job] = run
        while len(self._ended) > NEWEST_RUNS:
            del self._ended[next(iter(self._ended))]

    def _view(self, job: Job, set_of: Callable[[SetId], BackupSet]) -> JobView:
        run = self._running.get(job.number) or self._ended.get(job.number)
        return JobView(job, set_of(job.set_id) if job.set_id is not None else None, run)


def _course(job: Job) -> tuple[str, tuple[bytes, ...], str]:
    """Return what jobs have in common that are the same to somebody who names sources only."""
    return job.name, job.sources, "chain" if job.type in CHAIN_TYPES else job.type


def leave_drive(home: Home, ledger: Ledger, number: JobNumber, move: DriveMove) -> Job:
    """Bring a run whose drive has failed back into the queue, or to its end; return the job. Blocking, idempotent.

    A run that has come to its end all the same stays so; one that was left by too many drives fails with all of it.
    """
    job = ledger.job(number)
    if job.state not in OPEN_STATES:
        return job
    if job.state is JobState.RUNNING and job.set_id is not None:
        backup_set = ledger.backup_set(job.set_id)
        if backup_set.state in _WHOLE and not (job.verify or backup_set.copy_pools):
            return finish(home, ledger, number, JobState.FAILED, move.reason, move.at_ns)
    if len(job.moves) >= MOST_MOVES:
        return finish(home, ledger, number, JobState.FAILED, story_of((*job.moves, move), number), move.at_ns)
    queued = ledger.requeue_job(number, move)
    if queued.set_id is not None:
        end_interrupted(home, ledger, queued.set_id, move.reason, move.at_ns)
    return queued


def story_of(moves: tuple[DriveMove, ...], number: JobNumber) -> str:
    """Tell on which drives a run has failed, and what to do."""
    parts = [f"{move.drive}{f' with tape {move.tape}' if move.tape else ''}: {move.reason}" for move in moves]
    way_out = f"what was committed is kept, `tapefs job resume {number}` goes on when the drives were seen to"
    return f"{len(moves)} times a drive failed within the run: {'; then '.join(parts)}; {way_out}"


def finish(home: Home, ledger: Ledger, number: JobNumber, state: JobState, error: str, now_ns: int) -> Job:
    """Bring a job that is over to its end in the ledger, its set first; return it. Blocking, idempotent.

    What the mover has brought to an end stays. A set is failed only while nothing says that it is whole on tape. A job
    that was to be verified or copied has failed even if its set is whole, or is completed later. A report that its
    mover has not completed is.
    """
    job = ledger.job(number)
    if job.state not in OPEN_STATES:
        return job
    if job.state is JobState.RUNNING and job.set_id is not None:
        backup_set = ledger.backup_set(job.set_id)
        reached, is_more_to_do = backup_set.state, job.verify or bool(backup_set.copy_pools)
        if reached is SetState.SEALED and not is_more_to_do:
            end_interrupted(home, ledger, job.set_id, "", now_ns)
            return job
        if reached is SetState.RUNNING:
            ledger.fail_set(job.set_id, error, now_ns)
        elif reached in _WHOLE and state is JobState.FAILED and not error.startswith(_SET_IS_COMPLETE):
            missing = "read back" if job.verify else "copied"
            error = f"{_SET_IS_COMPLETE} on tape, but was not {missing}: {error}"
        end_interrupted(home, ledger, job.set_id, error, now_ns)
    if state is JobState.COMPLETED:
        state, error = JobState.FAILED, "the mover said that it was done, but the ledger has no complete set of it"
    return ledger.finish_job(number, state, error, now_ns)
