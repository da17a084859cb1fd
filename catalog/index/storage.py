"""The LMDB file below an index: made under a temporary name and put in place whole; opened for reading, shared.

Blocking. A `NewFile` belongs to one thread; `open_shared` and `release` may be called from any.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import lmdb

from catalog.crash import crash_point
from catalog.errors import Conflict, IndexDamaged, NoIndex, StorageFailed, WrongVersion
from catalog.index.layout import Item, Table

#: Address space to begin with; it grows by doubling. The file itself has the size of its content.
MAP_BYTES = 64 * 1024**3
#: Values are written in groups of this size, one transaction each; it bounds the memory of writer and LMDB.
GROUP_BYTES = 4 * 1024**2
#: Room for what LMDB itself writes in a transaction: copies of inner pages, lists of free ones.
_SLACK_BYTES = 1024**2

_before_rename = crash_point("index.rename.before")
_after_rename = crash_point("index.rename.after")


class NewFile:
    """A file under construction.

    Nobody needs it before its rename, so it is synced once, in `install`: after a crash it is built again. A lock on it
    keeps a second builder off.
    """

    def __init__(self, path: Path) -> None:
        """Begin beside `path`. Raises Conflict when somebody else is at it, StorageFailed."""
        self._path = path
        self._temporary = path.with_name(path.name + ".new")
        self._waiting: dict[Table, list[Item]] = {table: [] for table in Table}
        self._waiting_bytes = 0
        self._last_keys = dict.fromkeys(Table, b"")
        self._map_bytes = MAP_BYTES
        self._done = False
        self._descriptor = claim_file(self._temporary)
        try:
            self._environment = lmdb.open(
                str(self._temporary), subdir=False, lock=False, sync=False, metasync=False, max_dbs=len(Table),
                map_size=self._map_bytes, lib_version=0,
            )  # fmt: skip
            self._tables = {table: self._environment.open_db(table.value) for table in Table}
        except lmdb.Error as error:
            self._drop()
            raise StorageFailed(f"cannot create {self._temporary}: {error}", retryable=False) from error

    def put(self, table: Table, items: Sequence[Item]) -> None:
        """Take records to be written, in any order. Raises ValueError for a key that was given before."""
        self._waiting[table] += items
        self._waiting_bytes += sum(len(value) for _, value in items)
        if self._waiting_bytes >= GROUP_BYTES:
            self.commit()

    def commit(self) -> None:
        """Write what waits. Raises StorageFailed; ValueError for a key that was given before."""
        try:
            self._grow_map()
            with self._environment.begin(write=True) as transaction:
                for table, items in self._waiting.items():
                    if items:
                        self._write(transaction, table, sorted(items))
                        items.clear()
        except lmdb.Error as error:
            raise StorageFailed(f"cannot write {self._temporary}: {error}", retryable=False) from error
        self._waiting_bytes = 0

    def install(self, last: Item) -> None:
        """Write `last` into the META table, sync the file and give it its name, replacing an older one."""
        self.put(Table.META, [last])
        self.commit()
        try:
            self._environment.sync(True)
            self._environment.close()
            os.fsync(self._descriptor)
            _before_rename()
            os.replace(self._temporary, self._path)
            self._done = True
            _after_rename()
            sync_folder(self._path.parent)
        except (lmdb.Error, OSError) as error:
            raise StorageFailed(f"cannot finish {self._path}: {error}", retryable=False) from error
        finally:
            if self._done:
                os.close(self._descriptor)

    def abort(self) -> None:
        """Leave nothing behind; harmless twice and after `install`."""
        if not self._done:
            self._done = True
            self._environment.close()
            self._drop()

    def _drop(self) -> None:
        with suppress(FileNotFoundError):
            self._temporary.unlink()
        os.close(self._descriptor)

    def _write(self, transaction: lmdb.Transaction, table: Table, items: list[Item]) -> None:
        """Append what sorts behind all that is there, which fills pages to the brim; insert the few others.

        The counts are compared because LMDB leaves rows out without a word: those out of order when appending, those
        whose key exists when not overwriting.
        """
        cursor = transaction.cursor(self._tables[table])
        behind = self._last_keys[table]
        early = [item for item in items if item[0] <= behind]
        late = items[len(early) :]
        added = cursor.putmulti(early, overwrite=False)[1] + cursor.putmulti(late, append=True)[1]
        if added != len(items):
            raise ValueError(f"{len(items) - added} of {len(items)} keys in table {table.name} were given twice")
        if late:
            self._last_keys[table] = late[-1][0]

    def _used_bytes(self) -> int:
        page_bytes = self._environment.stat()["psize"]
        return (self._environment.info()["last_pgno"] + 1) * page_bytes

    def _grow_map(self) -> None:
        # A value over half a page takes whole pages: up to three times its size.
        needed = self._used_bytes() + 3 * self._waiting_bytes + _SLACK_BYTES
        if needed > self._map_bytes:
            self._map_bytes = max(2 * self._map_bytes, needed)
            self._environment.set_mapsize(self._map_bytes)


def claim_file(path: Path) -> int:
    """Make or take over the temporary file, empty it and return it locked."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageFailed(f"cannot create {path}: {error.strerror}", retryable=False) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                os.truncate(descriptor, 0)
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise Conflict(f"another process is writing {path}") from None
        except FileNotFoundError:
            pass
        except OSError as error:
            os.close(descriptor)  # Its lock would keep the next builder off.
            raise StorageFailed(f"cannot create {path}: {error.strerror}", retryable=False) from error
        # Its holder renamed or removed it between our open and our lock: that file is not ours to empty.
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Have the names in a folder survive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- reading ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Shared:
    environment: lmdb.Environment
    users: int


