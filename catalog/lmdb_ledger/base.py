"""What all operations of the ledger on LMDB stand on: the open folder, reading, writing. See `catalog.lmdb_ledger`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from catalog.errors import Damaged, StorageFailed, WrongVersion
from catalog.ledger_store import damaged_segments, events, job_indexes, layout, sets_by_job, unreadable, verify
from catalog.ledger_store.environment import MAP_SIZE_BYTES, Operation, SharedEnvironment, acquire, operation, release
from catalog.ledger_store.transaction import Reader, Writer
from catalog.records import Event, Installation

_INDEX_JOBS = operation("index_jobs")
_INDEX_DAMAGE = operation("index_damage")
_INDEX_SETS = operation("index_sets")

P = ParamSpec("P")
R = TypeVar("R")


class LmdbBase:
    """An open ledger in a folder."""

    def __init__(self, environment: SharedEnvironment, *, readonly: bool) -> None:
        self._environment: SharedEnvironment | None = environment
        self._path = environment.path
        self._readonly = readonly

    @classmethod
    def create(cls, path: Path, now_ns: int) -> Self:
        """Make an empty ledger in the folder `path`, which must not exist or be empty, and open it.

        Raises Conflict when something is there, StorageFailed.
        """
        layout.create(path, now_ns)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path, *, readonly: bool = False, map_size_bytes: int = MAP_SIZE_BYTES) -> Self:
        """Open the ledger in the folder `path`; with `readonly` writing operations raise StorageFailed.

        `map_size_bytes` is where the map begins to grow. Raises NotFound, WrongVersion, Damaged, StorageFailed.
        """
        path = path.absolute()
        environment = acquire(path, readonly=readonly, map_size_bytes=map_size_bytes)
        try:
            environment.read(layout.check, path)
            ledger = cls(environment, readonly=readonly)
            if not readonly:
                ledger._index()
        except BaseException:
            release(environment)
            raise
        return ledger

    def _index(self) -> None:
        """Make what a ledger of an earlier version lacks."""
        # Of a record that cannot be read tells who needs it, and `verify`: without its index a ledger is slower only.
        with suppress(Damaged, WrongVersion):
            if not self._read(job_indexes.is_built):
                self.index_jobs()
        with suppress(Damaged, WrongVersion):
            if not self._read(damaged_segments.is_built):
                self.index_damage()
        with suppress(Damaged, WrongVersion):
            if not self._read(sets_by_job.is_built):
                self.index_sets()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Let go of the storage; harmless twice."""
        environment, self._environment = self._environment, None
        if environment is not None:
            release(environment)

    def verify(self) -> list[str]:
        """Read everything; return one sentence per damaged, missing or contradicting record, none when all is well."""
        return self._read(verify.problems)

    def unreadable_records(self) -> list[tuple[str, str]]:
        """Return (database, what is wrong) of records that cannot be read, 100 at most."""
        return self._read(unreadable.sentences)

    def index_jobs(self) -> None:
        """Make the indexes of jobs anew, as it is done once with a ledger of an earlier version."""
        self._write(_INDEX_JOBS, job_indexes.build)

    def index_damage(self) -> None:
        """Make the index of segments without a good copy anew, as it is done once likewise."""
        self._write(_INDEX_DAMAGE, damaged_segments.build)

    def index_sets(self) -> None:
        """Make the index of sets by job anew, as it is done once likewise."""
        self._write(_INDEX_SETS, sets_by_job.build)

    def copy_to(self, folder: Path) -> None:
        """Write a copy of all that is committed now to the existing folder; writers go on meanwhile.

        Raises Conflict when a ledger is there, StorageFailed.
        """
        self._open_environment().copy_to(folder)

    def _open_environment(self) -> SharedEnvironment:
        if self._environment is None:
            raise StorageFailed(f"the ledger {self._path} is closed", retryable=False)
        return self._environment

    def _read(self, function: Callable[Concatenate[Reader, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        return self._open_environment().read(function, *args, **kwargs)

    def _write(
        self, what: Operation, function: Callable[Concatenate[Writer, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        environment = self._open_environment()
        if self._readonly:
            raise StorageFailed(f"the ledger {self._path} is open for reading only: no {what.name}", retryable=False)
        return environment.write(what, function, *args, **kwargs)

    def installation(self) -> Installation:
        """Return this ledger's identity."""
        return self._read(layout.installation)

    def events_since(self, number: int, limit: int = 1000) -> list[Event]:
        """Return events with a higher number, oldest first; the newest 10,000 are kept."""
        return self._read(events.since, number, limit)

    def newest_event(self) -> int:
        """Return the number of the newest event; 0: there was none."""
        return self._read(events.newest)
