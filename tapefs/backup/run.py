"""One backup job from begin to completion. Runs in a mover's main thread, which is the intake thread."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import structlog

from catalog.errors import Damaged
from catalog.ids import SetId, SetNumber, new_uuid
from catalog.ledger import Ledger
from catalog.records import BackupSet, Filters, Job, JobState, SetState
from drivers.interface import Drive
from tapefs.along.companions import Companions
from tapefs.backup.base import Choice, choose_base, same_base
from tapefs.backup.early_index import EarlyIndex
from tapefs.backup.engine import Engine
from tapefs.backup.inflow import STREAM_WAY_OUT, Inflow
from tapefs.backup.interrupted import Interrupted
from tapefs.backup.pool_copies import copy_to_pools
from tapefs.backup.read_back import read_back
from tapefs.backup.segment import SetContext
from tapefs.backup.selection import check_sources
from tapefs.backup.watcher import Watcher
from tapefs.codecs import Codec, codec
from tapefs.errors import Cancelled, SourceError
from tapefs.home import Home
from tapefs.keys.policy import TapeKeys
from tapefs.report.recorder import Recorder
from tapefs.retention.policy import ARCHIVE
from tapefs.retention.pools import Pools
from tapefs.sets.finish import finish_set

log = structlog.get_logger(__name__)


def run_backup(
    home: Home, ledger: Ledger, drive: Drive, job: Job, watcher: Watcher, inflow: Inflow | None = None
) -> SetId:
    """Run a QUEUED job; return its set, which is then COMPLETE. On any error it is FAILED and nothing of it is shown.

    One that is queued to resume goes on with the set that it has. `inflow` is what a job of a stream stores.

    Raises SourceError before a set or a tape is touched; NoTape, Cancelled, TapeError, drive and catalog errors. A job
    that is to be copied or verified raises as `copy_to_pools` and `read_back`, too, its set being COMPLETE then.
    """
    recorder = Recorder(home, ledger, drive, job, watcher)
    try:
        if job.stream and (inflow is None or job.resume):
            raise SourceError(f"{job.stream} is a stream, which nobody sends now: {STREAM_WAY_OUT}")
        if job.resume:
            set_id = _resume(home, ledger, drive, job, recorder)
        else:
            set_id = _begin(home, ledger, drive, job, recorder, inflow)
    except BaseException as error:
        recorder.end(error)
        raise
    recorder.end(None)
    return set_id


def _begin(home: Home, ledger: Ledger, drive: Drive, job: Job, recorder: Recorder, inflow: Inflow | None) -> SetId:
    """Make a new set."""
    pools = Pools.of(home, ledger)
    sources = check_sources(job.sources) if inflow is None else list(job.sources)
    the_codec = codec(job.codec, home.settings.backup.gzip_engine)
    the_codec.encoder(job.level)  # Raises UsageError for a level or a program that is missing.
    _require_encryption(home, drive, pools.get(job.pool).name)
    choice = choose_base(home, ledger, job)
    try:
        if choice.reason:
            log.info("a full set", job=job.number, name=job.name, reason=choice.reason)
        plan = SetPlan(home, ledger, drive, job, the_codec, sources, choice, inflow=inflow)
        backup_set = ledger.begin_set(_new_set(job, choice, pools, _after_ns(ledger, job)))
        with _companions(home, job, backup_set) as along:
            with EarlyIndex(home, backup_set) as early:
                _write(plan, backup_set, recorder, early, along)
            _finish(home, ledger, backup_set.set_id, recorder, along)
    finally:
        choice.close()
    return _complete(home, ledger, drive, job, backup_set.set_id, recorder)


def _resume(home: Home, ledger: Ledger, drive: Drive, job: Job, recorder: Recorder) -> SetId:
    """Go on with the job's set behind its last committed segment, or with what follows when it is whole on tape.

    It is made of the sources it was begun with, in the same way, and without the same, whatever the job says by now.
    """
    set_id = job.set_id
    if set_id is None:
        raise AssertionError("the ledger queues no job to resume without a set")
    backup_set = ledger.backup_set(set_id)
    if backup_set.state is SetState.FAILED:
        sources = check_sources(backup_set.sources)
        _require_encryption(home, drive, backup_set.pool)
        the_codec = codec(backup_set.codec, home.settings.backup.gzip_engine)
        job = _as_begun(job, backup_set)
        choice = same_base(home, ledger, backup_set)
        try:
            interrupted = Interrupted.of(home, ledger, backup_set, choice.reader)
            plan = SetPlan(home, ledger, drive, job, the_codec, sources, choice, interrupted)
            committed = [home.trailer(segment.segment_id) for segment in ledger.segments(set_id)]
            with _companions(home, job, backup_set) as along:
                with EarlyIndex(home, backup_set, committed) as early:
                    _write(plan, ledger.resume_set(set_id, time.time_ns()), recorder, early, along)
                _finish(home, ledger, set_id, recorder, along)
        finally:
            choice.close()
    else:
        recorder.begin(ledger.resume_set(set_id, time.time_ns()))
        _finish(home, ledger, set_id, recorder, None)
    return _complete(home, ledger, drive, job, set_id, recorder)


def _require_encryption(home: Home, drive: Drive, pool: str) -> None:
    """Raise KeyUnfit, before anything is written, when the drive is to encrypt and cannot, or has no key for it."""
    if home.settings.encryption.by_of(pool) == "drive":
        TapeKeys(home, drive=drive).of_new_tape(pool)


def _as_begun(job: Job, backup_set: BackupSet) -> Job:
    """Return the job as it was when the set was begun, in what decides which files it has."""
    filters = {} if backup_set.filters is None else msgspec.structs.asdict(backup_set.filters)
    return msgspec.structs.replace(job, sources=backup_set.sources, level=backup_set.level, **filters)


@dataclass(frozen=True, slots=True)
class SetPlan:
    """What a set is to be made with, all of it checked."""

    home: Home
    ledger: Ledger
    drive: Drive
    job: Job
    codec: Codec
    sources: list[bytes]
    choice: Choice
    #: What there is of it already.
    interrupted: Interrupted | None = None
    #: Its one file, if that is a stream.
    inflow: Inflow | None = None


@contextmanager
def _companions(home: Home, job: Job, backup_set: BackupSet) -> Iterator[Companions | None]:
    """Yield what other drives may write further copies by, if the job wants any and there are other drives."""
    pools = list(backup_set.copy_pools)
    if backup_set.type == ARCHIVE and job.verify:
        pools += [""] * (job.copies - 1 - len(pools))
    if not pools or home.settings.library.drive_count < 2:
        yield None
        return
    along = Companions(backup_set.set_id, pools, home.settings.backup.buffer_bytes)
    try:
        yield along
    finally:
        along.close()


def _write(
    plan: SetPlan, backup_set: BackupSet, recorder: Recorder, early: EarlyIndex, along: Companions | None
) -> None:
    """Write the RUNNING set, to its end: it is SEALED, or FAILED when this raises. Its index may be there then."""
    ledger = plan.ledger
    engine = None
    try:
        recorder.begin(backup_set)
        context = SetContext(plan.home, ledger, backup_set, socket.gethostname(), plan.codec, early, along)
        base = plan.choice.base(checksum=plan.job.checksum)
        with _names_the_way_out(plan.choice):
            engine = Engine(context, plan.drive, recorder, plan.job, plan.sources, base, plan.interrupted, plan.inflow)
            engine.write()
    except BaseException as error:
        if ledger.backup_set(backup_set.set_id).state is SetState.RUNNING:
            ledger.fail_set(backup_set.set_id, str(error) or type(error).__name__, time.time_ns())
        raise
    finally:
        if engine is not None:
            recorder.measured(engine.figures())
            engine.close()
    engine.tell("index")
    set_id = backup_set.set_id
    early.finish(ledger.backup_set(set_id), [segment.segment_id for segment in ledger.segments(set_id)])


@contextmanager
def _names_the_way_out(choice: Choice) -> Iterator[None]:
    """What to do when the index of the base, or of one below it, turns out to be damaged."""
    try:
        yield
    except Damaged as error:
        if choice.backup_set is None or choice.index is None or str(choice.index.parent) not in error.where:
            raise
        way_out = f"set {choice.backup_set.set_id}, on which this one builds, cannot be compared with"
        raise Damaged(f"{way_out}; --type full makes one that does not need it", str(error)) from error


def _finish(home: Home, ledger: Ledger, set_id: SetId, watcher: Watcher, along: Companions | None) -> None:
    """Make the SEALED set COMPLETE, and have the copies that were written at once ended."""
    finish_set(home, ledger, set_id, time.time_ns())
    if along is not None:
        try:
            along.seal(watcher.check_cancelled)
        except Cancelled as error:
            raise Cancelled(
                f"{error} while further copies of its set, which is complete on tape, were ended"
            ) from error


def _complete(home: Home, ledger: Ledger, drive: Drive, job: Job, set_id: SetId, watcher: Watcher) -> SetId:
    """Make further copies of the COMPLETE set and read it back, if that is asked for."""
    is_copied = copy_to_pools(home, ledger, drive, job, set_id, watcher)
    if job.verify:
        read_back(home, ledger, drive, job, set_id, watcher)
    elif is_copied:
        ledger.finish_job(job.number, JobState.COMPLETED, "", time.time_ns())
    return set_id


def _after_ns(ledger: Ledger, job: Job) -> int:
    """Return what the newest complete set of that name says the time is, if that is ahead of the clock, else 0."""
    of_name = (each for each in ledger.backup_sets() if each.name == job.name and each.state is SetState.COMPLETE)
    newest_ns = max((each.order_ns for each in of_name), default=0)
    if newest_ns <= time.time_ns():
        return 0
    log.warning("the clock is behind the newest set of this name", name=job.name, newest_ns=newest_ns)
    return newest_ns + 1


def _new_set(job: Job, choice: Choice, pools: Pools, after_ns: int) -> BackupSet:
    return BackupSet(
        set_id=SetId(new_uuid()),
        number=SetNumber(0),
        job_id=job.job_id,
        job_number=job.number,
        name=job.name,
        type=choice.type,
        codec=job.codec,
        level=job.level,
        sources=job.sources,
        state=SetState.RUNNING,
        started_at_ns=time.time_ns(),
        filters=Filters(**{field: getattr(job, field) for field in Filters.__struct_fields__}),
        parent_id=None if choice.backup_set is None else choice.backup_set.set_id,
        retention_days=job.retention_days,
        pool=pools.get(job.pool).name,
        copy_pools=pools.copy_pools_of(job),
        after_ns=after_ns,
    )
