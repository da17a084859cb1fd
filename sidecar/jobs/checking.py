"""Verifications behind backups: a job that wants that has its newest set read back when its run is completed.

One trio task. What is to be verified stands in the ledger from the step on that completes the run, so that none is
forgotten; after a restart what was read back since then is not read again.
"""

from __future__ import annotations

import structlog
import trio

from catalog.errors import CatalogError
from catalog.ids import JobNumber, SetId
from catalog.ledger import Ledger
from catalog.queue_records import CheckState, JobCheck
from catalog.records import Job
from sidecar.jobs.queue import Jobs
from sidecar.tapes.task_log import OWN_KEEPER
from sidecar.verifications.outcome import TaskState
from sidecar.verifications.queue import Verifications, VerifyRun
from tapefs.errors import TapefsError

#: Copies of a tape that are read for a sample.
SAMPLE = 3
#: So often it looks whether a verification has ended.
LOOK_S = 0.5

log = structlog.get_logger(__name__)


class Checks:
    """All of them."""

    def __init__(self, ledger: Ledger, jobs: Jobs, verifications: Verifications) -> None:
        self._ledger = ledger
        self._jobs = jobs
        self._verifications = verifications
        self._at_it: set[tuple[JobNumber, int]] = set()

    def is_idle(self) -> bool:
        """Is no run to be verified?"""
        return not self._ledger.jobs_to_check()

    async def run(self) -> None:
        """Have them read back for ever."""
        self._at_it.clear()  # Those of a run that has failed have ended with it.
        async with trio.open_nursery() as nursery:
            while True:
                changed = self._jobs.next_change()
                for job in self._ledger.jobs_to_check():
                    if (job.number, job.runs) not in self._at_it:
                        self._at_it.add((job.number, job.runs))
                        nursery.start_soon(self._check, job)
                await changed.wait()

    async def _check(self, job: Job) -> None:
        if job.check is None or job.set_id is None:
            raise AssertionError(f"job {job.number} is not to be verified")
        try:
            run = await self._verified(job.set_id, job.check.since_ns, 0 if job.then_verify == "all" else SAMPLE)
        except (TapefsError, CatalogError) as error:  # The set has expired meanwhile, for instance.
            state, reason = CheckState.FAILED, str(error)
        else:
            state, reason = _verdict(run)
        check = JobCheck(state=state, since_ns=job.check.since_ns, at_ns=self._jobs.now_ns(), reason=reason)
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._ledger.note_check, job.number, job.runs, check)
        self._at_it.discard((job.number, job.runs))
        if state is CheckState.FAILED:
            log.error("the set of a job is not as it was written", job=job.number, name=job.name, error=reason)
        else:
            log.info("the set of a job was verified", job=job.number, name=job.name, state=state.value)

    async def _verified(self, set_id: SetId, since_ns: int, sample: int) -> VerifyRun:
        run = await self._verifications.start(
            [set_id], [], everything=False, since_ns=since_ns, sample=sample, keeper=OWN_KEEPER
        )
        while run.is_open:
            await trio.sleep(LOOK_S)
        return run


def _verdict(run: VerifyRun) -> tuple[CheckState, str]:
    if run.state == "completed":
        return CheckState.GOOD, ""
    if run.state == "cancelled":
        return CheckState.CANCELLED, "it was cancelled"
    wrong = [task for task in run.tasks if task.state in (TaskState.DAMAGED, TaskState.UNREAD)]
    first = wrong[0]
    words = f"{first.problems[0]}" if first.problems else first.state.value
    damaged = sum(task.state is TaskState.DAMAGED for task in wrong)
    return CheckState.FAILED, (
        f"of {len(run.tasks)} copies of segments {damaged} are damaged and {len(wrong) - damaged} could not be read; "
        f"on tape {first.tape}: {words}; see `tapefs verify`"
    )
