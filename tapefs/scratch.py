"""A map that may grow beyond memory: what was not asked for longest goes to a nameless scratch file.

Blocking; one map belongs to one thread. Keys are bytes, values flat tuples of numbers and bytes.
"""

from __future__ import annotations

import marshal
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from catalog.errors import StorageFailed

#: Entries kept in memory: about 10 MB of names of links.
KEPT = 20_000
_ROWS = 1000

Value = TypeVar("Value", bound=tuple[Any, ...])


class ScratchMap(Generic[Value]):
    """A dictionary whose older half goes to disk when it holds more than `kept` entries.

    Every method may raise StorageFailed.
    """

    def __init__(self, folder: Path, make: Callable[[tuple[object, ...]], Value], kept: int = KEPT) -> None:
        """Spill to a file in `folder`; `make` turns a plain tuple that comes back into a value."""
        self._folder = folder
        self._make = make
        self._kept = kept
        self._near: dict[bytes, Value] = {}
        self._far: sqlite3.Connection | None = None
        #: Rows on disk.
        self._rows = 0

    def __len__(self) -> int:
        return len(self._near) + self._rows

    def get(self, key: bytes) -> Value | None:
        """Return the value, if there is one."""
        value = self._near.get(key)
        if value is None and self._rows:
            rows = self._ask("SELECT value FROM far WHERE key = ?", key)
            return self._loaded(rows[0][0]) if rows else None
        return value

    def put(self, key: bytes, value: Value) -> None:
        """Set the value."""
        self.drop(key)
        self._near[key] = value
        if len(self._near) > self._kept:
            self._spill()

    def drop(self, key: bytes) -> None:
        """Forget the key; harmless if it is not there."""
        if self._near.pop(key, None) is None and self._rows and self._ask("SELECT 1 FROM far WHERE key = ?", key):
            self._ask("DELETE FROM far WHERE key = ?", key)
            self._rows -= 1

    def change_all(self, change: Callable[[Value], Value | None]) -> None:
        """Replace every value by what `change` makes of it; None forgets it."""
        for key, value in list(self._near.items()):
            changed = change(value)
            if changed is None:
                del self._near[key]
            else:
                self._near[key] = changed
        for key, data in self._far_rows():
            changed = change(self._loaded(data))
            if changed is None:
                self._ask("DELETE FROM far WHERE key = ?", key)
                self._rows -= 1
            else:
                self._ask("UPDATE far SET value = ? WHERE key = ?", _dumped(changed), key)

    def close(self) -> None:
        """Give the space back; harmless twice."""
        if self._far is not None:
            self._far.close()
            self._far = None
        self._near.clear()
        self._rows = 0

    def _far_rows(self) -> Iterator[tuple[bytes, bytes]]:
        last = b""
        while rows := self._ask("SELECT key, value FROM far WHERE key > ? ORDER BY key LIMIT ?", last, _ROWS):
            yield from cast("list[tuple[bytes, bytes]]", rows)
            last = cast("bytes", rows[-1][0])

    def _spill(self) -> None:
        oldest = list(islice(self._near.items(), len(self._near) // 2 + 1))
        rows = [(key, _dumped(value)) for key, value in oldest]
        try:
            self._opened().executemany("INSERT INTO far VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise _failure(error) from error
        self._rows += len(rows)
        for key, _ in oldest:
            del self._near[key]

    def _opened(self) -> sqlite3.Connection:
        if self._far is None:
            try:
                handle, name = tempfile.mkstemp(dir=self._folder)
            except OSError as error:
                raise StorageFailed(f"cannot make a scratch file: {error.strerror}", retryable=False) from error
            os.close(handle)
            try:
                far = sqlite3.connect(name, isolation_level=None)
                # No crash leaves anything of it that matters: the file has no name.
                far.execute("PRAGMA journal_mode = OFF")
                far.execute("PRAGMA synchronous = OFF")
                far.execute("PRAGMA locking_mode = EXCLUSIVE")
                far.execute("CREATE TABLE far (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
                self._far = far
            finally:
                os.unlink(name)
        return self._far

    def _ask(self, statement: str, *values: object) -> list[tuple[object, ...]]:
        if not self._rows:
            return []
        try:
            return self._opened().execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise _failure(error) from error

    def _loaded(self, data: object) -> Value:
        return self._make(marshal.loads(cast("bytes", data)))  # noqa: S302 - our own file, which has no name


def _dumped(value: tuple[Any, ...]) -> bytes:
    # marshal takes plain tuples only, and numbers of any size.
    return marshal.dumps(tuple(value))


def _failure(error: sqlite3.Error) -> StorageFailed:
    return StorageFailed(f"a scratch file cannot be used: {error}", retryable=False)
