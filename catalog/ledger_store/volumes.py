"""Operations on tapes: functions of a transaction (see `catalog.ledger`)."""

from __future__ import annotations

import msgspec

from catalog.errors import Conflict, NotFound, StaleClaim
from catalog.ids import BlockNo, FileNo, VolumeId
from catalog.ledger_store.tables import VOLUME_LABELS, VOLUMES, text_key
from catalog.ledger_store.transaction import Reader, Writer, plain_text
from catalog.records import Volume, VolumeState


def get(tx: Reader, volume_id: VolumeId) -> Volume:
    """Return a tape. Raises NotFound."""
    volume = tx.find(VOLUMES, text_key(volume_id))
    if volume is None:
        raise NotFound(f"there is no tape {volume_id}")
    return volume


def by_label(tx: Reader, label: str) -> Volume:
    """Return a tape. Raises NotFound."""
    volume_id = tx.find(VOLUME_LABELS, text_key(label))
    if volume_id is None:
        raise NotFound(f"there is no tape {label}")
    return tx.follow(VOLUMES, text_key(volume_id), f"the label {label}")


def by_code(tx: Reader, code: str) -> Volume:
    """Return the tape that has this barcode, or this label and no other barcode. Raises NotFound."""
    volume_id = tx.find(VOLUME_LABELS, text_key(code))
    if volume_id is not None:
        volume = tx.follow(VOLUMES, text_key(volume_id), f"the label {code}")
        if volume.code == code:
            return volume
    found = next((volume for _, volume in tx.scan(VOLUMES) if volume.code == code), None)
    if found is None:
        raise NotFound(f"there is no tape with the barcode {code}")
    return found


def all_by_label(tx: Reader) -> list[Volume]:
    """Return all tapes, by label."""
    return sorted((volume for _, volume in tx.scan(VOLUMES)), key=lambda volume: volume.label)


def add(tx: Writer, volume: Volume) -> None:
    """Record a tape; harmless when it is recorded already, whatever has been done with it since. Raises Conflict."""
    key = text_key(volume.volume_id)
    known = tx.find(VOLUMES, key)
    if known is not None:
        if _as_added(known) != _as_added(volume):
            raise Conflict(f"tape {volume.volume_id} is recorded already, with other properties, as {known.label}")
        return
    holder = tx.find(VOLUME_LABELS, text_key(volume.label))
    if holder is not None:
        raise Conflict(f"the label {volume.label} belongs to tape {holder}")
    if volume.barcode and (other := _with_code(tx, volume.barcode)) is not None:
        raise Conflict(f"the barcode {volume.barcode} belongs to tape {other.label}")
    if (other := _with_code(tx, volume.label)) is not None:
        raise Conflict(f"tape {other.label} has the barcode {volume.label}: no other tape can be called that")
    tx.insert(VOLUMES, key, volume)
    tx.insert(VOLUME_LABELS, text_key(volume.label), volume.volume_id)
    tx.tell("volume.added", volume.volume_id, volume.label, volume.created_at_ns)


def _with_code(tx: Reader, code: str) -> Volume | None:
    try:
        return by_code(tx, code)
    except NotFound:
        return None


def _as_added(volume: Volume) -> Volume:
    """Return the record without what operations change."""
    return msgspec.structs.replace(
        volume,
        state=VolumeState.BLANK,
        reason="",
        end_block=BlockNo(0),
        end_file=FileNo(0),
        used_bytes=0,
        written_at_ns=0,
        claim=0,
        labelled_at_ns=0,
        key_fingerprint="",
        by_drive=False,
        location="",
        overwrites="",
        identified_at_ns=0,
    )


def claim(tx: Writer, volume_id: VolumeId) -> int:
    """Count the tape's fencing token up and return it. Raises NotFound."""
    volume = get(tx, volume_id)
    claimed = msgspec.structs.replace(volume, claim=volume.claim + 1)
    tx.put(VOLUMES, text_key(volume_id), claimed)
    tx.tell("volume.claimed", volume_id, str(claimed.claim))
    return claimed.claim


def claimed(tx: Reader, volume_id: VolumeId, token: int) -> Volume:
    """Return the tape to whoever holds its newest claim. Raises NotFound, StaleClaim, Conflict."""
    volume = get(tx, volume_id)
    if token < volume.claim:
        raise StaleClaim(
            f"tape {volume.label} has been claimed by another writer (claim {volume.claim}, yours is {token}): "
            "stop writing"
        )
    if token > volume.claim:
        raise Conflict(
            f"claim {token} on tape {volume.label} was never given out (the newest is {volume.claim}): "
            "is this an old copy of the ledger?"
        )
    return volume


def size(tx: Writer, volume_id: VolumeId, capacity_bytes: int, generation: int) -> None:
    """Record what a drive has told of the cartridge. Raises NotFound."""
    volume = get(tx, volume_id)
    sized = msgspec.structs.replace(volume, capacity_bytes=capacity_bytes, generation=generation)
    if sized == volume:
        return
    tx.put(VOLUMES, text_key(volume_id), sized)
    tx.tell("volume.size", volume_id, f"{capacity_bytes} bytes, LTO-{generation}")


def identify(tx: Writer, volume_id: VolumeId, now_ns: int) -> None:
    """Note that somebody has looked what is on it. Raises NotFound."""
    volume = get(tx, volume_id)
    if volume.identified_at_ns != now_ns:
        tx.put(VOLUMES, text_key(volume_id), msgspec.structs.replace(volume, identified_at_ns=now_ns))
        tx.tell("volume.identified", volume_id, volume.label, now_ns)


def mark(tx: Writer, volume_id: VolumeId, state: VolumeState, reason: str) -> None:
    """Set the state. Raises NotFound, and Conflict for a tape with data that would become BLANK."""
    volume = get(tx, volume_id)
    marked = msgspec.structs.replace(volume, state=state, reason=plain_text(reason))
    if marked == volume:
        return
    if state is VolumeState.BLANK and volume.end_block > 0:
        raise Conflict(f"tape {volume.label} has been written to: it cannot count as blank")
    tx.put(VOLUMES, text_key(volume_id), marked)
    tx.tell("volume.state", volume_id, f"{state.value}: {reason}" if reason else state.value)
