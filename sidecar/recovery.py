"""What is done at start with what the last sidecar left behind.

Blocking; before any mover runs, the state folder being owned.

| left behind            | because                                              | now                                  |
|------------------------|------------------------------------------------------|--------------------------------------|
| SEALED set             | whole on tape, its index file not in place           | a mover gets FinishSets              |
| RUNNING set            | mover or sidecar ended in the middle                 | the set is FAILED, its job QUEUED to |
|                        |                                                      | go on with it; what is on tape       |
|                        |                                                      | behind the last commit is            |
|                        |                                                      | overwritten at the next append (open |
|                        |                                                      | intents). FAILED, too, if that was   |
|                        |                                                      | so several times without progress    |
| RUNNING job            | the same, before its set began                       | QUEUED                               |
| PAUSED job             | somebody wants that                                  | it stays paused                      |
| report without an end  | the run was killed                                   | completed from the ledger            |
| QUEUED job             | it waited for a drive                                | it stays queued and runs             |
| job of a stream        | the stream came while it waited or ran               | FAILED: nobody can read that again   |
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from catalog.errors import Damaged, WrongVersion
from catalog.ledger import Ledger
from catalog.records import JobState, SetState
from sidecar.jobs.going_on import interrupt, stop
from tapefs.home import Home
from tapefs.report.ending import end_interrupted

INTERRUPTED = "interrupted: the sidecar ended while the backup ran"

log = structlog.get_logger(__name__)


def recover(home: Home, ledger: Ledger, now_ns: int) -> None:
    """Bring everything that was running to an end. Raises what the ledger raises.

    What a damaged record is in the way of stays as it is: RUNNING, so that nobody goes on with it or lets it go.
    """
    for job in ledger.jobs_in([JobState.RUNNING]):
        with _going_on(job=job.number):
            after = interrupt(home, ledger, job.number, INTERRUPTED, now_ns)
            log.warning("job was interrupted", job=job.number, name=job.name, state=after.state.value)
    for job in ledger.jobs_in([JobState.QUEUED]):
        if job.stream:
            with _going_on(job=job.number):
                stop(home, ledger, job.number, INTERRUPTED, now_ns)
                log.warning("a stream was interrupted", job=job.number, name=job.name)
    for backup_set in ledger.readable_sets():
        if backup_set.state is SetState.RUNNING:
            with _going_on(set=backup_set.set_id):
                ledger.fail_set(backup_set.set_id, INTERRUPTED, now_ns)
                end_interrupted(home, ledger, backup_set.set_id, INTERRUPTED, now_ns)
                log.warning("set was interrupted", set=backup_set.set_id, job=backup_set.name)


@contextmanager
def _going_on(**what: object) -> Iterator[None]:
    """Have a damaged record keep nothing else from its end."""
    try:
        yield
    except (Damaged, WrongVersion) as error:
        log.error("what was interrupted cannot be brought to an end", error=str(error), **what)


def has_sealed(ledger: Ledger) -> bool:
    """Is there a set whose index is still to be put in place?"""
    return any(backup_set.state is SetState.SEALED for backup_set in ledger.readable_sets())
