"""What every ledger must do about runs that stop and go on, and the queue; inherited as `LedgerContract` is."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from catalog.errors import Conflict, NotFound
from catalog.ids import JobNumber
from catalog.ledger import Ledger
from catalog.queue_records import CheckState, HookResult, JobCheck, JobTry, QueueState, TryKind
from catalog.records import JobState, SetState
from tests.catalog.builders import NOW, Stage, job_of, uuid_of

TRY = JobTry(kind=TryKind.FAILED, reason="/srv does not answer", at_ns=NOW + 40, segments=1)


class QueueingContract:
    def test_a_run_is_tried_again_later(self, ledger: Ledger, stage: Stage, again: Callable[[], Ledger]) -> None:
        stage.commit(ledger, "a", 0, 4, 2)
        number, set_id = stage.job.number, stage.backup_set.set_id
        queued = ledger.retry_job(number, TRY, NOW + 100)
        assert queued == again().job(number) == ledger.retry_job(number, TRY, NOW + 200)
        assert (queued.state, queued.set_id, queued.resume, queued.runs) == (JobState.QUEUED, set_id, True, 1)
        assert (queued.tries, queued.not_before_ns, queued.queued_at_ns) == ((TRY,), NOW + 100, stage.job.queued_at_ns)
        assert (again().backup_set(set_id).state, again().backup_set(set_id).segments) == (SetState.FAILED, 1)
        assert ledger.resume_set(set_id, NOW + 60).state is SetState.RUNNING
        ledger.retry_job(number, msgspec.structs.replace(TRY, at_ns=NOW + 70), 0)
        assert len(ledger.job(number).tries) == 2
        ledger.finish_job(number, JobState.FAILED, "no", NOW + 80)
        with pytest.raises(Conflict):
            ledger.retry_job(number, msgspec.structs.replace(TRY, at_ns=NOW + 81), 0)
        assert (ledger.queue_job(number, NOW + 90).tries, ledger.job(number).not_before_ns) == ((), 0)

    def test_a_paused_run_keeps_its_place_and_its_set(self, ledger: Ledger, stage: Stage) -> None:
        stage.commit(ledger, "a", 0, 4, 2)
        number, set_id = stage.job.number, stage.backup_set.set_id
        paused = ledger.pause_job(number, NOW + 50)
        assert paused == ledger.pause_job(number, NOW + 51) == ledger.job(number)
        assert (paused.state, paused.set_id, paused.paused_at_ns) == (JobState.PAUSED, set_id, NOW + 50)
        assert ledger.backup_set(set_id).state is SetState.FAILED
        for refused in (
            lambda: ledger.resume_set(set_id, NOW),
            lambda: ledger.queue_job(number, NOW),
            lambda: ledger.queue_job(number, NOW, resume=True),
            lambda: ledger.delete_job(number, NOW),
            lambda: ledger.expire_set(set_id, NOW),
            lambda: ledger.edit_job(paused, msgspec.structs.replace(paused, level=3), NOW),
        ):
            with pytest.raises(Conflict):
                refused()
        released = ledger.release_job(number, NOW + 60)
        assert released == ledger.release_job(number, NOW + 61)
        assert (released.state, released.resume, released.runs) == (JobState.QUEUED, True, 1)
        assert released.queued_at_ns == stage.job.queued_at_ns
        assert ledger.resume_set(set_id, NOW + 70).segments == 1

    def test_a_waiting_job_is_paused_and_cancelled(self, ledger: Ledger) -> None:
        number = ledger.add_job(job_of("early")).number
        with pytest.raises(Conflict):
            ledger.pause_job(number, NOW)
        with pytest.raises(Conflict):
            ledger.release_job(number, NOW)
        ledger.queue_job(number, NOW)
        ledger.pause_job(number, NOW + 1)
        assert not ledger.release_job(number, NOW + 2).resume
        ledger.pause_job(number, NOW + 3)
        assert ledger.finish_job(number, JobState.CANCELLED, "", NOW + 4).state is JobState.CANCELLED
        with pytest.raises(NotFound):
            ledger.pause_job(JobNumber(77), NOW)

    def test_a_priority_changes_in_any_state(self, ledger: Ledger) -> None:
        number = ledger.add_job(job_of("early")).number
        ledger.queue_job(number, NOW)
        assert ledger.rank_job(number, 90, NOW).priority == ledger.job(number).priority == 90
        assert ledger.job(number).state is JobState.QUEUED
        for wrong in (-1, 101):
            with pytest.raises(ValueError, match="no priority"):
                ledger.rank_job(number, wrong, NOW)

    def test_the_queue_is_held_until_somebody_says_so(self, ledger: Ledger, again: Callable[[], Ledger]) -> None:
        assert ledger.queue_state() == QueueState()
        held = QueueState(is_paused=True, reason="the library is opened", at_ns=NOW)
        ledger.hold_queue(held)
        ledger.hold_queue(msgspec.structs.replace(held, at_ns=NOW + 1))
        assert again().queue_state() == held
        ledger.hold_queue(QueueState(at_ns=NOW + 2))
        assert not again().queue_state().is_paused

    def test_a_completed_run_is_to_be_verified(self, ledger: Ledger, stage: Stage) -> None:
        """In the step that completes it, so that it cannot be forgotten."""
        number = ledger.add_job(job_of("checked", then_verify="sample")).number
        ledger.queue_job(number, NOW)
        assert ledger.jobs_to_check() == []
        done = ledger.finish_job(number, JobState.COMPLETED, "", NOW + 5)
        assert done.check is None  # It had no set.
        assert ledger.jobs_to_check() == []

    def test_jobs_are_found_by_state_and_name(self, ledger: Ledger) -> None:
        jobs = [
            ledger.add_job(job_of("even" if number % 2 else "odd", job_id=uuid_of(f"job {number}")))
            for number in range(6)
        ]
        for job in jobs[:3]:
            ledger.queue_job(job.number, NOW)
        ledger.pause_job(jobs[1].number, NOW)
        ledger.delete_job(jobs[5].number, NOW)
        states = (JobState.QUEUED, JobState.PAUSED)
        assert [job.number for job in ledger.jobs_in(states)] == [1, 2, 3]
        assert [job.number for job in ledger.jobs_in([JobState.PENDING])] == [4, 5]
        assert [job.number for job in ledger.jobs_named("even")] == [2, 4]
        assert ledger.jobs_named("nobody") == []
        known = ledger.job(JobNumber(4))
        ledger.edit_job(known, msgspec.structs.replace(known, name="other"), NOW)
        assert [job.number for job in ledger.jobs_named("other")] == [4]
        assert [job.number for job in ledger.job_page(2, 1)] == [2, 3]
        assert [job.number for job in ledger.job_page(2, 1, newest_first=True)] == [4, 3]
        assert [job.number for job in ledger.job_page(2, 1, newest_first=True, states=states)] == [2, 1]
        assert ledger.job_page(5, 17) == []
        assert ledger.job_count() == 5
        assert ledger.job_count([JobState.QUEUED, JobState.PENDING]) == len(
            ledger.jobs_in([JobState.QUEUED, JobState.PENDING])
        )

    def test_what_a_verification_has_found(self, ledger: Ledger, stage: Stage) -> None:
        check = JobCheck(state=CheckState.FAILED, since_ns=NOW, at_ns=NOW + 9, reason="frame 3 \udcff")
        assert ledger.note_check(stage.job.number, 1, check).check is None  # Nobody wanted one.

    def test_how_the_hooks_of_a_run_went(self, ledger: Ledger) -> None:
        number = ledger.add_job(job_of("hooks", hooks_before=("freeze",), hooks_after=("thaw",))).number
        ledger.queue_job(number, NOW)
        result = HookResult(name="freeze", error="exit \udcff", output="x\udc80", duration_ns=5)
        assert ledger.note_hook(number, NOW + 1, result, NOW + 2).hooks == (), "no hooks have begun"
        for at_ns in (NOW + 1, NOW + 5):
            assert ledger.begin_hooks(number, at_ns).hooks_begun_at_ns == NOW + 1
        for _ in range(2):
            (noted,) = ledger.note_hook(number, NOW + 1, result, NOW + 2).hooks
        assert (noted.error, noted.output) == ("exit \\udcff", "x\\udc80")
        ledger.finish_job(number, JobState.FAILED, "hook", NOW)
        assert ledger.job(number).hooks == (noted,)
        again = ledger.queue_job(number, NOW)
        assert (again.hooks, again.hooks_begun_at_ns) == ((), 0)
        assert ledger.note_hook(number, NOW + 1, result, NOW + 2) == again, "another run has begun"

    def test_every_page_of_every_list(self, ledger: Ledger) -> None:
        """From whichever end it is read, and whatever states are wanted."""
        for number in range(1, 10):
            ledger.add_job(job_of(f"job {number}"))
            if number % 3:
                ledger.queue_job(JobNumber(number), NOW)
            if number % 3 == 2:
                ledger.pause_job(JobNumber(number), NOW)
        for states in ((), (JobState.QUEUED,), (JobState.PAUSED, JobState.QUEUED), (JobState.PENDING, JobState.PAUSED)):
            every = [job.number for job in ledger.jobs() if not states or job.state in states]
            for newest_first in (False, True):
                ordered = every[::-1] if newest_first else every
                for offset in range(11):
                    page = ledger.job_page(4, offset, newest_first=newest_first, states=states)
                    assert [job.number for job in page] == ordered[offset : offset + 4]
