"""Operations on backup sets: functions of a transaction (see `catalog.ledger`).

RUNNING -> SEALED -> COMPLETE -> EXPIRED        and        RUNNING -> FAILED -> EXPIRED or RUNNING again
"""

from __future__ import annotations

import msgspec

from catalog.errors import Conflict, NotFound
from catalog.ids import SetId, SetNumber
from catalog.ledger_store import appending, jobs, sets_by_job, unreadable, volumes
from catalog.ledger_store.tables import (
    INDEX_COPIES,
    SET_COUNTER,
    SET_NUMBERS,
    SETS,
    index_copy_key,
    parts,
    set_number_key,
    text_key,
)
from catalog.ledger_store.transaction import Reader, Writer, plain_text
from catalog.records import BackupSet, IndexCopy, SetState, SetTotals, VolumeEnd

#: States in which a set may gain segments and indexes: a mover that died between tape and ledger leaves one that may be
#: adopted later, when its set has FAILED. Such a set stays FAILED.
OPEN_STATES = frozenset({SetState.RUNNING, SetState.FAILED})
#: A set's number is 24 bits of its inode numbers.
MAX_SET_NUMBER = 2**24 - 1


def get(tx: Reader, set_id: SetId) -> BackupSet:
    """Return a set. Raises NotFound."""
    backup_set = tx.find(SETS, text_key(set_id))
    if backup_set is None:
        raise NotFound(f"there is no backup set {set_id}")
    return backup_set


def all_by_number(tx: Reader) -> list[BackupSet]:
    """Return all sets, oldest first."""
    return sorted((backup_set for _, backup_set in tx.scan(SETS)), key=lambda backup_set: backup_set.number)


def readable(tx: Reader) -> list[BackupSet]:
    """Return the sets that can be read, oldest first."""
    return sorted((each for _, each in unreadable.readable(tx, SETS)), key=lambda backup_set: backup_set.number)


def index_copies(tx: Reader, set_id: SetId) -> list[IndexCopy]:
    """Return where the set's SET INDEX structures lie, by tape and block."""
    copies = (copy for _, copy in tx.scan(INDEX_COPIES, parts(set_id)))
    return sorted(copies, key=lambda copy: (copy.volume_id, copy.block))


def begin(tx: Writer, backup_set: BackupSet) -> BackupSet:
    """Record a RUNNING set under the next number and start its job; return it, or the one that is there by that id.

    Raises NotFound, Conflict, ValueError when the record's state is another.
    """
    if backup_set.state is not SetState.RUNNING:
        raise ValueError(f"a set begins as running, not as {backup_set.state.value}")
    known = tx.find(SETS, text_key(backup_set.set_id))
    if known is not None:
        if known.job_id != backup_set.job_id:
            raise Conflict(f"set {known.set_id} is recorded already, for job {known.job_number}")
        return known
    job = jobs.get(tx, backup_set.job_number)
    if job.job_id != backup_set.job_id:
        raise Conflict(f"job {job.number} has the id {job.job_id}, not {backup_set.job_id}")
    if backup_set.parent_id is not None and (parent := get(tx, backup_set.parent_id)).state is not SetState.COMPLETE:
        raise Conflict(f"set {parent.set_id} is {parent.state.value}: no other can build on it")
    begun = msgspec.structs.replace(backup_set, number=next_number(tx))
    jobs.start(tx, job, begun)
    tx.insert(SETS, text_key(begun.set_id), begun)
    tx.insert(SET_NUMBERS, set_number_key(begun.number), begun.set_id)
    sets_by_job.link(tx, begun)
    tx.tell("set.running", begun.set_id, begun.name, begun.started_at_ns)
    return begun


def next_number(tx: Writer) -> SetNumber:
    """Return a number that no set had. Raises Conflict when there is none left."""
    number = tx.next_number(SET_COUNTER)
    if number > MAX_SET_NUMBER:
        raise Conflict(f"{MAX_SET_NUMBER} sets were made with this ledger: it has no number for another one")
    return SetNumber(number)


