"""What every ledger must do with a run whose drive has failed; inherited as `LedgerContract` is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from catalog.errors import Conflict, NotFound
from catalog.ids import JobNumber
from catalog.ledger import Ledger
from catalog.records import MOST_MOVES, DriveMove, JobState, SetState
from tests.catalog.builders import NOW, Stage, job_of


def move_of(number: int = 0) -> DriveMove:
    return DriveMove(drive=f"drive{number}", reason="it does not answer", at_ns=NOW + 40 + number, tape="T00001L9")


class MovingContract:
    def test_a_run_goes_back_into_the_queue(self, ledger: Ledger, stage: Stage, again: Callable[[], Ledger]) -> None:
        """Its set fails in the same step, keeps what is committed, and goes on when it is resumed."""
        stage.commit(ledger, "a", 0, 4, 2)
        number, set_id = stage.job.number, stage.backup_set.set_id
        queued = ledger.requeue_job(number, move_of())
        assert queued == again().job(number)
        assert (queued.state, queued.set_id, queued.resume, queued.runs) == (JobState.QUEUED, set_id, True, 1)
        assert queued.moves == (move_of(),)
        failed = again().backup_set(set_id)
        assert (failed.state, failed.segments) == (SetState.FAILED, 1)
        assert failed.error == "drive0 failed, it goes on with another drive: it does not answer"
        assert ledger.resume_set(set_id, NOW + 60).state is SetState.RUNNING
        assert ledger.job(number).state is JobState.RUNNING
        assert ledger.job(number).moves == (move_of(),)

    def test_the_same_move_again_changes_nothing(self, ledger: Ledger, stage: Stage) -> None:
        number = stage.job.number
        ledger.requeue_job(number, move_of())
        before = ledger.events_since(0)
        assert ledger.requeue_job(number, move_of()).moves == (move_of(),)
        assert ledger.events_since(0) == before

    def test_a_set_that_its_mover_has_failed_stays_as_it_is(self, ledger: Ledger, stage: Stage) -> None:
        ledger.fail_set(stage.backup_set.set_id, "the drive says no", NOW + 30)
        assert ledger.requeue_job(stage.job.number, move_of()).resume
        assert ledger.backup_set(stage.backup_set.set_id).error == "the drive says no"

    def test_a_run_before_its_set_began(self, ledger: Ledger) -> None:
        number = ledger.add_job(job_of("early")).number
        ledger.queue_job(number, NOW)
        queued = ledger.requeue_job(number, move_of())
        assert (queued.state, queued.resume, queued.set_id) == (JobState.QUEUED, False, None)

    def test_a_sealed_set_stays_sealed(self, ledger: Ledger, stage: Stage) -> None:
        """It is whole on tape: what is left is its index, and its verification."""
        stage.commit(ledger, "a", 0, 4, 2)
        stage.seal(ledger, "i", 10, 5)
        assert ledger.requeue_job(stage.job.number, move_of()).resume
        assert ledger.backup_set(stage.backup_set.set_id).state is SetState.SEALED

    def test_only_so_many_drives_are_left(self, ledger: Ledger, stage: Stage) -> None:
        number, set_id = stage.job.number, stage.backup_set.set_id
        for drive in range(MOST_MOVES):
            ledger.requeue_job(number, move_of(drive))
            ledger.resume_set(set_id, NOW + 60)
        with pytest.raises(Conflict, match="no other is tried"):
            ledger.requeue_job(number, move_of(MOST_MOVES))
        assert ledger.job(number).state is JobState.RUNNING
        ledger.fail_set(set_id, "enough", NOW + 70)
        ledger.finish_job(number, JobState.FAILED, "enough", NOW + 70)
        assert len(ledger.job(number).moves) == MOST_MOVES
        assert ledger.queue_job(number, NOW + 80, resume=True).moves == ()
        ledger.requeue_job(number, move_of())

    def test_a_new_run_forgets_them(self, ledger: Ledger, stage: Stage) -> None:
        number = stage.job.number
        ledger.requeue_job(number, move_of())
        ledger.finish_job(number, JobState.CANCELLED, "", NOW + 70)
        assert ledger.queue_job(number, NOW + 80).moves == ()

    def test_what_has_ended_does_not_go_on(self, ledger: Ledger, stage: Stage) -> None:
        number = stage.job.number
        ledger.fail_set(stage.backup_set.set_id, "no tape", NOW + 30)
        ledger.finish_job(number, JobState.FAILED, "no tape", NOW + 30)
        with pytest.raises(Conflict, match="is failed"):
            ledger.requeue_job(number, move_of())
        with pytest.raises(NotFound):
            ledger.requeue_job(JobNumber(999), move_of())
