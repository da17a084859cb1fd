"""What a run does once its set has been read back from tape: a mirror takes the place of earlier ones.

Mover's main thread. Harmless to repeat; the job is completed behind it.
"""

from __future__ import annotations

import time

import structlog

from catalog.ledger import Ledger
from catalog.records import BackupSet
from tapefs.backup.watcher import Watcher
from tapefs.home import Home
from tapefs.retention.expire import expire
from tapefs.retention.policy import MIRROR, Verdict, Why, has_lost_half

log = structlog.get_logger(__name__)


def replace_earlier(home: Home, ledger: Ledger, mirror: BackupSet, watcher: Watcher) -> None:
    """Have earlier mirrors of the job expire, the new one being verified; tell of those that are kept nevertheless.

    A source that is not mounted looks like an empty directory: a mirror with less than half of the entries replaces
    nothing.
    """

    def is_replaced(verdict: Verdict) -> bool:
        return verdict.why is Why.REPLACED and verdict.backup_set.job_id == mirror.job_id

    outcome = expire(home, ledger, time.time_ns(), only=is_replaced)
    log.info("mirror in place", set=mirror.set_id, expired=outcome.expired)
    for verdict in outcome.verdicts:
        earlier = verdict.backup_set
        is_earlier = earlier.type == MIRROR and earlier.job_id == mirror.job_id and earlier.number < mirror.number
        if is_earlier and not verdict.goes and has_lost_half(earlier, mirror):
            watcher.trouble(
                mirror.sources[0],
                f"the mirror has {_entries(mirror):,} entries where that of set {earlier.set_id[:8]} has "
                f"{_entries(earlier):,}: that one is kept; is something missing or not mounted?",
            )


def _entries(backup_set: BackupSet) -> int:
    return backup_set.files + backup_set.directories
