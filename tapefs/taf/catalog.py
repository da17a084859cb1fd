"""TAF's own catalog, in SQLite or PostgreSQL: names, times and types of its sets, and what files it has noted.

Blocking; one thread. It is only read. Its tables are looked up as they are: versions differ in columns, and newer ones
have a table of files for each task.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from tapefs.audit import without_tokens
from tapefs.errors import UsageError
from tapefs.taf.notes import Notes, ReadArchive

if TYPE_CHECKING:
    import psycopg

_SQLITE = "sqlite:"
_POSTGRES = ("postgresql://", "postgres://", "opengauss://")
_NS_PER_S = 1_000_000_000
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
#: Names of files of each kind of difference that are told.
_TOLD = 5
_TYPES = ("full", "incremental", "differential")


@dataclass(frozen=True, slots=True)
class ToldSet:
    """A set by TAF's catalog."""

    #: As it names the folder on the volume: `2026-11_000001`.
    taf_id: str
    #: Of its task, else of the set.
    name: str
    #: `full`, `incremental` or `differential`; empty: not told.
    type: str
    #: Label of its tape; empty: not told.
    tape: str
    #: 0: not told.
    time_ns: int
    #: What was to be backed up.
    sources: tuple[bytes, ...]


class Database(Protocol):
    """A database to ask."""

    def rows(self, query: str, arguments: Sequence[object] = ()) -> Iterator[dict[str, Any]]:
        """Yield rows by column. `?` stands for arguments."""
        ...

    def has(self, table: str) -> bool:
        """Is there such a table?"""
        ...


class ToldCatalog:
    """What was read of it. The database is asked again for the files of a set."""

    def __init__(self, url: str, sets: Mapping[str, ToldSet], tables: Mapping[str, tuple[int, str]]) -> None:
        self._url = url
        self.sets = sets
        #: By set: its number in the database, and the table of its files.
        self._tables = tables

    def find(self, taf_id: bytes) -> ToldSet | None:
        """Return what it says of a set."""
        return self.sets.get(os.fsdecode(taf_id))

    def absent(self, tape: str, there: set[bytes]) -> list[str]:
        """Return the sets that it has on this tape, but which are not there."""
        return sorted(
            each.taf_id for each in self.sets.values() if each.tape == tape and os.fsencode(each.taf_id) not in there
        )

    def differences(self, taf_id: bytes, notes: Notes, read: Sequence[ReadArchive]) -> Iterator[str]:
        """Say what the archives have otherwise than the catalog. Raises UsageError when it cannot be read."""
        known = self._tables.get(os.fsdecode(taf_id))
        if known is None:
            yield "TAF's catalog does not know this set"
            return
        number, table = known
        if not table:
            yield "TAF's catalog has no table of its files"
            return
        with _opened(self._url) as database:
            # The table's name was looked up in the database, and is a plain word.
            query = f"SELECT * FROM {table} WHERE backup_set_id = ?"  # noqa: S608
            yield from Comparison(notes, read).run(database.rows(query, (number,)))


def read_catalog(url: str) -> ToldCatalog:
    """Read the sets of TAF's catalog: `sqlite:PATH`, `postgresql://…`. Raises UsageError."""
    with _opened(url) as database:
        for table in ("backup_tasks", "backup_sets"):
            if not database.has(table):
                raise UsageError(f"{without_tokens(url)} is no catalog of TAF: it has no table {table}")
        tasks = {each["id"]: each for each in database.rows("SELECT * FROM backup_tasks")}
        sets, tables = {}, {}
        for each in database.rows("SELECT * FROM backup_sets ORDER BY id"):
            task = tasks.get(each.get("backup_task_id"), {})
            told = _told(each, task)
            sets[told.taf_id] = told
            table = str(task.get("backup_files_table") or "backup_files")
            tables[told.taf_id] = each["id"], table if _TABLE.fullmatch(table) and database.has(table) else ""
    return ToldCatalog(url, sets, tables)


def _told(row: dict[str, Any], task: dict[str, Any]) -> ToldSet:
    kind = str(row.get("backup_type") or "").lower()
    kind = "full" if kind == "monthly_full" else kind
    return ToldSet(
        taf_id=str(row["set_id"]),
        name=str(task.get("task_name") or row.get("set_name") or ""),
        type=kind if kind in _TYPES else "",
        tape=str(row.get("tape_id") or ""),
        time_ns=_time_ns(row.get("backup_time")),
        sources=tuple(os.fsencode(each) for each in _list(task.get("source_paths"))),
    )


