"""Taking in what tapes say that was never written by this ledger: functions of a transaction (see `catalog.ledger`).

Nothing that is known already is made worse: a record that is there by its uuid stays, but for a set that was adopted
before without all that belongs to it, one that failed here and turns out to be whole, and a tape whose data ends
further on than the ledger knew. So the same again, or more of it, is harmless.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from catalog.errors import Conflict
from catalog.ids import InstallationId, JobNumber, SetId, SetNumber
from catalog.ledger_store import appending, damaged_segments, giving_up, job_indexes, segments, sets, sets_by_job
from catalog.ledger_store.jobs import ACTIVE, forgetting_its_run
from catalog.ledger_store.tables import (
    COPIES,
    COPIES_BY_VOLUME,
    COUNTERS,
    INDEX_COPIES,
    INSTALLATION,
    INSTALLATION_KEY,
    INTENT_COUNTER,
    INTENTS,
    JOB_COUNTER,
    JOB_IDS,
    JOBS,
    SEGMENTS,
    SEGMENTS_BY_SET,
    SET_COUNTER,
    SET_NUMBERS,
    SETS,
    VOLUME_LABELS,
    VOLUMES,
    copy_by_volume_key,
    copy_key,
    index_copy_key,
    intent_key,
    job_key,
    parts,
    segment_by_set_key,
    set_number_key,
    text_key,
)
from catalog.ledger_store.transaction import Writer
from catalog.records import (
    Adoption,
    BackupSet,
    IndexCopy,
    Intent,
    Job,
    Segment,
    SegmentCopy,
    SetState,
    Volume,
    VolumeState,
)


def take_identity(tx: Writer, installation_id: InstallationId) -> None:
    """Have the ledger be that installation's; harmless when it is. Raises Conflict when it has sets of its own."""
    known = tx.find(INSTALLATION, INSTALLATION_KEY)
    if known is None:
        raise AssertionError("a ledger has an identity")
    if known.installation_id == installation_id:
        return
    if next(tx.scan(SETS), None) is not None:
        raise Conflict("the ledger has sets: its identity stays")
    for key, volume in list(tx.scan(VOLUMES)):
        # Blank tapes that were entered before.
        if volume.installation_id == known.installation_id:
            tx.put(VOLUMES, key, msgspec.structs.replace(volume, installation_id=installation_id))
    tx.put(INSTALLATION, INSTALLATION_KEY, msgspec.structs.replace(known, installation_id=installation_id))
    tx.tell("installation.adopted", installation_id)


def adopt(tx: Writer, found: Adoption, now_ns: int) -> None:
    """Take everything in. Raises Conflict, and then nothing is changed."""
    for volume_id in found.begun_anew:
        old = tx.find(VOLUMES, text_key(volume_id))
        if old is not None:
            giving_up.let_go(tx, old, now_ns)
    for volume in found.volumes:
        _adopt_volume(tx, volume, now_ns)
    numbers = {job.job_id: _adopt_job(tx, job, now_ns) for job in found.jobs}
    for backup_set in sorted(found.sets, key=lambda each: _turn(tx, each)):
        number = numbers.get(backup_set.job_id) or _number_of_job(tx, backup_set)
        numbers[backup_set.job_id] = number
        _adopt_set(tx, msgspec.structs.replace(backup_set, job_number=number), now_ns)
    for segment in found.segments:
        _adopt_segment(tx, segment)
    for copy in found.copies:
        _adopt_copy(tx, copy)
    touched = {each.segment_id for each in found.segments} | {each.segment_id for each in found.copies}
    damaged_segments.note_all(tx, sorted(touched))
    for index in found.indexes:
        _adopt_index(tx, index)
    for intent in found.intents:
        _adopt_intent(tx, intent)
    for backup_set in found.sets:
        _count_segments(tx, backup_set.set_id)


# -- tapes -----------------------------------------------------------------------------------------------------------


def _adopt_volume(tx: Writer, volume: Volume, now_ns: int) -> None:
    key = text_key(volume.volume_id)
    same = tx.find(VOLUMES, key)
    if same is not None:
        _adopt_end(tx, same, volume, now_ns)
        return
    for known in [each for _, each in tx.scan(VOLUMES)]:
        if {known.label, known.code} & {volume.label, volume.code}:
            _give_up_blank(tx, volume, known)
    tx.insert(VOLUMES, key, volume)
    tx.insert(VOLUME_LABELS, text_key(volume.label), volume.volume_id)
    tx.tell("volume.adopted", volume.volume_id, volume.label, now_ns)


