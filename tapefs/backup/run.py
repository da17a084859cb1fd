"""One backup job from begin to completion. Runs in a mover's main thread, which is the intake thread."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass

import structlog

from catalog.ids import SetId, SetNumber, new_uuid
from catalog.ledger import Ledger
from catalog.records import BackupSet, Job, SetState
from drivers.interface import Drive
from tapefs.backup.base import Choice, choose_base
from tapefs.backup.engine import Engine
from tapefs.backup.read_back import read_back
from tapefs.backup.segment import SetContext
from tapefs.backup.selection import check_sources
from tapefs.backup.watcher import Watcher
from tapefs.codecs import Codec, check_level, codec
from tapefs.home import Home
from tapefs.sets.finish import finish_set

log = structlog.get_logger(__name__)


def run_backup(home: Home, ledger: Ledger, drive: Drive, job: Job, watcher: Watcher) -> SetId:
    """Run a QUEUED job; return its set, which is then COMPLETE. On any error it is FAILED and nothing of it is shown.

    Raises SourceError before a set or a tape is touched; NoTape, Cancelled, TapeError, drive and catalog errors. A job
    that is to be verified raises as `read_back`, too, its set being COMPLETE then.
    """
    sources = check_sources(job.sources)
    the_codec = codec(job.codec, home.settings.backup.gzip_engine)
    check_level(the_codec, job.level)
    choice = choose_base(home, ledger, job)
    try:
        set_id = _run(SetPlan(home, ledger, drive, job, the_codec, sources, choice), watcher)
    finally:
        choice.close()
    if job.verify:
        read_back(home, ledger, drive, job, set_id, watcher)
    return set_id


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


def _run(plan: SetPlan, watcher: Watcher) -> SetId:
    home, ledger, job = plan.home, plan.ledger, plan.job
    if plan.choice.reason:
        log.info("a full set", job=job.number, name=job.name, reason=plan.choice.reason)
    backup_set = ledger.begin_set(_new_set(job, plan.choice))
    engine = None
    try:
        context = SetContext(home, ledger, backup_set, socket.gethostname(), plan.codec)
        base = plan.choice.base(checksum=job.checksum)
        engine = Engine(context, plan.drive, watcher, job, plan.sources, base)
        engine.write()
    except BaseException as error:
        if ledger.backup_set(backup_set.set_id).state is SetState.RUNNING:
            ledger.fail_set(backup_set.set_id, str(error) or type(error).__name__, time.time_ns())
        raise
    finally:
        if engine is not None:
            engine.close()
    engine.tell("index")
    finish_set(home, ledger, backup_set.set_id, time.time_ns())
    return backup_set.set_id


def _new_set(job: Job, choice: Choice) -> BackupSet:
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
        parent_id=None if choice.backup_set is None else choice.backup_set.set_id,
        retention_days=job.retention_days,
    )
