"""Operations on jobs: functions of a transaction (see `catalog.ledger`)."""

from __future__ import annotations

import msgspec

from catalog.errors import Conflict, NotFound
from catalog.ids import JobNumber
from catalog.ledger_store import job_indexes
from catalog.ledger_store.tables import COUNTERS, JOB_COUNTER, JOB_IDS, JOBS, SCHEDULES, SETS, job_key, text_key
from catalog.ledger_store.transaction import Reader, Writer, plain_text
from catalog.queue_records import CheckState, JobCheck
from catalog.records import MOST_MOVES, BackupSet, DriveMove, Job, JobState, SetState
from catalog.schedule_records import BackUp

#: A run is on its way: nothing else may be done with the job.
ACTIVE = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.PAUSED})
#: … and no operator has stopped it.
_GOING = frozenset({JobState.QUEUED, JobState.RUNNING})
_FINISHED = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
_MAX_NUMBER = 2**64 - 1
#: States of sets with which a run can go on; behind FAILED only the verification may be missing.
_RESUMABLE = frozenset({SetState.FAILED, SetState.SEALED, SetState.COMPLETE})
#: What becomes of a job; the other fields say what it was asked to do, and only `edit` changes them.
_COURSE = frozenset(
    {"number", "job_id", "state", "runs", "run_type", "set_id", "resume", "moves", "error"}
    | {"tries", "not_before_ns", "paused_at_ns", "check", "hooks", "hooks_begun_at_ns"}
    | {"created_at_ns", "queued_at_ns", "started_at_ns", "finished_at_ns"}
)
_REQUEST = tuple(field for field in Job.__struct_fields__ if field not in _COURSE)


def get(tx: Reader, number: JobNumber) -> Job:
    """Return a job. Raises NotFound."""
    job = tx.find(JOBS, job_key(number)) if 0 < number <= _MAX_NUMBER else None
    if job is None:
        raise NotFound(f"there is no job {number}")
    return job


def all_by_number(tx: Reader) -> list[Job]:
    """Return all jobs, oldest first."""
    return [job for _, job in tx.scan(JOBS)]


def add(tx: Writer, job: Job) -> Job:
    """Record a job under the next number; return it, or the one that is there already by that id. Raises Conflict."""
    number = tx.find(JOB_IDS, text_key(job.job_id))
    if number is not None:
        known = tx.follow(JOBS, job_key(JobNumber(number)), f"job id {job.job_id}")
        if not _asks_the_same(known, job):
            raise Conflict(f"job {job.job_id} is recorded already, as number {number}, and asks for something else")
        return known
    added = msgspec.structs.replace(job, number=JobNumber(tx.next_number(JOB_COUNTER)))
    job_indexes.store(tx, None, added)
    tx.insert(JOB_IDS, text_key(added.job_id), added.number)
    tx.tell("job.added", added.number, added.name, added.created_at_ns)
    return added


def _asks_the_same(one: Job, other: Job) -> bool:
    return all(getattr(one, field) == getattr(other, field) for field in _REQUEST)


def edit(tx: Writer, known: Job, wanted: Job, now_ns: int) -> Job:
    """Have the job `known` ask for what `wanted` does; harmless when it does already. Raises NotFound, Conflict."""
    job = get(tx, known.number)
    if job.job_id != known.job_id or job.job_id != wanted.job_id:
        raise Conflict(f"job {known.number} is {job.job_id}, not {known.job_id}")
    if _asks_the_same(job, wanted):
        return job
    if not _asks_the_same(job, known):
        raise Conflict(f"job {job.number} was changed by somebody else meanwhile: look at it again")
    if job.state in ACTIVE:
        raise Conflict(f"job {job.number} is {job.state.value}: it can be changed when it has ended")
    edited = msgspec.structs.replace(job, **{field: getattr(wanted, field) for field in _REQUEST})
    job_indexes.store(tx, job, edited)
    tx.tell("job.edited", job.number, edited.name, now_ns)
    return edited


def delete(tx: Writer, number: JobNumber, now_ns: int) -> None:
    """Forget the job; its sets stay, its number is never given out again. Harmless when it was deleted before.

    Raises NotFound for a number that no job had, Conflict while it is queued or running, or a schedule runs it.
    """
    job = tx.find(JOBS, job_key(number)) if 0 < number <= (tx.find(COUNTERS, JOB_COUNTER) or 0) else get(tx, number)
    if job is None:
        return
    if job.state in ACTIVE:
        raise Conflict(f"job {number} is {job.state.value}: cancel it, or wait until it has ended")
    for _, schedule in tx.scan(SCHEDULES):
        if isinstance(schedule.action, BackUp) and schedule.action.job == number:
            raise Conflict(f"job {number} is run by schedule {schedule.number} ({schedule.name}): delete that first")
    job_indexes.remove(tx, job)
    tx.delete(JOB_IDS, text_key(job.job_id))
    tx.tell("job.deleted", number, job.name, now_ns)


def forgetting_its_run(job: Job) -> Job:
    """Return the job without what is noted of how its newest run went; state, set and count of runs stay."""
    return msgspec.structs.replace(
        job,
        resume=False,
        moves=(),
        tries=(),
        not_before_ns=0,
        paused_at_ns=0,
        check=None,
        hooks_begun_at_ns=0,
        hooks=(),
        started_at_ns=0,
        finished_at_ns=0,
        error="",
    )