def _adopt_end(tx: Writer, known: Volume, volume: Volume, now_ns: int) -> None:
    """A tape that is known holds more than was known of it, or is no longer in doubt. Its end never moves back."""
    if (volume.end_block, volume.end_file) < (known.end_block, known.end_file) or not volume.end_block:
        return
    grown = msgspec.structs.replace(
        known,
        state=volume.state,
        reason=volume.reason,
        overwrites="",
        generation=volume.generation or known.generation,
        capacity_bytes=volume.capacity_bytes or known.capacity_bytes,
        end_block=volume.end_block,
        end_file=volume.end_file,
        used_bytes=max(known.used_bytes, volume.used_bytes),
        written_at_ns=max(known.written_at_ns, volume.written_at_ns),
        labelled_at_ns=known.labelled_at_ns or volume.labelled_at_ns,
    )
    if not known.end_block:
        # Its label was not known of.
        grown = msgspec.structs.replace(
            grown,
            pool=volume.pool,
            block_size=volume.block_size,
            key_fingerprint=volume.key_fingerprint,
            by_drive=volume.by_drive,
        )
    if grown == known:
        return
    tx.put(VOLUMES, text_key(known.volume_id), grown)
    appending.close(tx, known.volume_id, grown.end_block)
    tx.tell("volume.state", known.volume_id, grown.state.value, now_ns)


def _give_up_blank(tx: Writer, volume: Volume, known: Volume) -> None:
    """A tape that was entered by its barcode as blank is this one. Raises Conflict when it is another.

    It may have been found not to be blank since, and be SUSPECT for that.
    """
    is_unwritten = known.state in (VolumeState.BLANK, VolumeState.SUSPECT) and not known.end_block
    if not is_unwritten or any(intent.set_id for intent in appending.intents_on(tx, known.volume_id)):
        raise Conflict(
            f"the name {known.label} belongs to tape {known.volume_id} already: two tapes of one name cannot be told "
            "apart"
        )
    for key, _ in list(tx.scan(INTENTS, parts(known.volume_id))):
        tx.delete(INTENTS, key)
    tx.delete(VOLUMES, text_key(known.volume_id))
    tx.delete(VOLUME_LABELS, text_key(known.label))


def _adopt_intent(tx: Writer, intent: Intent) -> None:
    volume = tx.follow(VOLUMES, text_key(intent.volume_id), f"intent {intent.structure_id}")
    known = {each.structure_id for each in appending.intents_on(tx, intent.volume_id)}
    if intent.structure_id not in known and intent.block >= volume.end_block:
        tx.insert(INTENTS, intent_key(intent.volume_id, tx.next_number(INTENT_COUNTER)), intent)


# -- jobs and sets ---------------------------------------------------------------------------------------------------


def _adopt_job(tx: Writer, job: Job, now_ns: int) -> JobNumber:
    """Record a job under the number it had, if that is free; return its number."""
    known = tx.find(JOB_IDS, text_key(job.job_id))
    if known is not None:
        number = JobNumber(known)
        _refresh_job(tx, tx.follow(JOBS, job_key(number), f"job id {job.job_id}"), job)
        return number
    number = _free_job_number(tx, job.number)
    adopted = msgspec.structs.replace(job, number=number)
    job_indexes.store(tx, None, adopted)
    tx.insert(JOB_IDS, text_key(job.job_id), number)
    tx.tell("job.adopted", number, job.name, now_ns)
    return number


def _refresh_job(tx: Writer, known: Job, job: Job) -> None:
    """A newer set of a job has come up: its runs are as after that, and one that was adopted before is so, too."""
    sets_of_job = [backup_set for _, backup_set in tx.scan(SETS) if backup_set.job_id == job.job_id]
    if not sets_of_job or not all(backup_set.is_adopted for backup_set in sets_of_job):
        _refresh_runs(tx, known, job)
        return
    is_newer = known.runs < job.runs or (known.runs == job.runs and known.set_id is None)
    if known.state not in ACTIVE and is_newer:
        job_indexes.store(tx, known, msgspec.structs.replace(job, number=known.number))


def _refresh_runs(tx: Writer, known: Job, job: Job) -> None:
    """What the job is asked for stays: it may have been changed since."""
    newest = None if known.set_id is None else tx.find(SETS, text_key(known.set_id))
    begun_ns = known.queued_at_ns if newest is None else newest.started_at_ns
    if known.state in ACTIVE or job.set_id is None or job.started_at_ns <= begun_ns:
        return
    ran = msgspec.structs.replace(
        forgetting_its_run(known),
        state=job.state,
        runs=max(known.runs, job.runs),
        run_type="",
        set_id=job.set_id,
        queued_at_ns=job.queued_at_ns,
        started_at_ns=job.started_at_ns,
        finished_at_ns=job.finished_at_ns,
    )
    job_indexes.store(tx, known, ran)


def _free_job_number(tx: Writer, wish: JobNumber) -> JobNumber:
    is_taken = any(backup_set.job_number == wish for _, backup_set in tx.scan(SETS))
    if wish > 0 and not is_taken and tx.find(JOBS, job_key(wish)) is None:
        _count_to(tx, JOB_COUNTER, wish)
        return wish
    return JobNumber(tx.next_number(JOB_COUNTER))


