"""What every ledger must do about volumes and their claims."""

from __future__ import annotations

import msgspec
import pytest

from catalog.errors import Conflict, NotFound, StaleClaim
from catalog.ids import VolumeId
from catalog.ledger import Ledger
from catalog.records import IntentKind, VolumeState
from tests.catalog.builders import (
    LABEL_END,
    NOW,
    Stage,
    end_of,
    index_of,
    intent_of,
    labelled,
    uuid_of,
    volume_of,
)
from tests.catalog.contract_base import Again, kinds, newest


class VolumesContract:
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
                labelled_at_ns=NOW + 1,
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
