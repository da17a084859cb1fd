"""Complete sets in a ledger without a tape: for tests of the sidecar, and what the scripted mover 'writes'."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from catalog.ids import BlockNo, SegmentId, SetId, VolumeId, new_uuid
from catalog.ledger import Ledger
from catalog.records import BackupSet, Intent, IntentKind, Job, Segment, SetState, SetTotals, VolumeState
from tests.catalog.builders import copy_of, end_of, index_of, set_of

FRAME_BYTES = 4096
FRAMES = 8
SEGMENTS = 2
#: Of each segment: blocks of its payload, and from its trailer to the next segment.
LAYOUT = ((2, 2),) * SEGMENTS


def begin(ledger: Ledger, job: Job, now_ns: int) -> BackupSet:
    """The QUEUED job becomes RUNNING with a new set."""
    return ledger.begin_set(set_of("any", job, set_id=SetId(new_uuid()), started_at_ns=now_ns))


def write(
    ledger: Ledger,
    backup_set: BackupSet,
    volume_id: VolumeId,
    now_ns: int,
    frames: int = FRAMES,
    layout: Sequence[tuple[int, int]] = LAYOUT,
) -> None:
    """Commit segments and the index: the set becomes SEALED."""
    claim = ledger.claim_volume(volume_id)
    if ledger.volume(volume_id).state is VolumeState.BLANK:
        _open(ledger, backup_set, volume_id, claim, str(volume_id), IntentKind.LABEL)
        ledger.label_volume(volume_id, claim, end_of(4, 2), now_ns)
    for number, blocks in enumerate(layout):
        _commit(ledger, backup_set, volume_id, claim, number, frames, blocks)
    volume = ledger.volume(volume_id)
    index = index_of(new_uuid(), backup_set, volume, volume.end_block, volume.end_file)
    _open(ledger, backup_set, volume_id, claim, index.index_id, IntentKind.INDEX)
    totals = SetTotals(files=5, directories=1, bytes=80_000, stored_bytes=20_000, troubled_files=0)
    end = end_of(index.end_block, volume.end_file + 1)
    ledger.seal_set(backup_set.set_id, totals, index, claim, end, now_ns)


def complete_all(ledger: Ledger, now_ns: int) -> None:
    """What FinishSets does."""
    for backup_set in ledger.backup_sets():
        if backup_set.state is SetState.SEALED:
            ledger.complete_set(backup_set.set_id, now_ns)


def _commit(
    ledger: Ledger,
    backup_set: BackupSet,
    volume_id: VolumeId,
    claim: int,
    number: int,
    frames: int,
    blocks: tuple[int, int],
) -> None:
    volume = ledger.volume(volume_id)
    segment = Segment(
        segment_id=SegmentId(new_uuid()),
        set_id=backup_set.set_id,
        number=number,
        codec="zstd",
        plain_bytes=frames * FRAME_BYTES,
        stored_bytes=10_000,
        members=3,
        frames=frames,
        payload_sha256=bytes(32),
        committed_at_ns=1,
    )
    _open(ledger, backup_set, volume_id, claim, segment.segment_id, IntentKind.SEGMENT)
    copy = copy_of(segment, volume, volume.end_block, volume.end_file)
    trailer = BlockNo(copy.payload_block + blocks[0])
    copy = replace(copy, trailer_block=trailer, end_block=BlockNo(trailer + blocks[1]))
    end = end_of(copy.end_block, volume.end_file + 3)
    ledger.commit_segment(segment, copy, claim, end, volume.label)


def _open(
    ledger: Ledger, backup_set: BackupSet, volume_id: VolumeId, claim: int, structure: str, kind: IntentKind
) -> None:
    intent = Intent(
        structure_id=structure,
        kind=kind,
        volume_id=volume_id,
        block=BlockNo(ledger.volume(volume_id).end_block),
        set_id=None if kind is IntentKind.LABEL else backup_set.set_id,
        opened_at_ns=1,
    )
    ledger.open_intent(intent, claim)
