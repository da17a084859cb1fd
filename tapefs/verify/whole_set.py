"""All copies of a set's segments, tape by tape, each tape put in anew. Runs in a mover, in the drive's thread.

What was read back since the set was completed is not read again, so a verification that was interrupted goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

from catalog.ids import SetId, VolumeId
from catalog.ledger import Ledger
from catalog.records import BackupSet, CopyState, SegmentCopy
from drivers.interface import Drive
from tapefs.home import Home
from tapefs.tape.again import load_known, or_once_more
from tapefs.verify.copy import VerifyWatcher, verify_copy


class SetVerifyWatcher(VerifyWatcher, Protocol):
    """Who follows the verification of a set, and puts tapes in."""

    def this_volume(self, volume_id: VolumeId) -> None:
        """Have the tape put into the drive anew, not yet threaded. Raises NoTape, Cancelled, drive errors."""
        ...


@dataclass(frozen=True, slots=True)
class SetFinding:
    """What reading a set back has found."""

    #: Copies of segments in all, and those that are damaged.
    copies: int
    damaged: list[SegmentCopy]

    @property
    def is_good(self) -> bool:
        """Is every copy as it was written?"""
        return not self.damaged


def verify_set(home: Home, ledger: Ledger, drive: Drive, set_id: SetId, watcher: SetVerifyWatcher) -> SetFinding:
    """Read back all copies of a COMPLETE set. Raises as `verify_copy` and `this_volume`; what was read stays known."""
    backup_set = ledger.backup_set(set_id)
    for volume_id, copies in _by_tape(ledger, set_id).items():
        due = [copy for copy in copies if not _is_done(copy, backup_set)]
        if not due:
            continue
        watcher.this_volume(volume_id)
        volume = ledger.volume(volume_id)
        or_once_more(drive, volume, partial(load_known, drive, volume))
        for copy in due:
            or_once_more(drive, volume, partial(verify_copy, home, ledger, drive, copy, watcher))
    found = [copy for copies in _by_tape(ledger, set_id).values() for copy in copies]
    return SetFinding(len(found), [copy for copy in found if copy.state is CopyState.DAMAGED])


def _is_done(copy: SegmentCopy, backup_set: BackupSet) -> bool:
    return copy.verified_at_ns > backup_set.finished_at_ns


def _by_tape(ledger: Ledger, set_id: SetId) -> dict[VolumeId, list[SegmentCopy]]:
    """Return the copies by tape, the tapes as they were written, and each tape's copies in tape order."""
    tapes: dict[VolumeId, list[SegmentCopy]] = {}
    for segment in ledger.segments(set_id):
        for copy in ledger.copies(segment.segment_id):
            tapes.setdefault(copy.volume_id, []).append(copy)
    return {volume_id: sorted(copies, key=_block) for volume_id, copies in tapes.items()}


def _block(copy: SegmentCopy) -> int:
    return copy.header_block
