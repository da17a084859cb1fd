"""One backup job from begin to completion. Runs in a mover's main thread, which is the intake thread."""

from __future__ import annotations

import socket
import time

from catalog.ids import SetId, SetNumber, new_uuid
from catalog.ledger import Ledger
from catalog.records import BackupSet, Job, SetState
from drivers.interface import Drive
from tapefs.backup.engine import Engine
from tapefs.backup.segment import SetContext
from tapefs.backup.selection import check_sources
from tapefs.backup.watcher import Watcher
from tapefs.codecs import check_level, codec
from tapefs.home import Home
from tapefs.sets.finish import finish_set


def run_backup(home: Home, ledger: Ledger, drive: Drive, job: Job, watcher: Watcher) -> SetId:
    """Run a QUEUED job; return its set, which is then COMPLETE. On any error it is FAILED and nothing of it is shown.

    Raises SourceError before a set or a tape is touched; NoTape, Cancelled, TapeError, drive and catalog errors.
    """
    sources = check_sources(job.sources)
    the_codec = codec(job.codec, home.settings.backup.gzip_engine)
    check_level(the_codec, job.level)
    backup_set = ledger.begin_set(_new_set(job))
    engine = None
    try:
        context = SetContext(home, ledger, backup_set, socket.gethostname(), the_codec)
        engine = Engine(context, drive, watcher, job, sources)
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


def _new_set(job: Job) -> BackupSet:
    return BackupSet(
        set_id=SetId(new_uuid()),
        number=SetNumber(0),
        job_id=job.job_id,
        job_number=job.number,
        name=job.name,
        type=job.type,
        codec=job.codec,
        level=job.level,
        sources=job.sources,
        state=SetState.RUNNING,
        started_at_ns=time.time_ns(),
    )
