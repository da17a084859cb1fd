"""What every ledger must know of the sets of one job; see `ledger_contract`."""

from __future__ import annotations

import msgspec

from catalog.ids import JobId
from catalog.ledger import Ledger
from catalog.records import Adoption, JobState, SetState
from tests.catalog.builders import NOW, Stage, job_of, set_of, started, uuid_of


class SetsOfJobsContract:
    def test_the_sets_of_a_job_oldest_first(self, ledger: Ledger, stage: Stage) -> None:
        """In whatever state, of no other job of that name, and of one that is deleted, too."""
        started(ledger, "other")
        ledger.fail_set(stage.backup_set.set_id, "broken", NOW)
        ledger.finish_job(stage.job.number, JobState.FAILED, "broken", NOW)
        ledger.queue_job(stage.job.number, NOW)
        second = ledger.begin_set(set_of("second", stage.job))
        first = ledger.backup_set(stage.backup_set.set_id)
        assert ledger.sets_of(stage.job.job_id) == [first, second]
        ledger.fail_set(second.set_id, "broken", NOW)
        ledger.finish_job(stage.job.number, JobState.FAILED, "broken", NOW)
        ledger.delete_job(stage.job.number, NOW)
        assert [each.state for each in ledger.sets_of(stage.job.job_id)] == [SetState.FAILED] * 2
        assert ledger.sets_of(JobId(uuid_of("nobody"))) == []

    def test_of_sets_that_were_found_on_tapes(self, ledger: Ledger, stage: Stage) -> None:
        """One that is found again in a later state is the same set."""
        job = job_of("adopted")
        found = set_of("found", job, state=SetState.FAILED, is_adopted=True)
        for state in (SetState.FAILED, SetState.SEALED):
            ledger.adopt(Adoption(jobs=(job,), sets=(msgspec.structs.replace(found, state=state),)), NOW)
            assert [(each.set_id, each.state) for each in ledger.sets_of(job.job_id)] == [(found.set_id, state)]
        assert [each.set_id for each in ledger.sets_of(stage.job.job_id)] == [stage.backup_set.set_id]
