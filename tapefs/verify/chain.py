"""Is what a set builds on still to be had? Blocking; any thread."""

from __future__ import annotations

from catalog.ids import SegmentId
from catalog.ledger import Ledger
from catalog.records import BackupSet, CopyState, SegmentCopy
from tapefs.home import Home
from tapefs.verify.damage import read_damage


def lost_segment(home: Home, ledger: Ledger, backup_set: BackupSet) -> SegmentId | None:
    """Return a segment of the set, or of one below it, that has no copy without lost content; None: there is none.

    A set that builds on it would show files that nobody can read. Raises catalog errors.
    """
    here: BackupSet | None = backup_set
    while here is not None:
        for segment in ledger.segments(here.set_id):
            copies = ledger.copies(segment.segment_id)
            if all(_has_lost_content(home, copy) for copy in copies):
                return segment.segment_id
        here = ledger.backup_set(here.parent_id) if here.parent_id is not None else None
    return None


def _has_lost_content(home: Home, copy: SegmentCopy) -> bool:
    """Without a damage file that can be read, and without any word on the payload, it is supposed to be lost."""
    if copy.state is not CopyState.DAMAGED:
        return False
    try:
        read = read_damage(home.damage(copy.segment_id, copy.volume_id))
    except (ValueError, OSError):
        return True
    if read is None:
        return True
    damage, paths = read
    paths.close()
    return bool(damage.frames) or any(problem.startswith("PAYLOAD") for problem in damage.problems)
