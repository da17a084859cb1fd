"""One LMDB environment per ledger and process, shared by everybody in the process who opens that ledger.

LMDB forbids a second environment on the same file in one process, so environments are kept in a registry by the file's
identity and counted. All methods may be called from any thread. Not to be carried over a fork: the child's use of it
would spoil the parent's locks, so it is refused; start other processes by exec and open the ledger there.

Settings and why:

    sync, metasync      a commit is on disk when it returns; without metasync 2,149 of 5,002 power cuts lost one
    writemap off        with it a full disk kills the process by SIGBUS instead of raising an error
    lib_version 0       LMDB 0.9's file format, whatever LMDB_DEFAULT_LIB_VERSION says; 1.0's cannot be read by it
    map_size            1 GiB of address space, no disk space; doubled when full, adopted when another process did so
    max_readers 256     a slot per open transaction; a sidecar with 40 threads and several mounts stay far below
    reader_check        at open and once a minute: a killed reader's slot keeps old pages alive and the file growing
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import lmdb

from catalog.crash import crash_point
from catalog.errors import Conflict, LedgerDamaged, NoLedger, StorageFailed
from catalog.ledger_store.gate import Gate
from catalog.ledger_store.tables import DATABASES, LATER_DATABASES, MAX_DATABASES
from catalog.ledger_store.transaction import Databases, Reader, Writer
from catalog.ledger_store.translate import FATAL, translate, translated

#: Address space of the map when an environment is opened.
MAP_SIZE_BYTES = 1 << 30
_MAX_READERS = 256
_READER_CHECK_S = 60.0
#: Every attempt doubles the map: from 1 GiB to 1 TiB.
_ATTEMPTS = 10

DATA_FILE = "data.mdb"
#: Exit code of `catalog.ledger_store.verify` for a damaged ledger; 1 is Python's own for any error.
PROBLEMS_EXIT = 3

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Operation:
    """A committing operation: its name and its crash points, directly before and after the commit."""

    name: str
    before: Callable[[], None]
    after: Callable[[], None]


def operation(name: str) -> Operation:
    """Make an operation with the crash points `ledger.<name>.before` and `ledger.<name>.after`."""
    return Operation(name, crash_point(f"ledger.{name}.before"), crash_point(f"ledger.{name}.after"))


def open_lmdb(path: Path, *, readonly: bool, map_size_bytes: int) -> lmdb.Environment:
    """Open LMDB in the existing folder `path` with this product's settings. Raises LMDB's errors."""
    return lmdb.Environment(
        os.fspath(path),
        map_size=map_size_bytes,
        subdir=True,
        readonly=readonly,
        metasync=True,
        sync=True,
        map_async=False,
        mode=0o600,
        create=False,
        readahead=True,
        writemap=False,
        meminit=True,
        max_readers=_MAX_READERS,
        max_dbs=MAX_DATABASES,
        lock=True,
        lib_version=0,
    )


def open_databases(environment: lmdb.Environment, *, readonly: bool) -> dict[str, lmdb._Database]:
    """Return the databases by name, without those of LATER_DATABASES that a ledger read by `readonly` does not have.

    Raises LMDB's errors.
    """
    databases = {}
    for name in DATABASES:
        try:
            databases[name] = environment.open_db(name.encode(), create=False)
        except lmdb.NotFoundError:
            if name not in LATER_DATABASES:
                raise
            if not readonly:
                databases[name] = environment.open_db(name.encode())
    return databases


def _probe(path: Path) -> None:
    """Read the ledger in a child process, which a file that was cut short may kill. Raises Damaged, StorageFailed."""
    root = os.fspath(Path(__file__).parents[2])
    child = subprocess.run(
        [sys.executable, "-m", "catalog.ledger_store.verify", os.fspath(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode == PROBLEMS_EXIT or child.returncode < 0:
        found = child.stdout.partition("\n")[0] or signal.Signals(-child.returncode).name
        raise LedgerDamaged(f"the ledger's file is cut short or damaged: {found}", str(path / DATA_FILE))
    if child.returncode:
        raise StorageFailed(f"the ledger {path} could not be checked: {child.stderr.strip()[-200:]}", retryable=False)


class SharedEnvironment:
    """An open environment; get it by `acquire`, give it back by `release`."""

    def __init__(self, path: Path, identity: tuple[int, int], *, readonly: bool, map_size_bytes: int) -> None:
        self.path = path
        self.identity = identity
        self.readonly = readonly
        #: How many have acquired it; guarded by the registry's lock.
        self.users = 0
        self._map_size_bytes = map_size_bytes
        self._pid = os.getpid()
        self._gate = Gate()
        #: One writer of this process at a time, so that a map that is full is grown once.
        self._writing = threading.Lock()
        #: Why it was closed, once it was.
        self._closed: str | None = None
        self._open()

    def _open(self) -> None:
        with translated(self.path):
            self._lmdb = open_lmdb(self.path, readonly=self.readonly, map_size_bytes=self._map_size_bytes)
            try:
                self._check_length()
                self._databases: Databases = open_databases(self._lmdb, readonly=self.readonly)
                self._lmdb.reader_check()
            except lmdb.NotFoundError as error:
                self._lmdb.close()
                raise LedgerDamaged(f"this is no ledger of tapefs: {error}", str(self.path)) from error
            except BaseException:
                self._lmdb.close()
                raise
        self._readers_checked_s = time.monotonic()

    def _check_length(self) -> None:
        """Probe a file that ends before its last page in use.

        Seldom that is right (8 of 1,800 commits ended with pages that were taken and given back), else it was cut.
        """
        if (self.path / DATA_FILE).stat().st_size < self._used_bytes():
            _probe(self.path)

    def _used_bytes(self) -> int:
        return (self._lmdb.info()["last_pgno"] + 1) * self._lmdb.stat()["psize"]

    @property
    def failed(self) -> bool:
        """Has it been closed because LMDB could not go on?"""
        return self._closed is not None

    def check_process(self) -> None:
        """Raise StorageFailed in a forked child."""
        if os.getpid() != self._pid:
            raise StorageFailed(
                f"the ledger {self.path} was opened before a fork; start the process by exec and open it there",
                retryable=False,
            )

    def make_writable(self) -> None:
        """Reopen for writing if it is open for reading only; waits for transactions to end."""
        with self._gate.exclusive():
            if self.readonly:
                self._lmdb.close()
                self._closed = "it could not be reopened for writing"
                self.readonly = False
                self._open()
                self._closed = None

    def close(self) -> None:
        """Close, when the last transaction has ended. In a forked child do nothing: the environment is the parent's."""
        if os.getpid() != self._pid:
            return
        with self._gate.exclusive():
            self._closed = self._closed or "its last user closed it"
            self._lmdb.close()

    def read(self, function: Callable[Concatenate[Reader, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call `function` with a read transaction of its own and return its result, which must not be an iterator.

        It sees all that any process committed before. Raises what `function` raises, StorageFailed, Damaged.
        """
        for _ in range(_ATTEMPTS):
            try:
                with self._entered(), self._lmdb.begin() as transaction:
                    return function(Reader(transaction, self._databases), *args, **kwargs)
            except lmdb.Error as error:
                self._mend(error)
        raise StorageFailed(f"the ledger {self.path} grows faster than it can be read; try again", retryable=True)

    def write(
        self, what: Operation, function: Callable[Concatenate[Writer, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Call `function` with a write transaction, commit what it changed, and return its result.

        When it raises, nothing is changed. It may be called more than once, so it must have no effects elsewhere.
        Waits for other writers. Raises what `function` raises, StorageFailed, Damaged.
        """
        with self._writing:
            if time.monotonic() - self._readers_checked_s >= _READER_CHECK_S:
                self._free_readers()
            for _ in range(_ATTEMPTS):
                try:
                    with self._entered():
                        return self._attempt(what, function, *args, **kwargs)
                except lmdb.Error as error:
                    self._mend(error)
        raise StorageFailed(f"the map of the ledger {self.path} cannot grow any more", retryable=False)

    def copy_to(self, folder: Path) -> None:
        """Write a copy, without unused pages, to a folder. Raises Conflict when a ledger is there, StorageFailed."""
        path = folder / DATA_FILE
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise Conflict(f"there is a ledger in {folder} already") from None
        except OSError as error:
            raise StorageFailed(f"cannot write {path}: {error.strerror}", retryable=False) from error
        try:
            with self._entered(), translated(folder):
                self._lmdb.copyfd(descriptor, compact=True)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _attempt(
        self, what: Operation, function: Callable[Concatenate[Writer, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        transaction = self._lmdb.begin(write=True)
        try:
            writer = Writer(transaction, self._databases)
            result = function(writer, *args, **kwargs)
            if writer.changed:
                what.before()
                transaction.commit()
                what.after()
            return result
        finally:
            transaction.abort()  # Harmless after a commit, whether that succeeded or failed.

    @contextmanager
    def _entered(self) -> Iterator[None]:
        self.check_process()
        with self._gate.shared():
            if self._closed is not None:
                raise StorageFailed(f"the ledger {self.path} is closed: {self._closed}", retryable=False)
            yield

    def _mend(self, error: lmdb.Error) -> None:
        """Let the next attempt succeed, else raise the error in the catalog's words. No transaction is open."""
        if isinstance(error, lmdb.MapFullError):
            self._resize(factor=2)
        elif isinstance(error, lmdb.MapResizedError):
            self._resize(factor=0)
        elif not (isinstance(error, lmdb.ReadersFullError) and self._free_readers()):
            if isinstance(error, FATAL):
                self._fail(error)
            raise translate(error, self.path) from error

    def _resize(self, factor: int) -> None:
        """Multiply the map; by 0: adopt the size that another process gave it."""
        with self._gate.exclusive(), translated(self.path):
            self._lmdb.set_mapsize(self._lmdb.info()["map_size"] * factor)

    def _fail(self, error: lmdb.Error) -> None:
        with self._gate.exclusive():
            self._closed = str(error)
            self._lmdb.close()

    def _free_readers(self) -> int:
        """Free the reader slots of dead processes and return how many there were."""
        self._readers_checked_s = time.monotonic()
        with self._entered(), translated(self.path):
            return self._lmdb.reader_check()


_registry: dict[tuple[int, int], SharedEnvironment] = {}
_registry_lock = threading.Lock()


def _identity(path: Path) -> tuple[int, int]:
    """Return device and inode of the ledger's file. Raises NotFound, Damaged, StorageFailed."""
    file = path / DATA_FILE
    try:
        stat = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise NoLedger(f"there is no ledger in {path}") from None
    except OSError as error:
        raise StorageFailed(f"cannot read {file}: {error.strerror}", retryable=False) from error
    if stat.st_size == 0:
        raise LedgerDamaged("the ledger's file is empty", str(file))  # LMDB would take it for a new one.
    return stat.st_dev, stat.st_ino


def acquire(path: Path, *, readonly: bool, map_size_bytes: int = MAP_SIZE_BYTES) -> SharedEnvironment:
    """Open the ledger in the folder `path`, or share what the process has open already.

    Raises NotFound, Damaged, WrongVersion, StorageFailed.
    """
    with _registry_lock:
        identity = _identity(path)
        shared = _registry.get(identity)
        if shared is not None:
            shared.check_process()
        if shared is None or shared.failed:
            shared = SharedEnvironment(path, identity, readonly=readonly, map_size_bytes=map_size_bytes)
            _registry[identity] = shared
        elif not readonly:
            shared.make_writable()
        shared.users += 1
        return shared


def release(shared: SharedEnvironment) -> None:
    """Give back what `acquire` returned; the last one closes it."""
    with _registry_lock:
        shared.users -= 1
        if shared.users == 0:
            if _registry.get(shared.identity) is shared:
                del _registry[shared.identity]
            shared.close()
