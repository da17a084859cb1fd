"""Copies on tapes of other pools: made from tape behind the backup, and nothing is done before they are there."""

from __future__ import annotations

import pytest

from catalog.errors import Conflict
from catalog.pool_records import Pool
from catalog.records import DriveMove, JobState, SetState
from drivers.errors import DeviceFailed
from sidecar.jobs.going_on import leave_drive
from tapefs.errors import Cancelled, NotVerified
from tapefs.mover.kinds import kind_of
from tapefs.retention.expire import verdicts_of
from tapefs.retention.explain import explain_set
from tapefs.retention.rules import retention_rule
from tests.backup.rig import rigs

NOW = 1_800_000_000_000_000_000


@pytest.fixture
def make(tmp_path):
    yield from rigs(tmp_path)


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "tree").mkdir()
    for number in range(20):
        (tmp_path / "tree" / f"{number:02}").write_bytes(bytes([number]) * 100_000)
    return tmp_path / "tree"


@pytest.fixture
def rig(make):
    """Tapes 1 and 2 in pool default, 3 in pool vault, 4 in pool far."""
    rig = make(backup_settings="segment_bytes = 1048576")
    for name, label in (("vault", "TP0003L9"), ("far", "TP0004L9")):
        rig.ledger.put_pool(None, Pool(name=name), NOW)
        rig.ledger.assign_volume(rig.ledger.volume_by_label(label).volume_id, name, NOW)
    return rig


def pools_of(rig, set_id):
    """By segment, in which pools it lies."""
    return [
        sorted(rig.ledger.volume(copy.volume_id).pool for copy in rig.ledger.copies(segment.segment_id))
        for segment in rig.ledger.segments(set_id)
    ]


def test_a_set_lies_in_all_the_pools(rig, tree):
    rig.ledger.put_pool(None, Pool(name="default", copy_pools=("vault",)), NOW)
    job = rig.queued(tree, copy_pools=("far", "vault"))
    set_id = rig.run(job)
    found = pools_of(rig, set_id)
    assert len(found) > 1
    assert all(pools == ["default", "far", "vault"] for pools in found)
    backup_set = rig.ledger.backup_set(set_id)
    assert (backup_set.pool, backup_set.copy_pools) == ("default", ("vault", "far"))
    assert rig.ledger.job(job.number).state is JobState.COMPLETED
    on = {rig.ledger.volume(index.volume_id).label for index in rig.ledger.index_copies(set_id)}
    assert on == {"TP0001L9", "TP0003L9", "TP0004L9"}, "every copy has its SET INDEX"


def test_the_next_set_goes_on_with_the_same_tapes(rig, tree):
    job = rig.queued(tree, copy_pools=("vault",))
    rig.run(job)
    (tree / "new").write_bytes(b"new")
    second = rig.again(job, type="incremental")
    assert set(map(tuple, pools_of(rig, second))) == {("default", "vault")}
    assert {volume.label for volume in rig.ledger.volumes() if volume.used_bytes} == {"TP0001L9", "TP0003L9"}


def test_a_copy_that_cannot_be_made_fails_the_job_and_resuming_makes_it(rig, tree):
    far = rig.ledger.volume_by_label("TP0004L9")
    rig.ledger.assign_volume(far.volume_id, "default", NOW)
    job = rig.queued(tree, copy_pools=("vault", "far"))
    with pytest.raises(NotVerified, match=f"copy in pool far could not be made.*`tapefs job resume {job.number}`"):
        rig.run(job)
    (backup_set,) = rig.ledger.backup_sets()
    assert backup_set.state is SetState.COMPLETE
    assert rig.ledger.job(job.number).state is JobState.RUNNING, "the sidecar fails it"
    said = explain_set(rig.ledger, backup_set, NOW)
    assert f"{backup_set.segments} of its {backup_set.segments} segments are still to be copied to pool far." in said
    rig.ledger.finish_job(job.number, JobState.FAILED, "no copy", NOW)
    rig.ledger.assign_volume(far.volume_id, "far", NOW)
    rig.run(rig.ledger.queue_job(job.number, NOW, resume=True))
    assert all(pools == ["default", "far", "vault"] for pools in pools_of(rig, backup_set.set_id))
    assert rig.ledger.job(job.number).state is JobState.COMPLETED