def _number_of_job(tx: Writer, backup_set: BackupSet) -> JobNumber:
    """Return the number of the job of a set that comes without it."""
    known = tx.find(JOB_IDS, text_key(backup_set.job_id))
    if known is not None:
        return JobNumber(known)
    for _, other in tx.scan(SETS):
        if other.job_id == backup_set.job_id:
            return other.job_number
    return _free_job_number(tx, backup_set.job_number)


def _adopt_set(tx: Writer, backup_set: BackupSet, now_ns: int) -> None:
    """Record a set under the number it had, if that is free. Raises Conflict when there is no number left."""
    key = text_key(backup_set.set_id)
    known = tx.find(SETS, key)
    if known is not None:
        is_whole = backup_set.state is SetState.SEALED
        is_unfinished = known.state is SetState.FAILED and (known.is_adopted or is_whole)
        kept = _on_tapes(_in_place_of(known, backup_set) if is_unfinished else known, backup_set.tapes)
        if kept != known:
            tx.put(SETS, key, kept)
            sets_by_job.link(tx, kept, known)
        return
    adopted = msgspec.structs.replace(backup_set, number=_free_set_number(tx, backup_set.number))
    tx.insert(SETS, key, adopted)
    tx.insert(SET_NUMBERS, set_number_key(adopted.number), adopted.set_id)
    sets_by_job.link(tx, adopted)
    tx.tell("set.adopted", adopted.set_id, adopted.name, now_ns)


def _in_place_of(known: BackupSet, backup_set: BackupSet) -> BackupSet:
    # More is known now of the order of its tapes.
    adopted = msgspec.structs.replace(
        backup_set,
        number=known.number,
        job_number=known.job_number,
        segments=known.segments,
        is_adopted=known.is_adopted,
        is_imported=known.is_imported,
    )
    return _on_tapes(adopted, known.tapes)


def _free_set_number(tx: Writer, wish: SetNumber) -> SetNumber:
    if 0 < wish <= sets.MAX_SET_NUMBER and tx.find(SET_NUMBERS, set_number_key(wish)) is None:
        _count_to(tx, SET_COUNTER, wish)
        return wish
    return sets.next_number(tx)


def _turn(tx: Writer, backup_set: BackupSet) -> int:
    """Our own sets whose numbers are free come first, or a new number of another would take theirs."""
    if backup_set.is_imported or backup_set.number <= 0:
        return 1
    holder = tx.find(SET_NUMBERS, set_number_key(backup_set.number))
    return 0 if holder in (None, backup_set.set_id) else 2


def _count_to(tx: Writer, counter: bytes, number: int) -> None:
    """Nothing up to `number` is given out any more."""
    if (tx.find(COUNTERS, counter) or 0) < number:
        tx.put(COUNTERS, counter, number)


def _on_tapes(backup_set: BackupSet, labels: Sequence[str]) -> BackupSet:
    return msgspec.structs.replace(backup_set, tapes=tuple(dict.fromkeys((*backup_set.tapes, *labels))))


# -- segments --------------------------------------------------------------------------------------------------------


def _adopt_segment(tx: Writer, segment: Segment) -> None:
    key = text_key(segment.segment_id)
    known = tx.find(SEGMENTS, key)
    if known is not None:
        segments.check_same(known, segment)
        return
    by_set = segment_by_set_key(segment.set_id, segment.number)
    holder = tx.find(SEGMENTS_BY_SET, by_set)
    if holder is not None:
        raise Conflict(f"number {segment.number} of set {segment.set_id} is segment {holder} already")
    tx.insert(SEGMENTS, key, segment)
    tx.insert(SEGMENTS_BY_SET, by_set, segment.segment_id)


def _adopt_copy(tx: Writer, copy: SegmentCopy) -> None:
    volume = tx.follow(VOLUMES, text_key(copy.volume_id), f"a copy of segment {copy.segment_id}")
    if copy.end_block > volume.end_block:
        raise Conflict(
            f"segment {copy.segment_id} lies behind block {volume.end_block} of tape {volume.label}, where its data "
            "ends as far as the ledger knows"
        )
    if tx.find(COPIES, copy_key(copy.segment_id, copy.volume_id)) is None:
        tx.insert(COPIES, copy_key(copy.segment_id, copy.volume_id), copy)
        tx.insert(COPIES_BY_VOLUME, copy_by_volume_key(copy.volume_id, copy.header_block), copy.segment_id)


def _adopt_index(tx: Writer, index: IndexCopy) -> None:
    key = index_copy_key(index.set_id, index.index_id, index.volume_id)
    if tx.find(INDEX_COPIES, key) is None:
        tx.insert(INDEX_COPIES, key, index)


def _count_segments(tx: Writer, set_id: SetId) -> None:
    backup_set = sets.get(tx, set_id)
    count = _length(tx.scan(SEGMENTS_BY_SET, parts(set_id)))
    if backup_set.segments != count:
        tx.put(SETS, text_key(set_id), msgspec.structs.replace(backup_set, segments=count))


def _length(rows: Iterable[object]) -> int:
    return sum(1 for _ in rows)
