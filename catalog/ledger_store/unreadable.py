"""Records that cannot be read, and reading past them: functions of a transaction.

One damaged record must not keep the others from being used. Who reads past it sees less than there is: so what a
missing record might forbid is asked for by its key, where its damage raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from catalog.errors import Damaged, WrongVersion
from catalog.ledger_store.tables import (
    JOBS,
    PINS,
    RECOVERIES,
    SCHEDULE_RUNS,
    SCHEDULES,
    SETS,
    STAGE_REQUESTS,
    TASKS,
    VOLUMES,
    Table,
)
from catalog.ledger_store.transaction import Reader

R = TypeVar("R")

#: What is looked through for people; so many are told at most.
_LOOKED_AT: tuple[Table[object], ...] = (
    VOLUMES,
    SETS,
    JOBS,
    SCHEDULES,
    SCHEDULE_RUNS,
    TASKS,
    RECOVERIES,
    PINS,
    STAGE_REQUESTS,
)  # type: ignore[assignment]
MOST_TOLD = 100


def readable(tx: Reader, table: Table[R], prefix: bytes = b"") -> Iterator[tuple[bytes, R]]:
    """Yield the records whose key begins with `prefix`, in key order, but for those that cannot be read."""
    for key in tx.keys(table, prefix):
        for record in readable_at(tx, table, [key]):
            yield key, record


def readable_at(tx: Reader, table: Table[R], keys: Iterable[bytes]) -> Iterator[R]:
    """Yield the records of these keys that are there and can be read."""
    for key in keys:
        try:
            record = tx.find(table, key)
        except (Damaged, WrongVersion):
            continue  # `sentences` names it.
        if record is not None:
            yield record


def sentences(tx: Reader) -> list[tuple[str, str]]:
    """Return (database, what is wrong) of records that cannot be read, MOST_TOLD at most. Reads everything."""
    found = []
    for table in _LOOKED_AT:
        for key in tx.keys(table):
            try:
                tx.find(table, key)
            except (Damaged, WrongVersion) as error:
                found.append((table.name, str(error)))
                if len(found) == MOST_TOLD:
                    return found
    return found