def test_copies_go_on_with_another_drive(rig, tree):
    """The first has failed while it copied: the set is whole, and its job waits for the other to copy the rest."""
    job = rig.queued(tree, copy_pools=("vault",))

    def fail_late():
        (backup_set,) = rig.ledger.backup_sets()
        if backup_set.state is SetState.COMPLETE and rig.ledger.copies_on(vault.volume_id):
            raise DeviceFailed("hardware")

    vault = rig.ledger.volume_by_label("TP0003L9")
    rig.watcher.interrupt = fail_late
    with pytest.raises(NotVerified) as failure:
        rig.run(job)
    assert kind_of(failure.value) == "drive_failed"
    rig.watcher.interrupt = lambda: None
    moved = leave_drive(rig.home, rig.ledger, job.number, DriveMove(drive="drive0", reason="hardware", at_ns=NOW))
    assert (moved.state, moved.resume) == (JobState.QUEUED, True)
    set_id = rig.run(moved)
    assert set(map(tuple, pools_of(rig, set_id))) == {("default", "vault")}
    assert rig.ledger.job(job.number).state is JobState.COMPLETED


def test_a_copy_that_was_cancelled_goes_on_where_it_stood(rig, tree):
    job = rig.queued(tree, copy_pools=("vault",))

    def interrupt():
        (backup_set,) = rig.ledger.backup_sets()
        on_vault = rig.ledger.copies_on(rig.ledger.volume_by_label("TP0003L9").volume_id)
        if backup_set.state is SetState.COMPLETE and len(on_vault) == 1:
            raise Cancelled("enough")

    rig.watcher.interrupt = interrupt
    with pytest.raises(Cancelled, match="copied to pool vault"):
        rig.run(job)
    rig.watcher.interrupt = lambda: None
    rig.ledger.finish_job(job.number, JobState.CANCELLED, "", NOW)
    set_id = rig.run(rig.ledger.queue_job(job.number, NOW, resume=True))
    segments = len(rig.ledger.segments(set_id))
    assert segments > 1
    assert pools_of(rig, set_id) == [["default", "vault"]] * segments
    on_vault = rig.ledger.copies_on(rig.ledger.volume_by_label("TP0003L9").volume_id)
    assert len(on_vault) == segments, "nothing was copied twice"


def test_the_pool_of_the_copies_keeps_the_set(rig, tree):
    vault = next(pool for pool in rig.ledger.pools() if pool.name == "vault")
    kept = Pool(name="vault", retention=retention_rule("6 months"), created_at_ns=vault.created_at_ns)
    rig.ledger.put_pool(vault, kept, NOW)
    job = rig.queued(tree, copy_pools=("vault",), retention_days=1)
    first = rig.run(job)
    rig.again(job)
    made_ns = rig.ledger.backup_set(first).finished_at_ns
    days = {day: verdicts_of(rig.ledger, made_ns + day * 86_400 * 10**9)[0] for day in (2, 170, 190)}
    assert [days[day].goes for day in days] == [False, False, True]
    assert "pool vault (6 months) keeps it until" in days[2].reason
    assert "longer than its 1 day" in days[2].reason


def test_a_verified_job_reads_the_copies_back_too(rig, tree):
    set_id = rig.backup(tree, copy_pools=("vault",), verify=True)
    copies = [copy for each in rig.ledger.segments(set_id) for copy in rig.ledger.copies(each.segment_id)]
    assert len({copy.volume_id for copy in copies}) == 2
    assert all(copy.verified_at_ns for copy in copies)


def test_a_pool_with_tapes_is_not_forgotten(rig):
    with pytest.raises(Conflict, match="still used by tape TP0003L9"):
        rig.ledger.delete_pool("vault", NOW)
