"""Tapes all of whose sets have expired are begun anew: relabelled under a new id, and written like blank ones."""

from __future__ import annotations

import os
import signal

import msgspec
import pytest

from catalog.ids import InstallationId, new_uuid
from catalog.pool_records import Pool
from catalog.records import JobState, VolumeState
from sidecar.jobs.going_on import finish
from tapefs.errors import NoTape, UsageError
from tapefs.retention.candidates import candidates_of, reuse_of
from tapefs.retention.expire import expire
from tapefs.retention.policy import Wish
from tapefs.retention.pools import Pools
from tests.backup.rig import Rig, rigs
from tests.forking.client import run

DAY_NS = 86_400 * 10**9


@pytest.fixture
def make(tmp_path):
    yield from rigs(tmp_path)


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(b"content" * 10_000)
    return tmp_path / "tree"


@pytest.fixture
def rig(make):
    """One tape, full, that holds one set."""
    return make(tapes=1)


def filled(rig, tree):
    """Make a set; its tape is full then."""
    set_id = rig.backup(tree)
    (volume,) = rig.ledger.volumes()
    rig.ledger.mark_volume(volume.volume_id, VolumeState.FULL)
    return set_id, volume


def let_go(rig, set_id):
    now_ns = rig.ledger.backup_set(set_id).finished_at_ns
    expire(rig.home, rig.ledger, now_ns, Wish(named=frozenset({set_id})))
    return now_ns


def test_a_tape_begins_anew(rig, tree):
    first, old = filled(rig, tree)
    let_go(rig, first)
    rig.watcher.anew = {old.volume_id}
    second = rig.backup(tree)
    (new,) = rig.ledger.volumes()
    assert new.label == old.label
    assert new.volume_id != old.volume_id
    assert (new.state, new.end_block > 0) == (VolumeState.APPENDABLE, True)
    assert new.labelled_at_ns > old.labelled_at_ns
    assert rig.ledger.backup_set(second).tapes == (new.label,)
    assert rig.ledger.backup_set(first).tapes == (), "nothing of it lies there any more"
    assert [copy.segment_id for copy in rig.ledger.copies_on(new.volume_id)] == [
        segment.segment_id for segment in rig.ledger.segments(second)
    ]
    rig.backup(tree, verify=True, name="third")


@pytest.mark.log_warnings
def test_a_tape_with_a_set_that_lives_is_passed_over_as_it_is(rig, tree):
    """Whatever the sidecar said: the ledger is asked once more before anything is written."""
    first, old = filled(rig, tree)
    rig.watcher.anew = {old.volume_id}
    job = rig.queued(tree)
    with pytest.raises(NoTape):
        rig.run(job)
    (volume,) = rig.ledger.volumes()
    assert (volume.volume_id, volume.state, volume.reason) == (old.volume_id, VolumeState.FULL, "")
    assert len(rig.ledger.copies_on(old.volume_id)) == len(rig.ledger.segments(first))
    assert rig.ledger.job(job.number).state is JobState.RUNNING


@pytest.mark.parametrize(
    "point",
    [
        "tape.give_up.claimed",
        "tape.give_up.after",
        "tape.label.after",
        "ledger.label_volume.after",
        "segment.intent.after",
    ],
)
def test_killed_while_a_tape_begins_anew(rig, tree, point):
    """The next backup has the tape: as it was, given up, half labelled, or begun."""
    first, old = filled(rig, tree)
    let_go(rig, first)
    rig.close()
    environment = {**os.environ, "TAPEFS_CRASH_AT": point}
    ended = run("-m", "tests.backup.crash_child", rig.home.path, tree, "anew", env=environment, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    rig.open()
    (volume,) = rig.ledger.volumes()
    assert (volume.volume_id == old.volume_id) == (point == "tape.give_up.claimed")
    killed = rig.ledger.backup_sets()[-1]
    finish(rig.home, rig.ledger, killed.job_number, JobState.FAILED, "killed", killed.started_at_ns)
    rig.watcher.anew = {volume.volume_id} if volume.state is VolumeState.FULL else set()
    rig.backup(tree, name="next", verify=True)
    (now,) = rig.ledger.volumes()
    assert now.label == old.label
    assert now.volume_id != old.volume_id
    assert rig.ledger.verify() == []


@pytest.mark.parametrize(("reuse", "days", "may"), [(True, 7, True), (True, 6.9, False), (False, 700, False)])
def test_only_by_the_rules_of_the_pool(rig, tree, reuse, days, may):
    first, _ = filled(rig, tree)
    expired_ns = let_go(rig, first)
    rig.ledger.put_pool(None, Pool(name="default", reuse=reuse), expired_ns)
    now_ns = expired_ns + int(days * DAY_NS)
    (candidate,) = candidates_of(rig.ledger, Pools.of(rig.home, rig.ledger), now_ns)
    assert candidate.reuse is not None
    assert candidate.reuse.may is may


@pytest.mark.log_warnings
def test_a_tape_that_cannot_take_its_new_label_is_passed_over(make, tree, monkeypatch):
    """Its new record is the one that is set aside, and the run goes on with the next tape."""
    rig = make(tapes=2)
    first = rig.backup(tree)
    old = next(each for each in rig.ledger.volumes() if each.end_block)
    let_go(rig, first)
    rig.close()
    monkeypatch.setenv("TAPEFS_FAULTS", '[{"kind": "write_error", "block": 0}]')
    rig.open()
    offered = rig.watcher.next_volume
    rig.watcher.anew = {old.volume_id}

    def old_one_first(exclude, *, ejected, pool=""):
        if old.volume_id in exclude:
            return offered(exclude, ejected=ejected, pool=pool)
        rig.watcher.put_in(old.label)
        return old.volume_id

    monkeypatch.setattr(rig.watcher, "next_volume", old_one_first)
    second = rig.backup(tree)
    assert old.label not in rig.ledger.backup_set(second).tapes
    renewed = rig.ledger.volume_by_label(old.label)
    assert renewed.volume_id != old.volume_id
    assert renewed.state is VolumeState.SUSPECT


def test_a_key_that_is_not_here_is_no_fault_of_the_tapes(rig, tree):
    """The job fails and says which key; the tape stays as it is, and is not suspected."""
    first, old = filled(rig, tree)
    let_go(rig, first)
    rig.watcher.anew = {old.volume_id}
    toml = rig.home.path / "tapefs.toml"
    toml.write_text(toml.read_text() + '\n[encryption]\nkey = "nowhere"\n')
    path = rig.home.path
    rig.close()
    again = Rig.existing(path)
    again.watcher.anew = {old.volume_id}
    with pytest.raises(UsageError, match="nowhere"):
        again.backup(tree)
    (volume,) = again.ledger.volumes()
    assert (volume.volume_id, volume.state, volume.reason) == (old.volume_id, VolumeState.FULL, "")
    again.close()
    rig.open()


def test_a_tape_of_another_installation_is_not_begun_anew(rig, tree):
    """It was imported, and all that this catalog knows of it has expired; its owner may count on it still."""
    first, old = filled(rig, tree)
    now_ns = let_go(rig, first) + 30 * DAY_NS
    rig.ledger.put_pool(None, Pool(name="default", reuse=True), now_ns)
    theirs = msgspec.structs.replace(old, installation_id=InstallationId(new_uuid()))
    (set_then,) = rig.ledger.backup_sets()
    pools = Pools.of(rig.home, rig.ledger)
    assert reuse_of(rig.ledger, pools, old, [set_then], now_ns).may
    assert not reuse_of(rig.ledger, pools, theirs, [set_then], now_ns).may
