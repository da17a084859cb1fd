"""The job queue: which backup runs next, how far it is, what went wrong, and how it ends in the ledger.

One trio run. The ledger is the truth about states; kept in memory are the order of the queue (`line`), progress and
troubles. Reading the ledger takes microseconds and is done in place, writing waits for the disk and goes to a thread;
what becomes of a run that has stopped is decided there (`going_on`).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

import structlog
import trio

from catalog.errors import CatalogError
from catalog.ids import JobNumber, SetId
from catalog.ledger import Ledger
from catalog.queue_records import QueueState
from catalog.records import BackupSet, DriveMove, Job, JobState, SetState
from sidecar.bell import Bell
from sidecar.drives.encrypting import may_encrypt
from sidecar.drives.movers import Call, Mover, MoverDied
from sidecar.jobs import going_on
from sidecar.jobs.going_on import OPEN_STATES
from sidecar.jobs.line import Line, Outlook, Waiting, may_take, outlook
from sidecar.jobs.new import CHAIN_TYPES
from tapefs.errors import NotNow, UsageError
from tapefs.home import Home
from tapefs.mover.messages import Cancel, Progress, Report, Trouble

#: Troubles kept for each run; beyond them they are only counted.
NEWEST_TROUBLES = 100
#: Runs that ended and are still remembered with progress and troubles.
NEWEST_RUNS = 1000

#: A sidecar that ends by itself waits so long for the time of a job's next try, when nobody is connected; what comes
#: later is begun by the next one. It would hold its drives until then.
SOON_NS = 60 * 10**9

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Run:
    """A run of a job, from its dispatch to a mover on."""

    job: JobNumber
    progress: Progress | None = None
    troubles: deque[Trouble] = field(default_factory=lambda: deque(maxlen=NEWEST_TROUBLES))
    trouble_count: int = 0
    is_cancelled: bool = False
    #: It is to stop where a segment ends, and to go on when somebody says so.
    is_pausing: bool = False
    call: Call | None = None
    mover: Mover | None = None
    #: The newest complete set of the job when the run began: what this run will come to, about.
    earlier: BackupSet | None = None
    #: Set when nobody works on it any more; the ledger may say a moment earlier how the job ended.
    ended: trio.Event = field(default_factory=trio.Event)

    async def attach(self, call: Call, mover: Mover) -> None:
        """A mover works on it now; it is told at once when the run was cancelled meanwhile."""
        self.call, self.mover = call, mover
        if self.is_cancelled:
            await self.tell_cancel()

    async def cancel(self) -> None:
        """Have the run stop at the next good place; it ends some time later."""
        self.is_cancelled = True
        await self.tell_cancel()

    async def tell_cancel(self) -> None:
        """Tell the mover to stop at the next good place."""
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
        self._line = Line()
        for job in ledger.jobs_in([JobState.QUEUED]):
            self._line.add(job)
        #: Jobs of streams that no drive has anything to do for yet.
        self.coming: set[JobNumber] = set()
        self._held = ledger.queue_state()
        #: Set when something has changed that jobs may wait for.
        self._changed = trio.Event()
        #: One change of what waits at a time: its states in the ledger and in the line change one after the other.
        self._turn = trio.Lock()
        self._running: dict[JobNumber, Run] = {}
        self._ended: dict[JobNumber, Run] = {}
        #: The runs so far of those that are queued to go on with another drive.
        self._moved: dict[JobNumber, Run] = {}

    # -- for HTTP ----------------------------------------------------------------------------------------------------

    def view(self, number: JobNumber) -> JobView:
        """Return one job. Raises NotFound."""
        return self._view(self._ledger.job(number), self._ledger.backup_set)

    def page(
        self, limit: int, offset: int = 0, *, newest_first: bool = False, states: Collection[JobState] = ()
    ) -> list[JobView]:
        """Return a part of all jobs, or of those in these states, by number; no other is read."""
        found = self._ledger.job_page(limit, offset, newest_first=newest_first, states=states)
        return [self._view(job, self._ledger.backup_set) for job in found]

    async def create(self, job: Job) -> Job:
        """Record a new job; it does not run before `queue`. Raises NotFound for one that it is to follow."""
        for number in job.after:
            self._ledger.job(number)
        return await trio.to_thread.run_sync(self._ledger.add_job, job)

    async def edit(self, number: JobNumber, change: Callable[[Job], Job]) -> Job:
        """Change what a job is asked to do. `change` runs in a thread. Raises NotFound, NotNow, Conflict."""
        known = await self._rested(number)
        wanted = await trio.to_thread.run_sync(change, known)
        if wanted.after != known.after:
            self._check_circle(number, wanted.after)
        return await trio.to_thread.run_sync(self._ledger.edit_job, known, wanted, self.now_ns())

    def _check_circle(self, number: JobNumber, after: Collection[JobNumber]) -> None:
        """Check that a job does not wait for one that waits for it. Raises NotFound, UsageError."""
        ahead, seen = list(after), set[JobNumber]()
        while ahead:
            one = self._ledger.job(ahead.pop())
            if one.number == number:
                raise UsageError(f"after: job {number} would wait for itself, by way of those that it is to follow")
            if one.number not in seen:
                seen.add(one.number)
                ahead.extend(one.after)

    async def delete(self, number: JobNumber) -> None:
        """Forget a job; its sets stay. Raises NotFound, NotNow, Conflict."""
        await self._rested(number)
        await trio.to_thread.run_sync(self._ledger.delete_job, number, self.now_ns())
        self._ended.pop(number, None)
        self._note_change()

    async def _rested(self, number: JobNumber) -> Job:
        """Return a job that neither waits nor runs. Raises NotFound, NotNow."""
        job = self._ledger.job(number)
        if number in self._running and job.state not in OPEN_STATES:
            await self._running[number].ended.wait()
            job = self._ledger.job(number)
        if number in self._running or job.state in OPEN_STATES:
            raise NotNow(_open_already(job))
        return job

    def newest(self, like: Job) -> Job | None:
        """Return the newest job with that name and these sources whose sets can be of that type."""
        found = [job for job in self._ledger.jobs_named(like.name) if _course(job) == _course(like)]
        return max(found, key=lambda job: job.number, default=None)

    async def queue(self, number: JobNumber, run_type: str = "") -> Job:
        """Have the job run, to make a set of its type or of another. Raises NotFound, NotNow while it waits or runs."""
        job = await self._rested(number)
        if job.stream and number not in self.coming:
            raise NotNow(f"task {number} ({job.name}) {going_on.STREAM_WORDS}")
        queued = await trio.to_thread.run_sync(self._ledger.queue_job, number, self.now_ns(), run_type)
        self._ended.pop(number, None)
        self._add(queued)
        return queued

    def take_in(self, job: Job) -> None:
        """Have a job run that was queued in the ledger by somebody else, as a schedule does; harmless twice."""
        if job.state is JobState.QUEUED and job.number not in self._line and job.number not in self._running:
            self._ended.pop(job.number, None)
            self._add(job)

    async def resume(self, number: JobNumber) -> Job:
        """Have the newest run go on behind its last committed segment. Raises NotFound, NotNow, Conflict."""
        async with self._turn:
            if self._ledger.job(number).state is JobState.PAUSED:
                with trio.CancelScope(shield=True):
                    released = await trio.to_thread.run_sync(self._ledger.release_job, number, self.now_ns())
                self._add(released)
                return released
        job = await self._rested(number)
        if job.stream:
            raise NotNow(f"task {number} ({job.name}) {going_on.STREAM_WORDS}")
        queued = await trio.to_thread.run_sync(partial(self._ledger.queue_job, number, self.now_ns(), resume=True))
        self._ended.pop(number, None)
        self._add(queued)
        return queued

    async def pause(self, number: JobNumber) -> None:
        """Have a job wait until it is resumed; a running one stops where its segment ends, some time later.

        Harmless when it is paused. Raises NotFound, NotNow when it neither waits nor runs.
        """
        async with self._turn:
            await self._pause(number)

    async def _pause(self, number: JobNumber) -> None:
        job = self._ledger.job(number)
        if job.stream and job.state in OPEN_STATES:
            raise NotNow(f"task {number} ({job.name}) stores a stream, which cannot wait: cancel it instead")
        if self._line.remove(number):
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._ledger.pause_job, number, self.now_ns())
            self._note_change()
        elif number in self._running and job.state in OPEN_STATES:
            if self._running[number].is_cancelled:
                raise NotNow(f"job {number} ({job.name}) is being cancelled: it cannot be paused")
            self._running[number].is_pausing = True
        elif job.state is not JobState.PAUSED:
            raise NotNow(f"task {number} ({job.name}) is {job.state.value}: there is nothing to pause")

    async def rank(self, number: JobNumber, priority: int) -> Job:
        """Give a job another priority; one that waits has another place at once. Raises NotFound."""
        async with self._turn:
            job = await trio.to_thread.run_sync(self._ledger.rank_job, number, priority, self.now_ns())
            if number in self._line:
                self._add(self._ledger.job(number))
        return job

    @property
    def held(self) -> QueueState:
        """Is the queue as a whole held?"""
        return self._held

    async def hold(self, *, is_paused: bool, reason: str) -> QueueState:
        """Have no job begin until this is taken back, or have them begin again; what runs goes on."""
        wanted = QueueState(is_paused=is_paused, reason=reason, at_ns=self.now_ns())
        await trio.to_thread.run_sync(self._ledger.hold_queue, wanted)
        self._held = self._ledger.queue_state()
        log.info("queue held" if is_paused else "queue goes on", reason=reason)
        self._note_change()
        return self._held

    async def cancel(self, number: JobNumber) -> None:
        """Take the job out of the queue, or ask its mover to stop. Raises NotFound, NotNow when it does neither."""
        async with self._turn:
            await self._cancel(number)

    async def _cancel(self, number: JobNumber) -> None:
        job = self._ledger.job(number)
        if number in self._line or job.state is JobState.PAUSED:
            self._line.remove(number)
            self._moved.pop(number, None)
            await self._finish(number, JobState.CANCELLED, _cancelled_words(job))
            self._note_change()
        elif number in self._running and job.state in OPEN_STATES:
            await self._running[number].cancel()
        else:
            raise NotNow(f"job {number} ({job.name}) is {job.state.value}: there is nothing to cancel")

    def has_come(self, number: JobNumber) -> None:
        """Of the job's stream there is so much that a drive has something to do."""
        if number in self.coming:
            self.coming.discard(number)
            self._note_change()

    async def give_up(self, number: JobNumber, reason: str) -> None:
        """Have a job fail if it waits for a drive; harmless for others."""
        async with self._turn:
            if self._line.remove(number):
                await self._finish(number, JobState.FAILED, reason)
                self._note_change()

    def is_open(self, number: JobNumber) -> bool:
        """Does the job wait, or does a mover work on it?"""
        return number in self._running or number in self._line or self._ledger.job(number).state in OPEN_STATES

    # -- for the drives ----------------------------------------------------------------------------------------------

    def has_queued(self) -> bool:
        """Does a job wait for a drive, and for nothing else?"""
        return not self._held.is_paused and self._line.first(self._is_ready) is not None

    def has_queued_for(self, drive: str, drives_up: Collection[str]) -> bool:
        """Does a job wait that this drive may run? `drives_up`: those that work."""
        return self._next_for(drive, drives_up) is not None

    def _next_for(self, drive: str, drives_up: Collection[str]) -> JobNumber | None:
        """Return the first job that the drive may run: a run that it has failed leaves it to others for a while."""
        if self._held.is_paused:
            return None
        now_ns = self.now_ns()
        return self._line.first(
            lambda each: (
                self._is_ready(each)
                and may_take(each, drive, drives_up, now_ns)
                and may_encrypt(self._home, self._ledger.job(each.number), drive, drives_up)
            )
        )

    def unprepared(self) -> list[JobNumber]:
        """Return the jobs that wait for nothing but their hooks."""
        waiting = [] if self._held.is_paused else [each for each in self._line if each.is_unprepared]
        return [each.number for each in waiting if self._has_come(each)]

    def has_hooks(self) -> bool:
        """Does a job wait whose hooks are still to run?"""
        return any(each.is_unprepared for each in self._line)

    def prepared(self, number: JobNumber) -> None:
        """The hooks of a job have gone well: it may begin, if it still waits."""
        if number in self._line:
            self._add(self._ledger.job(number))

    def _is_ready(self, waiting: Waiting) -> bool:
        """Does it wait for no time, no other job and no hook?"""
        return not waiting.is_unprepared and self._has_come(waiting)

    def _has_come(self, waiting: Waiting) -> bool:
        if waiting.not_before_ns > self.now_ns() or waiting.number in self.coming:
            return False
        return not waiting.after or self.outlook(waiting)[0] is Outlook.READY

    def outlook(self, waiting: Waiting | Job) -> tuple[Outlook, str]:
        """Return what the jobs say that it is to follow, and which one is to blame."""
        return outlook(waiting.after, waiting.after_any, self._ledger.job)

    def place_of(self, number: JobNumber) -> int | None:
        """Return how many jobs are before one that waits; None when it does not wait."""
        return self._line.place_of(number)

    async def look_for_earlier(self, run: Run) -> None:
        """Note the newest complete set of the job of a run that begins: in a thread, for that may be many sets."""
        try:
            run.earlier = await trio.to_thread.run_sync(self._newest_set, run.job)
        except CatalogError as error:  # Then nobody is told how far the run is of all.
            log.warning("what a job has made before cannot be read", job=run.job, error=str(error))

    def _newest_set(self, number: JobNumber) -> BackupSet | None:
        job = self._ledger.job(number)
        of_job = reversed(self._ledger.sets_of(job.job_id))
        return next((each for each in of_job if each.state is SetState.COMPLETE), None)

    def running(self) -> list[Run]:
        """Return the runs that movers work on."""
        return list(self._running.values())

    def has_running(self) -> bool:
        """Does a mover work on a job?"""
        return bool(self._running)

    def is_idle(self) -> bool:
        """Does no job run, and will none that waits by itself, soon?"""
        if self._running:
            return False
        return self._held.is_paused or all(self._is_for_later(each) for each in self._line)

    def _is_for_later(self, waiting: Waiting) -> bool:
        """Does it wait for others, or for a time that is far?"""
        if waiting.not_before_ns > self.now_ns() + SOON_NS:
            return True
        return bool(waiting.after) and self.outlook(waiting)[0] in (Outlook.IDLE, Outlook.WAITS)

    def begin_next(self, drive: str, drives_up: Collection[str]) -> Run:
        """Take the next job for the drive out of the queue; there must be one. `end` or `leave_drive` must follow."""
        number = self._next_for(drive, drives_up)
        if number is None:
            raise AssertionError("no job waits for this drive")
        self._line.remove(number)
        run = self._running[number] = Run(number)
        if (before := self._moved.pop(number, None)) is not None:
            run.troubles, run.trouble_count = before.troubles, before.trouble_count
        return run

    async def leave_drive(self, run: Run, move: DriveMove) -> Job:
        """The run's drive has failed: queue it to go on with another, or end it if that cannot be or has been often.

        What was committed stays.
        """
        if run.is_cancelled:
            return await self.end(run, JobState.CANCELLED, move.reason)
        if run.is_pausing:
            return await self.paused(run)
        job = await self._decide(going_on.leave_drive, run.job, move)
        if job.state is JobState.QUEUED:
            log.warning("job leaves its drive", job=run.job, name=job.name, drive=move.drive, tape=move.tape or None)
        return await self._settle(run, job)

    async def end(self, run: Run, state: JobState, error: str, kind: str = "") -> Job:
        """The run is over: bring set and job to an end in the ledger, unless the mover has.

        `error` says why it failed, `kind` as `tapefs.mover.kinds` has it: it may be tried again later. A set that is
        SEALED stays as it is: it is whole on tape, and FinishSets completes it.
        """
        try:
            if state is JobState.FAILED:
                job = await self._decide(going_on.fail, run.job, error, kind, self.now_ns())
            else:
                job = await self._finish(run.job, state, error)
        except BaseException:
            self._remember(run)
            self._over(run)
            raise
        return await self._settle(run, job)

    async def paused(self, run: Run) -> Job:
        """The run has stopped because somebody wants it paused."""
        return await self._settle(run, await self._decide(going_on.pause, run.job, self.now_ns()))

    async def stopped(self, run: Run, reason: str) -> Job:
        """The sidecar ends: the run goes on when it is there again, unless somebody wanted something else."""
        if run.is_cancelled:
            return await self.end(run, JobState.CANCELLED, reason)
        if run.is_pausing:
            return await self.paused(run)
        return await self._settle(run, await self._decide(going_on.stop, run.job, reason, self.now_ns()))

    async def _decide(self, how: Callable[..., Job], number: JobNumber, *arguments: object) -> Job:
        with trio.CancelScope(shield=True):
            job = await trio.to_thread.run_sync(how, self._home, self._ledger, number, *arguments)
        return job

    async def _settle(self, run: Run, job: Job) -> Job:
        """No mover works on the run any more; put it back into the line if it is to go on."""
        if job.state in (JobState.QUEUED, JobState.PAUSED):
            self._moved[run.job] = run
        if job.state is JobState.QUEUED:
            self._line.add(job)
        else:
            self._remember(run)
        self._over(run)
        log.info("run ended", job=run.job, name=job.name, state=job.state.value, error=job.error)
        return job

    def _over(self, run: Run) -> None:
        """No mover works on the run any more."""
        run.call = run.mover = None
        self._running.pop(run.job, None)
        run.ended.set()
        self._note_change()

    def _add(self, job: Job) -> None:
        self._line.add(job)
        self._note_change()

    def next_change(self) -> trio.Event:
        """Return what is set when a job or the queue is in another state than now."""
        return self._changed

    def longest_wait(self, drive: str, drives_up: Collection[str]) -> tuple[int, float] | None:
        """Return priority and seconds of waiting of the job that this drive would run next; None: there is none."""
        number = self._next_for(drive, drives_up)
        if number is None:
            return None
        job = self._ledger.job(number)
        return job.priority, (self.now_ns() - job.queued_at_ns) / 1e9

    def _note_change(self) -> None:
        """Have the drives, and those who wait for a time or another job, look again."""
        self._bell.ring()
        self._changed.set()
        self._changed = trio.Event()

    async def fail_queued(self, reason: str, *, spares_moved: bool) -> None:
        """Fail all jobs that wait for a drive; with `spares_moved` not the runs that a drive has failed before."""
        for waiting in [] if self._held.is_paused else list(self._line):
            number, moves = waiting.number, waiting.moves
            if (moves and spares_moved) or not self._is_ready(waiting) or not self._line.remove(number):
                continue
            error = going_on.story_of(moves, number) if moves else reason
            job = await self._decide(going_on.fail, number, error, "drive_failed", self.now_ns())
            if job.state is JobState.QUEUED:
                self._add(job)
            else:
                self._moved.pop(number, None)
                self._note_change()

    async def run(self) -> None:
        """Ring when a time has come that jobs wait for, and end those that wait in vain for another, for ever."""
        while True:
            changed, now_ns = self._changed, self.now_ns()
            await self._end_hopeless()
            at_ns = self._line.next_time_ns(now_ns)
            with trio.move_on_after(float("inf") if at_ns is None else max(0.0, (at_ns - now_ns) / 1e9)) as waited:
                await changed.wait()
            if waited.cancelled_caught:
                self._bell.ring()

    async def _end_hopeless(self) -> None:
        """A job that was to follow one that has not succeeded fails, too."""
        for waiting in [each for each in self._line if each.after]:
            verdict, words = self.outlook(waiting)
            if verdict is Outlook.NEVER and self._line.remove(waiting.number):
                error = f"it was to run after {words}; `tapefs job run {waiting.number}` runs it all the same"
                await self._finish(waiting.number, JobState.FAILED, error)
                self._note_change()

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _finish(self, number: JobNumber, state: JobState, error: str) -> Job:
        return await self._decide(going_on.finish, number, state, error, self.now_ns())

    def _remember(self, run: Run) -> None:
        self._ended.pop(run.job, None)
        self._ended[run.job] = run
        while len(self._ended) > NEWEST_RUNS:
            del self._ended[next(iter(self._ended))]

    def _view(self, job: Job, set_of: Callable[[SetId], BackupSet]) -> JobView:
        run = self._running.get(job.number) or self._ended.get(job.number)
        return JobView(job, set_of(job.set_id) if job.set_id is not None else None, run)


def _course(job: Job) -> tuple[str, str, tuple[bytes, ...], str]:
    """Return what jobs have in common that are the same to somebody who names sources only."""
    return job.name, job.stream, job.sources, "chain" if job.type in CHAIN_TYPES else job.type


def _cancelled_words(job: Job) -> str:
    if job.state is JobState.PAUSED:
        return "it was cancelled while it was paused"
    if job.moves or job.tries:
        return "it was cancelled while it waited for a drive"
    return "cancelled before it began"


def _open_already(job: Job) -> str:
    """Say since when a job waits or runs, and what to do about it."""
    since_ns = job.queued_at_ns if job.state is JobState.QUEUED else job.started_at_ns
    since = f" since {datetime.fromtimestamp(since_ns // 10**9, UTC):%Y-%m-%d %H:%M:%SZ}" if since_ns else ""
    return (
        f"job {job.number} ({job.name}) is {job.state.value} already{since}: `tapefs jobs` shows what becomes of it, "
        f"`tapefs job cancel {job.number}` ends it"
    )
