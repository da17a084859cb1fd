"""Reading every record of a ledger and checking how they hang together.

`python -m catalog.ledger_store.verify FOLDER` does so as a program of its own: a file that was cut short can kill the
process that maps it (SIGBUS), so a suspect ledger is read there first.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import lmdb

from catalog.errors import Damaged, WrongVersion
from catalog.ids import JobNumber
from catalog.ledger_store import damaged_segments, job_indexes, sets_by_job
from catalog.ledger_store.environment import MAP_SIZE_BYTES, PROBLEMS_EXIT, open_databases, open_lmdb
from catalog.ledger_store.tables import (
    CHANNELS,
    CONDITIONS,
    COPIES,
    COPIES_BY_VOLUME,
    COUNTERS,
    CREDENTIALS,
    DAMAGED_SEGMENTS,
    DELIVERIES,
    EVENT_COUNTER,
    EVENTS,
    INDEX_COPIES,
    INSTALLATION,
    INSTALLATION_KEY,
    INTENT_COUNTER,
    INTENTS,
    JOB_COUNTER,
    JOB_IDS,
    JOBS,
    JOBS_BY_NAME,
    JOBS_BY_STATE,
    JOBS_TO_CHECK,
    LAYOUT,
    LAYOUT_KEY,
    LIVES,
    MOUNTINGS,
    NOTICE_COUNTER,
    NOTICES,
    PINS,
    POOLS,
    QUEUE,
    QUEUE_KEY,
    RECOVERIES,
    RUN_COUNTER,
    SCHEDULE_COUNTER,
    SCHEDULE_IDS,
    SCHEDULE_RUNS,
    SCHEDULES,
    SEGMENTS,
    SEGMENTS_BY_SET,
    SET_COUNTER,
    SET_NUMBERS,
    SETS,
    SETS_BY_JOB,
    STAGE_REQUESTS,
    TASK_COUNTERS,
    TASKS,
    USER_COUNTER,
    USERS,
    VOLUME_LABELS,
    VOLUMES,
    Table,
    copy_by_volume_key,
    delivery_key,
    event_key,
    index_copy_key,
    job_by_name_key,
    job_by_state_key,
    job_key,
    mounting_key,
    run_key,
    schedule_key,
    segment_by_set_key,
    set_by_job_key,
    set_number_key,
    task_key,
    text_key,
)
from catalog.ledger_store.transaction import Reader
from catalog.life_records import KEPT_MOUNTINGS
from catalog.schedule_records import KEPT_RUNS, OPEN_RUNS

R = TypeVar("R")
Problems = Iterator[str]


def problems(tx: Reader) -> list[str]:
    """Return one sentence per record that is damaged, missing or contradicts another; empty when all is well."""
    try:
        return [
            *_meta(tx),
            *_volumes(tx),
            *_jobs(tx),
            *_jobs_by_state(tx),
            *_sets(tx),
            *_sets_by_job(tx),
            *_segments(tx),
            *_copies(tx),
            *_damaged_segments(tx),
            *_pointers(tx),
            *_queue(tx),
            *_staging(tx),
            *_rest(tx),
            *_lives(tx),
            *_schedules(tx),
            *_access(tx),
            *_notices(tx),
            *_tasks(tx),
        ]
    except (Damaged, WrongVersion) as error:
        return [str(error)]


def _points(tx: Reader, table: Table[R], key: bytes, wanted: R, what: str) -> Problems:
    if tx.find(table, key) != wanted:
        yield f"{table.name} does not lead to {what}"


def _meta(tx: Reader) -> Problems:
    """No number is in use that its counter has not given out yet."""
    if tx.find(LAYOUT, LAYOUT_KEY) is None or tx.find(INSTALLATION, INSTALLATION_KEY) is None:
        yield "the ledger does not state its layout and identity"
    used = (
        (JOB_COUNTER, [job.number for _, job in tx.scan(JOBS)]),
        (SET_COUNTER, [backup_set.number for _, backup_set in tx.scan(SETS)]),
        (EVENT_COUNTER, [event.number for _, event in tx.scan(EVENTS)]),
        (SCHEDULE_COUNTER, [schedule.number for _, schedule in tx.scan(SCHEDULES)]),
        (RUN_COUNTER, [run.number for _, run in tx.scan(SCHEDULE_RUNS)]),
        (NOTICE_COUNTER, [notice.number for _, notice in tx.scan(NOTICES)]),
        (INTENT_COUNTER, [int.from_bytes(key[-8:], "big") for key, _ in tx.scan(INTENTS)]),
    )
    for counter, numbers in used:
        if (tx.find(COUNTERS, counter) or 0) < max(numbers, default=0):
            yield f"{counter.decode()} would give out a number that is in use"


def _volumes(tx: Reader) -> Problems:
    for _, volume in tx.scan(VOLUMES):
        yield from _points(tx, VOLUME_LABELS, text_key(volume.label), volume.volume_id, f"tape {volume.volume_id}")


def _jobs(tx: Reader) -> Problems:
    for key, job in tx.scan(JOBS):
        if key != job_key(job.number):
            yield f"job {job.number} is under a wrong key"
        yield from _points(tx, JOB_IDS, text_key(job.job_id), job.number, f"job {job.number}")
        if job.set_id is not None and tx.find(SETS, text_key(job.set_id)) is None:
            yield f"job {job.number} names set {job.set_id}, which is missing"
    for _, number in tx.scan(JOB_IDS):
        if tx.find(JOBS, job_key(JobNumber(number))) is None:
            yield f"job {number} is missing"


def _jobs_by_state(tx: Reader) -> Problems:
    """A ledger of an earlier version has none of these indexes."""
    if tx.count(JOBS_BY_STATE) == tx.count(JOBS_BY_NAME) == 0:
        return
    if not job_indexes.is_built(tx):
        yield f"{JOBS_BY_STATE.name} or {JOBS_BY_NAME.name} has another number of entries than there are jobs"
    to_check = {number for _, number in tx.scan(JOBS_TO_CHECK)}
    for _, job in tx.scan(JOBS):
        what = f"job {job.number}"
        yield from _points(tx, JOBS_BY_STATE, job_by_state_key(job.state, job.number), int(job.number), what)
        yield from _points(tx, JOBS_BY_NAME, job_by_name_key(job.name, job.number), int(job.number), what)
        if job_indexes.is_to_check(job) is not (job.number in to_check):
            yield f"{JOBS_TO_CHECK.name} does not say whether {what} is to be verified"


def _sets(tx: Reader) -> Problems:
    for key, backup_set in tx.scan(SETS):
        what = f"set {backup_set.set_id}"
        if key != text_key(backup_set.set_id):
            yield f"{what} is under a wrong key"
        yield from _points(tx, SET_NUMBERS, set_number_key(backup_set.number), backup_set.set_id, what)
        # The job itself may have been deleted.
        if backup_set.job_number > (tx.find(COUNTERS, JOB_COUNTER) or 0):
            yield f"{what} names job {backup_set.job_number}, which there never was"


def _sets_by_job(tx: Reader) -> Problems:
    """A ledger of an earlier version has no such index."""
    if not (count := sum(1 for _ in tx.scan(SETS_BY_JOB))):
        return
    if not sets_by_job.is_built(tx):
        yield f"{SETS_BY_JOB.name} has {count} entries for {tx.count(SETS)} records"
    for _, backup_set in tx.scan(SETS):
        key = set_by_job_key(backup_set.job_id, backup_set.number)
        yield from _points(tx, SETS_BY_JOB, key, backup_set.set_id, f"set {backup_set.set_id}")


def _segments(tx: Reader) -> Problems:
    counts: dict[str, int] = {}
    for _, segment in tx.scan(SEGMENTS):
        what = f"segment {segment.segment_id}"
        counts[segment.set_id] = counts.get(segment.set_id, 0) + 1
        key = segment_by_set_key(segment.set_id, segment.number)
        yield from _points(tx, SEGMENTS_BY_SET, key, segment.segment_id, what)
    for _, backup_set in tx.scan(SETS):
        if counts.pop(backup_set.set_id, 0) != backup_set.segments:
            yield f"set {backup_set.set_id} has another number of segments than the {backup_set.segments} it states"
    for set_id in counts:
        yield f"set {set_id} is missing but has segments"


def _copies(tx: Reader) -> Problems:
    for _, copy in tx.scan(COPIES):
        what = f"the copy of segment {copy.segment_id} on tape {copy.volume_id}"
        key = copy_by_volume_key(copy.volume_id, copy.header_block)
        yield from _points(tx, COPIES_BY_VOLUME, key, copy.segment_id, what)
        if tx.find(SEGMENTS, text_key(copy.segment_id)) is None:
            yield f"{what} is of a segment that is missing"
        volume = tx.find(VOLUMES, text_key(copy.volume_id))
        if volume is None or copy.end_block > volume.end_block:
            yield f"{what} lies behind the end of its tape's data, or the tape is missing"


def _damaged_segments(tx: Reader) -> Problems:
    """A ledger of an earlier version has no such index."""
    if not damaged_segments.is_stated(tx):
        return
    stated = {key: set_id for key, set_id in tx.scan(DAMAGED_SEGMENTS)}
    for segment in damaged_segments.by_their_copies(tx):
        if stated.pop(text_key(segment.segment_id), None) != segment.set_id:
            yield f"{DAMAGED_SEGMENTS.name} lacks segment {segment.segment_id}, of which no copy is good"
    for key in stated:
        named = key.decode(errors="replace")
        yield f"{DAMAGED_SEGMENTS.name} names segment {named}, which has a good copy or is missing"


def _pointers(tx: Reader) -> Problems:
    """Every record is pointed to, no two by the same pointer: with equal numbers no pointer leads nowhere."""
    sizes = (
        (VOLUME_LABELS.name, sum(1 for _ in tx.scan(VOLUME_LABELS)), sum(1 for _ in tx.scan(VOLUMES))),
        (JOB_IDS.name, sum(1 for _ in tx.scan(JOB_IDS)), sum(1 for _ in tx.scan(JOBS))),
        (SCHEDULE_IDS.name, sum(1 for _ in tx.scan(SCHEDULE_IDS)), sum(1 for _ in tx.scan(SCHEDULES))),
        (SET_NUMBERS.name, sum(1 for _ in tx.scan(SET_NUMBERS)), sum(1 for _ in tx.scan(SETS))),
        (SEGMENTS_BY_SET.name, sum(1 for _ in tx.scan(SEGMENTS_BY_SET)), sum(1 for _ in tx.scan(SEGMENTS))),
        (COPIES_BY_VOLUME.name, sum(1 for _ in tx.scan(COPIES_BY_VOLUME)), sum(1 for _ in tx.scan(COPIES))),
    )
    for name, pointers, records in sizes:
        if pointers != records:
            yield f"{name} has {pointers} entries for {records} records"


def _queue(tx: Reader) -> Problems:
    """The hold on the queue can be read; nothing else depends on it."""
    tx.find(QUEUE, QUEUE_KEY)
    yield from ()


def _staging(tx: Reader) -> Problems:
    for key, pin in tx.scan(PINS):
        if key != text_key(pin.pin_id):
            yield f"pin {pin.pin_id} is under a wrong key"
    for key, request in tx.scan(STAGE_REQUESTS):
        if key != text_key(request.request_id):
            yield f"request {request.request_id} is under a wrong key"
    for key, recovery in tx.scan(RECOVERIES):
        if key != text_key(recovery.recovery_id):
            yield f"restore {recovery.recovery_id} is under a wrong key"


def _rest(tx: Reader) -> Problems:
    for key, index in tx.scan(INDEX_COPIES):
        if key != index_copy_key(index.set_id, index.index_id, index.volume_id):
            yield f"index {index.index_id} is under a wrong key"
        if tx.find(SETS, text_key(index.set_id)) is None:
            yield f"index {index.index_id} is of set {index.set_id}, which is missing"
    for _, intent in tx.scan(INTENTS):
        if tx.find(VOLUMES, text_key(intent.volume_id)) is None:
            yield f"an intent names tape {intent.volume_id}, which is missing"
    for key, pool in tx.scan(POOLS):
        if key != text_key(pool.name):
            yield f"pool {pool.name} is under a wrong key"
    for key, event in tx.scan(EVENTS):
        if key != event_key(event.number):
            yield f"event {event.number} is under a wrong key"


def _lives(tx: Reader) -> Problems:
    kept: Counter[str] = Counter()
    for key, mounting in tx.scan(MOUNTINGS):
        kept[mounting.code] += 1
        if key != mounting_key(mounting.code, mounting.loaded_at_ns, mounting.mounting_id):
            yield f"mounting {mounting.mounting_id} is under a wrong key"
        if tx.find(LIVES, text_key(mounting.code)) is None:
            yield f"a mounting names cartridge {mounting.code}, whose life is missing"
    for key, life in tx.scan(LIVES):
        if key != text_key(life.code):
            yield f"the life of cartridge {life.code} is under a wrong key"
        if kept[life.code] != min(life.mountings, KEPT_MOUNTINGS):
            yield f"cartridge {life.code} was mounted {life.mountings} times, and {kept[life.code]} are recorded"


def _schedules(tx: Reader) -> Problems:
    kept: Counter[int] = Counter()
    for key, run in tx.scan(SCHEDULE_RUNS):
        kept[run.schedule] += run.state not in OPEN_RUNS
        if key != run_key(run.schedule, run.number):
            yield f"run {run.number} of schedule {run.schedule} is under a wrong key"
        if tx.find(SCHEDULES, schedule_key(run.schedule)) is None:
            yield f"run {run.number} is of schedule {run.schedule}, which is missing"
    for key, schedule in tx.scan(SCHEDULES):
        what = f"schedule {schedule.number}"
        if key != schedule_key(schedule.number):
            yield f"{what} is under a wrong key"
        yield from _points(tx, SCHEDULE_IDS, text_key(schedule.schedule_id), schedule.number, what)
        ended = schedule.course.runs + schedule.course.skipped
        if kept[schedule.number] != min(ended, KEPT_RUNS):
            yield f"{what} has had {ended} runs that ended, and {kept[schedule.number]} are recorded"


def _access(tx: Reader) -> Problems:
    users, newest = set(), tx.find(COUNTERS, USER_COUNTER) or 0
    for key, user in tx.scan(USERS):
        users.add(user.user_id)
        if key != text_key(user.user_id):
            yield f"user {user.name} is under a wrong key"
        if not 0 < user.number <= newest:
            yield f"user {user.name} has number {user.number}, the newest is {newest}"
    for key, credential in tx.scan(CREDENTIALS):
        if key != text_key(credential.credential_id):
            yield f"{credential.kind.value} {credential.credential_id} is under a wrong key"
        if credential.user_id and credential.user_id not in users:
            yield f"{credential.kind.value} {credential.credential_id} is that of a user who is missing"


def _notices(tx: Reader) -> Problems:
    for key, notice in tx.scan(NOTICES):
        if key != event_key(notice.number):
            yield f"notice {notice.number} is under a wrong key"
    for key, delivery in tx.scan(DELIVERIES):
        if key != delivery_key(delivery.channel, delivery.notice.number):
            yield f"the delivery of notice {delivery.notice.number} by {delivery.channel} is under a wrong key"
    for key, channel in tx.scan(CHANNELS):
        if key != text_key(channel.name):
            yield f"channel {channel.name} is under a wrong key"
    for key, condition in tx.scan(CONDITIONS):
        if key != text_key(condition.name):
            yield f"condition {condition.name} is under a wrong key"


def _tasks(tx: Reader) -> Problems:
    newest = {family: tx.find(COUNTERS, counter) or 0 for family, counter in TASK_COUNTERS.items()}
    for key, task in tx.scan(TASKS):
        if key != task_key(task.family, task.number):
            yield f"{task.family.value} task {task.number} is under a wrong key"
        if not 0 < task.number <= newest[task.family]:
            yield f"there is a {task.family.value} task {task.number}, the newest is {newest[task.family]}"


def main(path: Path) -> int:
    """Print what is wrong with the ledger in the folder `path`; return 0 when nothing is, else PROBLEMS_EXIT."""
    try:
        with open_lmdb(path, readonly=True, map_size_bytes=MAP_SIZE_BYTES) as environment:
            databases = open_databases(environment, readonly=True)
            with environment.begin() as transaction:
                found = problems(Reader(transaction, databases))
    except lmdb.Error as error:
        found = [str(error)]
    print("\n".join(found))
    return PROBLEMS_EXIT if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
