"""A run whose drive has failed goes back into the queue: a function of a transaction (see `catalog.ledger`)."""

from __future__ import annotations

import msgspec

from catalog.errors import Conflict
from catalog.ids import JobNumber
from catalog.ledger_store import jobs, sets
from catalog.ledger_store.transaction import Writer, plain_text
from catalog.records import DriveMove, Job, SetState


def requeue(tx: Writer, number: JobNumber, move: DriveMove) -> Job:
    """RUNNING (or QUEUED, before its set began) becomes QUEUED to go on, its RUNNING set FAILED; idempotent by `move`.

    Raises NotFound, Conflict.
    """
    job = jobs.get(tx, number)
    move = msgspec.structs.replace(move, reason=plain_text(move.reason))
    if job.moves and job.moves[-1] == move:
        return job
    if job.set_id is not None:
        reached = sets.get(tx, job.set_id).state
        if reached is SetState.EXPIRED:
            raise Conflict(f"set {job.set_id} of job {number} has expired: it cannot go on")
        if reached is SetState.RUNNING:
            sets.fail(tx, job.set_id, f"{move.drive} failed, it goes on with another drive: {move.reason}", move.at_ns)
    return jobs.put_back(tx, job, move)
