"""What every ledger must do about intents, segments and their copies."""

from __future__ import annotations

import msgspec
import pytest

from catalog.errors import Conflict, NotFound
from catalog.ids import BlockNo, SegmentId
from catalog.ledger import Ledger
from catalog.records import CopyState, IntentKind, JobState, SetState, VolumeState
from tests.catalog.builders import (
    NOW,
    Stage,
    copy_of,
    end_of,
    index_of,
    intent_of,
    job_of,
    labelled,
    segment_of,
    set_of,
    uuid_of,
    volume_of,
)
from tests.catalog.contract_base import Again, kinds, newest


class SegmentsContract:
    def test_intents_are_kept_in_order(self, ledger: Ledger, stage: Stage) -> None:
        opened = [stage.intent(name) for name in ("c", "a", "b")]
        for intent in opened:
            ledger.open_intent(intent, stage.claim)
        assert ledger.intents(stage.volume.volume_id) == opened
        ledger.open_intent(msgspec.structs.replace(opened[0], opened_at_ns=NOW + 99), stage.claim)
        assert ledger.intents(stage.volume.volume_id) == opened
        before = newest(ledger)
        for _ in range(2):
            ledger.drop_intent(opened[1].structure_id, stage.volume.volume_id)
        assert ledger.intents(stage.volume.volume_id) == [opened[0], opened[2]]
        assert kinds(ledger, before) == [("intent.dropped", stage.volume.volume_id)]

    def test_an_intent_is_dropped_on_one_tape(self, ledger: Ledger, stage: Stage) -> None:
        """Two drives write the same segment: what is given up on one tape stays announced on the other."""
        other = volume_of("T2")
        ledger.add_volume(other)
        claim = ledger.claim_volume(other.volume_id)
        ledger.label_volume(other.volume_id, claim, end_of(4, 2), NOW)
        there = msgspec.structs.replace(stage.intent("a"), volume_id=other.volume_id)
        ledger.open_intent(stage.intent("a"), stage.claim)
        ledger.open_intent(there, claim)
        ledger.drop_intent(there.structure_id, stage.volume.volume_id)
        assert ledger.intents(stage.volume.volume_id) == []
        assert ledger.intents(other.volume_id) == [there]

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

    def test_damage_that_was_met_is_no_reading_back(self, ledger: Ledger, stage: Stage, again: Again) -> None:
        """The time stays that of the reading back, and the same damage is told once."""
        segment = stage.commit(ledger, "segment 0", 0, 4, 2)
        ledger.mark_copy(segment.segment_id, stage.volume.volume_id, CopyState.GOOD, NOW + 50)
        before = newest(ledger)
        for now_ns in (NOW + 60, NOW + 70):
            ledger.mark_copy(segment.segment_id, stage.volume.volume_id, CopyState.DAMAGED, now_ns, wholly=False)
        (marked,) = again().copies_on(stage.volume.volume_id)
        assert (marked.state, marked.verified_at_ns) == (CopyState.DAMAGED, NOW + 50)
        assert kinds(ledger, before) == [("copy.damaged", stage.volume.volume_id)]

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
