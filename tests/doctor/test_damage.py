"""Damage that somebody has met."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from catalog.ids import SegmentNo
from catalog.index.reader import IndexReader
from catalog.records import CopyState, SegmentCopy
from tapefs.doctor.damage import look_at_damage
from tapefs.verify.noting import note_frames
from tests.backup.rig import Rig
from tests.backup.trees import random_files


def test_what_is_whole_nowhere_is_told(tmp_path: Path) -> None:
    """A copy that is good again is told no more, nor is what has expired."""
    rig = Rig(tmp_path, tapes=1)
    try:
        set_id = rig.backup(random_files(tmp_path / "tree", 3, 1000))
        assert list(look_at_damage(rig.home)) == []
        (segment,) = rig.ledger.segments(set_id)
        copy: SegmentCopy = rig.ledger.copies(segment.segment_id)[0]
        with closing(IndexReader(rig.home.index(set_id))) as reader:
            rows = [frame.row for frame in reader.frames(SegmentNo(0))]
        note_frames(rig.home, rig.ledger, copy, rows, [0], "the block is unreadable")
        (finding,) = look_at_damage(rig.home)
        assert finding.says.startswith(f"no tape has all of 1 segment of set {set_id[:8]} (")
        rig.ledger.mark_copy(copy.segment_id, copy.volume_id, CopyState.GOOD, time.time_ns())
        assert list(look_at_damage(rig.home)) == []
    finally:
        rig.close()
