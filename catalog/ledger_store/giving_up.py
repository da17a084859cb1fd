"""Giving up what lies on a tape, and tapes: functions of a transaction (see `catalog.ledger`).

A tape that is relabelled or erased gets a new record in place of its old one, before anything happens to the tape: from
then on nothing refers to what lies there, and who still holds a claim on the old one cannot commit to it.
"""

from __future__ import annotations

import re
from collections.abc import Set

import msgspec

from catalog.errors import Conflict
from catalog.ids import SegmentId, SetId, VolumeId
from catalog.ledger_store import damaged_segments, segments, sets, volumes
from catalog.ledger_store.appending import intents_on
from catalog.ledger_store.jobs import is_active_with
from catalog.ledger_store.tables import (
    COPIES,
    COPIES_BY_VOLUME,
    COUNTERS,
    INDEX_COPIES,
    INTENTS,
    NAME_COUNTER,
    SETS,
    VOLUME_LABELS,
    VOLUMES,
    copy_by_volume_key,
    copy_key,
    parts,
    text_key,
)
from catalog.ledger_store.transaction import Reader, Writer
from catalog.records import BackupSet, CopyState, SetState, Volume, VolumeState

#: A name that was counted: its stem and its number.
_COUNTED = re.compile(r"(.*?[^0-9][0-9]{6})([0-9]{2,9})")


def live_sets(tx: Reader, volume_id: VolumeId) -> list[BackupSet]:
    """Return the sets that have not expired and have something on the tape, or are about to; by number."""
    found = {segments.get(tx, copy.segment_id).set_id for copy in segments.copies_on(tx, volume_id)}
    found |= {index.set_id for _, index in tx.scan(INDEX_COPIES) if index.volume_id == volume_id}
    live = [each for set_id in found if (each := sets.get(tx, set_id)).state is not SetState.EXPIRED]
    for intent in intents_on(tx, volume_id):
        if intent.set_id is not None and intent.set_id not in found:
            writing = tx.find(SETS, text_key(intent.set_id))
            if writing is not None and writing.state is SetState.RUNNING:
                live.append(writing)
    return sorted({each.set_id: each for each in live}.values(), key=lambda each: each.number)


def lost_sets(tx: Reader, volume_id: VolumeId) -> list[BackupSet]:
    """Return the live sets of which no other tape has a whole copy of some segment; by number."""
    alone = set()
    for copy in segments.copies_on(tx, volume_id):
        others = [each for each in segments.copies(tx, copy.segment_id) if each.volume_id != volume_id]
        if all(each.state is CopyState.DAMAGED for each in others):
            alone.add(segments.get(tx, copy.segment_id).set_id)
    return [each for each in live_sets(tx, volume_id) if each.set_id in alone]


def renew(tx: Writer, volume_id: VolumeId, token: int, new: Volume, now_ns: int) -> None:
    """Put the BLANK record `new` in place of a tape's; copies of expired sets on it are forgotten.

    The same again is harmless. Raises NotFound, StaleClaim; Conflict when a live set has anything on it, or another
    tape has that label or barcode; ValueError when `new` is not BLANK.
    """
    if new.state is not VolumeState.BLANK or new.end_block or new.volume_id == volume_id:
        raise ValueError("a tape begins anew as blank, with an id of its own")
    known = tx.find(VOLUMES, text_key(new.volume_id))
    if known is not None and tx.find(VOLUMES, text_key(volume_id)) is None:
        return
    old = volumes.claimed(tx, volume_id, token)
    if live := live_sets(tx, volume_id):
        raise Conflict(f"tape {old.label} holds {_named(live)}: what lives is never given up")
    _drop(tx, old)
    volumes.add(tx, new)
    _count_name(tx, new.label)
    tx.tell("volume.renewed", new.volume_id, f"{new.label}, was {volume_id}", now_ns)


