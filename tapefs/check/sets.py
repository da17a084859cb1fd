"""What the ledger says of sets, copies and tapes: is everything that is shown still on tape?"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from catalog.ids import SetId
from catalog.records import BackupSet, CopyState, SetState, VolumeState
from tapefs.check.finding import Finding, Scene, called

_REBUILD = "if a tape is missing in the ledger, `tapefs import` takes it in"


def check_sets(scene: Scene) -> Iterator[Finding]:
    """Every segment of every complete set has a copy that is not known to be damaged, and every base is there."""
    states = {each.set_id: each.state for each in scene.ledger.backup_sets()}
    for backup_set in scene.complete_sets():
        scene.progress(called(backup_set))
        yield from _base(backup_set, states)
        for segment in scene.ledger.segments(backup_set.set_id):
            copies = scene.ledger.copies(segment.segment_id)
            what = f"segment {segment.number}"
            if not copies:
                yield Finding("sets", called(backup_set), f"{what} is on no tape", _REBUILD)
            elif all(copy.state is CopyState.DAMAGED for copy in copies):
                tapes = ", ".join(scene.ledger.volume(copy.volume_id).label for copy in copies)
                advice = f"`tapefs report {backup_set.set_id[:8]}` and `tapefs verify` tell which files; back up again"
                yield Finding(
                    "sets", called(backup_set), f"{what} is damaged on every tape that has it: {tapes}", advice
                )


def _base(backup_set: BackupSet, states: dict[SetId, SetState]) -> Iterator[Finding]:
    parent = backup_set.parent_id
    if parent is not None and states.get(parent) is not SetState.COMPLETE:
        what = "is not in the ledger" if parent not in states else f"is {states[parent].value}"
        yield Finding("sets", called(backup_set), f"set {parent[:8]}, which it builds on, {what}", _REBUILD)


def check_tapes(scene: Scene) -> Iterator[Finding]:
    """No two structures lie in the same place of a tape, and no tape is set aside."""
    for volume in scene.ledger.volumes():
        scene.progress(f"tape {volume.label}")
        if volume.state is VolumeState.SUSPECT:
            advice = "read back what is on it (`tapefs verify`), and look at the drive; `tapefs tape show` tells more"
            yield Finding("tapes", f"tape {volume.label}", f"set aside: {volume.reason}", advice)
        copies = sorted(scene.ledger.copies_on(volume.volume_id), key=lambda copy: copy.header_block)
        for before, after in pairwise(copies):
            if after.header_block < before.end_block:
                problem = f"segments {before.segment_id} and {after.segment_id} overlap at block {after.header_block}"
                yield Finding("tapes", f"tape {volume.label}", problem, "read the tape back: `tapefs verify`")
