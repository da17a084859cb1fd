"""The operations on jobs and their queue.

See `catalog.lmdb_ledger` for threads and durability.
"""

from __future__ import annotations

from collections.abc import Collection

from catalog.ids import JobNumber
from catalog.ledger_store import job_indexes, jobs, moving, queueing
from catalog.ledger_store.environment import operation
from catalog.lmdb_ledger.base import LmdbBase
from catalog.queue_records import HookResult, JobCheck, JobTry, QueueState
from catalog.records import DriveMove, Job, JobState

_ADD_JOB = operation("add_job")
_EDIT_JOB = operation("edit_job")
_DELETE_JOB = operation("delete_job")
_QUEUE_JOB = operation("queue_job")
_REQUEUE_JOB = operation("requeue_job")
_FINISH_JOB = operation("finish_job")
_RETRY_JOB = operation("retry_job")
_PAUSE_JOB = operation("pause_job")
_RELEASE_JOB = operation("release_job")
_RANK_JOB = operation("rank_job")
_NOTE_CHECK = operation("note_check")
_BEGIN_HOOKS = operation("begin_hooks")
_NOTE_HOOK = operation("note_hook")
_HOLD_QUEUE = operation("hold_queue")


class QueueOperations(LmdbBase):
    """See `catalog.ledger.Ledger` for what they do and raise."""

    def add_job(self, job: Job) -> Job:
        """Record a job under the next free number. Idempotent by `job_id`. Raises Conflict if that asked otherwise."""
        return self._write(_ADD_JOB, jobs.add, job)

    def job(self, number: JobNumber) -> Job:
        """Return one job. Raises NotFound."""
        return self._read(jobs.get, number)

    def jobs(self) -> list[Job]:
        """Return all jobs, oldest first."""
        return self._read(jobs.all_by_number)

    def edit_job(self, known: Job, wanted: Job, now_ns: int) -> Job:
        """Have the job ask for what `wanted` does, if it is as `known`. Raises NotFound, Conflict."""
        return self._write(_EDIT_JOB, jobs.edit, known, wanted, now_ns)

    def delete_job(self, number: JobNumber, now_ns: int) -> None:
        """Forget a job that is neither queued nor running; its sets stay. Idempotent. Raises NotFound, Conflict."""
        self._write(_DELETE_JOB, jobs.delete, number, now_ns)

    def queue_job(self, number: JobNumber, now_ns: int, run_type: str = "", *, resume: bool = False) -> Job:
        """Begin a new run, or have the newest go on.

        Raises NotFound, and Conflict while the job is queued or running, or when there is nothing to go on with.
        """
        if resume:
            return self._write(_QUEUE_JOB, jobs.resume, number, now_ns)
        return self._write(_QUEUE_JOB, jobs.queue, number, now_ns, run_type)

    def requeue_job(self, number: JobNumber, move: DriveMove) -> Job:
        """The run's drive has failed: it becomes QUEUED, to go on. Idempotent by `move`. Raises NotFound, Conflict."""
        return self._write(_REQUEUE_JOB, moving.requeue, number, move)

    def finish_job(self, number: JobNumber, state: JobState, error: str, now_ns: int) -> Job:
        """End a run; the same state again is harmless. COMPLETED needs the run's set, if any, to be COMPLETE.

        Raises NotFound, Conflict, and ValueError for a state that ends nothing.
        """
        return self._write(_FINISH_JOB, jobs.finish, number, state, error, now_ns)

    # -- the queue ---------------------------------------------------------------------------------------------------

    def jobs_in(self, states: Collection[JobState]) -> list[Job]:
        """Return the jobs in these states, oldest first."""
        return self._read(job_indexes.in_states, states)

    def jobs_named(self, name: str) -> list[Job]:
        """Return the jobs with that name, oldest first."""
        return self._read(job_indexes.named, name)

    def jobs_to_check(self) -> list[Job]:
        """Return the jobs whose newest run is still to be verified, oldest first."""
        return self._read(job_indexes.to_check)

    def job_page(
        self, limit: int, offset: int = 0, *, newest_first: bool = False, states: Collection[JobState] = ()
    ) -> list[Job]:
        """Return a part of all jobs, or of those in `states`, by number."""
        return self._read(job_indexes.page, limit, offset, newest_first=newest_first, states=states)

    def job_count(self, states: Collection[JobState] = ()) -> int:
        """Return how many jobs there are, or how many in these states."""
        return self._read(job_indexes.count, states)

    def retry_job(self, number: JobNumber, attempt: JobTry, not_before_ns: int) -> Job:
        """The run goes on later: it becomes QUEUED. Idempotent by `attempt`. Raises NotFound, Conflict."""
        return self._write(_RETRY_JOB, queueing.retry, number, attempt, not_before_ns)

    def pause_job(self, number: JobNumber, now_ns: int) -> Job:
        """QUEUED or RUNNING becomes PAUSED. Idempotent. Raises NotFound, Conflict."""
        return self._write(_PAUSE_JOB, queueing.pause, number, now_ns)

    def release_job(self, number: JobNumber, now_ns: int) -> Job:
        """PAUSED becomes QUEUED. Idempotent. Raises NotFound, Conflict."""
        return self._write(_RELEASE_JOB, queueing.release, number, now_ns)

    def rank_job(self, number: JobNumber, priority: int, now_ns: int) -> Job:
        """Give the job another priority. Raises NotFound, ValueError."""
        return self._write(_RANK_JOB, queueing.rank, number, priority, now_ns)

    def note_check(self, number: JobNumber, run: int, check: JobCheck) -> Job:
        """Record how the verification behind a run is. Idempotent. Raises NotFound."""
        return self._write(_NOTE_CHECK, queueing.note_check, number, run, check)

    def begin_hooks(self, number: JobNumber, now_ns: int) -> Job:
        """The hooks of the newest run begin. Idempotent. Raises NotFound."""
        return self._write(_BEGIN_HOOKS, queueing.begin_hooks, number, now_ns)

    def note_hook(self, number: JobNumber, begun_at_ns: int, result: HookResult, now_ns: int) -> Job:
        """Record how a hook of a run went. Idempotent. Raises NotFound."""
        return self._write(_NOTE_HOOK, queueing.note_hook, number, begun_at_ns, result, now_ns)

    def queue_state(self) -> QueueState:
        """Return whether the queue as a whole is held."""
        return self._read(queueing.state)

    def hold_queue(self, wanted: QueueState) -> None:
        """Hold the queue, or let it go on. Idempotent."""
        self._write(_HOLD_QUEUE, queueing.hold, wanted)
