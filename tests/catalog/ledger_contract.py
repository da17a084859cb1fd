"""What every ledger must do. An implementation's test module subclasses `LedgerContract` and provides the fixtures
`ledger` (a new, empty one) and `again` (opens the same ledger once more, as another process would)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from catalog.errors import Conflict, NotFound, StaleClaim
from catalog.ids import BlockNo, JobNumber, PinId, SegmentId, SetId, VolumeId
from catalog.ledger import Ledger
from catalog.records import CopyState, IntentKind, JobState, PinnedFrames, SetState, VolumeState
from tests.catalog.builders import (
    LABEL_END,
    NOW,
    TOTALS,
    Stage,
    copy_of,
    end_of,
    index_of,
    intent_of,
    job_of,
    labelled,
    pin_of,
    segment_of,
    set_of,
    staged,
    started,
    uuid_of,
    volume_of,
)

Again = Callable[[], Ledger]
ODD_TEXTS = ("", "x" * 600, "a\0b", "\udcff", "-1", "é" * 200)


@pytest.fixture
def stage(ledger: Ledger) -> Stage:
    return staged(ledger)


def kinds(ledger: Ledger, after: int = 0) -> list[tuple[str, str]]:
    return [(event.kind, event.detail) for event in ledger.events_since(after)]


def newest(ledger: Ledger) -> int:
    events = ledger.events_since(0)
    return events[-1].number if events else 0


class LedgerContract:
    # -- installation ------------------------------------------------------------------------------------------------

    def test_has_one_identity(self, ledger: Ledger, again: Again) -> None:
        first = ledger.installation()
        assert first.created_at_ns == NOW
        assert len(first.installation_id) == 36
        assert again().installation() == first

    def test_close_twice_is_harmless(self, ledger: Ledger) -> None:
        ledger.close()
        ledger.close()

    def test_an_empty_ledger_has_nothing(self, ledger: Ledger) -> None:
        nowhere = uuid_of("nowhere")
        assert ledger.volumes() == []
        assert ledger.jobs() == []
        assert ledger.backup_sets() == []
        assert ledger.events_since(0) == []
        assert ledger.segments(SetId(nowhere)) == []
        assert ledger.copies(SegmentId(nowhere)) == []
        assert ledger.copies_on(VolumeId(nowhere)) == []
        assert ledger.index_copies(SetId(nowhere)) == []
        assert ledger.intents(VolumeId(nowhere)) == []
        assert ledger.pins() == []
        ledger.drop_pin(PinId(nowhere), NOW)

    @pytest.mark.parametrize("text", [uuid_of("nowhere"), *ODD_TEXTS])
    def test_what_is_not_there_is_not_found(self, ledger: Ledger, text: str) -> None:
        """Whatever text a user asks for."""
        asked: list[Callable[[], object]] = [
            lambda: ledger.volume(VolumeId(text)),
            lambda: ledger.volume_by_label(text),
            lambda: ledger.backup_set(SetId(text)),
            lambda: ledger.segment(SegmentId(text)),
            lambda: ledger.claim_volume(VolumeId(text)),
            lambda: ledger.mark_volume(VolumeId(text), VolumeState.FULL),
            lambda: ledger.complete_set(SetId(text), NOW),
            lambda: ledger.fail_set(SetId(text), "", NOW),
            lambda: ledger.expire_set(SetId(text), NOW),
        ]
        for ask in asked:
            with pytest.raises(NotFound):
                ask()

    @pytest.mark.parametrize("number", [0, -1, 1, 2**64, -(2**70)])
    def test_no_such_job(self, ledger: Ledger, number: int) -> None:
        for ask in (
            lambda: ledger.job(JobNumber(number)),
            lambda: ledger.queue_job(JobNumber(number), NOW),
            lambda: ledger.edit_job(job_of("a", number=number), job_of("a", number=number, level=4), NOW),
            lambda: ledger.delete_job(JobNumber(number), NOW),
            lambda: ledger.finish_job(JobNumber(number), JobState.FAILED, "", NOW),
        ):
            with pytest.raises(NotFound):
                ask()

    # -- volumes -----------------------------------------------------------------------------------------------------

    def test_volumes_come_by_label(self, ledger: Ledger) -> None:
        for label in ("T3", "T1", "T2"):
            ledger.add_volume(volume_of(label))
        assert [volume.label for volume in ledger.volumes()] == ["T1", "T2", "T3"]
        assert ledger.volume_by_label("T2") == volume_of("T2") == ledger.volume(volume_of("T2").volume_id)

    @pytest.mark.parametrize("label", ["T 1/ü", "x" * 600, "a\0b"])
    def test_a_label_is_any_text(self, ledger: Ledger, label: str) -> None:
        ledger.add_volume(volume_of("T1"))
        ledger.add_volume(volume_of(label))
        assert ledger.volume_by_label(label) == volume_of(label)

    def test_adding_a_volume_again_is_harmless(self, ledger: Ledger) -> None:
        """Also when it has been used since: the answer to the first call may have been lost for long."""
        labelled(ledger, "T1")
        before, events = ledger.volumes(), newest(ledger)
        ledger.add_volume(volume_of("T1"))
        assert ledger.volumes() == before
        assert newest(ledger) == events

    def test_label_and_id_belong_to_one_volume(self, ledger: Ledger) -> None:
        ledger.add_volume(volume_of("T1"))
        with pytest.raises(Conflict):
            ledger.add_volume(volume_of("T1", volume_id=VolumeId(uuid_of("other"))))
        with pytest.raises(Conflict):
            ledger.add_volume(volume_of("T2", volume_id=volume_of("T1").volume_id))
        with pytest.raises(Conflict):
            ledger.add_volume(volume_of("T1", pool="other"))
        assert ledger.volumes() == [volume_of("T1")]

    def test_claims_grow(self, ledger: Ledger) -> None:
        ledger.add_volume(volume_of("T1"))
        volume_id = volume_of("T1").volume_id
        assert [ledger.claim_volume(volume_id) for _ in range(3)] == [1, 2, 3]
        assert ledger.volume(volume_id).claim == 3

    def test_labelling(self, ledger: Ledger) -> None:
        ledger.add_volume(volume_of("T1"))
        volume = volume_of("T1")
        claim = ledger.claim_volume(volume.volume_id)
        ledger.open_intent(intent_of(volume.volume_id, IntentKind.LABEL, volume, 0, None), claim)
        for _ in range(2):
            ledger.label_volume(volume.volume_id, claim, LABEL_END, NOW + 1)
            assert ledger.intents(volume.volume_id) == []
            assert ledger.volume(volume.volume_id) == msgspec.structs.replace(
                volume,
                state=VolumeState.APPENDABLE,
                claim=1,
                end_block=LABEL_END.block,
                end_file=LABEL_END.file,
                used_bytes=LABEL_END.used_bytes,
                written_at_ns=NOW + 1,
            )
        with pytest.raises(Conflict):
            ledger.label_volume(volume.volume_id, claim, end_of(9, 3), NOW + 1)

    def test_a_labelled_tape_is_not_labelled_again(self, ledger: Ledger, stage: Stage) -> None:
        volume = stage.volume
        with pytest.raises(Conflict):
            ledger.open_intent(intent_of(volume.volume_id, IntentKind.LABEL, volume, 0, None), stage.claim)
        with pytest.raises(Conflict):
            ledger.mark_volume(volume.volume_id, VolumeState.BLANK)
        with pytest.raises(NotFound):
            ledger.label_volume(VolumeId(uuid_of("nowhere")), 1, LABEL_END, NOW)

    def test_what_a_drive_tells_of_a_cartridge(self, ledger: Ledger, stage: Stage) -> None:
        before, known = newest(ledger), stage.volume.volume_id
        was = ledger.volume(known)
        for _ in range(2):
            ledger.size_volume(known, 12_000, 8)
        assert ledger.volume(known) == msgspec.structs.replace(was, capacity_bytes=12_000, generation=8)
        assert kinds(ledger, before) == [("volume.size", "12000 bytes, LTO-8")]
        with pytest.raises(NotFound):
            ledger.size_volume(VolumeId(uuid_of("nowhere")), 12_000, 8)

    def test_marking(self, ledger: Ledger, stage: Stage) -> None:
        volume_id = stage.volume.volume_id
        before = newest(ledger)
        for _ in range(2):
            ledger.mark_volume(volume_id, VolumeState.SUSPECT, "cannot write \udcff")
        assert ledger.volume(volume_id).state is VolumeState.SUSPECT
        assert ledger.volume(volume_id).reason == "cannot write \\udcff"
        ledger.mark_volume(volume_id, VolumeState.FULL)
        assert (ledger.volume(volume_id).state, ledger.volume(volume_id).reason) == (VolumeState.FULL, "")
        assert kinds(ledger, before) == [
            ("volume.state", "suspect: cannot write \\udcff"),
            ("volume.state", "full"),
        ]

    # -- claims ------------------------------------------------------------------------------------------------------

    def test_a_stale_claim_can_do_nothing(self, ledger: Ledger, stage: Stage, again: Again) -> None:
        """Whoever claims last may write; all others must stop, and change nothing."""
        ledger.open_intent(stage.intent("segment 0"), stage.claim)
        other = again()
        assert other.claim_volume(stage.volume.volume_id) == stage.claim + 1
        volume, backup_set = ledger.volume(stage.volume.volume_id), ledger.backup_set(stage.backup_set.set_id)
        index = index_of("index", backup_set, volume, 4, 2)
        for act in (
            lambda: ledger.open_intent(stage.intent("segment 1"), stage.claim),
            lambda: ledger.open_intent(stage.intent("segment 0"), stage.claim),
            lambda: stage.commit(ledger, "segment 0", 0, 4, 2),
            lambda: stage.seal(ledger, "index", 4, 2),
            lambda: ledger.commit_index(index, stage.claim, end_of(6, 3), NOW),
            lambda: ledger.label_volume(volume.volume_id, stage.claim, LABEL_END, NOW),
        ):
            with pytest.raises(StaleClaim):
                act()
        assert ledger.volume(volume.volume_id) == volume
        assert ledger.backup_set(backup_set.set_id) == backup_set
        assert ledger.segments(backup_set.set_id) == []
        assert len(ledger.intents(volume.volume_id)) == 1

    def test_a_claim_that_was_never_given_out(self, ledger: Ledger, stage: Stage) -> None:
        """The ledger was restored from an old copy, perhaps."""
        with pytest.raises(Conflict):
            ledger.open_intent(stage.intent("segment 0"), stage.claim + 1)

    # -- jobs --------------------------------------------------------------------------------------------------------

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

    # -- sets --------------------------------------------------------------------------------------------------------

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
        assert ledger.backup_set(set_id) == msgspec.structs.replace(complete, state=SetState.EXPIRED)
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

    # -- segments ----------------------------------------------------------------------------------------------------

    def test_intents_are_kept_in_order(self, ledger: Ledger, stage: Stage) -> None:
        opened = [stage.intent(name) for name in ("c", "a", "b")]
        for intent in opened:
            ledger.open_intent(intent, stage.claim)
        assert ledger.intents(stage.volume.volume_id) == opened
        ledger.open_intent(msgspec.structs.replace(opened[0], opened_at_ns=NOW + 99), stage.claim)
        assert ledger.intents(stage.volume.volume_id) == opened
        before = newest(ledger)
        for _ in range(2):
            ledger.drop_intent(opened[1].structure_id)
        assert ledger.intents(stage.volume.volume_id) == [opened[0], opened[2]]
        assert kinds(ledger, before) == [("intent.dropped", stage.volume.volume_id)]

    def test_an_intent_keeps_its_place(self, ledger: Ledger, stage: Stage) -> None:
        ledger.open_intent(stage.intent("a"), stage.claim)
        with pytest.raises(Conflict):
            ledger.open_intent(stage.intent("a", block=5), stage.claim)
        with pytest.raises(NotFound):
            ledger.open_intent(intent_of("x", IntentKind.SEGMENT, volume_of("T9"), 4, None), 1)

    def test_committed_data_is_never_announced_again(self, ledger: Ledger, stage: Stage) -> None:
        stage.commit(ledger, "segment 0", 0, 4, 2)
        with pytest.raises(Conflict):
            ledger.open_intent(stage.intent("segment 1", block=9), stage.claim)
        ledger.open_intent(stage.intent("segment 1", block=10), stage.claim)

    def test_what_may_be_announced_in_which_state(self, ledger: Ledger, stage: Stage) -> None:
        """A suspect tape is not written to; a full one still gets its index."""
        ledger.mark_volume(stage.volume.volume_id, VolumeState.FULL)
        ledger.open_intent(stage.intent("index", IntentKind.INDEX), stage.claim)
        ledger.mark_volume(stage.volume.volume_id, VolumeState.SUSPECT, "why")
        for name in ("index", "segment 0"):
            with pytest.raises(Conflict):
                ledger.open_intent(stage.intent(name, IntentKind.INDEX), stage.claim)
        ledger.add_volume(volume_of("T2"))
        claim = ledger.claim_volume(volume_of("T2").volume_id)
        with pytest.raises(Conflict):
            ledger.open_intent(intent_of("x", IntentKind.SEGMENT, volume_of("T2"), 0, None), claim)

    def test_committing_closes_the_intents_it_overwrites(self, ledger: Ledger, stage: Stage) -> None:
        """A segment that did not fit is given up and the set index takes its place."""
        ledger.open_intent(stage.intent("torn"), stage.claim)
        ledger.open_intent(stage.intent("index", IntentKind.INDEX), stage.claim)
        ledger.open_intent(stage.intent("later", block=6), stage.claim)
        index = index_of("index", stage.backup_set, stage.volume, 4, 2)
        for _ in range(2):
            ledger.commit_index(index, stage.claim, end_of(6, 3), NOW + 30)
            assert ledger.intents(stage.volume.volume_id) == [stage.intent("later", block=6)]
            assert ledger.index_copies(stage.backup_set.set_id) == [index]
        backup_set = ledger.backup_set(stage.backup_set.set_id)
        assert (backup_set.state, backup_set.tapes) == (SetState.RUNNING, (stage.volume.label,))
        assert ledger.volume(stage.volume.volume_id).end_block == 6

    def test_an_index_is_committed_in_one_place(self, ledger: Ledger, stage: Stage) -> None:
        index = index_of("index", stage.backup_set, stage.volume, 4, 2)
        ledger.commit_index(index, stage.claim, end_of(6, 3), NOW + 30)
        moved = index_of("index", stage.backup_set, stage.volume, 6, 3)
        with pytest.raises(Conflict):
            ledger.commit_index(moved, stage.claim, end_of(8, 4), NOW)
        with pytest.raises(Conflict):
            stage.seal(ledger, "index", 4, 2)
        nowhere = index_of("x", set_of("no set", stage.job), stage.volume, 6, 3)
        with pytest.raises(NotFound):
            ledger.commit_index(nowhere, stage.claim, end_of(8, 4), NOW)

    def test_segments_over_two_tapes(self, ledger: Ledger, stage: Stage) -> None:
        second, claim = labelled(ledger, "T00002L9")
        on_second = Stage(second, claim, stage.job, stage.backup_set)
        third = on_second.commit(ledger, "segment 2", 2, 4, 2)
        first = stage.commit(ledger, "segment 0", 0, 4, 2)
        other = stage.commit(ledger, "segment 1", 1, 10, 5)
        assert ledger.segments(stage.backup_set.set_id) == [first, other, third]
        assert ledger.segment(other.segment_id) == other
        assert ledger.copies(other.segment_id) == [copy_of(other, stage.volume, 10, 5)]
        assert [copy.segment_id for copy in ledger.copies_on(stage.volume.volume_id)] == [
            first.segment_id,
            other.segment_id,
        ]
        backup_set = ledger.backup_set(stage.backup_set.set_id)
        assert (backup_set.segments, backup_set.tapes) == (3, ("T00002L9", "T00001L9"))

    def test_copies_come_in_tape_order(self, ledger: Ledger, stage: Stage) -> None:
        """Blocks are numbers: 1,000 comes behind 300 and 70."""
        blocks = [4, 70, 300, 1000, 70_000, 2**33]
        for number, block in enumerate(blocks):
            stage.commit(ledger, f"segment {number}", number, block, 2 + 3 * number)
        assert [copy.header_block for copy in ledger.copies_on(stage.volume.volume_id)] == blocks

    def test_a_second_copy(self, ledger: Ledger, stage: Stage) -> None:
        segment = stage.commit(ledger, "segment 0", 0, 4, 2)
        stage.seal(ledger, "index", 10, 5)
        second, claim = labelled(ledger, "T00002L9")
        copy = copy_of(segment, second, 4, 2)
        ledger.commit_segment(segment, copy, claim, end_of(10, 5), second.label)
        assert {copy.volume_id for copy in ledger.copies(segment.segment_id)} == {
            stage.volume.volume_id,
            second.volume_id,
        }
        backup_set = ledger.backup_set(stage.backup_set.set_id)
        assert (backup_set.segments, backup_set.tapes) == (1, ("T00001L9", "T00002L9"))

    def test_committing_again_is_harmless(self, ledger: Ledger, stage: Stage, again: Again) -> None:
        """Even for a writer that has lost its claim since: what is committed stays so, and it may learn that."""
        stage.commit(ledger, "segment 0", 0, 4, 2)
        again().claim_volume(stage.volume.volume_id)
        before = ledger.volumes(), ledger.backup_sets(), newest(ledger)
        stage.commit(ledger, "segment 0", 0, 4, 2)
        assert (ledger.volumes(), ledger.backup_sets(), newest(ledger)) == before

    def test_commits_that_contradict(self, ledger: Ledger, stage: Stage) -> None:
        stage.commit(ledger, "segment 0", 0, 4, 2)
        second, claim = labelled(ledger, "T00002L9")
        other_content = segment_of("segment 0", stage.backup_set, 0, payload_sha256=b"\1" * 32)
        other = segment_of("segment 1", stage.backup_set, 1)
        for act in (
            lambda: stage.commit(ledger, "segment 0", 0, 10, 5),
            lambda: stage.commit(ledger, "segment 1", 0, 10, 5),
            lambda: stage.commit(ledger, "segment 1", 1, 9, 5),
            lambda: ledger.commit_segment(
                other, copy_of(other, stage.volume, 10, 5), stage.claim, end_of(12, 6), "T00001L9"
            ),
            lambda: ledger.commit_segment(
                other, copy_of(other, stage.volume, 10, 5), stage.claim, end_of(16, 1), "T00001L9"
            ),
            lambda: ledger.commit_segment(
                other_content, copy_of(other_content, second, 4, 2), claim, end_of(10, 5), "T00002L9"
            ),
        ):
            with pytest.raises(Conflict):
                act()
        with pytest.raises(NotFound):
            Stage(stage.volume, stage.claim, stage.job, set_of("no set", stage.job)).commit(ledger, "x", 0, 10, 5)
        with pytest.raises(ValueError, match="the copy is of"):
            ledger.commit_segment(other, copy_of(other_content, second, 4, 2), claim, end_of(10, 5), "T00002L9")
        assert len(ledger.segments(stage.backup_set.set_id)) == 1
        assert ledger.volume(stage.volume.volume_id).end_block == 10
        assert ledger.copies_on(second.volume_id) == []

    def test_a_failed_set_adopts_its_segment(self, ledger: Ledger, stage: Stage) -> None:
        """The mover died between tape and ledger; the segment is whole and stays on the tape."""
        ledger.open_intent(stage.intent("segment 0"), stage.claim)
        ledger.fail_set(stage.backup_set.set_id, "interrupted", NOW)
        stage.commit(ledger, "segment 0", 0, 4, 2)
        assert ledger.backup_set(stage.backup_set.set_id).state is SetState.FAILED
        assert ledger.volume(stage.volume.volume_id).end_block == BlockNo(10)

    def test_a_copy_is_marked_by_what_was_found(self, ledger: Ledger, stage: Stage, again: Again) -> None:
        """The newest finding counts, also for a copy that was damaged and reads well now; other copies stay."""
        segment = stage.commit(ledger, "segment 0", 0, 4, 2)
        second, claim = labelled(ledger, "T00002L9")
        other = copy_of(segment, second, 4, 2)
        ledger.commit_segment(segment, other, claim, end_of(10, 5), second.label)
        for state, now_ns in ((CopyState.DAMAGED, NOW + 50), (CopyState.GOOD, NOW + 60)):
            for _ in range(2):
                ledger.mark_copy(segment.segment_id, stage.volume.volume_id, state, now_ns)
            (marked,) = again().copies_on(stage.volume.volume_id)
            assert (marked.state, marked.verified_at_ns) == (state, now_ns)
            assert ledger.copies_on(second.volume_id) == [other]
        assert kinds(ledger)[-2:] == [
            ("copy.damaged", stage.volume.volume_id),
            ("copy.good", stage.volume.volume_id),
        ]

    def test_a_marked_copy_may_be_committed_again(self, ledger: Ledger, stage: Stage) -> None:
        """The answer to the commit was lost for long; what was found meanwhile stays."""
        segment = stage.commit(ledger, "segment 0", 0, 4, 2)
        ledger.mark_copy(segment.segment_id, stage.volume.volume_id, CopyState.DAMAGED, NOW + 50)
        stage.commit(ledger, "segment 0", 0, 4, 2)
        (copy,) = ledger.copies(segment.segment_id)
        assert (copy.state, copy.verified_at_ns) == (CopyState.DAMAGED, NOW + 50)

    def test_no_copy_to_mark(self, ledger: Ledger, stage: Stage) -> None:
        segment = stage.commit(ledger, "segment 0", 0, 4, 2)
        for segment_id, volume_id in (
            (segment.segment_id, volume_of("T2").volume_id),
            (SegmentId(uuid_of("nowhere")), stage.volume.volume_id),
        ):
            with pytest.raises(NotFound):
                ledger.mark_copy(segment_id, volume_id, CopyState.GOOD, NOW)

    def test_a_job_to_be_verified_is_not_done_with_its_set(self, ledger: Ledger) -> None:
        """Its set is complete and shown; the job is completed only by the one who has read it back."""
        number = ledger.add_job(job_of("careful", verify=True)).number
        ledger.queue_job(number, NOW)
        volume, claim = labelled(ledger, "T1")
        stage = Stage(volume, claim, ledger.job(number), ledger.begin_set(set_of("s", ledger.job(number))))
        stage.seal(ledger, "index", 4, 2)
        ledger.complete_set(stage.backup_set.set_id, NOW)
        assert ledger.backup_set(stage.backup_set.set_id).state is SetState.COMPLETE
        assert ledger.job(number).state is JobState.RUNNING
        assert ledger.finish_job(number, JobState.COMPLETED, "", NOW).state is JobState.COMPLETED

    def test_a_complete_set_gains_copies_and_their_index_but_no_segment(self, ledger: Ledger, stage: Stage) -> None:
        """A copy is made from tape, when the set has long been shown."""
        segment = stage.commit(ledger, "segment 0", 0, 4, 2)
        stage.seal(ledger, "index", 10, 5)
        ledger.complete_set(stage.backup_set.set_id, NOW + 40)
        second, claim = labelled(ledger, "T2")
        on_second = Stage(second, claim, stage.job, stage.backup_set)
        ledger.open_intent(on_second.intent("segment 0"), claim)
        on_second.commit(ledger, "segment 0", 0, 4, 2)
        index = index_of("index of the copy", stage.backup_set, second, 10, 5)
        for _ in range(2):
            ledger.commit_index(index, claim, end_of(12, 6), NOW + 50)
        assert ledger.intents(second.volume_id) == []
        assert {copy.volume_id for copy in ledger.copies(segment.segment_id)} == {
            stage.volume.volume_id,
            second.volume_id,
        }
        backup_set = ledger.backup_set(stage.backup_set.set_id)
        assert (backup_set.state, backup_set.segments) == (SetState.COMPLETE, 1)
        assert backup_set.tapes == (stage.volume.label, second.label)
        assert index in ledger.index_copies(backup_set.set_id)
        with pytest.raises(Conflict):
            on_second.commit(ledger, "segment 1", 1, 12, 6)

    # -- pins --------------------------------------------------------------------------------------------------------

    def test_a_pin_grows_and_ends(self, ledger: Ledger, again: Again) -> None:
        """The same again is harmless; runs are joined, the later end counts, whatever the order of the calls."""
        backup_set = set_of("set", job_of("job"))
        one, two = segment_of("one", backup_set, 0), segment_of("two", backup_set, 1)
        pin = pin_of("pin", one, (4, 5), (0, 1))
        for _ in range(2):
            stored = ledger.put_pin(pin)
            assert stored.frames == (PinnedFrames(one.segment_id, ((0, 1), (4, 5))),)
        assert again().pins() == [stored]
        grown = ledger.put_pin(pin_of("pin", one, (2, 2), (7, 9), reason="more", expires_at_ns=NOW + 500))
        assert grown.frames == (PinnedFrames(one.segment_id, ((0, 2), (4, 5), (7, 9))),)
        assert (grown.reason, grown.expires_at_ns) == ("more", NOW + 1000)
        both = ledger.put_pin(pin_of("pin", two, (3, 3), created_at_ns=NOW + 99, expires_at_ns=NOW + 2000))
        assert {frames.segment_id for frames in both.frames} == {one.segment_id, two.segment_id}
        assert (both.created_at_ns, both.expires_at_ns) == (pin.created_at_ns, NOW + 2000)
        assert again().pins() == [both]
        for _ in range(2):
            ledger.drop_pin(pin.pin_id, NOW + 3000)
        assert again().pins() == []
        told = [kind for kind, _ in kinds(ledger)]
        assert told == ["pin.added", "pin.changed", "pin.changed", "pin.ended"]

    def test_a_pin_belongs_to_its_owner(self, ledger: Ledger) -> None:
        segment = segment_of("one", set_of("set", job_of("job")), 0)
        stored = ledger.put_pin(pin_of("pin", segment, (0, 0)))
        with pytest.raises(Conflict, match="ada"):
            ledger.put_pin(pin_of("pin", segment, (1, 1), owner="eve"))
        assert ledger.pins() == [stored]

    def test_pins_come_oldest_first(self, ledger: Ledger) -> None:
        segment = segment_of("one", set_of("set", job_of("job")), 0)
        for name, later_ns in (("a", 3), ("b", 1), ("c", 2)):
            ledger.put_pin(pin_of(name, segment, (0, 0), created_at_ns=NOW + later_ns))
        assert [pin.pin_id for pin in ledger.pins()] == [uuid_of("b"), uuid_of("c"), uuid_of("a")]

    # -- events ------------------------------------------------------------------------------------------------------

    def test_events_are_numbered_without_gaps(self, ledger: Ledger, stage: Stage) -> None:
        events = ledger.events_since(0)
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        assert events[0].kind == "volume.added"
        assert events[0].subject == stage.volume.volume_id
        assert ledger.events_since(3) == events[3:]
        assert ledger.events_since(-5) == events
        assert ledger.events_since(2, limit=2) == events[2:4]
        assert ledger.events_since(len(events)) == []
        assert ledger.events_since(2**70) == []

    def test_a_refused_operation_leaves_no_trace(self, ledger: Ledger, stage: Stage) -> None:
        before = newest(ledger)
        with pytest.raises(Conflict):
            ledger.complete_set(stage.backup_set.set_id, NOW)
        with pytest.raises(Conflict):
            ledger.begin_set(set_of("another", stage.job))
        assert newest(ledger) == before
        ledger.finish_job(stage.job.number, JobState.FAILED, "", NOW)
        _, backup_set = started(ledger, "later")
        assert backup_set.number == 2

    def test_everybody_sees_a_commit(self, ledger: Ledger, again: Again) -> None:
        other = again()
        ledger.add_volume(volume_of("T1"))
        assert other.volumes() == [volume_of("T1")]
        other.claim_volume(volume_of("T1").volume_id)
        assert ledger.volume_by_label("T1").claim == 1