def queue(tx: Writer, number: JobNumber, now_ns: int, run_type: str) -> Job:
    """Begin a new run: the job becomes QUEUED and forgets its last run. Raises NotFound, Conflict."""
    job = get(tx, number)
    if job.state in ACTIVE:
        raise Conflict(f"job {number} is {job.state.value} already")
    queued = msgspec.structs.replace(
        forgetting_its_run(job),
        state=JobState.QUEUED,
        runs=job.runs + 1,
        run_type=run_type,
        set_id=None,
        queued_at_ns=now_ns,
    )
    return change(tx, queued, now_ns)


def resume(tx: Writer, number: JobNumber, now_ns: int) -> Job:
    """Have the newest run go on: the job becomes QUEUED and keeps its set. Raises NotFound, Conflict."""
    job = get(tx, number)
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        raise Conflict(f"job {number} is {job.state.value}: there is nothing to resume")
    backup_set = tx.find(SETS, text_key(job.set_id)) if job.set_id is not None else None
    if backup_set is None or backup_set.state not in _RESUMABLE:
        raise Conflict(f"job {number} has no set to go on with: run it anew")
    queued = msgspec.structs.replace(forgetting_its_run(job), state=JobState.QUEUED, resume=True, queued_at_ns=now_ns)
    return change(tx, queued, now_ns)


def restart(tx: Writer, job: Job, backup_set: BackupSet, now_ns: int) -> None:
    """The job that is QUEUED to resume the set becomes RUNNING; harmless when it runs. Raises Conflict."""
    if job.set_id != backup_set.set_id or not job.resume or job.state not in _GOING:
        raise Conflict(f"job {job.number} is not queued to resume set {backup_set.set_id}")
    if job.state is JobState.QUEUED:
        change(tx, msgspec.structs.replace(job, state=JobState.RUNNING, started_at_ns=now_ns), now_ns)


def start(tx: Writer, job: Job, backup_set: BackupSet) -> None:
    """The QUEUED job becomes RUNNING with its set. Raises Conflict."""
    if job.state is not JobState.QUEUED:
        raise Conflict(f"job {job.number} is {job.state.value}, not queued: it cannot begin a set")
    at_ns = backup_set.started_at_ns
    running = msgspec.structs.replace(job, state=JobState.RUNNING, set_id=backup_set.set_id, started_at_ns=at_ns)
    change(tx, running, at_ns)


def finish(tx: Writer, number: JobNumber, state: JobState, error: str, now_ns: int) -> Job:
    """End the job's run; the same state again is harmless. Raises NotFound, Conflict, ValueError for no end."""
    if state not in _FINISHED:
        raise ValueError(f"{state.value} is no end of a job")
    job = get(tx, number)
    if job.state is state:
        return job
    if job.state not in ACTIVE:
        raise Conflict(f"job {number} is {job.state.value}: it cannot become {state.value}")
    if state is JobState.COMPLETED:
        _check_complete(tx, job)
    return _finish(tx, job, state, error, now_ns)


def _check_complete(tx: Reader, job: Job) -> None:
    """Nothing is reported done that is not on tape."""
    if job.set_id is None:
        return
    backup_set = tx.follow(SETS, text_key(job.set_id), f"job {job.number}")
    if backup_set.state is not SetState.COMPLETE:
        raise Conflict(f"job {job.number} is not completed: its set {job.set_id} is {backup_set.state.value}")


def complete(tx: Writer, backup_set: BackupSet, now_ns: int) -> None:
    """The set's job is COMPLETED, if the set is of its newest run: even if it was given up while the set was SEALED.

    One that is to be verified or copied stays as it is: it is done when that has been done, and `finish` says so.
    One that was given up may have been deleted since.
    """
    job = tx.find(JOBS, job_key(backup_set.job_number))
    if job is None:
        return
    is_more_to_do = job.verify or bool(backup_set.copy_pools)
    if job.set_id == backup_set.set_id and job.state is not JobState.COMPLETED and not is_more_to_do:
        _finish(tx, job, JobState.COMPLETED, "", now_ns)


def is_active_with(tx: Reader, backup_set: BackupSet) -> bool:
    """Is the set's job queued or running, with this set as that of its newest run?"""
    job = tx.find(JOBS, job_key(backup_set.job_number))
    return job is not None and job.set_id == backup_set.set_id and job.state in ACTIVE


def put_back(tx: Writer, job: Job, move: DriveMove) -> Job:
    """The active job becomes QUEUED because of `move`, to go on with its set if it has one. Raises Conflict."""
    if job.state not in _GOING:
        raise Conflict(f"job {job.number} is {job.state.value}: it cannot leave drive {move.drive}")
    if len(job.moves) >= MOST_MOVES:
        raise Conflict(f"job {job.number} has left {len(job.moves)} drives that failed: no other is tried")
    queued = msgspec.structs.replace(
        job,
        state=JobState.QUEUED,
        resume=job.set_id is not None,
        moves=(*job.moves, move),
        started_at_ns=0,
    )
    return change(tx, queued, move.at_ns)


def _finish(tx: Writer, job: Job, state: JobState, error: str, now_ns: int) -> Job:
    is_to_check = state is JobState.COMPLETED and job.then_verify and job.set_id is not None
    ended = msgspec.structs.replace(
        job,
        state=state,
        error=plain_text(error),
        not_before_ns=0,
        check=JobCheck(state=CheckState.WAITING, since_ns=now_ns) if is_to_check else None,
        finished_at_ns=now_ns,
    )
    return change(tx, ended, now_ns)


def change(tx: Writer, job: Job, now_ns: int) -> Job:
    """Store the job, which is there, in its new state, and tell."""
    job_indexes.store(tx, get(tx, job.number), job)
    tx.tell("job.state", job.number, job.state.value, now_ns)
    return job
