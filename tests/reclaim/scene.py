"""A full tape of which little lives: a full set and an increment stay, and sets that have expired lie between."""

from __future__ import annotations

import time
from pathlib import Path

from catalog.ids import SetId, VolumeId
from catalog.records import CopyState
from tapefs.reclaim.run import Reclaimed, reclaim_tape
from tests.backup.rig import Rig
from tests.backup.trees import random_files

SETTINGS = "segment_bytes = 1048576"


def almost_empty(rig: Rig, folder: Path) -> list[SetId]:
    """Fill the first tape; return the sets that live: a full one of several segments, and two that build on it."""
    expired = [rig.backup(random_files(folder / f"old-{each}", 4, 300_000, seed=each), name="old") for each in range(2)]
    tree = random_files(folder / "tree", 8, 300_000, seed=7)
    job = rig.queued(tree, name="kept")
    kept = [rig.run(job)]
    random_files(tree / "more", 5, 300_000, seed=8)
    kept.append(rig.again(job, type="incremental"))
    kept.append(rig.again(job, type="incremental"))
    for each in expired:
        rig.ledger.expire_set(each, time.time_ns())
    assert len(rig.ledger.segments(kept[0])) > 2
    assert {rig.ledger.backup_set(each).tapes for each in kept} == {("TP0001L9",)}
    return kept


def first_tape(rig: Rig) -> VolumeId:
    return rig.ledger.volume_by_label("TP0001L9").volume_id


def reclaim(rig: Rig, tape: VolumeId | None = None) -> Reclaimed:
    """Reclaim the first tape, or another."""
    return reclaim_tape(rig.home, rig.ledger, rig.drive, tape or first_tape(rig), lambda _: rig.watcher)


def check_gone(rig: Rig, kept: list[SetId], tape: VolumeId, *, copies: int = 1) -> None:
    """Nothing lives on the tape, and all of the sets lies elsewhere, read back and as often as before."""
    assert rig.ledger.live_sets(tape) == []
    for set_id in kept:
        for segment in rig.ledger.segments(set_id):
            found = rig.ledger.copies(segment.segment_id)
            assert len(found) == copies
            assert all(copy.volume_id != tape for copy in found)
            assert any(copy.state is CopyState.GOOD and copy.verified_at_ns for copy in found)
        assert len(rig.ledger.index_copies(set_id)) >= copies
        assert rig.ledger.volume(tape).label not in rig.ledger.backup_set(set_id).tapes
    assert rig.ledger.verify() == []


def lost_at(rig: Rig, kept: list[SetId]) -> list[str]:
    """Name segments of which the ledger knows no copy."""
    segments = [segment for each in kept for segment in rig.ledger.segments(each)]
    return [segment.segment_id for segment in segments if not rig.ledger.copies(segment.segment_id)]
