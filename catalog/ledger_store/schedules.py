"""Operations on schedules and their runs: functions of a transaction (see `catalog.ledger`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import msgspec

from catalog.errors import Conflict, Damaged, NotFound, WrongVersion
from catalog.ids import JobNumber
from catalog.ledger_store import jobs, unreadable
from catalog.ledger_store.tables import (
    COUNTERS,
    RUN_COUNTER,
    SCHEDULE_COUNTER,
    SCHEDULE_IDS,
    SCHEDULE_RUNS,
    SCHEDULES,
    run_key,
    schedule_key,
    text_key,
)
from catalog.ledger_store.transaction import Reader, Writer, plain_text
from catalog.records import Job
from catalog.schedule_records import (
    KEPT_RUNS,
    OPEN_RUNS,
    Course,
    RunNumber,
    RunState,
    Schedule,
    ScheduleNumber,
    ScheduleRun,
)

_MAX_NUMBER = 2**64 - 1


def get(tx: Reader, number: ScheduleNumber) -> Schedule:
    """Return a schedule. Raises NotFound."""
    schedule = tx.find(SCHEDULES, schedule_key(number)) if 0 < number <= _MAX_NUMBER else None
    if schedule is None:
        raise NotFound(f"there is no schedule {number}")
    return schedule


def all_by_number(tx: Reader) -> list[Schedule]:
    """Return all schedules, oldest first."""
    return [schedule for _, schedule in tx.scan(SCHEDULES)]


def sound(tx: Reader) -> tuple[list[Schedule], list[str]]:
    """Return the schedules that can be read, oldest first, and what is wrong with the others."""
    found, wrong = [], []
    for key in tx.keys(SCHEDULES):
        try:
            schedule = tx.find(SCHEDULES, key)
        except (Damaged, WrongVersion) as error:
            wrong.append(str(error))
        else:
            found += [schedule] if schedule is not None else []
    return found, wrong


def put(tx: Writer, known: Schedule | None, wanted: Schedule, now_ns: int) -> Schedule:
    """Record a schedule, or change the one that is as `known`; the same again is harmless. Raises Conflict, NotFound.

    What `wanted.course` says counts for `decided_ns` only: what is due is counted anew from there.
    """
    number = tx.find(SCHEDULE_IDS, text_key(wanted.schedule_id))
    if known is None:
        if number is not None:
            there = tx.follow(SCHEDULES, schedule_key(ScheduleNumber(number)), f"schedule id {wanted.schedule_id}")
            if _asked(there) != _asked(_plain(wanted)):
                raise Conflict(f"schedule {wanted.schedule_id} is recorded already, as number {number}, and is another")
            return there
        return _add(tx, wanted, now_ns)
    there = get(tx, known.number)
    if there.schedule_id != known.schedule_id or there.schedule_id != wanted.schedule_id:
        raise Conflict(f"schedule {known.number} is {there.schedule_id}, not {known.schedule_id}")
    plain = _plain(wanted)
    if _asked(there) == _asked(plain):
        return there
    if _asked(there) != _asked(known):
        raise Conflict(f"schedule {known.number} was changed by somebody else meanwhile: look at it again")
    course = msgspec.structs.replace(there.course, decided_ns=wanted.course.decided_ns)
    changed = msgspec.structs.replace(
        plain, number=there.number, created_at_ns=there.created_at_ns, changed_at_ns=now_ns, course=course
    )
    tx.put(SCHEDULES, schedule_key(there.number), changed)
    tx.tell("schedule.changed", there.number, changed.name, now_ns)
    return changed


def _add(tx: Writer, wanted: Schedule, now_ns: int) -> Schedule:
    added = msgspec.structs.replace(
        _plain(wanted),
        number=ScheduleNumber(tx.next_number(SCHEDULE_COUNTER)),
        created_at_ns=now_ns,
        changed_at_ns=now_ns,
        course=Course(decided_ns=wanted.course.decided_ns),
    )
    tx.insert(SCHEDULES, schedule_key(added.number), added)
    tx.insert(SCHEDULE_IDS, text_key(added.schedule_id), added.number)
    tx.tell("schedule.added", added.number, added.name, now_ns)
    return added


def _plain(schedule: Schedule) -> Schedule:
    return msgspec.structs.replace(
        schedule, name=plain_text(schedule.name), description=plain_text(schedule.description)
    )


def _asked(schedule: Schedule) -> Schedule:
    """Return the schedule without what has become of it."""
    return msgspec.structs.replace(
        schedule, number=ScheduleNumber(0), created_at_ns=0, changed_at_ns=0, course=Course()
    )


def delete(tx: Writer, number: ScheduleNumber, now_ns: int) -> None:
    """Forget a schedule and its runs; harmless when it was deleted before.

    Raises NotFound for a number that no schedule had, Conflict while a run of it has begun and not ended.
    """
    given = 0 < number <= (tx.find(COUNTERS, SCHEDULE_COUNTER) or 0)
    schedule = tx.find(SCHEDULES, schedule_key(number)) if given else get(tx, number)
    if schedule is None:
        return
    runs = [(key, run) for key, run in tx.scan(SCHEDULE_RUNS, schedule_key(number))]
    busy = next((run for _, run in runs if run.state in OPEN_RUNS and run.state is not RunState.WAITING), None)
    if busy is not None:
        raise Conflict(f"run {busy.number} of schedule {number} is {busy.state.value}: stop it, or wait until it ends")
    for key, _ in runs:
        tx.delete(SCHEDULE_RUNS, key)
    tx.delete(SCHEDULES, schedule_key(number))
    tx.delete(SCHEDULE_IDS, text_key(schedule.schedule_id))
    tx.tell("schedule.deleted", number, schedule.name, now_ns)


# -- runs ------------------------------------------------------------------------------------------------------------


def runs(tx: Reader, number: ScheduleNumber, limit: int, offset: int) -> list[ScheduleRun]:
    """Return the runs of a schedule that are kept, the newest first; at most `limit`, behind `offset`."""
    if not 0 < number <= _MAX_NUMBER:
        return []
    found = [run for _, run in unreadable.readable(tx, SCHEDULE_RUNS, schedule_key(number))]
    found.reverse()
    return list(islice(found, max(offset, 0), max(offset, 0) + max(limit, 0)))


def open_runs(tx: Reader) -> list[ScheduleRun]:
    """Return the runs of all schedules that have not ended, oldest first."""
    found = [run for _, run in unreadable.readable(tx, SCHEDULE_RUNS) if run.state in OPEN_RUNS]
    return sorted(found, key=lambda run: run.number)


def plan(
    tx: Writer,
    number: ScheduleNumber,
    known_ns: int,
    decided_ns: int,
    planned: Sequence[ScheduleRun],
    now_ns: int,
) -> list[ScheduleRun]:
    """Record runs, under the next numbers, and that all until `decided_ns` is decided. Raises NotFound, Conflict.

    One whose instant has a run already is left out, unless it is by hand: so that the same again is harmless.
    """
    schedule = get(tx, number)
    if schedule.course.decided_ns not in (known_ns, decided_ns):
        raise Conflict(f"somebody else has decided what schedule {number} does until then")
    known = {run.planned_ns for _, run in tx.scan(SCHEDULE_RUNS, schedule_key(number)) if not run.by_hand}
    added = [_insert(tx, schedule, run) for run in planned if run.by_hand or run.planned_ns not in known]
    skipped = sum(run.state is RunState.SKIPPED for run in added)
    course = msgspec.structs.replace(schedule.course, decided_ns=decided_ns, skipped=schedule.course.skipped + skipped)
    if course != schedule.course:
        tx.put(SCHEDULES, schedule_key(number), msgspec.structs.replace(schedule, course=course))
    for run in added:
        tx.tell("schedule.planned", number, f"{run.number} {run.state.value}", now_ns)
    _forget_oldest(tx, number)
    return added


def _insert(tx: Writer, schedule: Schedule, run: ScheduleRun) -> ScheduleRun:
    if run.state not in (RunState.WAITING, RunState.SKIPPED):
        raise ValueError(f"a run that is {run.state.value} is no plan")
    number = RunNumber(tx.next_number(RUN_COUNTER))
    added = msgspec.structs.replace(run, number=number, schedule=schedule.number, error=plain_text(run.error))
    tx.insert(SCHEDULE_RUNS, run_key(schedule.number, number), added)
    return added


def change(tx: Writer, known: ScheduleRun, wanted: ScheduleRun, now_ns: int) -> ScheduleRun:
    """A run that has not ended becomes what `wanted` is; the same again is harmless. Raises NotFound, Conflict.

    When it ends so, the schedule's statistics count it.
    """
    plain = _plain_run(wanted)
    there = _open(tx, known)
    if there == plain:
        return there
    if there != known or (there.schedule, there.number) != (plain.schedule, plain.number):
        raise Conflict(f"run {known.number} of schedule {known.schedule} is {there.state.value} by now")
    tx.put(SCHEDULE_RUNS, run_key(plain.schedule, plain.number), plain)
    if there.state is not plain.state:
        tx.tell("schedule.run", plain.schedule, f"{plain.number} {plain.state.value}", now_ns)
    if plain.state not in OPEN_RUNS:
        _count(tx, plain)
        _forget_oldest(tx, plain.schedule)
    return plain


def queue_job(tx: Writer, known: ScheduleRun, number: JobNumber, run_type: str, now_ns: int) -> tuple[ScheduleRun, Job]:
    """Queue the job and note in the run which of the job's runs that is. Raises NotFound, Conflict."""
    there = _open(tx, known)
    if there.job == number:
        return there, jobs.get(tx, number)
    if there != known:
        raise Conflict(f"run {known.number} of schedule {known.schedule} is {there.state.value} by now")
    job = jobs.queue(tx, number, now_ns, run_type)
    began_ns = there.started_at_ns or now_ns
    wanted = msgspec.structs.replace(
        there, state=RunState.RUNNING, job=number, job_runs=job.runs, attempts=1, started_at_ns=began_ns
    )
    return change(tx, there, wanted, now_ns), job


