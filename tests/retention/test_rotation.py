"""Weeks of nightly backups by the rules of a pool, on a virtual clock: which sets live, and which tapes are written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from catalog.ids import VolumeId
from catalog.pool_records import Pool
from catalog.records import SetState
from tapefs.errors import NoTape
from tapefs.retention.allocation import Source, Want, choose
from tapefs.retention.candidates import candidates_of
from tapefs.retention.expire import expire
from tapefs.retention.pools import Pools
from tapefs.retention.rules import allocation_rule, retention_rule
from tests.backup.rig import LocalWatcher, Rig, rigs

DAY_NS = 86_400 * 10**9
#: A Monday, one o'clock at night.
START = int(datetime(2026, 1, 5, 1, tzinfo=UTC).timestamp()) * 10**9


class PoolWatcher(LocalWatcher):
    """Chooses tapes as the sidecar does."""

    rig: Rig

    def next_volume(self, exclude: list[VolumeId], *, ejected: bool, pool: str = "") -> VolumeId:
        ledger = self.rig.ledger
        pools = Pools.of(self.rig.home, ledger)
        want = Want(pool=pools.get(pool or "nightly"), now_ns=time.time_ns(), exclude=exclude, zone=UTC)
        taken = choose(want, candidates_of(ledger, pools, want.now_ns, UTC)).taken
        if taken is None:
            raise NoTape("no tape with room is left")
        if taken.source is Source.SCRATCH:
            ledger.assign_volume(taken.volume.volume_id, want.pool.name, want.now_ns)
        if taken.source is Source.REUSED:
            self.anew.add(taken.volume.volume_id)
        if not ejected:
            self.rig.drive.unload()
        self._clear_drive()
        self._put_in(taken.volume)
        return taken.volume.volume_id


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    yield from rigs(tmp_path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Nanoseconds at which everything in this process believes to be."""
    now = [START]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    return now


def test_four_weeks_of_nights_and_one_on_four_tapes(make: Callable[..., Rig], tmp_path: Path, clock: list[int]) -> None:
    """A new tape each week, sets stay ten days, tapes rest three: when no blank one is left, the first begins anew.

    Of a week that began on a Monday the last set is made on Sunday and ends ten days later, on a Wednesday; its tape
    may be overwritten from that Saturday on. The last night is the first of the fifth week.
    """
    rig = make(tapes=4)
    rig.ledger.put_pool(None, Pool(name="scratch"), START)
    for volume in rig.ledger.volumes():
        rig.ledger.assign_volume(volume.volume_id, "scratch", START)
    rules = {"retention": retention_rule("10d"), "allocation": allocation_rule("per weekly")}
    rig.ledger.put_pool(None, Pool(name="nightly", reuse=True, reuse_grace_days=3, **rules), START)  # type: ignore[arg-type]
    rig.watcher.close()
    rig.watcher = watcher = PoolWatcher(rig.home, rig.ledger, rig.drive)
    watcher.rig = rig
    (tmp_path / "tree").mkdir()
    job = rig.queued(tmp_path / "tree", pool="nightly", retention_days=-1)
    labels = []
    for night in range(29):
        clock[0] = START + night * DAY_NS
        (tmp_path / "tree/file").write_bytes(bytes([night]) * 1000)
        set_id = rig.run(job) if night == 0 else rig.again(job)
        (label,) = rig.ledger.backup_set(set_id).tapes
        labels.append(label)
        expire(rig.home, rig.ledger, clock[0])
    weeks = [labels[first : first + 7] for first in range(0, 29, 7)]
    assert all(len(set(week)) == 1 for week in weeks), "a week is on one tape"
    assert [week[0] for week in weeks] == ["TP0001L9", "TP0002L9", "TP0003L9", "TP0004L9", "TP0001L9"]
    live = [each for each in rig.ledger.backup_sets() if each.state is SetState.COMPLETE]
    assert [each.number for each in live] == list(range(20, 30)), "ten days, and no others"
    again = rig.ledger.volume_by_label("TP0001L9")
    assert again.labelled_at_ns == START + 28 * DAY_NS
    assert {volume.pool for volume in rig.ledger.volumes()} == {"nightly"}
