"""A set leaves a tape that other tapes have taken the place of: functions of a transaction (see `catalog.ledger`).

What is forgotten here is the only way to data that live, so each record that goes must have another one that was made
to replace it. That there are other copies is not enough: a set may be wanted on two tapes.
"""

from __future__ import annotations

import msgspec

from catalog.errors import Conflict
from catalog.ids import SetId, VolumeId
from catalog.ledger_store import damaged_segments, segments, sets, volumes
from catalog.ledger_store.tables import (
    COPIES,
    COPIES_BY_VOLUME,
    INDEX_COPIES,
    VOLUMES,
    copy_by_volume_key,
    copy_key,
    index_copy_key,
    text_key,
)
from catalog.ledger_store.transaction import Reader, Writer
from catalog.records import CopyState, IndexCopy, SegmentCopy, SetState, Volume, VolumeState


def leave(tx: Writer, set_id: SetId, volume_id: VolumeId, now_ns: int) -> None:
    """Forget what the set has on the tape, all of it being elsewhere; harmless when nothing is.

    Raises NotFound; Conflict when something of it was not replaced, and unless the set is COMPLETE.
    """
    backup_set, volume = sets.get(tx, set_id), volumes.get(tx, volume_id)
    of_set = (copy for each in segments.of_set(tx, set_id) for copy in segments.copies(tx, each.segment_id))
    copies = [copy for copy in of_set if copy.volume_id == volume_id]
    indexes = [index for index in sets.index_copies(tx, set_id) if index.volume_id == volume_id]
    if not copies and not indexes and volume.label not in backup_set.tapes:
        return
    if backup_set.state is not SetState.COMPLETE:
        raise Conflict(f"set {set_id} stays on tape {volume.label}: it is {backup_set.state.value}")
    for copy in copies:
        _check_replaced(tx, copy, volume)
    if indexes and not any(_stands_for(tx, each, volume_id) for each in sets.index_copies(tx, set_id)):
        raise Conflict(
            f"set {set_id} stays on tape {volume.label}: no other tape has an index in place of the one there"
        )
    for copy in copies:
        tx.delete(COPIES, copy_key(copy.segment_id, volume_id))
        tx.delete(COPIES_BY_VOLUME, copy_by_volume_key(volume_id, copy.header_block))
        damaged_segments.note(tx, copy.segment_id)
    for index in indexes:
        tx.delete(INDEX_COPIES, index_copy_key(set_id, index.index_id, volume_id))
    sets.leave_tape(tx, set_id, volume.label)
    tx.put(VOLUMES, text_key(volume_id), msgspec.structs.replace(volume, left_at_ns=now_ns))
    tx.tell("set.left", set_id, volume.label, now_ns)


def _check_replaced(tx: Reader, copy: SegmentCopy, volume: Volume) -> None:
    for other in segments.copies(tx, copy.segment_id):
        is_whole = other.state is CopyState.GOOD and other.verified_at_ns
        if is_whole and _stands_for(tx, other, volume.volume_id):
            return
    raise Conflict(
        f"segment {copy.segment_id} stays on tape {volume.label}: no copy that was read back is in its place elsewhere"
    )


def _stands_for(tx: Reader, other: SegmentCopy | IndexCopy, volume_id: VolumeId) -> bool:
    """Was it made to replace what lies on that tape, and is its own tape to be trusted?"""
    if other.replaces != volume_id or other.volume_id == volume_id:
        return False
    return volumes.get(tx, other.volume_id).state is not VolumeState.SUSPECT
