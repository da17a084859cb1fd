"""Operations on segments and their copies: functions of a transaction (see `catalog.ledger`)."""

from __future__ import annotations

import msgspec

from catalog.errors import Conflict, NotFound
from catalog.ids import SegmentId, SetId, VolumeId
from catalog.ledger_store import appending, damaged_segments, sets, volumes
from catalog.ledger_store.tables import (
    COPIES,
    COPIES_BY_VOLUME,
    SEGMENTS,
    SEGMENTS_BY_SET,
    copy_by_volume_key,
    copy_key,
    parts,
    segment_by_set_key,
    text_key,
)
from catalog.ledger_store.transaction import Reader, Writer
from catalog.records import BackupSet, CopyState, Segment, SegmentCopy, Volume, VolumeEnd


def get(tx: Reader, segment_id: SegmentId) -> Segment:
    """Return a segment. Raises NotFound."""
    segment = tx.find(SEGMENTS, text_key(segment_id))
    if segment is None:
        raise NotFound(f"there is no segment {segment_id}")
    return segment


def of_set(tx: Reader, set_id: SetId) -> list[Segment]:
    """Return the set's segments, by number."""
    return [
        tx.follow(SEGMENTS, text_key(segment_id), f"set {set_id}")
        for _, segment_id in tx.scan(SEGMENTS_BY_SET, parts(set_id))
    ]


def copies(tx: Reader, segment_id: SegmentId) -> list[SegmentCopy]:
    """Return where the segment lies."""
    return [copy for _, copy in tx.scan(COPIES, parts(segment_id))]


def copies_on(tx: Reader, volume_id: VolumeId) -> list[SegmentCopy]:
    """Return what lies on a tape, in tape order."""
    return [
        tx.follow(COPIES, copy_key(SegmentId(segment_id), volume_id), f"tape {volume_id}")
        for _, segment_id in tx.scan(COPIES_BY_VOLUME, parts(volume_id))
    ]


def commit(tx: Writer, segment: Segment, copy: SegmentCopy, token: int, end: VolumeEnd, label: str) -> None:
    """Record a segment on a tape; the same again is harmless.

    Raises NotFound, StaleClaim, Conflict, ValueError when `copy` is of another segment.
    """
    if copy.segment_id != segment.segment_id:
        raise ValueError(f"the copy is of segment {copy.segment_id}, not {segment.segment_id}")
    if _is_committed(tx, segment, copy):
        return
    volume = volumes.claimed(tx, copy.volume_id, token)
    _check_blocks(copy, volume, end)
    backup_set = sets.get(tx, segment.set_id)
    new = _record(tx, segment, backup_set)
    tx.insert(COPIES, copy_key(copy.segment_id, copy.volume_id), copy)
    tx.insert(COPIES_BY_VOLUME, copy_by_volume_key(copy.volume_id, copy.header_block), copy.segment_id)
    damaged_segments.note(tx, copy.segment_id)
    appending.move_end(tx, volume, end, segment.committed_at_ns)
    sets.count_segment(tx, backup_set, label, new_segments=int(new))
    tx.tell("segment.committed", segment.segment_id, label, segment.committed_at_ns)


def mark_copy(
    tx: Writer, segment_id: SegmentId, volume_id: VolumeId, state: CopyState, now_ns: int, *, wholly: bool = True
) -> None:
    """Record what reading a copy has found; it was not read back if not `wholly`. Raises NotFound."""
    key = copy_key(segment_id, volume_id)
    known = tx.find(COPIES, key)
    if known is None:
        raise NotFound(f"there is no copy of segment {segment_id} on tape {volume_id}")
    verified_at_ns = now_ns if wholly else known.verified_at_ns
    marked = msgspec.structs.replace(known, verified_at_ns=verified_at_ns, state=state)
    if marked != known:
        tx.put(COPIES, key, marked)
        damaged_segments.note(tx, segment_id)
        tx.tell(f"copy.{state.value}", segment_id, volume_id, now_ns)


def _is_committed(tx: Reader, segment: Segment, copy: SegmentCopy) -> bool:
    """Has this very commit been done? Raises Conflict when the tape holds the segment otherwise."""
    known = tx.find(COPIES, copy_key(copy.segment_id, copy.volume_id))
    if known is None:
        return False
    check_same(tx.follow(SEGMENTS, text_key(segment.segment_id), "a copy"), segment)
    if msgspec.structs.replace(known, verified_at_ns=copy.verified_at_ns, state=copy.state) != copy:
        raise Conflict(
            f"segment {segment.segment_id} lies on tape {copy.volume_id} already, at block {known.header_block}"
        )
    return True


def check_same(known: Segment, segment: Segment) -> None:
    """Raise Conflict unless the records say the same of a segment."""
    if known != msgspec.structs.replace(segment, committed_at_ns=known.committed_at_ns):
        raise Conflict(f"segment {segment.segment_id} is recorded already, with other content")


def _check_blocks(copy: SegmentCopy, volume: Volume, end: VolumeEnd) -> None:
    places = (
        volume.end_block,
        copy.header_block,
        copy.payload_block,
        copy.trailer_block,
        copy.end_block,
        end.block,
    )
    if list(places) != sorted(places) or copy.header_block == copy.end_block:
        raise Conflict(
            f"segment {copy.segment_id} in blocks {copy.header_block} to {copy.end_block} does not fit tape "
            f"{volume.label}, whose data ended at block {volume.end_block} and is to end at block {end.block}"
        )


def _record(tx: Writer, segment: Segment, backup_set: BackupSet) -> bool:
    """Record the segment and return True, or False when it is there already, with a copy elsewhere. Raises Conflict."""
    known = tx.find(SEGMENTS, text_key(segment.segment_id))
    if known is not None:
        check_same(known, segment)
        return False
    if backup_set.state not in sets.OPEN_STATES:
        raise Conflict(f"set {backup_set.set_id} is {backup_set.state.value}: it cannot gain a segment")
    key = segment_by_set_key(segment.set_id, segment.number)
    holder = tx.find(SEGMENTS_BY_SET, key)
    if holder is not None:
        raise Conflict(f"number {segment.number} of set {segment.set_id} is segment {holder} already")
    tx.insert(SEGMENTS, text_key(segment.segment_id), segment)
    tx.insert(SEGMENTS_BY_SET, key, segment.segment_id)
    return True
