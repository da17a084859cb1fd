"""What every ledger must do about jobs."""

from __future__ import annotations

import msgspec
import pytest

from catalog.errors import Conflict, NotFound
from catalog.ids import JobNumber
from catalog.ledger import Ledger
from catalog.records import JobState, SetState
from tests.catalog.builders import (
    NOW,
    Stage,
    job_of,
)
from tests.catalog.contract_base import kinds, newest


class JobsContract:
    def test_jobs_are_numbered_in_order(self, ledger: Ledger) -> None:
        added = [ledger.add_job(job_of(name, number=JobNumber(77))) for name in ("a", "b", "c")]
        assert [job.number for job in added] == [1, 2, 3]
        assert ledger.jobs() == added == [ledger.job(job.number) for job in added]
        assert added[0] == job_of("a", number=JobNumber(1))

    def test_adding_a_job_again_returns_it(self, ledger: Ledger) -> None:
        job = ledger.add_job(job_of("a"))
        queued = ledger.queue_job(job.number, NOW)
        assert ledger.add_job(job_of("a")) == queued
        assert ledger.add_job(job_of("b")).number == 2
        with pytest.raises(Conflict):
            ledger.add_job(job_of("a", sources=(b"/other",)))
        assert len(ledger.jobs()) == 2

    def test_a_run(self, ledger: Ledger) -> None:
        number = ledger.add_job(job_of("a")).number
        job = ledger.queue_job(number, NOW + 1)
        assert (job.state, job.runs, job.queued_at_ns) == (JobState.QUEUED, 1, NOW + 1)
        with pytest.raises(Conflict):
            ledger.queue_job(number, NOW + 2)
        job = ledger.finish_job(number, JobState.FAILED, "no tape \udcff", NOW + 3)
        assert (job.state, job.error, job.finished_at_ns) == (JobState.FAILED, "no tape \\udcff", NOW + 3)
        assert ledger.finish_job(number, JobState.FAILED, "again", NOW + 4) == job == ledger.job(number)
        with pytest.raises(Conflict):
            ledger.finish_job(number, JobState.CANCELLED, "", NOW + 4)
        job = ledger.queue_job(number, NOW + 5)
        assert (job.runs, job.error, job.finished_at_ns, job.set_id) == (2, "", 0, None)

    def test_only_a_running_job_can_end(self, ledger: Ledger) -> None:
        number = ledger.add_job(job_of("a")).number
        with pytest.raises(Conflict):
            ledger.finish_job(number, JobState.CANCELLED, "", NOW)
        with pytest.raises(ValueError, match="no end"):
            ledger.finish_job(number, JobState.QUEUED, "", NOW)
        assert ledger.job(number).state is JobState.PENDING

    def test_nothing_is_reported_done_that_is_not_on_tape(self, ledger: Ledger, stage: Stage) -> None:
        number = stage.job.number
        with pytest.raises(Conflict):
            ledger.finish_job(number, JobState.COMPLETED, "", NOW)
        stage.seal(ledger, "index", 4, 2)
        with pytest.raises(Conflict):
            ledger.finish_job(number, JobState.COMPLETED, "", NOW)
        ledger.complete_set(stage.backup_set.set_id, NOW + 40)
        assert ledger.finish_job(number, JobState.COMPLETED, "", NOW + 50).finished_at_ns == NOW + 40

    def test_editing_changes_what_is_asked_and_nothing_else(self, ledger: Ledger) -> None:
        number = ledger.add_job(job_of("a")).number
        ledger.queue_job(number, NOW)
        job = ledger.finish_job(number, JobState.FAILED, "no tape", NOW + 1)
        wanted = msgspec.structs.replace(job, name="b", sources=(b"/c",), level=9, retention_days=7, min_bytes=5)
        told = msgspec.structs.replace(wanted, state=JobState.COMPLETED, runs=9, error="", created_at_ns=1)
        assert ledger.edit_job(job, told, NOW + 2) == wanted == ledger.job(number)
        before = newest(ledger)
        assert ledger.edit_job(job, wanted, NOW + 3) == wanted
        assert kinds(ledger, before) == []

    def test_editing_what_somebody_else_has_changed_is_refused(self, ledger: Ledger) -> None:
        job = ledger.add_job(job_of("a"))
        ledger.edit_job(job, msgspec.structs.replace(job, level=9), NOW)
        with pytest.raises(Conflict):
            ledger.edit_job(job, msgspec.structs.replace(job, level=8), NOW)
        other = ledger.add_job(job_of("b"))
        for known, wanted in ((job_of("c", number=job.number), job), (job, other)):
            with pytest.raises(Conflict):
                ledger.edit_job(known, msgspec.structs.replace(wanted, level=8), NOW)
        assert [each.level for each in ledger.jobs()] == [9, -1]

    def test_an_active_job_is_neither_edited_nor_deleted(self, ledger: Ledger, stage: Stage) -> None:
        waiting = ledger.queue_job(ledger.add_job(job_of("waits")).number, NOW)
        for job in (waiting, ledger.job(stage.job.number)):
            with pytest.raises(Conflict):
                ledger.edit_job(job, msgspec.structs.replace(job, level=9), NOW)
            with pytest.raises(Conflict):
                ledger.delete_job(job.number, NOW)
            assert ledger.job(job.number) == job

    def test_a_deleted_job_leaves_its_sets_and_its_number(self, ledger: Ledger, stage: Stage) -> None:
        number = stage.job.number
        ledger.fail_set(stage.backup_set.set_id, "no", NOW)
        ledger.finish_job(number, JobState.FAILED, "no", NOW)
        before = newest(ledger)
        for _ in range(2):
            ledger.delete_job(number, NOW + 1)
        assert kinds(ledger, before) == [("job.deleted", stage.job.name)]
        assert ledger.jobs() == []
        assert [each.job_number for each in ledger.backup_sets()] == [number]
        with pytest.raises(NotFound):
            ledger.job(number)
        assert ledger.add_job(job_of(stage.job.name)).number == number + 1

    def test_a_sealed_set_completes_after_its_job_was_deleted(self, ledger: Ledger, stage: Stage) -> None:
        stage.seal(ledger, "index", 4, 2)
        ledger.finish_job(stage.job.number, JobState.FAILED, "the mover died", NOW + 35)
        ledger.delete_job(stage.job.number, NOW + 36)
        ledger.complete_set(stage.backup_set.set_id, NOW + 40)
        assert ledger.backup_set(stage.backup_set.set_id).state is SetState.COMPLETE