def seal(
    tx: Writer, set_id: SetId, totals: SetTotals, index: IndexCopy, token: int, end: VolumeEnd, now_ns: int
) -> None:
    """RUNNING becomes SEALED with the place of its last index; the same index again is harmless.

    Raises NotFound, StaleClaim, Conflict, ValueError when `index` is of another set.
    """
    if index.set_id != set_id:
        raise ValueError(f"index {index.index_id} belongs to set {index.set_id}, not {set_id}")
    backup_set = get(tx, set_id)
    if _has_index(tx, index) and backup_set.state in (SetState.SEALED, SetState.COMPLETE):
        return
    if backup_set.state is not SetState.RUNNING:
        raise Conflict(f"set {set_id} is {backup_set.state.value}: it cannot be sealed with index {index.index_id}")
    placed = _place_index(tx, backup_set, index, token, end, now_ns)
    _change(tx, _totalled(placed, totals, now_ns), now_ns)


def commit_index(tx: Writer, index: IndexCopy, token: int, end: VolumeEnd, now_ns: int) -> None:
    """Record the place of an index that is not the last; the same again is harmless.

    Raises NotFound, StaleClaim, Conflict.
    """
    if _has_index(tx, index):
        return
    backup_set = get(tx, index.set_id)
    if backup_set.state not in (*OPEN_STATES, SetState.COMPLETE):
        raise Conflict(f"set {index.set_id} is {backup_set.state.value}: it cannot gain an index")
    tx.put(SETS, text_key(index.set_id), _place_index(tx, backup_set, index, token, end, now_ns))
    tx.tell("index.committed", index.index_id, index.set_id, now_ns)


def _has_index(tx: Reader, index: IndexCopy) -> bool:
    """Is this index recorded at this place? Raises Conflict when the tape holds it elsewhere."""
    known = tx.find(INDEX_COPIES, index_copy_key(index.set_id, index.index_id, index.volume_id))
    if known is not None and known != index:
        raise Conflict(f"index {index.index_id} lies on tape {index.volume_id} already, at block {known.block}")
    return known is not None


def _place_index(
    tx: Writer, backup_set: BackupSet, index: IndexCopy, token: int, end: VolumeEnd, now_ns: int
) -> BackupSet:
    """Record the index and the tape's end; return the set, to be stored, with its tape. Raises StaleClaim, Conflict."""
    volume = volumes.claimed(tx, index.volume_id, token)
    if not volume.end_block <= index.block < index.end_block <= end.block or _has_index(tx, index):
        raise Conflict(
            f"an index in blocks {index.block} to {index.end_block} does not fit tape {volume.label}, "
            f"whose data ended at block {volume.end_block} and is to end at block {end.block}"
        )
    tx.insert(INDEX_COPIES, index_copy_key(index.set_id, index.index_id, index.volume_id), index)
    appending.move_end(tx, volume, end, now_ns)
    return _on_tape(backup_set, volume.label)


def _totalled(backup_set: BackupSet, totals: SetTotals, now_ns: int) -> BackupSet:
    return msgspec.structs.replace(
        backup_set, state=SetState.SEALED, finished_at_ns=now_ns, **msgspec.structs.asdict(totals)
    )


def _on_tape(backup_set: BackupSet, label: str) -> BackupSet:
    if label in backup_set.tapes:
        return backup_set
    return msgspec.structs.replace(backup_set, tapes=(*backup_set.tapes, label))


def count_segment(tx: Writer, backup_set: BackupSet, label: str, new_segments: int) -> None:
    """Record that a copy of one of the set's segments lies on the tape `label`."""
    counted = msgspec.structs.replace(_on_tape(backup_set, label), segments=backup_set.segments + new_segments)
    tx.put(SETS, text_key(backup_set.set_id), counted)