def _open(tx: Reader, known: ScheduleRun) -> ScheduleRun:
    there = tx.find(SCHEDULE_RUNS, run_key(known.schedule, known.number))
    if there is None:
        raise NotFound(f"schedule {known.schedule} has no run {known.number}")
    return there


def _plain_run(run: ScheduleRun) -> ScheduleRun:
    hooks = tuple(
        msgspec.structs.replace(each, error=plain_text(each.error), output=plain_text(each.output))
        for each in run.hooks
    )
    return msgspec.structs.replace(run, error=plain_text(run.error), result=plain_text(run.result), hooks=hooks)


def _count(tx: Writer, run: ScheduleRun) -> None:
    schedule = get(tx, run.schedule)
    was, at_ns = schedule.course, run.finished_at_ns
    is_good, is_bad = run.state is RunState.COMPLETED, run.state is RunState.FAILED
    has_run = run.state is not RunState.SKIPPED
    course = msgspec.structs.replace(
        was,
        runs=was.runs + has_run,
        successes=was.successes + is_good,
        failures=was.failures + is_bad,
        cancelled=was.cancelled + (run.state is RunState.CANCELLED),
        skipped=was.skipped + (not has_run),
        duration_ns=was.duration_ns + (max(0, at_ns - run.started_at_ns) if is_good else 0),
        last_run_ns=max(was.last_run_ns, run.started_at_ns) if has_run else was.last_run_ns,
        last_success_ns=at_ns if is_good else was.last_success_ns,
        last_failure_ns=at_ns if is_bad else was.last_failure_ns,
        last_error=run.error if is_bad else "" if is_good else was.last_error,
    )
    tx.put(SCHEDULES, schedule_key(schedule.number), msgspec.structs.replace(schedule, course=course))


def _forget_oldest(tx: Writer, number: ScheduleNumber) -> None:
    ended = [key for key, run in tx.scan(SCHEDULE_RUNS, schedule_key(number)) if run.state not in OPEN_RUNS]
    for key in ended[:-KEPT_RUNS]:
        tx.delete(SCHEDULE_RUNS, key)
