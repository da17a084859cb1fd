"""What every ledger must know of sets that are damaged; see `ledger_contract`."""

from __future__ import annotations

import msgspec
import pytest

from catalog.ids import SetId
from catalog.ledger import Ledger
from catalog.records import Adoption, CopyState, Segment, SetState, Volume
from tests.catalog.builders import (
    NOW,
    Stage,
    copy_of,
    end_of,
    index_of,
    job_of,
    labelled,
    segment_of,
    set_of,
    uuid_of,
    volume_of,
)


def damaged(ledger: Ledger) -> frozenset[SetId]:
    """What the index says, which must be what the copies say."""
    found = ledger.damaged_sets()
    assert found == ledger.damaged_sets(by_copies=True)
    return found


class DamageContract:
    def test_a_set_is_damaged_when_no_copy_of_a_segment_is_good(self, ledger: Ledger, stage: Stage) -> None:
        first, second = stage.commit(ledger, "first", 0, 4, 2), stage.commit(ledger, "second", 1, 10, 5)
        assert damaged(ledger) == frozenset()
        for state in (CopyState.DAMAGED, CopyState.GOOD, CopyState.DAMAGED):
            for _ in range(2):
                ledger.mark_copy(second.segment_id, stage.volume.volume_id, state, NOW)
                assert damaged(ledger) == ({first.set_id} if state is CopyState.DAMAGED else frozenset())
        ledger.mark_copy(first.segment_id, stage.volume.volume_id, CopyState.DAMAGED, NOW)
        ledger.mark_copy(second.segment_id, stage.volume.volume_id, CopyState.GOOD, NOW)
        assert damaged(ledger) == {first.set_id}

    def test_a_further_copy_heals(self, ledger: Ledger, stage: Stage) -> None:
        segment = stage.commit(ledger, "segment", 0, 4, 2)
        ledger.mark_copy(segment.segment_id, stage.volume.volume_id, CopyState.DAMAGED, NOW)
        other = copied(ledger, segment)
        assert damaged(ledger) == frozenset()
        ledger.mark_copy(segment.segment_id, other.volume_id, CopyState.DAMAGED, NOW)
        assert damaged(ledger) == {segment.set_id}

    @pytest.mark.parametrize("other_is", ["good", "damaged", "missing"])
    def test_what_lay_on_a_tape_that_is_forgotten(self, ledger: Ledger, stage: Stage, other_is: str) -> None:
        """A segment that lies nowhere is as damaged as one that cannot be read."""
        segment = stage.commit(ledger, "segment", 0, 4, 2)
        stage.seal(ledger, "index", 10, 5)
        ledger.complete_set(stage.backup_set.set_id, NOW)
        if other_is != "missing":
            other = copied(ledger, segment)
            if other_is == "damaged":
                ledger.mark_copy(segment.segment_id, other.volume_id, CopyState.DAMAGED, NOW)
        ledger.forget_volume(stage.volume.volume_id, stage.claim, {stage.backup_set.set_id}, NOW)
        assert damaged(ledger) == (frozenset() if other_is == "good" else {segment.set_id})

    def test_a_set_that_leaves_the_tape_with_the_good_copy_is_damaged(self, ledger: Ledger, stage: Stage) -> None:
        """The copy in its place was read back, and may be found damaged later; and so may the other way round."""
        segment = stage.commit(ledger, "segment", 0, 4, 2)
        stage.seal(ledger, "index", 10, 5)
        ledger.complete_set(stage.backup_set.set_id, NOW)
        ledger.mark_copy(segment.segment_id, stage.volume.volume_id, CopyState.DAMAGED, NOW)
        other = copied(ledger, segment, replaces=stage.volume)
        ledger.mark_copy(segment.segment_id, other.volume_id, CopyState.GOOD, NOW)
        ledger.leave_volume(stage.backup_set.set_id, stage.volume.volume_id, NOW)
        assert damaged(ledger) == frozenset()
        ledger.mark_copy(segment.segment_id, other.volume_id, CopyState.DAMAGED, NOW)
        assert damaged(ledger) == {segment.set_id}

    @pytest.mark.parametrize("state", [*CopyState, None])
    def test_what_was_found_on_tapes(self, ledger: Ledger, state: CopyState | None) -> None:
        volume, job = volume_of("T1", end_block=10, end_file=5), job_of("adopted")
        backup_set = set_of("set", job, state=SetState.SEALED)
        segment = segment_of("segment", backup_set, 0)
        found = Adoption(volumes=(volume,), jobs=(job,), sets=(backup_set,), segments=(segment,))
        if state is not None:
            copy = msgspec.structs.replace(copy_of(segment, volume, 4, 2), state=state)
            found = msgspec.structs.replace(found, copies=(copy,))
        for _ in range(2):
            ledger.adopt(found, NOW)
            assert damaged(ledger) == (frozenset() if state is CopyState.GOOD else {backup_set.set_id})


def copied(ledger: Ledger, segment: Segment, replaces: Volume | None = None) -> Volume:
    """Write the segment, and an index, to another tape."""
    other, claim = labelled(ledger, "T00002L9")
    copy, index = copy_of(segment, other, 4, 2), index_of("copied", ledger.backup_set(segment.set_id), other, 10, 5)
    if replaces is not None:
        copy = msgspec.structs.replace(copy, replaces=replaces.volume_id)
        index = msgspec.structs.replace(index, index_id=uuid_of("replacing"), replaces=replaces.volume_id)
    ledger.commit_segment(segment, copy, claim, end_of(10, 5), other.label)
    if replaces is not None:
        ledger.commit_index(index, claim, end_of(12, 6), NOW)
    return other
