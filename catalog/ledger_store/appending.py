"""Where on a tape is written: intents, and where the committed data ends (see `catalog.ledger`).

A place before the end of the committed data is never announced again, so nothing committed is ever overwritten.
"""

from __future__ import annotations

import msgspec

from catalog.errors import Conflict
from catalog.ids import BlockNo, VolumeId
from catalog.ledger_store import volumes
from catalog.ledger_store.tables import INTENT_COUNTER, INTENTS, VOLUMES, intent_key, parts, text_key
from catalog.ledger_store.transaction import Reader, Writer
from catalog.records import Intent, IntentKind, Volume, VolumeEnd, VolumeState


def intents_on(tx: Reader, volume_id: VolumeId) -> list[Intent]:
    """Return the open intents on a tape, in the order they were opened."""
    return [intent for _, intent in tx.scan(INTENTS, parts(volume_id))]


def open_intent(tx: Writer, intent: Intent, token: int) -> None:
    """Record what is about to be written. Idempotent by structure on a tape, but only for the newest claim.

    Raises NotFound, StaleClaim; Conflict when the tape may not be written to there.
    """
    volume = volumes.claimed(tx, intent.volume_id, token)
    _check_place(intent, volume)
    for known in intents_on(tx, intent.volume_id):
        if known.structure_id == intent.structure_id:
            _check_same(known, intent, volume)
            return
    tx.insert(INTENTS, intent_key(intent.volume_id, tx.next_number(INTENT_COUNTER)), intent)
    tx.tell("intent.opened", intent.structure_id, volume.label, intent.opened_at_ns)


def _check_same(known: Intent, intent: Intent, volume: Volume) -> None:
    if (known.kind, known.block, known.set_id) != (intent.kind, intent.block, intent.set_id):
        raise Conflict(
            f"{known.kind.value} {known.structure_id} is to be written to tape {volume.label} at block {known.block} "
            f"already, not at block {intent.block}: drop that intent first"
        )


def _check_place(intent: Intent, volume: Volume) -> None:
    """Refuse what would spoil committed data, or write to a tape that may not be written to."""
    if (intent.kind is IntentKind.LABEL) != (volume.state is VolumeState.BLANK):
        raise Conflict(f"tape {volume.label} is {volume.state.value}: a {intent.kind.value} cannot be written to it")
    if volume.state is VolumeState.SUSPECT:
        raise Conflict(f"tape {volume.label} is suspect and not written to: {volume.reason}")
    if intent.block < volume.end_block:
        raise Conflict(
            f"block {intent.block} of tape {volume.label} holds committed data, which ends at block {volume.end_block}"
        )


def drop_intent(tx: Writer, structure_id: str, volume_id: VolumeId) -> None:
    """Forget the structure's open intent on that tape. Idempotent."""
    for key, intent in list(tx.scan(INTENTS, parts(volume_id))):
        if intent.structure_id == structure_id:
            tx.delete(INTENTS, key)
            tx.tell("intent.dropped", structure_id, intent.volume_id)


def label(
    tx: Writer,
    volume_id: VolumeId,
    token: int,
    end: VolumeEnd,
    now_ns: int,
    key_fingerprint: str = "",
    by_drive: bool = False,
) -> None:
    """BLANK becomes APPENDABLE; the same again is harmless. Raises NotFound, StaleClaim, Conflict."""
    volume = volumes.claimed(tx, volume_id, token)
    labelled = msgspec.structs.replace(
        volume,
        state=VolumeState.APPENDABLE,
        overwrites="",
        end_block=end.block,
        end_file=end.file,
        used_bytes=end.used_bytes,
        written_at_ns=now_ns,
        labelled_at_ns=now_ns,
        key_fingerprint=key_fingerprint,
        by_drive=by_drive,
    )
    known = {"written_at_ns": volume.written_at_ns, "labelled_at_ns": volume.labelled_at_ns}
    if volume == msgspec.structs.replace(labelled, **known):
        return
    if volume.state is not VolumeState.BLANK:
        raise Conflict(f"tape {volume.label} is {volume.state.value}, not blank: it has a label already")
    tx.put(VOLUMES, text_key(volume_id), labelled)
    close(tx, volume_id, end.block)
    tx.tell("volume.state", volume_id, labelled.state.value, now_ns)


def move_end(tx: Writer, volume: Volume, end: VolumeEnd, now_ns: int) -> None:
    """Record that the tape's committed data ends further on, and close the intents before there.

    What was noted of an APPENDABLE tape is over: it was written to without trouble.
    Those are the intent of what is committed, and of torn structures that it has overwritten. Raises Conflict when the
    data would end before where it does.
    """
    if end.block < volume.end_block or end.file < volume.end_file:
        raise Conflict(
            f"the data of tape {volume.label} ends at block {volume.end_block}, file {volume.end_file}; "
            f"it cannot end at block {end.block}, file {end.file}"
        )
    moved = msgspec.structs.replace(
        volume,
        end_block=end.block,
        end_file=end.file,
        used_bytes=end.used_bytes,
        written_at_ns=now_ns,
        reason="" if volume.state is VolumeState.APPENDABLE else volume.reason,
    )
    tx.put(VOLUMES, text_key(volume.volume_id), moved)
    close(tx, volume.volume_id, end.block)


def close(tx: Writer, volume_id: VolumeId, end_block: BlockNo) -> None:
    """Forget the intents before that block: there is committed data now."""
    for key, intent in list(tx.scan(INTENTS, parts(volume_id))):
        if intent.block < end_block:
            tx.delete(INTENTS, key)