def complete(tx: Writer, set_id: SetId, now_ns: int) -> None:
    """SEALED becomes COMPLETE and its job COMPLETED; harmless when it is COMPLETE. Raises NotFound, Conflict."""
    backup_set = get(tx, set_id)
    if backup_set.state is SetState.COMPLETE:
        return
    if backup_set.state is not SetState.SEALED:
        raise Conflict(f"set {set_id} is {backup_set.state.value}, not sealed: it cannot be complete")
    completed = msgspec.structs.replace(backup_set, state=SetState.COMPLETE, finished_at_ns=now_ns)
    _change(tx, completed, now_ns)
    jobs.complete(tx, completed, now_ns)


def resume(tx: Writer, set_id: SetId, now_ns: int) -> BackupSet:
    """FAILED becomes RUNNING, its job too; a later state stays. Harmless when it runs. Raises NotFound, Conflict."""
    backup_set = get(tx, set_id)
    if backup_set.state is SetState.EXPIRED:
        raise Conflict(f"set {set_id} has expired: it cannot go on")
    jobs.restart(tx, jobs.get(tx, backup_set.job_number), backup_set, now_ns)
    if backup_set.state is SetState.FAILED:
        going_on = {"state": SetState.RUNNING, "error": "", "finished_at_ns": 0, "is_resumed": True}
        backup_set = msgspec.structs.replace(backup_set, **going_on)
        _change(tx, backup_set, now_ns)
    return backup_set


def fail(tx: Writer, set_id: SetId, error: str, now_ns: int) -> None:
    """RUNNING becomes FAILED; harmless when it is FAILED. Raises NotFound, Conflict."""
    backup_set = get(tx, set_id)
    if backup_set.state is SetState.FAILED:
        return
    if backup_set.state is not SetState.RUNNING:
        raise Conflict(f"set {set_id} is {backup_set.state.value}: it cannot fail any more")
    failed = msgspec.structs.replace(backup_set, state=SetState.FAILED, error=plain_text(error), finished_at_ns=now_ns)
    _change(tx, failed, now_ns)


def expire(tx: Writer, set_id: SetId, now_ns: int) -> None:
    """COMPLETE or FAILED becomes EXPIRED; harmless when it is. Its segments stay recorded, as they stay on tape.

    Raises NotFound; Conflict in other states, while a set that has not expired builds on it, or while its job is queued
    or runs with it.
    """
    backup_set = get(tx, set_id)
    if backup_set.state is SetState.EXPIRED:
        return
    if backup_set.state not in (SetState.COMPLETE, SetState.FAILED):
        raise Conflict(f"set {set_id} is {backup_set.state.value}: it cannot expire")
    for _, other in tx.scan(SETS):
        if other.parent_id == set_id and other.state is not SetState.EXPIRED:
            raise Conflict(f"set {set_id} stays: set {other.set_id} ({other.state.value}) builds on it")
    if jobs.is_active_with(tx, backup_set):
        raise Conflict(f"set {set_id} stays: job {backup_set.job_number} goes on with it")
    _change(tx, msgspec.structs.replace(backup_set, state=SetState.EXPIRED, expired_at_ns=now_ns), now_ns)


def give_up(tx: Writer, set_id: SetId, now_ns: int) -> None:
    """FAILED becomes EXPIRED, because a tape is gone on which part of it was. Raises NotFound."""
    _change(tx, msgspec.structs.replace(get(tx, set_id), state=SetState.EXPIRED, expired_at_ns=now_ns), now_ns)


def leave_tape(tx: Writer, set_id: SetId, label: str) -> None:
    """Record that nothing of the set lies on the tape `label` any more. Raises NotFound."""
    backup_set = get(tx, set_id)
    tapes = tuple(tape for tape in backup_set.tapes if tape != label)
    tx.put(SETS, text_key(set_id), msgspec.structs.replace(backup_set, tapes=tapes))


def _change(tx: Writer, backup_set: BackupSet, now_ns: int) -> None:
    tx.put(SETS, text_key(backup_set.set_id), backup_set)
    tx.tell(f"set.{backup_set.state.value}", backup_set.set_id, backup_set.name, now_ns)