def forget(tx: Writer, volume_id: VolumeId, token: int, losing: Set[SetId], now_ns: int) -> None:
    """Forget a tape and all that lies on it. Idempotent.

    A set that loses its only copy of something must be in `losing`: COMPLETE ones stay, with what is left of them;
    FAILED ones become EXPIRED. Raises StaleClaim; Conflict when another set would lose something, or one is written.
    """
    if tx.find(VOLUMES, text_key(volume_id)) is None:
        return
    old = volumes.claimed(tx, volume_id, token)
    busy = [each for each in live_sets(tx, volume_id) if each.state in (SetState.RUNNING, SetState.SEALED)]
    if busy:
        raise Conflict(f"tape {old.label} stays: {_named(busy)} is being written")
    lost = lost_sets(tx, volume_id)
    if unnamed := [each for each in lost if each.set_id not in losing]:
        raise Conflict(f"tape {old.label} stays: it has all that there is of {_named(unnamed)}")
    if going_on := [each for each in lost if is_active_with(tx, each)]:
        raise Conflict(f"tape {old.label} stays: a job goes on with {_named(going_on)}")
    let_go(tx, old, now_ns)


def let_go(tx: Writer, old: Volume, now_ns: int) -> None:
    """Forget a tape and all that lies on it; a FAILED set that loses its only copy of something expires."""
    lost = lost_sets(tx, old.volume_id)
    _drop(tx, old)
    for each in lost:
        if each.state is SetState.FAILED:
            sets.give_up(tx, each.set_id, now_ns)
    tx.tell("volume.forgotten", old.volume_id, old.label, now_ns)


def settle(tx: Writer, volume_id: VolumeId, token: int) -> None:
    """Note that nothing lies on a BLANK tape any more that its label may be written over. Idempotent.

    Raises NotFound, StaleClaim.
    """
    volume = volumes.claimed(tx, volume_id, token)
    if volume.overwrites:
        tx.put(VOLUMES, text_key(volume_id), msgspec.structs.replace(volume, overwrites=""))
        tx.tell("volume.erased", volume_id, volume.label)


def newest_number(tx: Reader, stem: str) -> int:
    """Return the highest number of a tape's name that is `stem` and at least two digits; 0: there was none yet."""
    names = [name for _, volume in tx.scan(VOLUMES) for name in (volume.label, volume.barcode)]
    found = [match for name in names if (match := _COUNTED.fullmatch(name)) is not None]
    return max([_given(tx, stem), *(int(match[2]) for match in found if match[1] == stem)])


def _given(tx: Reader, stem: str) -> int:
    return tx.find(COUNTERS, NAME_COUNTER + text_key(stem)) or 0


def _count_name(tx: Writer, label: str) -> None:
    """Remember a counted name: one whose tape is forgotten is not given out again."""
    match = _COUNTED.fullmatch(label)
    if match is not None and int(match[2]) > _given(tx, match[1]):
        tx.put(COUNTERS, NAME_COUNTER + text_key(match[1]), int(match[2]))


def _drop(tx: Writer, volume: Volume) -> None:
    """Forget a tape with its intents, copies and indexes, and that sets lie on it."""
    touched = set()
    for copy in segments.copies_on(tx, volume.volume_id):
        touched.add(segments.get(tx, copy.segment_id).set_id)
        tx.delete(COPIES, copy_key(SegmentId(copy.segment_id), volume.volume_id))
        tx.delete(COPIES_BY_VOLUME, copy_by_volume_key(volume.volume_id, copy.header_block))
        damaged_segments.note(tx, copy.segment_id)
    for key, index in list(tx.scan(INDEX_COPIES)):
        if index.volume_id == volume.volume_id:
            touched.add(index.set_id)
            tx.delete(INDEX_COPIES, key)
    for key, _ in list(tx.scan(INTENTS, parts(volume.volume_id))):
        tx.delete(INTENTS, key)
    for set_id in touched:
        sets.leave_tape(tx, set_id, volume.label)
    tx.delete(VOLUME_LABELS, text_key(volume.label))
    tx.delete(VOLUMES, text_key(volume.volume_id))


def _named(found: list[BackupSet]) -> str:
    return ", ".join(f"set {each.number} ({each.name}, {each.state.value})" for each in found)
