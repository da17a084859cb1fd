"""Typed reading and writing within one LMDB transaction.

A transaction belongs to the thread and the function that began it; nothing that is returned refers to it afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import lmdb

from catalog.checked import where
from catalog.errors import Damaged
from catalog.ledger_store.tables import COUNTERS, EVENT_COUNTER, EVENTS, Table, event_key
from catalog.records import Event

#: Events beyond these are forgotten, oldest first.
KEPT_EVENTS = 10_000

R = TypeVar("R")
Databases = Mapping[str, lmdb._Database]


def plain_text(text: str) -> str:
    """Return free text fit to be stored: lone surrogates (bytes of file names in messages) become escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


class Reader:
    """Reads typed records."""

    def __init__(self, transaction: lmdb.Transaction[bytes], databases: Databases) -> None:
        self._transaction = transaction
        self._databases = databases

    def find(self, table: Table[R], key: bytes) -> R | None:
        """Return the record, or None. Raises Damaged, WrongVersion."""
        if table.name not in self._databases:  # Of an earlier version, open for reading only.
            return None
        value = self._transaction.get(key, db=self._databases[table.name])
        return None if value is None else table.codec.decode(key, value)

    def count(self, table: Table[R]) -> int:
        """Return how many records a table has; `meta`'s are counted together."""
        if table.name not in self._databases:
            return 0
        return int(self._transaction.stat(self._databases[table.name])["entries"])

    def keys(self, table: Table[R], prefix: bytes = b"", *, backwards: bool = False) -> Iterator[bytes]:
        """Yield the keys that begin with `prefix` in their order, or from the last on.

        Exhaust or close it within the transaction.
        """
        if table.name not in self._databases:
            return
        with self._transaction.cursor(db=self._databases[table.name]) as cursor:
            # No key begins with so many of these behind a prefix: texts are UTF-8, and numbers are small.
            is_there = cursor.set_range(prefix + b"\xff" * 9) and cursor.prev() if backwards else False
            if not backwards:
                is_there = cursor.set_range(prefix) if prefix else cursor.first()
            elif not is_there:
                is_there = cursor.last()
            if not is_there:
                return
            for key in cursor.iterprev(values=False) if backwards else cursor.iternext(values=False):
                if not key.startswith(prefix):
                    return
                yield key

    def follow(self, table: Table[R], key: bytes, source: str) -> R:
        """Return the record that `source` points to. Raises Damaged when it is missing."""
        record = self.find(table, key)
        if record is None:
            raise Damaged(f"{source} points to a record that is missing", where(table.name.encode(), key))
        return record

    def scan(self, table: Table[R], prefix: bytes = b"", first: bytes = b"") -> Iterator[tuple[bytes, R]]:
        """Yield the records whose key begins with `prefix`, in key order, from the key `first` on.

        Exhaust it within the transaction. Raises Damaged, WrongVersion.
        """
        if table.name not in self._databases:
            return
        decode = table.codec.decode
        with self._transaction.cursor(db=self._databases[table.name]) as cursor:
            start = max(prefix, first)
            if not (cursor.set_range(start) if start else cursor.first()):
                return
            for key, value in cursor.iternext():
                if not key.startswith(prefix):
                    return
                yield key, decode(key, value)


class Writer(Reader):
    """Reads and writes typed records, and tells what happened as events."""

    def __init__(self, transaction: lmdb.Transaction[bytes], databases: Databases) -> None:
        super().__init__(transaction, databases)
        #: Has anything been written? A transaction without changes is not committed.
        self.changed = False

    def put(self, table: Table[R], key: bytes, record: R) -> None:
        """Store the record, in place of an older one. Raises ValueError for one that is not of the table's type."""
        self._transaction.put(key, table.codec.encode(key, record), db=self._databases[table.name])
        self.changed = True

    def insert(self, table: Table[R], key: bytes, record: R) -> None:
        """Store a record under a key that is free, as callers have made sure. Raises Damaged when it is taken."""
        value = table.codec.encode(key, record)
        if not self._transaction.put(key, value, overwrite=False, db=self._databases[table.name]):
            raise Damaged("a record is in the way of a new one", where(table.name.encode(), key))
        self.changed = True

    def delete(self, table: Table[R], key: bytes) -> None:
        """Forget a record, if it is there."""
        if self._transaction.delete(key, db=self._databases[table.name]):
            self.changed = True

    def next_number(self, counter: bytes) -> int:
        """Count up and return the new number; the first is 1. None is given out twice."""
        number = (self.find(COUNTERS, counter) or 0) + 1
        self.put(COUNTERS, counter, number)
        return number

    def tell(self, kind: str, subject: object, detail: str = "", at_ns: int | None = None) -> None:
        """Append an event and forget the oldest beyond KEPT_EVENTS.

        Without `at_ns` (operations that are given no time) the event bears the time of the one before it.
        """
        number = self.next_number(EVENT_COUNTER)
        if at_ns is None:
            newest = self.find(EVENTS, event_key(number - 1))
            at_ns = newest.at_ns if newest is not None else 0
        event = Event(number=number, at_ns=at_ns, kind=kind, subject=str(subject), detail=plain_text(detail))
        self.insert(EVENTS, event_key(number), event)
        if number > KEPT_EVENTS:
            self.delete(EVENTS, event_key(number - KEPT_EVENTS))
