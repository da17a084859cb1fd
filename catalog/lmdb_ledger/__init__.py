"""The ledger on LMDB: the embedded default, for one host.

Every operation is one transaction in one function and one thread; a writing one is on disk when it returns. Any thread
may call any method, and any number of processes may have the ledger open; writers take turns. What is stored under
which key stands in `catalog.ledger_store.tables`, why LMDB is set as it is in `catalog.ledger_store.environment`, the
order of writes and what a crash leaves in `docs/ledger.md`.

Crash points: `ledger.OPERATION.before` and `ledger.OPERATION.after`, directly before and after the commit of each
writing operation, `create` included; a call that finds its work done already commits nothing and passes none.
"""

from __future__ import annotations

from catalog.lmdb_ledger.access import AccessOperations
from catalog.lmdb_ledger.lives import LifeOperations
from catalog.lmdb_ledger.notices import NoticeOperations
from catalog.lmdb_ledger.pools import PoolOperations
from catalog.lmdb_ledger.queue import QueueOperations
from catalog.lmdb_ledger.schedules import ScheduleOperations
from catalog.lmdb_ledger.segments import SegmentOperations
from catalog.lmdb_ledger.sets import SetOperations
from catalog.lmdb_ledger.staging import StagingOperations
from catalog.lmdb_ledger.tasks import TaskOperations
from catalog.lmdb_ledger.volumes import VolumeOperations

__all__ = ["LmdbLedger"]


class LmdbLedger(
    VolumeOperations,
    LifeOperations,
    PoolOperations,
    SetOperations,
    SegmentOperations,
    QueueOperations,
    ScheduleOperations,
    TaskOperations,
    StagingOperations,
    AccessOperations,
    NoticeOperations,
):
    """A `catalog.ledger.Ledger` in a folder; see there for what the operations do and raise.

    Several in one process on the same folder share one LMDB environment. Never take one over a fork: every use in the
    child raises StorageFailed. A context manager that closes itself.
    """
