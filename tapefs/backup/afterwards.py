"""What a run does once its set has been read back from tape.

A mirror takes the place of earlier ones; the sources of an archive are removed.

Mover's main thread. Harmless to repeat; the job is completed behind it.
"""

from __future__ import annotations

import dataclasses
import os
import time

import structlog

from catalog.index.reader import IndexReader
from catalog.ledger import Ledger
from catalog.records import BackupSet, CopyState, Job
from tapefs.backup.removal import MAPPED_NS, Remover
from tapefs.backup.watcher import BackupProgress, Watcher
from tapefs.errors import Cancelled, NotVerified
from tapefs.home import Home
from tapefs.retention.expire import expire
from tapefs.retention.policy import MIRROR, Verdict, Why

_PROGRESS_EVERY_S = 0.25

log = structlog.get_logger(__name__)


def replace_earlier(home: Home, ledger: Ledger, mirror: BackupSet, watcher: Watcher) -> None:
    """Have earlier mirrors of the job expire, the new one being verified; tell of those that are kept nevertheless.

    One stays that has what the new mirror could not read, or over twice as many entries.
    """

    def is_replaced(verdict: Verdict) -> bool:
        return verdict.why is Why.REPLACED and verdict.backup_set.job_id == mirror.job_id

    outcome = expire(home, ledger, time.time_ns(), only=is_replaced)
    log.info("mirror in place", set=mirror.set_id, expired=outcome.expired)
    for verdict in outcome.verdicts:
        earlier = verdict.backup_set
        is_earlier = earlier.type == MIRROR and earlier.job_id == mirror.job_id and earlier.number < mirror.number
        if is_earlier and verdict.why is Why.NEWEST:
            watcher.trouble(mirror.sources[0], f"set {earlier.set_id[:8]} is kept: {verdict.reason}")


def remove_sources(home: Home, ledger: Ledger, job: Job, archive: BackupSet, watcher: Watcher) -> None:
    """Remove what lies on as many verified tapes as the job wants; tell of everything that stays.

    Raises NotVerified when it does not lie there, Cancelled, catalog errors.
    """
    _require_copies(ledger, archive, job.copies)
    # The walk met them so: links above a source were followed once.
    sources = [_as_walked(source) for source in archive.sources]
    with IndexReader(home.index(archive.set_id)) as reader:
        follower = _Follower(archive, watcher)
        remover = Remover(reader, watcher.trouble, follower.look_around, archive.started_at_ns - MAPPED_NS)
        try:
            remover.remove(sources)
        except Cancelled as error:
            gone = f"of its files {remover.done.files:,} are on tape only"
            raise Cancelled(f"{error} while the sources were removed: {gone}") from error
    log.info("sources removed", set=archive.set_id, **dataclasses.asdict(remover.done))


class _Follower:
    """Tells of a removal a few times a second."""

    def __init__(self, archive: BackupSet, watcher: Watcher) -> None:
        self._archive = archive
        self._watcher = watcher
        self._told_at_s = 0.0

    def look_around(self, path: bytes) -> None:
        """Called for every file. Raises Cancelled."""
        now_s = time.monotonic()
        if now_s - self._told_at_s < _PROGRESS_EVERY_S:
            return
        self._told_at_s = now_s
        self._watcher.check_cancelled()
        archive = self._archive
        self._watcher.progress(
            BackupProgress(
                set_id=archive.set_id,
                stage="remove",
                tape="",
                path=path,
                files=archive.files,
                bytes=archive.bytes,
                stored_bytes=archive.stored_bytes,
            )
        )


def _require_copies(ledger: Ledger, archive: BackupSet, wanted: int) -> None:
    """Raise NotVerified unless each segment was read back whole from that many tapes since the set was complete."""
    for segment in ledger.segments(archive.set_id):
        good = {
            copy.volume_id
            for copy in ledger.copies(segment.segment_id)
            if copy.state is CopyState.GOOD and copy.verified_at_ns > archive.finished_at_ns
        }
        if len(good) < wanted:
            raise NotVerified(
                f"segment {segment.number} of set {archive.set_id} was read back from {len(good)} tapes, "
                f"not from {wanted}: nothing is removed"
            )


def _as_walked(source: bytes) -> bytes:
    parent, name = os.path.split(os.path.normpath(source))
    return os.path.join(os.path.realpath(parent), name) if name else b"/"
