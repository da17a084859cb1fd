"""When there is little room, and when the time of a tape is over; what the ledger's events mean."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from catalog.ledger import Ledger
from catalog.lmdb_ledger import LmdbLedger
from catalog.pool_records import Pool, RetentionKind, RetentionRule
from catalog.records import CopyState, JobState, VolumeState
from sidecar.bell import Bell
from sidecar.notices.events import Events
from sidecar.notices.following import Following
from sidecar.notices.watching import disk_states, expiry_states, pool_states
from tapefs.retention.pools import SCRATCH, Pools
from tests.catalog.builders import NOW, Stage, copy_of, end_of, labelled, staged, volume_of

DAY_NS = 86_400 * 10**9


def test_room_of_a_pool_counts_what_may_be_written() -> None:
    """Blank and begun tapes, those of scratch if the pool may; none that lie elsewhere or are suspect."""
    full = volume_of("T1", state=VolumeState.FULL, used_bytes=2 << 30)
    blank, scratch = volume_of("T2"), volume_of("S1", pool=SCRATCH)
    mine, alone = Pools([], "default"), Pools([Pool(name="default", use_scratch=False)], "default")
    assert list(pool_states(mine, [full, blank], 10)) == []
    (low,) = pool_states(mine, [full], 10)
    assert (low.kind, low.facts["free_bytes"]) == ("capacity.low", 0)
    assert list(pool_states(mine, [full, scratch], 10)) == []
    assert len(list(pool_states(alone, [full, scratch], 10))) == 1
    for useless in ({"location": "the bank"}, {"state": VolumeState.SUSPECT}):
        assert len(list(pool_states(mine, [full, volume_of("T2", **useless)], 10))) == 1
    assert list(pool_states(mine, [], 10)) == []


@pytest.mark.parametrize(("free", "count"), [(99, 1), (100, 0)])
def test_a_disk_that_is_nearly_full(free: int, count: int) -> None:
    assert len(list(disk_states(Path("/"), 10, lambda path: (1000, 1000 - free, free)))) == count


def test_a_tape_expires_by_the_months_of_its_pool() -> None:
    months = Pool(name="monthly", retention=RetentionRule(kind=RetentionKind.TAPE_MONTHS, count=6))
    pools = Pools([months], "default")
    used: dict[str, Any] = {"labelled_at_ns": NOW, "used_bytes": 1000}
    tape, other = volume_of("T1", pool="monthly", **used), volume_of("T2", **used)
    assert list(expiry_states(pools, [tape, other], NOW + 30 * DAY_NS)) == []
    (over,) = expiry_states(pools, [tape, other], NOW + 250 * DAY_NS)
    assert (over.kind, over.subject) == ("tape.expired", "T1")


async def told(ledger: Ledger) -> list[tuple[str, str]]:
    await Following(ledger, Events(ledger), Bell()).catch_up()
    return [(notice.kind, notice.text) for notice in ledger.notices_since(0)]


async def test_what_the_ledgers_events_mean(tmp_path: Path) -> None:
    with LmdbLedger.create(tmp_path / "ledger", NOW) as ledger:
        assert await told(ledger) == []
        stage: Stage = staged(ledger)
        volume = stage.volume
        ledger.fail_set(stage.backup_set.set_id, "no tape", NOW)
        ledger.finish_job(stage.job.number, JobState.FAILED, "no tape is left", NOW)
        ledger.mark_volume(volume.volume_id, VolumeState.SUSPECT, "it smokes")
        for segment in ledger.segments(stage.backup_set.set_id):
            ledger.mark_copy(segment.segment_id, volume.volume_id, CopyState.DAMAGED, NOW)
        first = await told(ledger)
        kinds = [kind for kind, _ in first]
        assert kinds.count("backup.failed") == 1
        assert next(text for kind, text in first if kind == "backup.failed").endswith("has failed: no tape is left")
        assert ("tape.error", f"Tape {volume.label} is not written any more: it smokes") in first
        assert await told(ledger) == first, "nothing twice"


async def test_a_damaged_copy_is_told_with_what_is_left(tmp_path: Path) -> None:
    """With a whole copy elsewhere readers are served; without one that is said."""
    with LmdbLedger.create(tmp_path / "ledger", NOW) as ledger:
        stage: Stage = staged(ledger)
        await told(ledger)
        segment = stage.commit(ledger, "segment 0", 0, 4, 2)
        second, claim = labelled(ledger, "T00002L9")
        ledger.commit_segment(segment, copy_of(segment, second, 4, 2), claim, end_of(10, 5), second.label)
        for volume_id in (stage.volume.volume_id, second.volume_id):
            for now_ns in (NOW, NOW + 1):
                ledger.mark_copy(segment.segment_id, volume_id, CopyState.DAMAGED, now_ns, wholly=False)
            await told(ledger)
        first, last = [text for kind, text in await told(ledger) if kind == "copy.damaged"]
        assert "Readers take it from T00002L9" not in last
        assert "No tape has a whole copy" in last
        # Both events were followed one by one.
        assert "Readers take it from T00002L9" in first


async def test_what_happened_before_notices_were_kept_is_not_told(tmp_path: Path) -> None:
    with LmdbLedger.create(tmp_path / "ledger", NOW) as ledger:
        staged(ledger)
        assert await told(ledger) == []
        assert ledger.followed_event() == ledger.newest_event()