def _list(value: object) -> list[str]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return []
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def _time_ns(value: object) -> int:
    """Return nanoseconds of a time that may come as text; one without a zone is local."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return 0
    if not isinstance(value, datetime):
        return 0
    seconds = value.astimezone(UTC).replace(microsecond=0).timestamp()
    return int(seconds) * _NS_PER_S + value.microsecond * 1000


# -- databases -------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(url: str) -> Iterator[Database]:
    """Have the database open for reading. Raises UsageError, also for what goes wrong within."""
    if url.startswith(_SQLITE):
        path = url.removeprefix(_SQLITE).removeprefix("//")
        # As a URI, so that it is neither made nor written.
        place = "file:" + "".join(f"%{each:02x}" for each in os.fsencode(os.path.abspath(path)))
        try:
            with closing(sqlite3.connect(f"{place}?mode=ro", uri=True)) as connection:
                yield _Sqlite(connection)
        except sqlite3.Error as error:
            raise UsageError(f"TAF's catalog {path} cannot be read: {error}") from error
    elif url.startswith(_POSTGRES):
        import psycopg

        try:
            with psycopg.connect("postgresql://" + url.partition("://")[2], connect_timeout=10) as postgres:
                postgres.read_only = True
                yield _Postgres(postgres)
        except psycopg.Error as error:
            raise UsageError(f"TAF's catalog cannot be read: {str(error).strip()}") from error
    else:
        raise UsageError("a catalog of TAF is sqlite:PATH or postgresql://USER@HOST/DATABASE")


class _Sqlite:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # Other programs may have written names that are no UTF-8.
        connection.text_factory = os.fsdecode

    def rows(self, query: str, arguments: Sequence[object] = ()) -> Iterator[dict[str, Any]]:
        cursor = self._connection.execute(query, tuple(arguments))
        columns = [each[0] for each in cursor.description]
        for row in cursor:
            yield dict(zip(columns, row, strict=True))

    def has(self, table: str) -> bool:
        return any(self.rows("SELECT 1 FROM sqlite_master WHERE type IN ('table', 'view') AND name = ?", (table,)))


class _Postgres:
    """PostgreSQL, and openGauss, which speaks the same."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._names = (f"tapefs{number}" for number in itertools.count())

    def rows(self, query: str, arguments: Sequence[object] = ()) -> Iterator[dict[str, Any]]:
        # With a name it is the server's: a set may have millions of files.
        with self._connection.cursor(next(self._names)) as cursor:
            cursor.execute(query.replace("?", "%s").encode(), tuple(arguments))
            columns = [each.name for each in cursor.description or ()]
            for row in cursor:
                yield dict(zip(columns, row, strict=True))

    def has(self, table: str) -> bool:
        return any(self.rows("SELECT 1 FROM pg_class WHERE relname = ? AND pg_table_is_visible(oid)", (table,)))


# -- comparing -------------------------------------------------------------------------------------------------------


class Comparison:
    """TAF's list of a set's files against what was found in its archives."""

    def __init__(self, notes: Notes, read: Sequence[ReadArchive]) -> None:
        self._database = notes.database
        self._archives = [each.number for each in read]
        largest = self._database.execute("SELECT coalesce(max(id), 0) FROM members").fetchone()[0]
        #: A bit for each member that the catalog has.
        self._listed = bytearray(largest // 8 + 1)
        self._kinds: dict[str, tuple[int, list[str]]] = {}

    def run(self, files: Iterator[dict[str, Any]]) -> Iterator[str]:
        """Yield a sentence for each kind of difference, with the first names."""
        for each in files:
            if str(each.get("file_type") or "file").lower() == "file":
                self._compare(each)
        unlisted = self._unlisted()
        for kind, (count, names) in self._kinds.items():
            more = f" and {count - len(names):,} more" if count > len(names) else ""
            yield f"{kind}: {', '.join(names)}{more}"
        if unlisted:
            yield f"files that TAF's catalog does not list: {unlisted:,}"

    def _compare(self, told: dict[str, Any]) -> None:
        path = str(told.get("file_path") or "")
        found = self._find(path)
        if found is None:
            is_copied = bool(told.get("is_copy_success"))
            self._note("listed, but in no archive" if is_copied else "listed as not copied, and in no archive", path)
            return
        member, size, sha256 = found
        self._listed[member // 8] |= 1 << (member % 8)
        checksum = str(told.get("checksum") or "").lower()
        if told.get("file_size") not in (None, size):
            self._note("of another size than listed", path)
        elif re.fullmatch(r"[0-9a-f]{64}", checksum) and sha256 is not None and sha256.hex() != checksum:
            self._note("of another SHA-256 than listed", path)

    def _find(self, path: str) -> tuple[int, int, bytes | None] | None:
        """Return the member that a listed path means: archives have it from some directory above it on."""
        parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
        for first in range(len(parts)):
            name = os.fsencode("/".join(parts[first:]))
            for archive in self._archives:
                row = self._database.execute(
                    "SELECT id, size, sha256 FROM members WHERE archive = ? AND path IN (?, ?) "
                    "AND mode & 61440 = 32768",
                    (archive, name, b"./" + name),
                ).fetchone()
                if row is not None:
                    return int(row[0]), int(row[1]), row[2]
        return None

    def _note(self, kind: str, path: str) -> None:
        count, names = self._kinds.get(kind, (0, []))
        self._kinds[kind] = count + 1, [*names, path] if count < _TOLD else names

    def _unlisted(self) -> int:
        return sum(
            not self._listed[member // 8] >> (member % 8) & 1
            for archive in self._archives
            for (member,) in self._database.execute(
                "SELECT id FROM members WHERE archive = ? AND mode & 61440 = 32768", (archive,)
            )
        )
