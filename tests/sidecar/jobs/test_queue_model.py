"""The queue under any sequence of what people, drives and kills do to it: nothing twice, nothing lost, in order.

The drives are played here on a real ledger: what a mover commits is committed as a mover does it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from catalog.ids import JobId, JobNumber, new_uuid
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import Job, JobState, SetState
from sidecar.bell import Bell
from sidecar.jobs.queue import Jobs, Run
from sidecar.recovery import recover
from tapefs.errors import NotNow
from tests.sidecar import seeds
from tests.sidecar.rig import make_home

T = TypeVar("T")
pytestmark = pytest.mark.log_warnings
DRIVES = ("drive0", "drive1")
SECOND_NS = 10**9
_WAIT = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)


class Queue(RuleBasedStateMachine):
    """Two drives, and whatever happens."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="queue"))
        self.home = make_home(self.folder / "home", drives=2)
        self.ledger = LmdbLedger.open(self.home.ledger)
        self.now_ns = 10**18
        self.at: dict[str, Run] = {}
        self.ends: dict[int, int] = {}
        self.numbers: list[JobNumber] = []
        self.start()

    def start(self) -> None:
        recover(self.home, self.ledger, self.now_ns)
        self.jobs = Jobs(self.home, self.ledger, Bell(), lambda: self.now_ns)

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            shutil.rmtree(self.folder)

    def run_in_trio(self, call: Callable[..., Awaitable[T]], *arguments: object, **named: object) -> T | None:
        """Return what the call returns, None when it is refused."""

        async def calling() -> T | None:
            try:
                return await call(*arguments, **named)
            except NotNow:
                return None

        self.now_ns += SECOND_NS
        return trio.run(calling)

    def one(self, place: int) -> JobNumber:
        return self.numbers[place % len(self.numbers)]

    # -- people ------------------------------------------------------------------------------------------------------

    @rule(priority=st.integers(0, 100), retries=st.integers(0, 2))
    def submit(self, priority: int, retries: int) -> None:
        job = Job(
            number=JobNumber(0),
            job_id=JobId(new_uuid()),
            name="job",
            sources=(b"/srv",),
            priority=priority,
            retries=retries,
            retry_first_s=5,
        )
        created = self.run_in_trio(self.jobs.create, job)
        assert created is not None
        self.numbers.append(created.number)
        self.run_in_trio(self.jobs.queue, created.number)

    @precondition(lambda self: self.numbers)
    @rule(place=st.integers(0, 50), priority=st.integers(0, 100))
    def rank(self, place: int, priority: int) -> None:
        self.run_in_trio(self.jobs.rank, self.one(place), priority)

    @precondition(lambda self: self.numbers)
    @rule(place=st.integers(0, 50))
    def pause(self, place: int) -> None:
        self.run_in_trio(self.jobs.pause, self.one(place))

    @precondition(lambda self: self.numbers)
    @rule(place=st.integers(0, 50))
    def resume(self, place: int) -> None:
        number = self.one(place)
        if self.ledger.job(number).state is JobState.PAUSED:
            self.run_in_trio(self.jobs.resume, number)

    @precondition(lambda self: self.numbers)
    @rule(place=st.integers(0, 50))
    def cancel(self, place: int) -> None:
        self.run_in_trio(self.jobs.cancel, self.one(place))

    @rule(is_paused=st.booleans())
    def hold(self, is_paused: bool) -> None:
        self.run_in_trio(self.jobs.hold, is_paused=is_paused, reason="")

    @rule()
    def time_passes(self) -> None:
        self.now_ns += 100 * SECOND_NS

    # -- drives ------------------------------------------------------------------------------------------------------

    @rule(drive=st.sampled_from(DRIVES))
    def take(self, drive: str) -> None:
        """It gets the most urgent of those that may run: here no job waits so long that this counts."""
        if drive in self.at or not self.jobs.has_queued_for(drive, DRIVES):
            return
        assert not self.jobs.held.is_paused
        ready = [
            job for job in self.ledger.jobs_in([JobState.QUEUED])
            if job.not_before_ns <= self.now_ns and job.number not in {run.job for run in self.at.values()}
        ]  # fmt: skip
        run = self.jobs.begin_next(drive, DRIVES)
        assert run.job in {job.number for job in ready}
        urgency = {job.number: job.priority * 3600 * SECOND_NS - job.queued_at_ns for job in ready}
        assert urgency[run.job] == max(urgency.values())
        assert run.job not in {other.job for other in self.at.values()}, "two drives run it"
        self.at[drive] = run
        job = self.ledger.job(run.job)
        if job.resume and job.set_id is not None:
            self.ledger.resume_set(job.set_id, self.now_ns)
        else:
            assert job.set_id is None, "it begins anew, and what it has on tape is forgotten"
            seeds.begin(self.ledger, job, self.now_ns)

    @precondition(lambda self: self.at)
    @rule(place=st.integers(0, 1))
    def complete(self, place: int) -> None:
        drive = sorted(self.at)[place % len(self.at)]
        run = self.at.pop(drive)
        job = self.ledger.job(run.job)
        assert job.set_id is not None
        tape = self.ledger.volumes()[DRIVES.index(drive)].volume_id
        seeds.write(self.ledger, self.ledger.backup_set(job.set_id), tape, self.now_ns, layout=((1, 1),))
        self.ledger.complete_set(job.set_id, self.now_ns)
        self.ends[run.job] = self.ends.get(run.job, 0) + 1
        ended = self.run_in_trio(self.jobs.end, run, JobState.COMPLETED, "")
        assert ended is not None
        assert ended.state is JobState.COMPLETED

    @precondition(lambda self: self.at)
    @rule(place=st.integers(0, 1), kind=st.sampled_from(["source", "drive", "usage", "no_volume"]))
    def fail(self, place: int, kind: str) -> None:
        run = self.at.pop(sorted(self.at)[place % len(self.at)])
        before = self.ledger.job(run.job)
        failed = [attempt for attempt in before.tries if attempt.kind.value == "failed"]
        if run.is_cancelled:
            job = self.run_in_trio(self.jobs.end, run, JobState.CANCELLED, "it was cancelled")
            wanted = JobState.CANCELLED
        elif run.is_pausing:
            job, wanted = self.run_in_trio(self.jobs.paused, run), JobState.PAUSED
        else:
            job = self.run_in_trio(self.jobs.end, run, JobState.FAILED, "no", kind)
            may_pass = kind in ("source", "drive") and len(failed) < before.retries
            wanted = JobState.QUEUED if may_pass else JobState.FAILED
        assert job is not None
        assert job.state is wanted

    @rule(is_kill=st.booleans())
    def end_of_the_sidecar(self, is_kill: bool) -> None:
        """Killed, or told to end."""
        for run in [] if is_kill else list(self.at.values()):
            self.run_in_trio(self.jobs.stopped, run, "stopped")
        before = {number: self.ledger.job(number) for number in self.numbers}
        self.at.clear()
        self.now_ns += SECOND_NS
        self.start()
        for number, job in before.items():
            after = self.ledger.job(number)
            if job.state is JobState.RUNNING:
                assert after.state in (JobState.QUEUED, JobState.FAILED)
                assert after.set_id == job.set_id
            else:
                assert after == job

    # -- always ------------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_is_lost_and_nothing_runs_twice(self) -> None:
        if not hasattr(self, "jobs"):
            return
        running = [run.job for run in self.at.values()]
        assert len(running) == len(set(running))
        for number in self.numbers:
            job = self.ledger.job(number)
            waits, runs = self.jobs.place_of(number) is not None, number in running
            assert runs is (job.state is JobState.RUNNING)
            assert waits is (job.state is JobState.QUEUED)
            assert self.ends.get(number, 0) <= 1, "it has run twice"
            complete = job.set_id is not None and self.ledger.backup_set(job.set_id).state is SetState.COMPLETE
            assert complete is (job.state is JobState.COMPLETED) is (number in self.ends)
            if job.set_id is not None and not runs:
                assert self.ledger.backup_set(job.set_id).state is not SetState.RUNNING
        assert {job.number for job in self.ledger.jobs_in(_WAIT)} <= set(self.numbers)

    @invariant()
    def the_ledger_is_whole(self) -> None:
        if hasattr(self, "ledger"):
            assert self.ledger.verify() == []


TestQueue = Queue.TestCase
TestQueue.settings = settings(
    max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