#: By device and inode: LMDB refuses to open a file twice in one process.
_open: dict[tuple[int, int], _Shared] = {}
_guard = threading.Lock()


@dataclass(frozen=True, slots=True)
class Opened:
    """One user's hold on an open file; give it to `release`."""

    environment: lmdb.Environment
    identity: tuple[int, int]


def open_shared(path: Path) -> Opened:
    """Open a finished file for reading. Raises NotFound, Damaged when it is cut or no LMDB file, WrongVersion."""
    with _guard:
        while True:
            identity = _identity(path)
            shared = _open.get(identity)
            if shared is not None:
                shared.users += 1
                return Opened(shared.environment, identity)
            environment = _open_environment(path)
            if _identity(path) == identity:
                _open[identity] = _Shared(environment, 1)
                return Opened(environment, identity)
            environment.close()  # replaced by a rebuild while we opened it


def release(opened: Opened) -> None:
    """Let go; the last user closes the file. All of the user's transactions must have ended."""
    with _guard:
        shared = _open[opened.identity]
        shared.users -= 1
        if shared.users == 0:
            del _open[opened.identity]
            shared.environment.close()


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise NoIndex(f"there is no index at {path}") from None
    except OSError as error:
        raise StorageFailed(f"cannot read {path}: {error.strerror}", retryable=False) from error
    return status.st_dev, status.st_ino


def _open_environment(path: Path) -> lmdb.Environment:
    size = path.stat().st_size
    if size == 0:
        raise IndexDamaged("the index is empty", str(path))
    try:
        # Without a size LMDB would map as much as the writer did.
        environment = lmdb.open(
            str(path), subdir=False, readonly=True, lock=False, create=False, max_dbs=len(Table), map_size=size,
            max_spare_txns=4, lib_version=0,
        )  # fmt: skip
    except lmdb.VersionMismatchError as error:
        raise WrongVersion(f"{path} was written by another version of LMDB") from error
    except lmdb.InvalidError as error:
        raise IndexDamaged("this is not an index", str(path)) from error
    except lmdb.Error as error:
        raise StorageFailed(f"cannot open {path}: {error}", retryable=False) from error
    # LMDB reads through a memory map, where a page behind the end of a cut file would kill the process by SIGBUS.
    if size < (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]:
        environment.close()
        raise IndexDamaged("the index is cut short", str(path))
    return environment
