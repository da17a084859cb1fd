"""What every ledger must do about sets."""

from __future__ import annotations

import msgspec
import pytest

from catalog.errors import Conflict, NotFound
from catalog.ids import JobNumber, SetId
from catalog.ledger import Ledger
from catalog.records import IntentKind, JobState, SetState
from tests.catalog.builders import (
    NOW,
    TOTALS,
    Stage,
    end_of,
    index_of,
    job_of,
    set_of,
    started,
    uuid_of,
)
from tests.catalog.contract_base import Again, kinds, newest


class SetsContract:
    def test_beginning_a_set(self, ledger: Ledger) -> None:
        job, backup_set = started(ledger, "a")
        assert backup_set == set_of("a-set", job, number=1)
        assert (job.state, job.set_id, job.started_at_ns) == (JobState.RUNNING, backup_set.set_id, NOW + 10)
        assert ledger.begin_set(set_of("a-set", job)) == backup_set == ledger.backup_set(backup_set.set_id)
        other_job, other = started(ledger, "b")
        assert (other.number, other_job.number) == (2, 2)
        assert ledger.backup_sets() == [backup_set, other]

    def test_a_set_needs_its_queued_job(self, ledger: Ledger) -> None:
        job = ledger.add_job(job_of("a"))
        with pytest.raises(Conflict):
            ledger.begin_set(set_of("set", job))
        ledger.queue_job(job.number, NOW)
        with pytest.raises(Conflict):
            ledger.begin_set(set_of("set", job, job_id=uuid_of("other")))
        with pytest.raises(NotFound):
            ledger.begin_set(set_of("set", job, job_number=JobNumber(9)))
        with pytest.raises(ValueError, match="begins as running"):
            ledger.begin_set(set_of("set", job, state=SetState.COMPLETE))
        ledger.begin_set(set_of("set", job))
        with pytest.raises(Conflict):
            ledger.begin_set(set_of("another", job))
        with pytest.raises(Conflict):
            ledger.begin_set(set_of("set", job, job_id=uuid_of("other")))
        assert [backup_set.number for backup_set in ledger.backup_sets()] == [1]

    def test_numbers_are_not_reused(self, ledger: Ledger) -> None:
        """Whether sets fail or not: an inode number must never mean another file."""
        for expected in (1, 2, 3):
            job, backup_set = started(ledger, f"job {expected}")
            assert backup_set.number == expected
            ledger.fail_set(backup_set.set_id, "no", NOW)
            ledger.finish_job(job.number, JobState.FAILED, "no", NOW)

    def test_the_whole_way_of_a_set(self, ledger: Ledger, stage: Stage) -> None:
        set_id, volume_id = stage.backup_set.set_id, stage.volume.volume_id
        before = newest(ledger)
        ledger.open_intent(stage.intent("segment 0"), stage.claim)
        stage.commit(ledger, "segment 0", 0, 4, 2)
        ledger.open_intent(stage.intent("index", IntentKind.INDEX, 10), stage.claim)
        index = stage.seal(ledger, "index", 10, 5)
        sealed = ledger.backup_set(set_id)
        assert sealed.state is SetState.SEALED
        assert ledger.job(stage.job.number).state is JobState.RUNNING
        ledger.complete_set(set_id, NOW + 40)
        assert ledger.backup_set(set_id) == msgspec.structs.replace(
            stage.backup_set,
            state=SetState.COMPLETE,
            finished_at_ns=NOW + 40,
            segments=1,
            tapes=(stage.volume.label,),
            **msgspec.structs.asdict(TOTALS),
        )
        job = ledger.job(stage.job.number)
        assert (job.state, job.finished_at_ns, job.set_id) == (JobState.COMPLETED, NOW + 40, set_id)
        assert ledger.intents(volume_id) == []
        assert ledger.index_copies(set_id) == [index]
        volume = ledger.volume(volume_id)
        assert (volume.end_block, volume.end_file, volume.used_bytes) == (12, 6, 12_000)
        assert volume.written_at_ns == NOW + 30
        assert kinds(ledger, before) == [
            ("intent.opened", stage.volume.label),
            ("segment.committed", stage.volume.label),
            ("intent.opened", stage.volume.label),
            ("set.sealed", "home"),
            ("set.complete", "home"),
            ("job.state", "completed"),
        ]

    def test_sealing_and_completing_again_is_harmless(self, ledger: Ledger, stage: Stage) -> None:
        set_id = stage.backup_set.set_id
        stage.seal(ledger, "index", 4, 2)
        sealed = ledger.backup_set(set_id)
        stage.seal(ledger, "index", 4, 2)
        assert ledger.backup_set(set_id) == sealed
        ledger.complete_set(set_id, NOW + 40)
        complete, events = ledger.backup_set(set_id), newest(ledger)
        ledger.complete_set(set_id, NOW + 99)
        stage.seal(ledger, "index", 4, 2)
        assert ledger.backup_set(set_id) == complete
        assert newest(ledger) == events

    def test_a_set_is_sealed_once(self, ledger: Ledger, stage: Stage) -> None:
        stage.seal(ledger, "index", 4, 2)
        for act in (
            lambda: stage.seal(ledger, "index", 5, 2),
            lambda: stage.seal(ledger, "other index", 6, 3),
            lambda: stage.commit(ledger, "late segment", 0, 6, 3),
            lambda: ledger.fail_set(stage.backup_set.set_id, "late", NOW),
            lambda: ledger.commit_index(
                index_of("late", stage.backup_set, stage.volume, 6, 3), stage.claim, end_of(8, 4), NOW
            ),
        ):
            with pytest.raises(Conflict):
                act()
        assert ledger.volume(stage.volume.volume_id).end_block == 6
        foreign = index_of("index", set_of("other", stage.job), stage.volume, 6, 3)
        with pytest.raises(ValueError, match="belongs to"):
            ledger.seal_set(stage.backup_set.set_id, TOTALS, foreign, stage.claim, end_of(8, 4), NOW)

    def test_an_index_lies_behind_the_committed_data(self, ledger: Ledger, stage: Stage) -> None:
        for block in (0, 3):
            with pytest.raises(Conflict):
                stage.seal(ledger, "index", block, 2)
        assert ledger.backup_set(stage.backup_set.set_id).state is SetState.RUNNING

    def test_failing(self, ledger: Ledger, stage: Stage) -> None:
        set_id = stage.backup_set.set_id
        with pytest.raises(Conflict):
            ledger.complete_set(set_id, NOW)
        ledger.fail_set(set_id, "lost \udcff", NOW + 7)
        failed = ledger.backup_set(set_id)
        assert (failed.state, failed.error, failed.finished_at_ns) == (SetState.FAILED, "lost \\udcff", NOW + 7)
        ledger.fail_set(set_id, "again", NOW + 8)
        assert ledger.backup_set(set_id) == failed
        assert ledger.job(stage.job.number).state is JobState.RUNNING
        for act in (lambda: ledger.complete_set(set_id, NOW), lambda: stage.seal(ledger, "index", 4, 2)):
            with pytest.raises(Conflict):
                act()

    def test_a_sealed_set_completes_after_its_job_was_given_up(self, ledger: Ledger, stage: Stage) -> None:
        """It is whole on tape: a restart finishes it, and its job is done after all."""
        stage.seal(ledger, "index", 4, 2)
        ledger.finish_job(stage.job.number, JobState.FAILED, "the mover died", NOW + 35)
        ledger.complete_set(stage.backup_set.set_id, NOW + 40)
        job = ledger.job(stage.job.number)
        assert (job.state, job.error) == (JobState.COMPLETED, "")

    def test_completing_leaves_a_newer_run_alone(self, ledger: Ledger, stage: Stage) -> None:
        stage.seal(ledger, "index", 4, 2)
        ledger.finish_job(stage.job.number, JobState.FAILED, "the mover died", NOW + 35)
        queued = ledger.queue_job(stage.job.number, NOW + 36)
        ledger.complete_set(stage.backup_set.set_id, NOW + 40)
        assert ledger.job(stage.job.number) == queued

    def test_expiring(self, ledger: Ledger, stage: Stage) -> None:
        """A set that is shown or has failed expires, once; its segments stay where they are."""
        set_id = stage.backup_set.set_id
        with pytest.raises(Conflict):
            ledger.expire_set(set_id, NOW)
        ledger.open_intent(stage.intent("segment 0"), stage.claim)
        stage.commit(ledger, "segment 0", 0, 4, 2)
        stage.seal(ledger, "index", 10, 5)
        with pytest.raises(Conflict):
            ledger.expire_set(set_id, NOW)
        ledger.complete_set(set_id, NOW + 40)
        complete, segments = ledger.backup_set(set_id), ledger.segments(set_id)
        before = newest(ledger)
        for _ in range(2):
            ledger.expire_set(set_id, NOW + 50)
        assert kinds(ledger, before) == [("set.expired", "home")]
        assert ledger.backup_set(set_id) == msgspec.structs.replace(
            complete, state=SetState.EXPIRED, expired_at_ns=NOW + 50
        )
        assert ledger.segments(set_id) == segments
        assert len(ledger.copies(segments[0].segment_id)) == 1
        for act in (lambda: ledger.complete_set(set_id, NOW), lambda: ledger.fail_set(set_id, "", NOW)):
            with pytest.raises(Conflict):
                act()

    def test_a_base_stays_as_long_as_what_builds_on_it(self, ledger: Ledger, stage: Stage) -> None:
        """Whatever became of the other set, unless that has expired; and nothing is built on what has."""
        base = stage.backup_set.set_id
        stage.seal(ledger, "index", 4, 2)
        ledger.complete_set(base, NOW)
        number = stage.job.number
        ledger.queue_job(number, NOW)
        later = ledger.begin_set(set_of("later", ledger.job(number), parent_id=base))
        with pytest.raises(Conflict):
            ledger.expire_set(base, NOW)
        ledger.fail_set(later.set_id, "no", NOW)
        ledger.finish_job(number, JobState.FAILED, "no", NOW)
        with pytest.raises(Conflict):
            ledger.expire_set(base, NOW)
        ledger.expire_set(later.set_id, NOW)
        ledger.expire_set(base, NOW)
        ledger.queue_job(number, NOW)
        with pytest.raises(Conflict):
            ledger.begin_set(set_of("too late", ledger.job(number), parent_id=base))

    def test_what_a_job_is_about_to_go_on_with_stays(self, ledger: Ledger, stage: Stage) -> None:
        ledger.fail_set(stage.backup_set.set_id, "no", NOW)
        with pytest.raises(Conflict):
            ledger.expire_set(stage.backup_set.set_id, NOW)
        ledger.finish_job(stage.job.number, JobState.FAILED, "no", NOW)
        ledger.expire_set(stage.backup_set.set_id, NOW)

    def test_a_failed_set_goes_on(self, ledger: Ledger, stage: Stage, again: Again) -> None:
        """Its job is queued with it, both run again, and its segments stay and grow in number."""
        number, set_id = stage.job.number, stage.backup_set.set_id
        stage.commit(ledger, "segment 0", 0, 4, 2)
        ledger.fail_set(set_id, "no tape", NOW + 30)
        ledger.finish_job(number, JobState.FAILED, "no tape", NOW + 30)
        queued = ledger.queue_job(number, NOW + 40, resume=True)
        assert (queued.state, queued.set_id, queued.resume, queued.runs) == (JobState.QUEUED, set_id, True, 1)
        for _ in range(2):
            resumed = ledger.resume_set(set_id, NOW + 50)
            assert resumed == again().backup_set(set_id)
            assert (resumed.state, resumed.error, resumed.segments) == (SetState.RUNNING, "", 1)
            assert ledger.job(number).state is JobState.RUNNING
        stage.commit(ledger, "segment 1", 1, 10, 5)
        stage.seal(ledger, "index", 16, 8)
        ledger.complete_set(set_id, NOW + 60)
        assert ledger.job(number).state is JobState.COMPLETED
        assert ledger.backup_set(set_id).segments == 2
        assert ledger.queue_job(number, NOW + 70).resume is False

    def test_a_complete_set_is_resumed_for_its_verification(self, ledger: Ledger, stage: Stage) -> None:
        """Only the job runs again."""
        stage.seal(ledger, "index", 4, 2)
        ledger.finish_job(stage.job.number, JobState.CANCELLED, "while it was read back", NOW + 40)
        ledger.queue_job(stage.job.number, NOW + 50, resume=True)
        assert ledger.resume_set(stage.backup_set.set_id, NOW + 60).state is SetState.SEALED
        assert ledger.job(stage.job.number).state is JobState.RUNNING

    def test_nothing_to_resume(self, ledger: Ledger, stage: Stage) -> None:
        """A run that goes on, one that has ended well, one that never began a set, and sets of other runs."""
        number, set_id = stage.job.number, stage.backup_set.set_id
        fresh = ledger.add_job(job_of("fresh")).number
        for job in (number, fresh):
            with pytest.raises(Conflict):
                ledger.queue_job(job, NOW, resume=True)
        ledger.queue_job(fresh, NOW)
        ledger.finish_job(fresh, JobState.FAILED, "no source", NOW)
        with pytest.raises(Conflict, match="no set to go on with"):
            ledger.queue_job(fresh, NOW, resume=True)
        ledger.fail_set(set_id, "x", NOW)
        with pytest.raises(Conflict):
            ledger.resume_set(set_id, NOW)
        ledger.finish_job(number, JobState.FAILED, "x", NOW)
        ledger.queue_job(number, NOW)
        with pytest.raises(Conflict):
            ledger.resume_set(set_id, NOW)
        with pytest.raises(NotFound):
            ledger.resume_set(SetId(uuid_of("nowhere")), NOW)
