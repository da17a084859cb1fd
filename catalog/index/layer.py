"""One index file, open for reading: checked records by key, and the range of numbers that are its own.

Blocking; a layer belongs to one thread, several may share a file. The file never changes, so one LMDB transaction stays
open as long as the layer does. What is returned are copies: nothing points into the map.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import lmdb

from catalog.errors import Damaged, OtherIndexVersion
from catalog.index import layout
from catalog.index.layout import Table
from catalog.index.model import Base, Claim, Meta
from catalog.index.storage import open_shared, release


class Layer:
    """The records of one file. Every method may raise Damaged; ValueError once it is closed."""

    def __init__(self, path: Path) -> None:
        """Open the index. Raises NotFound, WrongVersion, Damaged, StorageFailed."""
        self.path = path
        self._closed = False
        self._opened = open_shared(path)
        try:
            self._begin()
        except BaseException:
            release(self._opened)
            raise

    def _begin(self) -> None:
        # The head first: of another layout there may be other tables.
        self._open_tables([Table.META])
        try:
            self.meta = self._read_meta()
        finally:
            self._transaction.abort()
        meta = self.meta
        #: To be compared with what another index says of this one.
        self.claim = Claim(meta.set_id, meta.entries_first, meta.segments_first, meta.entries_end, meta.segments_end)
        self._open_tables(list(Table))

    def _open_tables(self, tables: list[Table]) -> None:
        environment = self._opened.environment
        try:
            handles = self._handles = {table: environment.open_db(table.value, create=False) for table in tables}
            self._transaction = environment.begin()
            self._cursors = {table: self._transaction.cursor(handle) for table, handle in handles.items()}
        except lmdb.NotFoundError as error:
            raise Damaged("this is not an index", str(self.path)) from error
        except lmdb.Error as error:
            raise Damaged(f"the index cannot be read: {error}", str(self.path)) from error

    def _read_meta(self) -> Meta:
        value = self.get(Table.META, layout.META_KEY)
        version = None if value is None else layout.meta_version(value)
        if value is None or version is None:
            raise Damaged("this is not an index", str(self.path))
        if version != layout.VERSION:
            raise OtherIndexVersion(f"{self.path} has layout {version}, this program knows {layout.VERSION}")
        return layout.decode_meta(value)

    def close(self) -> None:
        """Let go of the file; harmless twice."""
        if not self._closed:
            self._closed = True
            self._transaction.abort()
            release(self._opened)

    def bases(self) -> list[Base]:
        """Return the indexes this one builds on, the oldest first."""
        if not self.meta.bases:
            return []
        value = self.get(Table.META, layout.BASES_KEY)
        bases = [] if value is None else layout.decode_bases(value)
        if len(bases) != self.meta.bases:
            raise self.missing("the indexes it builds on")
        return bases

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Return the record under a key, None when there is none."""
        try:
            value = self._cursors[table].get(key)
        except lmdb.Error as error:
            raise self._unreadable(error) from error
        if value is not None:
            self._check(table, key, value)
        return value

    def at_or_before(self, table: Table, behind: bytes) -> tuple[bytes, bytes] | None:
        """Return the last record with a key less than `behind`."""
        cursor = self._cursors[table]
        try:
            found = cursor.prev() if cursor.set_range(behind) else cursor.last()
            if not found:
                return None
            key, value = cursor.item()
        except lmdb.Error as error:
            raise self._unreadable(error) from error
        self._check(table, key, value)
        return key, value

    def rows(self, table: Table, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Yield all records of a table by key, from `start` on, with a cursor of their own."""
        try:
            cursor = self._transaction.cursor(self._handles[table])
            found = cursor.set_range(start) if start else cursor.first()
            while found:
                key, value = cursor.item()
                self._check(table, key, value)
                yield key, value
                found = cursor.next()
        except lmdb.Error as error:
            raise self._unreadable(error) from error

    def rows_behind(self, table: Table, key: bytes, count: int) -> list[tuple[bytes, bytes]]:
        """Return up to `count` records with greater keys."""
        cursor = self._cursors[table]
        try:
            # A key with a zero behind it is the next possible one.
            found = list(islice(cursor, count)) if cursor.set_range(key + b"\0") else []
        except lmdb.Error as error:
            raise self._unreadable(error) from error
        for key, value in found:
            self._check(table, key, value)
        return found

    def last_key(self, table: Table) -> bytes | None:
        """Return the greatest key of a table, None when it is empty."""
        cursor = self._cursors[table]
        try:
            return cursor.key() if cursor.last() else None
        except lmdb.Error as error:
            raise self._unreadable(error) from error

    def missing(self, what: str) -> Damaged:
        """Return the error for a record that must be there and is not."""
        return Damaged("a record is missing", f"{self.path}, {what}")

    def _check(self, table: Table, key: bytes, value: bytes) -> None:
        if not layout.is_sound(key, value):
            raise Damaged("a record does not match its checksum", f"{self.path}, {table.name} {key.hex()}")

    def _unreadable(self, error: lmdb.Error) -> Exception:
        if self._closed:
            return ValueError(f"the reader of {self.path} is closed")
        return Damaged(f"the index cannot be read: {error}", str(self.path))
