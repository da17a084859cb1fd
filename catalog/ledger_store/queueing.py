"""Runs that stop and go on, and the queue as a whole: functions of a transaction (see `catalog.ledger`)."""

from __future__ import annotations

import msgspec

from catalog.errors import Conflict
from catalog.ids import JobNumber
from catalog.ledger_store import jobs, sets
from catalog.ledger_store.tables import QUEUE, QUEUE_KEY, SETS, text_key
from catalog.ledger_store.transaction import Reader, Writer, plain_text
from catalog.queue_records import HIGHEST_PRIORITY, KEPT_TRIES, HookResult, JobCheck, JobTry, QueueState, TryKind
from catalog.records import Job, JobState, SetState

_GOING = (JobState.QUEUED, JobState.RUNNING)


def retry(tx: Writer, number: JobNumber, attempt: JobTry, not_before_ns: int) -> Job:
    """RUNNING or QUEUED becomes QUEUED, not before then, its RUNNING set FAILED; idempotent by `attempt`.

    It keeps its place in the queue. Raises NotFound, Conflict.
    """
    job = jobs.get(tx, number)
    attempt = msgspec.structs.replace(attempt, reason=plain_text(attempt.reason))
    if job.tries and job.tries[-1] == attempt:
        return job
    if job.state not in _GOING:
        raise Conflict(f"job {number} is {job.state.value}: it cannot be tried again")
    _stop_set(tx, job, attempt.reason, attempt.at_ns)
    queued = msgspec.structs.replace(
        job,
        state=JobState.QUEUED,
        resume=_can_go_on(tx, job),
        tries=(*job.tries, attempt)[-KEPT_TRIES:],
        moves=() if attempt.kind is TryKind.FAILED else job.moves,
        not_before_ns=not_before_ns,
        started_at_ns=0,
    )
    return jobs.change(tx, queued, attempt.at_ns)


def pause(tx: Writer, number: JobNumber, now_ns: int) -> Job:
    """QUEUED or RUNNING becomes PAUSED with its place and its set, which is FAILED then; harmless when it is PAUSED.

    Raises NotFound, Conflict.
    """
    job = jobs.get(tx, number)
    if job.state is JobState.PAUSED:
        return job
    if job.state not in _GOING:
        raise Conflict(f"job {number} is {job.state.value}: there is nothing to pause")
    _stop_set(tx, job, "paused", now_ns)
    return jobs.change(tx, msgspec.structs.replace(job, state=JobState.PAUSED, paused_at_ns=now_ns), now_ns)


def release(tx: Writer, number: JobNumber, now_ns: int) -> Job:
    """PAUSED becomes QUEUED where it stood, and waits for no time any more. Harmless when it is queued or runs.

    Raises NotFound, Conflict.
    """
    job = jobs.get(tx, number)
    if job.state in _GOING:
        return job
    if job.state is not JobState.PAUSED:
        raise Conflict(f"job {number} is {job.state.value}, not paused")
    queued = msgspec.structs.replace(
        job, state=JobState.QUEUED, resume=_can_go_on(tx, job), not_before_ns=0, paused_at_ns=0, started_at_ns=0
    )
    return jobs.change(tx, queued, now_ns)


def rank(tx: Writer, number: JobNumber, priority: int, now_ns: int) -> Job:
    """Give the job another priority, whatever it does. Raises NotFound, ValueError for none that there is."""
    if not 0 <= priority <= HIGHEST_PRIORITY:
        raise ValueError(f"{priority} is no priority: 0 to {HIGHEST_PRIORITY}")
    job = jobs.get(tx, number)
    if job.priority == priority:
        return job
    return jobs.change(tx, msgspec.structs.replace(job, priority=priority), now_ns)


def note_check(tx: Writer, number: JobNumber, run: int, check: JobCheck) -> Job:
    """Record what the verification behind that run has found; a newer run's stays. Raises NotFound."""
    job = jobs.get(tx, number)
    if job.runs != run or job.check is None or job.check == check:
        return job
    noted = msgspec.structs.replace(job, check=msgspec.structs.replace(check, reason=plain_text(check.reason)))
    return jobs.change(tx, noted, check.at_ns)


def begin_hooks(tx: Writer, number: JobNumber, now_ns: int) -> Job:
    """The hooks of the newest run begin; harmless when they have. Raises NotFound."""
    job = jobs.get(tx, number)
    if job.hooks_begun_at_ns:
        return job
    return jobs.change(tx, msgspec.structs.replace(job, hooks_begun_at_ns=now_ns), now_ns)


def note_hook(tx: Writer, number: JobNumber, begun_at_ns: int, result: HookResult, now_ns: int) -> Job:
    """Record how a hook of the run went whose hooks began then; another run's stay. Idempotent. Raises NotFound."""
    job = jobs.get(tx, number)
    result = msgspec.structs.replace(result, error=plain_text(result.error), output=plain_text(result.output))
    if job.hooks_begun_at_ns != begun_at_ns or result in job.hooks:
        return job
    if result.error and result.is_after:
        tx.tell("job.hook_failed", number, result.name, now_ns)
    return jobs.change(tx, msgspec.structs.replace(job, hooks=(*job.hooks, result)), now_ns)


def state(tx: Reader) -> QueueState:
    """Is the queue held?"""
    return tx.find(QUEUE, QUEUE_KEY) or QueueState()


def hold(tx: Writer, wanted: QueueState) -> None:
    """Hold the queue, or let it go on; the same again is harmless."""
    known = state(tx)
    if known.is_paused is wanted.is_paused:
        return
    tx.put(QUEUE, QUEUE_KEY, msgspec.structs.replace(wanted, reason=plain_text(wanted.reason)))
    tx.tell("queue.paused" if wanted.is_paused else "queue.resumed", "queue", wanted.reason, wanted.at_ns)


def _stop_set(tx: Writer, job: Job, reason: str, now_ns: int) -> None:
    """The set of the run that stops is FAILED, if it ran."""
    if job.set_id is None:
        return
    reached = sets.get(tx, job.set_id).state
    if reached is SetState.EXPIRED:
        raise Conflict(f"set {job.set_id} of job {job.number} has expired: it cannot go on")
    if reached is SetState.RUNNING:
        sets.fail(tx, job.set_id, f"{reason}; it goes on later", now_ns)


def _can_go_on(tx: Reader, job: Job) -> bool:
    return job.set_id is not None and tx.find(SETS, text_key(job.set_id)) is not None
