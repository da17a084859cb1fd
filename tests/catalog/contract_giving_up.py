"""What every ledger must do when tapes are relabelled, erased and forgotten; see `ledger_contract`."""

from __future__ import annotations

import msgspec
import pytest

from catalog.errors import Conflict, NotFound, StaleClaim
from catalog.ids import VolumeId
from catalog.ledger import Ledger
from catalog.records import CopyState, IntentKind, JobState, SetState, VolumeState
from tests.catalog.builders import NOW, Stage, copy_of, end_of, intent_of, labelled, uuid_of, volume_of

NEW = volume_of("new", label="T00001L9", overwrites="f00d")


def _complete(ledger: Ledger, stage: Stage) -> None:
    stage.commit(ledger, "segment", 0, 4, 2)
    stage.seal(ledger, "index", 10, 5)
    ledger.complete_set(stage.backup_set.set_id, NOW)


def _fail(ledger: Ledger, stage: Stage) -> None:
    ledger.fail_set(stage.backup_set.set_id, "broken", NOW)
    ledger.finish_job(stage.job.number, JobState.FAILED, "broken", NOW)


class GivingUpContract:
    # -- renewing ----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("state", ["announced", "running", "index only", "sealed", "complete", "failed"])
    def test_what_lives_is_never_given_up(self, ledger: Ledger, stage: Stage, state: str) -> None:
        """Whatever a set has there, or is about to have: nothing changes."""
        if state == "announced":
            ledger.open_intent(stage.intent("segment"), stage.claim)
        elif state == "index only":
            stage.seal(ledger, "index", 4, 2)
        elif state == "complete":
            _complete(ledger, stage)
        else:
            stage.commit(ledger, "segment", 0, 4, 2)
            if state == "sealed":
                stage.seal(ledger, "index", 10, 5)
            if state == "failed":
                _fail(ledger, stage)
        before = (ledger.volumes(), ledger.backup_sets(), ledger.copies_on(stage.volume.volume_id))
        assert [each.set_id for each in ledger.live_sets(stage.volume.volume_id)] == [stage.backup_set.set_id]
        with pytest.raises(Conflict, match="lives"):
            ledger.renew_volume(stage.volume.volume_id, stage.claim, NEW, NOW)
        assert (ledger.volumes(), ledger.backup_sets(), ledger.copies_on(stage.volume.volume_id)) == before

    def test_expired_copies_vanish_with_the_old_record(self, ledger: Ledger, stage: Stage) -> None:
        _complete(ledger, stage)
        ledger.expire_set(stage.backup_set.set_id, NOW)
        ledger.open_intent(intent_of(uuid_of("torn"), IntentKind.SEGMENT, stage.volume, 12, None), stage.claim)
        ledger.renew_volume(stage.volume.volume_id, stage.claim, NEW, NOW)
        ledger.renew_volume(stage.volume.volume_id, stage.claim, NEW, NOW)  # The same again.
        assert ledger.volumes() == [NEW]
        assert ledger.volume_by_label("T00001L9") == NEW
        (segment,) = ledger.segments(stage.backup_set.set_id)
        assert ledger.copies(segment.segment_id) == []
        assert ledger.index_copies(stage.backup_set.set_id) == []
        assert ledger.copies_on(stage.volume.volume_id) == []
        assert ledger.intents(stage.volume.volume_id) == []
        assert ledger.backup_set(stage.backup_set.set_id).tapes == ()
        with pytest.raises(NotFound):
            ledger.volume(stage.volume.volume_id)

    def test_other_tapes_keep_their_copies(self, ledger: Ledger, stage: Stage) -> None:
        segment = stage.commit(ledger, "segment", 0, 4, 2)
        other, claim = labelled(ledger, "T00002L9")
        ledger.commit_segment(segment, copy_of(segment, other, 4, 2), claim, end_of(10, 5), other.label)
        _fail(ledger, stage)
        ledger.expire_set(stage.backup_set.set_id, NOW)
        ledger.renew_volume(stage.volume.volume_id, stage.claim, NEW, NOW)
        assert [copy.volume_id for copy in ledger.copies(segment.segment_id)] == [other.volume_id]
        assert ledger.backup_set(stage.backup_set.set_id).tapes == (other.label,)

    def test_only_the_newest_claim_gives_up(self, ledger: Ledger, stage: Stage) -> None:
        """And a commit with the old tape's claim comes too late."""
        _fail(ledger, stage)
        newer = ledger.claim_volume(stage.volume.volume_id)
        with pytest.raises(StaleClaim):
            ledger.renew_volume(stage.volume.volume_id, stage.claim, NEW, NOW)
        ledger.renew_volume(stage.volume.volume_id, newer, NEW, NOW)
        with pytest.raises(NotFound):
            stage.commit(ledger, "segment", 0, 4, 2)

    def test_a_commit_before_it_saves_the_tape(self, ledger: Ledger, stage: Stage) -> None:
        """Who has looked and found nothing is told at the last moment that there is something now."""
        assert ledger.live_sets(stage.volume.volume_id) == []
        stage.commit(ledger, "segment", 0, 4, 2)
        newer = ledger.claim_volume(stage.volume.volume_id)
        with pytest.raises(Conflict):
            ledger.renew_volume(stage.volume.volume_id, newer, NEW, NOW)

    def test_a_new_record_is_blank_and_another(self, ledger: Ledger, stage: Stage) -> None:
        for wrong in (
            msgspec.structs.replace(NEW, state=VolumeState.APPENDABLE),
            msgspec.structs.replace(NEW, volume_id=stage.volume.volume_id),
        ):
            with pytest.raises(ValueError, match="begins anew"):
                ledger.renew_volume(stage.volume.volume_id, stage.claim, wrong, NOW)

    def test_labelling_and_settling_end_what_may_be_overwritten(self, ledger: Ledger, stage: Stage) -> None:
        _fail(ledger, stage)
        ledger.renew_volume(stage.volume.volume_id, stage.claim, NEW, NOW)
        claim = ledger.claim_volume(NEW.volume_id)
        with pytest.raises(StaleClaim):
            ledger.settle_volume(NEW.volume_id, claim - 1)
        ledger.settle_volume(NEW.volume_id, claim)
        ledger.settle_volume(NEW.volume_id, claim)
        assert ledger.volume(NEW.volume_id).overwrites == ""
        again = volume_of("once more", label="T00001L9", overwrites="cafe")
        ledger.renew_volume(NEW.volume_id, claim, again, NOW)
        claim = ledger.claim_volume(again.volume_id)
        ledger.label_volume(again.volume_id, claim, end_of(4, 2), NOW)
        assert ledger.volume(again.volume_id).overwrites == ""

    def test_a_look_at_a_tape_is_noted(self, ledger: Ledger, stage: Stage) -> None:
        ledger.identify_volume(stage.volume.volume_id, NOW + 7)
        ledger.identify_volume(stage.volume.volume_id, NOW + 7)
        assert ledger.volume(stage.volume.volume_id).identified_at_ns == NOW + 7
        ledger.add_volume(volume_of("T00001L9"))  # As before: it is known.
        with pytest.raises(NotFound):
            ledger.identify_volume(VolumeId(uuid_of("nowhere")), NOW)

    # -- names -------------------------------------------------------------------------------------------------------

    def test_a_barcode_may_differ_from_the_label(self, ledger: Ledger) -> None:
        named = volume_of("named", label="letters 1998", barcode="T00007L9")
        ledger.add_volume(named)
        assert ledger.volume_by_code("T00007L9") == ledger.volume_by_label("letters 1998") == named
        for code in ("letters 1998", "T00008L9"):
            with pytest.raises(NotFound):
                ledger.volume_by_code(code)
        with pytest.raises(NotFound):
            ledger.volume_by_label("T00007L9")

    @pytest.mark.parametrize(
        "clash",
        [
            {"label": "letters 1998"},
            {"label": "T00007L9"},
            {"label": "other", "barcode": "T00007L9"},
            {"label": "other", "barcode": "T00001L9"},
        ],
    )
    def test_no_two_tapes_go_by_one_name(self, ledger: Ledger, stage: Stage, clash: dict[str, str]) -> None:
        ledger.add_volume(volume_of("named", label="letters 1998", barcode="T00007L9"))
        second = volume_of("second", **clash)
        with pytest.raises(Conflict):
            ledger.add_volume(second)
        (other, claim) = labelled(ledger, "T00009L9")
        with pytest.raises(Conflict):
            ledger.renew_volume(other.volume_id, claim, second, NOW)
        assert ledger.volume_by_label("T00009L9") == other

    def test_numbers_in_names_are_given_once(self, ledger: Ledger, stage: Stage) -> None:
        """Those of tapes that are only known, and of those that are forgotten, count."""
        assert ledger.newest_number("TP202611") == 0
        ledger.add_volume(volume_of("TP20261103"))
        ledger.add_volume(volume_of("barcode", label="x", barcode="TP20261105"))
        ledger.add_volume(volume_of("TP20261299"))
        assert ledger.newest_number("TP202611") == 5
        _fail(ledger, stage)
        named = volume_of("named", label="TP20261107")
        ledger.renew_volume(stage.volume.volume_id, stage.claim, named, NOW)
        ledger.forget_volume(named.volume_id, 0, frozenset(), NOW)
        assert (ledger.newest_number("TP202611"), ledger.newest_number("TP202612")) == (7, 99)

    # -- forgetting --------------------------------------------------------------------------------------------------

    def test_a_tape_is_forgotten(self, ledger: Ledger, stage: Stage) -> None:
        _fail(ledger, stage)
        ledger.forget_volume(stage.volume.volume_id, stage.claim, frozenset(), NOW)
        ledger.forget_volume(stage.volume.volume_id, stage.claim, frozenset(), NOW)
        assert ledger.volumes() == []
        ledger.add_volume(volume_of("again", label="T00001L9"))
        ledger.forget_volume(VolumeId(uuid_of("nowhere")), 1, frozenset(), NOW)

    def test_only_named_sets_lose_anything(self, ledger: Ledger, stage: Stage) -> None:
        _complete(ledger, stage)
        with pytest.raises(Conflict, match="all that there is"):
            ledger.forget_volume(stage.volume.volume_id, stage.claim, frozenset(), NOW)
        assert [each.set_id for each in ledger.lost_sets(stage.volume.volume_id)] == [stage.backup_set.set_id]
        with pytest.raises(StaleClaim):
            ledger.forget_volume(stage.volume.volume_id, stage.claim - 1, {stage.backup_set.set_id}, NOW)
        ledger.forget_volume(stage.volume.volume_id, stage.claim, {stage.backup_set.set_id}, NOW)
        kept = ledger.backup_set(stage.backup_set.set_id)
        assert (kept.state, kept.tapes, kept.segments) == (SetState.COMPLETE, (), 1)

    def test_what_lies_elsewhere_too_is_not_lost(self, ledger: Ledger, stage: Stage) -> None:
        segment = stage.commit(ledger, "segment", 0, 4, 2)
        stage.seal(ledger, "index", 10, 5)
        ledger.complete_set(stage.backup_set.set_id, NOW)
        other, claim = labelled(ledger, "T00002L9")
        ledger.commit_segment(segment, copy_of(segment, other, 4, 2), claim, end_of(10, 5), other.label)
        assert ledger.lost_sets(stage.volume.volume_id) == []
        ledger.forget_volume(stage.volume.volume_id, stage.claim, frozenset(), NOW)
        assert ledger.backup_set(stage.backup_set.set_id).tapes == (other.label,)

    def test_a_damaged_copy_elsewhere_is_no_copy(self, ledger: Ledger, stage: Stage) -> None:
        segment = stage.commit(ledger, "segment", 0, 4, 2)
        stage.seal(ledger, "index", 10, 5)
        ledger.complete_set(stage.backup_set.set_id, NOW)
        other, claim = labelled(ledger, "T00002L9")
        ledger.commit_segment(segment, copy_of(segment, other, 4, 2), claim, end_of(10, 5), other.label)
        ledger.mark_copy(segment.segment_id, other.volume_id, CopyState.DAMAGED, NOW)
        assert [each.set_id for each in ledger.lost_sets(stage.volume.volume_id)] == [stage.backup_set.set_id]
        assert ledger.lost_sets(other.volume_id) == []
        with pytest.raises(Conflict, match="all that there is"):
            ledger.forget_volume(stage.volume.volume_id, stage.claim, frozenset(), NOW)

    def test_a_failed_set_cannot_go_on_without_its_tape(self, ledger: Ledger, stage: Stage) -> None:
        """It would be complete without what was lost."""
        stage.commit(ledger, "segment", 0, 4, 2)
        with pytest.raises(Conflict, match="being written"):
            ledger.forget_volume(stage.volume.volume_id, stage.claim, {stage.backup_set.set_id}, NOW)
        _fail(ledger, stage)
        ledger.queue_job(stage.job.number, NOW, resume=True)
        with pytest.raises(Conflict, match="goes on"):
            ledger.forget_volume(stage.volume.volume_id, stage.claim, {stage.backup_set.set_id}, NOW)
        ledger.finish_job(stage.job.number, JobState.CANCELLED, "", NOW)
        ledger.forget_volume(stage.volume.volume_id, stage.claim, {stage.backup_set.set_id}, NOW)
        assert ledger.backup_set(stage.backup_set.set_id).state is SetState.EXPIRED
        with pytest.raises(Conflict):
            ledger.queue_job(stage.job.number, NOW, resume=True)
