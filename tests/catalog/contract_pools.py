"""What every ledger must do with pools, and with the pool and the place of a tape; see `ledger_contract`."""

from __future__ import annotations

import msgspec
import pytest

from catalog.errors import Conflict, NotFound
from catalog.ids import VolumeId
from catalog.ledger import Ledger
from catalog.pool_records import AllocationKind, AllocationRule, Pool, RetentionKind, RetentionRule
from catalog.records import BackupSet, IntentKind, JobState, SetState, VolumeState
from tests.catalog.builders import (
    LABEL_END,
    NOW,
    TOTALS,
    end_of,
    index_of,
    intent_of,
    job_of,
    labelled,
    set_of,
    staged,
    uuid_of,
    volume_of,
)
from tests.catalog.contract_base import Again, kinds, newest

MONTHLY = Pool(
    name="monthly",
    description="off-site",
    retention=RetentionRule(kind=RetentionKind.TAPE_MONTHS, count=6),
    allocation=AllocationRule(kind=AllocationKind.PERIOD, period="monthly"),
    copy_pools=("vault",),
    reuse=True,
    vault="Berlin",
    vault_after_days=3,
)


class PoolsContract:
    def test_a_pool_is_put_and_changed(self, ledger: Ledger, again: Again) -> None:
        assert ledger.pools() == []
        for _ in range(2):
            stored = ledger.put_pool(None, MONTHLY, NOW)
            assert stored == msgspec.structs.replace(MONTHLY, created_at_ns=NOW)
        changed = ledger.put_pool(stored, msgspec.structs.replace(stored, reuse=False), NOW + 1)
        assert changed == msgspec.structs.replace(stored, reuse=False)
        assert again().pools() == [changed]
        assert kinds(ledger) == [("pool.added", ""), ("pool.changed", "")]

    def test_pools_come_by_name(self, ledger: Ledger) -> None:
        for name in ("c", "a", "ü" * 300, "b"):
            ledger.put_pool(None, Pool(name=name), NOW)
        assert [pool.name for pool in ledger.pools()] == ["a", "b", "c", "ü" * 300]

    def test_who_saw_another_pool_changes_nothing(self, ledger: Ledger) -> None:
        stored = ledger.put_pool(None, MONTHLY, NOW)
        before = newest(ledger)
        with pytest.raises(Conflict, match="there is a pool monthly already"):
            ledger.put_pool(None, Pool(name="monthly"), NOW)
        seen = msgspec.structs.replace(stored, reuse=False)
        with pytest.raises(Conflict, match="changed by somebody else"):
            ledger.put_pool(seen, msgspec.structs.replace(seen, vault="Rome"), NOW)
        with pytest.raises(Conflict, match="changed by somebody else"):
            ledger.put_pool(Pool(name="other"), Pool(name="other", vault="Rome"), NOW)
        assert ledger.pools() == [stored]
        assert newest(ledger) == before

    def test_a_pool_goes_when_nobody_names_it(self, ledger: Ledger) -> None:
        for _ in range(2):
            ledger.put_pool(None, MONTHLY, NOW)
            for _ in range(2):
                ledger.delete_pool("monthly", NOW)
            assert ledger.pools() == []

    def test_a_pool_with_a_tape_stays(self, ledger: Ledger) -> None:
        ledger.put_pool(None, MONTHLY, NOW)
        ledger.add_volume(volume_of("T1", pool="monthly"))
        with pytest.raises(Conflict, match="still used by tape T1"):
            ledger.delete_pool("monthly", NOW)
        ledger.assign_volume(volume_of("T1").volume_id, "default", NOW)
        ledger.delete_pool("monthly", NOW)

    @pytest.mark.parametrize("fields", [{"pool": "monthly"}, {"copy_pools": ("other", "monthly")}])
    def test_a_pool_with_a_job_stays(self, ledger: Ledger, fields: dict[str, object]) -> None:
        ledger.put_pool(None, MONTHLY, NOW)
        job = ledger.add_job(job_of("job", **fields))
        with pytest.raises(Conflict, match=f"still used by job {job.number}"):
            ledger.delete_pool("monthly", NOW)
        ledger.delete_job(job.number, NOW)
        ledger.delete_pool("monthly", NOW)

    def test_a_pool_that_takes_copies_of_another_stays(self, ledger: Ledger) -> None:
        ledger.put_pool(None, MONTHLY, NOW)
        ledger.put_pool(None, Pool(name="vault"), NOW)
        with pytest.raises(Conflict, match="still used by pool monthly"):
            ledger.delete_pool("vault", NOW)

    def test_a_blank_tape_changes_its_pool(self, ledger: Ledger, again: Again) -> None:
        volume = volume_of("T1")
        ledger.add_volume(volume)
        for _ in range(2):
            ledger.assign_volume(volume.volume_id, "monthly", NOW)
        assert again().volume(volume.volume_id) == msgspec.structs.replace(volume, pool="monthly")
        assert kinds(ledger)[-1] == ("volume.pool", "monthly")

    def test_a_tape_with_a_label_stays_in_its_pool(self, ledger: Ledger) -> None:
        volume, _ = labelled(ledger, "T1")
        ledger.assign_volume(volume.volume_id, volume.pool, NOW)
        with pytest.raises(Conflict, match="as its label says"):
            ledger.assign_volume(volume.volume_id, "monthly", NOW)
        ledger.mark_volume(volume.volume_id, VolumeState.SUSPECT, "torn")
        with pytest.raises(Conflict, match="suspect"):
            ledger.assign_volume(volume.volume_id, "monthly", NOW)
        assert ledger.volume(volume.volume_id).pool == volume.pool

    def test_a_tape_that_is_being_labelled_stays_in_its_pool(self, ledger: Ledger) -> None:
        volume = volume_of("T1")
        ledger.add_volume(volume)
        claim = ledger.claim_volume(volume.volume_id)
        ledger.open_intent(intent_of(volume.volume_id, IntentKind.LABEL, volume, 0, None), claim)
        with pytest.raises(Conflict, match="being labelled"):
            ledger.assign_volume(volume.volume_id, "monthly", NOW)

    @pytest.mark.parametrize("state", list(VolumeState))
    def test_a_tape_is_moved(self, ledger: Ledger, again: Again, state: VolumeState) -> None:
        volume, _ = labelled(ledger, "T1")
        if state is not VolumeState.BLANK:
            ledger.mark_volume(volume.volume_id, state)
        for place, noted in (("vault", "vault"), ("vault", "vault"), ("shelf \udcff", "shelf \\udcff"), ("", "")):
            ledger.move_volume(volume.volume_id, place, NOW)
            assert again().volume(volume.volume_id).location == noted
        assert [kind for kind, _ in kinds(ledger)].count("volume.location") == 3

    def test_no_such_tape(self, ledger: Ledger) -> None:
        for ask in (
            lambda: ledger.assign_volume(VolumeId(uuid_of("nowhere")), "monthly", NOW),
            lambda: ledger.move_volume(VolumeId(uuid_of("nowhere")), "Berlin", NOW),
        ):
            with pytest.raises(NotFound):
                ask()

    def test_the_time_of_the_label_is_noted(self, ledger: Ledger) -> None:
        volume = volume_of("T1")
        ledger.add_volume(volume)
        claim = ledger.claim_volume(volume.volume_id)
        for later_ns in (5, 7):
            ledger.label_volume(volume.volume_id, claim, LABEL_END, NOW + later_ns)
        assert ledger.volume(volume.volume_id).labelled_at_ns == NOW + 5

    def test_the_time_of_expiry_is_noted(self, ledger: Ledger) -> None:
        stage = staged(ledger)
        ledger.fail_set(stage.backup_set.set_id, "torn", NOW)
        ledger.finish_job(stage.job.number, JobState.FAILED, "torn", NOW)
        for later_ns in (5, 7):
            ledger.expire_set(stage.backup_set.set_id, NOW + later_ns)
        expired = ledger.backup_set(stage.backup_set.set_id)
        assert (expired.state, expired.expired_at_ns) == (SetState.EXPIRED, NOW + 5)

    def test_a_set_that_is_to_be_copied_does_not_complete_its_job(self, ledger: Ledger) -> None:
        for name, copy_pools, reached in (("a", (), JobState.COMPLETED), ("b", ("vault",), JobState.RUNNING)):
            volume, claim = labelled(ledger, name)
            job = ledger.queue_job(ledger.add_job(job_of(name)).number, NOW)
            backup_set: BackupSet = ledger.begin_set(set_of(f"set {name}", job, copy_pools=copy_pools))
            index = index_of(f"index {name}", backup_set, volume, LABEL_END.block, LABEL_END.file)
            ledger.seal_set(backup_set.set_id, TOTALS, index, claim, end_of(LABEL_END.block + 2, 3), NOW)
            ledger.complete_set(backup_set.set_id, NOW)
            assert ledger.job(job.number).state is reached
        assert ledger.finish_job(job.number, JobState.COMPLETED, "", NOW).state is JobState.COMPLETED
