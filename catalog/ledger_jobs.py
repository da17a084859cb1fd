"""The part of the ledger's seam that is about jobs and their queue; what `catalog.ledger` says holds here, too."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from catalog.ids import JobNumber
from catalog.queue_records import HookResult, JobCheck, JobTry, QueueState
from catalog.records import DriveMove, Job, JobState


class JobLedger(Protocol):
    """Jobs, how their runs go, and the queue."""

    # -- jobs --------------------------------------------------------------------------------------------------------

    def add_job(self, job: Job) -> Job:
        """Record a job; its `number` is replaced by the next free one. Idempotent by `job_id`."""
        ...

    def job(self, number: JobNumber) -> Job:
        """Return one job. Raises NotFound."""
        ...

    def jobs(self) -> list[Job]:
        """Return all jobs, oldest first."""
        ...

    def edit_job(self, known: Job, wanted: Job, now_ns: int) -> Job:
        """Have a job ask for what `wanted` does; only what a job is asked for changes, not how its runs went.

        `known` is the job as the caller saw it: Conflict when it asks for something else by now, or is queued or
        runs. The same again is harmless. Raises NotFound.
        """
        ...

    def delete_job(self, number: JobNumber, now_ns: int) -> None:
        """Forget a job; its sets stay, its number is never given out again. Idempotent.

        Raises NotFound for a number that no job had, Conflict while it is queued or runs.
        """
        ...

    def queue_job(self, number: JobNumber, now_ns: int, run_type: str = "", *, resume: bool = False) -> Job:
        """PENDING or a finished state becomes QUEUED, and `runs` grows. Raises Conflict while it is queued or runs.

        With `run_type` this run makes a set of that type. With `resume` the newest run is to go on: FAILED or CANCELLED
        becomes QUEUED with the set it has, which is not EXPIRED; else Conflict.
        """
        ...

    def requeue_job(self, number: JobNumber, move: DriveMove) -> Job:
        """The run's drive has failed: RUNNING becomes QUEUED with its set, to go on; that is FAILED then.

        A set that is SEALED or COMPLETE stays so; a job whose set has not begun simply stays QUEUED. Idempotent by
        `move`: the newest one again is harmless. Raises NotFound; Conflict when the job has ended, or has left
        MOST_MOVES drives.
        """
        ...

    def finish_job(self, number: JobNumber, state: JobState, error: str, now_ns: int) -> Job:
        """QUEUED or RUNNING becomes COMPLETED, FAILED or CANCELLED; the same again is harmless. Raises Conflict."""
        ...

    # -- the queue ---------------------------------------------------------------------------------------------------

    def jobs_in(self, states: Collection[JobState]) -> list[Job]:
        """Return the jobs in these states that can be read, oldest first; no other is read."""
        ...

    def jobs_named(self, name: str) -> list[Job]:
        """Return the jobs with that name, oldest first; no other is read."""
        ...

    def jobs_to_check(self) -> list[Job]:
        """Return the jobs whose newest run is COMPLETED and still to be verified (`check`), oldest first."""
        ...

    def job_page(
        self, limit: int, offset: int = 0, *, newest_first: bool = False, states: Collection[JobState] = ()
    ) -> list[Job]:
        """Return a part of all jobs by number, or of those in `states`; of all only these are read.

        What cannot be read is left out, and counts for `limit` and `offset`.
        """
        ...

    def job_count(self, states: Collection[JobState] = ()) -> int:
        """Return how many jobs there are, or how many in these states."""
        ...

    def retry_job(self, number: JobNumber, attempt: JobTry, not_before_ns: int) -> Job:
        """The run is to go on later: QUEUED or RUNNING becomes QUEUED with its set, which is FAILED then.

        It does not begin before `not_before_ns`, and keeps `queued_at_ns`. Idempotent by `attempt`. Raises NotFound;
        Conflict when the job neither waits nor runs, or its set has expired.
        """
        ...

    def pause_job(self, number: JobNumber, now_ns: int) -> Job:
        """QUEUED or RUNNING becomes PAUSED; a RUNNING set is FAILED then. Idempotent. Raises NotFound, Conflict."""
        ...

    def release_job(self, number: JobNumber, now_ns: int) -> Job:
        """PAUSED becomes QUEUED, with its set if that has begun, and `queued_at_ns` as it was.

        Harmless when it is queued or runs. Raises NotFound, Conflict.
        """
        ...

    def rank_job(self, number: JobNumber, priority: int, now_ns: int) -> Job:
        """Give the job another priority, in any state. Raises NotFound, ValueError."""
        ...

    def note_check(self, number: JobNumber, run: int, check: JobCheck) -> Job:
        """Record how the verification behind run `run` is; harmless when a newer run has begun. Raises NotFound."""
        ...

    def begin_hooks(self, number: JobNumber, now_ns: int) -> Job:
        """Record that the hooks of the newest run begin; harmless when they have. Raises NotFound."""
        ...

    def note_hook(self, number: JobNumber, begun_at_ns: int, result: HookResult, now_ns: int) -> Job:
        """Record how a hook went, of the run whose hooks began then; harmless twice, and for another run.

        Raises NotFound.
        """
        ...

    def queue_state(self) -> QueueState:
        """Return whether the queue as a whole is held."""
        ...

    def hold_queue(self, wanted: QueueState) -> None:
        """Hold the queue, or let it go on. Idempotent."""
        ...
