"""What every ledger must do when a set leaves a tape for another one; see `ledger_contract`."""

from __future__ import annotations

import msgspec
import pytest

from catalog.errors import Conflict, NotFound
from catalog.ids import SetId, VolumeId
from catalog.ledger import Ledger
from catalog.records import CopyState, IntentKind, JobState, Segment, SetState, Volume, VolumeState
from tests.catalog.builders import NOW, Stage, copy_of, end_of, index_of, intent_of, labelled, uuid_of, volume_of


class LeavingContract:
    def test_a_set_leaves_when_all_of_it_was_replaced(self, ledger: Ledger, stage: Stage) -> None:
        first, second = _two(ledger, stage)
        other = _other(ledger, stage, first, second)
        ledger.leave_volume(stage.backup_set.set_id, stage.volume.volume_id, NOW + 99)
        ledger.leave_volume(stage.backup_set.set_id, stage.volume.volume_id, NOW + 100)  # The same again.
        for each in (first, second):
            assert [copy.volume_id for copy in ledger.copies(each.segment_id)] == [other.volume_id]
        assert [index.volume_id for index in ledger.index_copies(stage.backup_set.set_id)] == [other.volume_id]
        assert ledger.copies_on(stage.volume.volume_id) == []
        assert ledger.live_sets(stage.volume.volume_id) == []
        left = ledger.backup_set(stage.backup_set.set_id)
        assert (left.tapes, left.state, left.segments) == ((other.label,), SetState.COMPLETE, 2)
        assert ledger.volume(stage.volume.volume_id).left_at_ns == NOW + 99
        # Nothing keeps the tape any more.
        new = volume_of("new", label=stage.volume.label)
        ledger.renew_volume(stage.volume.volume_id, stage.claim, new, NOW)

    @pytest.mark.parametrize(
        "lack", ["a segment", "read back", "damaged", "suspect tape", "meant for another", "index", "index on it"]
    )
    def test_it_stays_when_anything_is_missing(self, ledger: Ledger, stage: Stage, lack: str) -> None:
        """A copy that is there for another reason is none: a set may be wanted on two tapes."""
        first, second = _two(ledger, stage)
        made = [first] if lack == "a segment" else [first, second]
        other = _other(ledger, stage, *made, lack=lack)
        if lack == "damaged":
            ledger.mark_copy(second.segment_id, other.volume_id, CopyState.DAMAGED, NOW + 60)
        if lack == "suspect tape":
            ledger.mark_volume(other.volume_id, VolumeState.SUSPECT, "it rattles")
        set_id, tape = stage.backup_set.set_id, stage.volume.volume_id
        before = (ledger.copies_on(tape), ledger.index_copies(set_id), ledger.backup_set(set_id), ledger.volume(tape))
        with pytest.raises(Conflict, match="stays on tape"):
            ledger.leave_volume(set_id, tape, NOW + 99)
        after = (ledger.copies_on(tape), ledger.index_copies(set_id), ledger.backup_set(set_id), ledger.volume(tape))
        assert after == before

    def test_an_index_alone_can_leave(self, ledger: Ledger, stage: Stage) -> None:
        stage.seal(ledger, "index", 4, 2)
        ledger.complete_set(stage.backup_set.set_id, NOW)
        other = _other(ledger, stage)
        ledger.leave_volume(stage.backup_set.set_id, stage.volume.volume_id, NOW + 99)
        assert [index.volume_id for index in ledger.index_copies(stage.backup_set.set_id)] == [other.volume_id]

    def test_only_a_complete_set_leaves(self, ledger: Ledger, stage: Stage) -> None:
        segment = stage.commit(ledger, "segment", 0, 4, 2)
        with pytest.raises(Conflict, match="running"):
            ledger.leave_volume(stage.backup_set.set_id, stage.volume.volume_id, NOW)
        ledger.fail_set(stage.backup_set.set_id, "broken", NOW)
        ledger.finish_job(stage.job.number, JobState.FAILED, "broken", NOW)
        with pytest.raises(Conflict, match="failed"):
            ledger.leave_volume(stage.backup_set.set_id, stage.volume.volume_id, NOW)
        assert len(ledger.copies(segment.segment_id)) == 1

    def test_what_was_never_finished_there_keeps_nothing(self, ledger: Ledger, stage: Stage) -> None:
        """A copy that is committed there later counts again."""
        first, second = _two(ledger, stage)
        _other(ledger, stage, first, second)
        set_id = stage.backup_set.set_id
        ledger.open_intent(intent_of(uuid_of("torn"), IntentKind.INDEX, stage.volume, 18, set_id), stage.claim)
        ledger.leave_volume(set_id, stage.volume.volume_id, NOW)
        ledger.commit_segment(
            first, copy_of(first, stage.volume, 18, 9), stage.claim, end_of(24, 12), stage.volume.label
        )
        assert [each.set_id for each in ledger.live_sets(stage.volume.volume_id)] == [set_id]

    def test_what_is_not_there_cannot_leave(self, ledger: Ledger, stage: Stage) -> None:
        with pytest.raises(NotFound):
            ledger.leave_volume(SetId(uuid_of("nowhere")), stage.volume.volume_id, NOW)
        with pytest.raises(NotFound):
            ledger.leave_volume(stage.backup_set.set_id, VolumeId(uuid_of("nowhere")), NOW)
        other, _ = labelled(ledger, "T00002L9")
        ledger.leave_volume(stage.backup_set.set_id, other.volume_id, NOW)
        assert ledger.volume(other.volume_id).left_at_ns == 0


def _two(ledger: Ledger, stage: Stage) -> tuple[Segment, Segment]:
    """A COMPLETE set of two segments on the stage's tape."""
    segments = stage.commit(ledger, "one", 0, 4, 2), stage.commit(ledger, "two", 1, 10, 5)
    stage.seal(ledger, "index", 16, 8)
    ledger.complete_set(stage.backup_set.set_id, NOW)
    return segments


def _other(ledger: Ledger, stage: Stage, *segments: Segment, lack: str = "") -> Volume:
    """A tape with copies of these that replace those on the stage's tape, read back, and an index."""
    other, claim = labelled(ledger, "T00002L9")
    block, file, source = 4, 2, stage.volume.volume_id
    for each in segments:
        replaces = VolumeId("") if lack == "meant for another" else source
        copy = msgspec.structs.replace(copy_of(each, other, block, file), replaces=replaces)
        ledger.commit_segment(each, copy, claim, end_of(block + 6, file + 3), other.label)
        if lack != "read back":
            ledger.mark_copy(each.segment_id, other.volume_id, CopyState.GOOD, NOW + 50)
        block, file = block + 6, file + 3
    if lack != "index":
        index = index_of("copied index", stage.backup_set, other, block, file)
        replaces = VolumeId("") if lack == "index on it" else source
        index = msgspec.structs.replace(index, replaces=replaces)
        ledger.commit_index(index, claim, end_of(block + 2, file + 1), NOW + 40)
    return other
