"""The queue in the moment between the ledger's end of a job and the end of the mover's run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from catalog.ids import JobId, JobNumber, SetId, SetNumber, new_uuid
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import Adoption, BackupSet, Job, JobState, SetState
from sidecar.bell import Bell
from sidecar.jobs.queue import Jobs, Run
from tapefs.errors import NotNow
from tapefs.home import Home


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LmdbLedger]:
    ledger = LmdbLedger.create(tmp_path / "ledger", now_ns=1)
    yield ledger
    ledger.close()


async def ended_in_the_ledger(home: Home, ledger: LmdbLedger) -> tuple[Jobs, Run]:
    """Return a run whose job the ledger has as failed already, while the mover still works on it."""
    jobs = Jobs(home, ledger, Bell(), now_ns=lambda: 7)
    job = await jobs.create(Job(number=JobNumber(0), job_id=JobId(new_uuid()), name="docs", sources=(b"/docs",)))
    await jobs.queue(job.number)
    run = jobs.begin_next("drive0", {"drive0"})
    ledger.finish_job(job.number, JobState.FAILED, "the tape broke", 7)
    return jobs, run


async def test_what_has_ended_is_not_cancelled(home: Home, ledger: LmdbLedger) -> None:
    jobs, run = await ended_in_the_ledger(home, ledger)
    with pytest.raises(NotNow, match="failed: there is nothing to cancel"):
        await jobs.cancel(run.job)
    assert not run.is_cancelled


async def test_what_has_ended_may_be_queued_again_at_once(home: Home, ledger: LmdbLedger) -> None:
    jobs, run = await ended_in_the_ledger(home, ledger)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(jobs.queue, run.job)
        await wait_all_tasks_blocked()
        assert not jobs.has_queued()
        await jobs.end(run, JobState.FAILED, "the tape broke")
    assert jobs.has_queued()
    assert jobs.view(run.job).job.state is JobState.QUEUED


async def test_a_run_knows_what_the_job_made_before(home: Home, ledger: LmdbLedger) -> None:
    """The newest complete set of this very job; not of others, and not one that failed."""
    jobs = Jobs(home, ledger, Bell(), now_ns=lambda: 7)
    docs = await jobs.create(Job(number=JobNumber(0), job_id=JobId(new_uuid()), name="docs", sources=(b"/docs",)))
    other = Job(number=JobNumber(0), job_id=JobId(new_uuid()), name="docs", sources=(b"/docs",))
    sets = [
        set_of(number, job, state)
        for number, (job, state) in enumerate(
            ((docs, SetState.COMPLETE), (docs, SetState.COMPLETE), (docs, SetState.FAILED), (other, SetState.COMPLETE)),
            1,
        )
    ]
    ledger.adopt(Adoption(sets=tuple(sets)), 7)
    await jobs.queue(docs.number)
    run = jobs.begin_next("drive0", {"drive0"})
    assert run.earlier is None
    await jobs.look_for_earlier(run)
    assert run.earlier is not None
    assert run.earlier.set_id == sets[1].set_id


def set_of(number: int, job: Job, state: SetState) -> BackupSet:
    return BackupSet(
        set_id=SetId(new_uuid()),
        number=SetNumber(number),
        job_id=job.job_id,
        job_number=job.number,
        name=job.name,
        type="full",
        codec="zstd",
        level=3,
        sources=job.sources,
        state=state,
        started_at_ns=number,
        finished_at_ns=number,
    )
