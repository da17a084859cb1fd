"""Jobs by state, by name and by what is still to be done behind them: functions of a transaction.

Every job is stored here, so that the indexes change with it. A ledger of an earlier version has none of them until
`build` has made them: readers look through all jobs then.
"""

from __future__ import annotations

from collections.abc import Collection
from heapq import merge
from itertools import islice

from catalog.ids import JobNumber
from catalog.ledger_store import unreadable
from catalog.ledger_store.tables import (
    JOBS,
    JOBS_BY_NAME,
    JOBS_BY_STATE,
    JOBS_TO_CHECK,
    job_by_name_key,
    job_by_state_key,
    job_key,
    parts,
)
from catalog.ledger_store.transaction import Reader, Writer
from catalog.queue_records import CheckState
from catalog.records import Job, JobState


def store(tx: Writer, known: Job | None, job: Job) -> None:
    """Store a new job (`known` None; its key must be free), or another state of the known one."""
    if known is None:
        tx.insert(JOBS, job_key(job.number), job)
    else:
        tx.put(JOBS, job_key(job.number), job)
        _unlink(tx, known, keeping=job)
    _link(tx, job)


def remove(tx: Writer, job: Job) -> None:
    """Forget the job."""
    tx.delete(JOBS, job_key(job.number))
    _unlink(tx, job, keeping=None)


def build(tx: Writer) -> None:
    """Make the indexes of a ledger whose jobs were stored without."""
    for table in (JOBS_BY_STATE, JOBS_BY_NAME, JOBS_TO_CHECK):
        for key in list(tx.keys(table)):
            tx.delete(table, key)
    for _, job in list(tx.scan(JOBS)):
        _link(tx, job)


def is_built(tx: Reader) -> bool:
    """Has every job its entries?"""
    return tx.count(JOBS) == tx.count(JOBS_BY_STATE) == tx.count(JOBS_BY_NAME)


def in_states(tx: Reader, states: Collection[JobState]) -> list[Job]:
    """Return the jobs in these states that can be read, oldest first."""
    if not is_built(tx):
        return [job for _, job in unreadable.readable(tx, JOBS) if job.state in states]
    keys = (key[-8:] for state in states for key in tx.keys(JOBS_BY_STATE, parts(state.value)))
    return sorted(unreadable.readable_at(tx, JOBS, keys), key=lambda job: job.number)


def named(tx: Reader, name: str) -> list[Job]:
    """Return the jobs with that name, oldest first."""
    if not is_built(tx):
        return [job for _, job in tx.scan(JOBS) if job.name == name]
    numbers = [number for _, number in tx.scan(JOBS_BY_NAME, parts(name))]
    return [tx.follow(JOBS, job_key(JobNumber(number)), f"jobs_by_name {name}") for number in numbers]


def to_check(tx: Reader) -> list[Job]:
    """Return the jobs whose newest run is to be verified behind its end, oldest first."""
    return list(unreadable.readable_at(tx, JOBS, tx.keys(JOBS_TO_CHECK)))


def page(tx: Reader, limit: int, offset: int, *, newest_first: bool, states: Collection[JobState] = ()) -> list[Job]:
    """Return a part of all jobs, or of those in these states, by number; only these are read.

    Those that cannot be read are left out, and count for `limit` and `offset`.
    """
    if states and not is_built(tx):
        some = in_states(tx, states)
        return (some[::-1] if newest_first else some)[offset : offset + limit]
    if states:
        return list(unreadable.readable_at(tx, JOBS, _keys_in(tx, states, limit, offset, newest_first)))
    if offset <= tx.count(JOBS) // 2:
        wanted = list(islice(tx.keys(JOBS, backwards=newest_first), offset, offset + limit))
    else:  # It is nearer from the other end.
        last = tx.count(JOBS) - offset
        wanted = list(islice(tx.keys(JOBS, backwards=not newest_first), max(0, last - limit), max(0, last)))[::-1]
    return list(unreadable.readable_at(tx, JOBS, wanted))


def _keys_in(tx: Reader, states: Collection[JobState], limit: int, offset: int, newest_first: bool) -> list[bytes]:
    """Return a part of the keys of the jobs in these states; of the others only entries of the index are passed."""
    numbers = [
        (key[-8:] for key in tx.keys(JOBS_BY_STATE, parts(state.value), backwards=newest_first))
        for state in dict.fromkeys(states)
    ]
    return list(islice(merge(*numbers, reverse=newest_first), offset, offset + limit))


def count(tx: Reader, states: Collection[JobState] = ()) -> int:
    """Return how many jobs there are, or how many in these states; reads no job for that."""
    if not states:
        return tx.count(JOBS)
    if not is_built(tx):
        return len(in_states(tx, states))
    return sum(1 for state in dict.fromkeys(states) for _ in tx.keys(JOBS_BY_STATE, parts(state.value)))


def _link(tx: Writer, job: Job) -> None:
    tx.put(JOBS_BY_STATE, job_by_state_key(job.state, job.number), job.number)
    tx.put(JOBS_BY_NAME, job_by_name_key(job.name, job.number), job.number)
    if is_to_check(job):
        tx.put(JOBS_TO_CHECK, job_key(job.number), job.number)


def _unlink(tx: Writer, job: Job, keeping: Job | None) -> None:
    """Remove what leads to the job, but for what leads to it as it is now."""
    if keeping is None or keeping.state is not job.state:
        tx.delete(JOBS_BY_STATE, job_by_state_key(job.state, job.number))
    if keeping is None or keeping.name != job.name:
        tx.delete(JOBS_BY_NAME, job_by_name_key(job.name, job.number))
    if keeping is None or not is_to_check(keeping):
        tx.delete(JOBS_TO_CHECK, job_key(job.number))


def is_to_check(job: Job) -> bool:
    """Is its newest run still to be verified behind its end?"""
    return job.check is not None and job.check.state is CheckState.WAITING
