"""What was read of TAF's archives, until it is in the catalog: an SQLite file per volume. Blocking; one thread.

Reading a tape takes hours. What an archive holds is noted in one transaction when it was read to its end, so that an
import that was interrupted goes on behind it. The file also sorts: archives hold millions of members in any order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from catalog.errors import StorageFailed
from tapefs.taf.records import Member
from tapefs.taf.volume import Archive

#: Another version's notes are thrown away: they come from the tape again.
_VERSION = 1
_SCHEMA = """
CREATE TABLE archives (id INTEGER PRIMARY KEY, path BLOB UNIQUE NOT NULL, set_id BLOB NOT NULL, suffix TEXT NOT NULL,
    size INTEGER NOT NULL, mtime INTEGER NOT NULL, plain INTEGER NOT NULL, members INTEGER NOT NULL,
    sha256 BLOB NOT NULL, checkpoints BLOB NOT NULL, problem TEXT NOT NULL);
CREATE TABLE members (id INTEGER PRIMARY KEY, archive INTEGER NOT NULL, path BLOB NOT NULL, mode INTEGER NOT NULL,
    uid INTEGER NOT NULL, gid INTEGER NOT NULL, mtime BLOB NOT NULL, size INTEGER NOT NULL, stored INTEGER NOT NULL,
    rdev INTEGER NOT NULL, target BLOB NOT NULL, is_link INTEGER NOT NULL, place INTEGER NOT NULL, data TEXT,
    sha256 BLOB);
CREATE INDEX members_by_place ON members (archive, place);
CREATE INDEX members_by_path ON members (archive, path);
CREATE TABLE frames (archive INTEGER NOT NULL, number INTEGER NOT NULL, plain INTEGER NOT NULL, sum BLOB NOT NULL,
    PRIMARY KEY (archive, number)) WITHOUT ROWID;
"""


class ReadArchive(NamedTuple):
    """An archive as it was read."""

    number: int
    #: On the volume.
    path: bytes
    suffix: str
    size_bytes: int
    mtime_ns: int
    #: What of its decompressed stream is sound.
    plain_bytes: int
    members: int
    #: Of the file; empty where it was not read from front to end.
    sha256: bytes
    checkpoints: bytes
    #: Why it is not whole; empty: it is.
    problem: str


class Notes:
    """The notes of one volume; a context manager that closes them."""

    def __init__(self, path: Path) -> None:
        """Open or begin them. Raises StorageFailed."""
        self._path = path
        with self.reporting():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.database = self._open()
            if self.database.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                self.database.close()
                self.forget()
                self.database = self._open()
                self.database.executescript(_SCHEMA)
                self.database.execute(f"PRAGMA user_version = {_VERSION}")

    def _open(self) -> sqlite3.Connection:
        self._path.touch(mode=0o600)
        return sqlite3.connect(self._path, isolation_level=None)

    def __enter__(self) -> Notes:
        return self

    def __exit__(self, *_: object) -> None:
        self.database.close()

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Make errors of SQLite ours. Raises StorageFailed."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StorageFailed(
                f"the notes on TAF's archives, {self._path}, cannot be used: {error}; if it is damaged, remove it",
                retryable=False,
            ) from error

    def forget(self) -> None:
        """Remove them: all is in the catalog."""
        self.database.close()
        for ending in ("", "-journal"):
            self._path.with_name(self._path.name + ending).unlink(missing_ok=True)

    # -- archives ----------------------------------------------------------------------------------------------------

    def find(self, archive: Archive) -> ReadArchive | None:
        """Return what was noted of an archive, if it is still the one that was read."""
        row = self.database.execute(
            "SELECT id, path, suffix, size, mtime, plain, members, sha256, checkpoints, problem FROM archives "
            "WHERE path = ?",
            (archive.path,),
        ).fetchone()
        read = None if row is None else ReadArchive(*row)
        if read is None or (read.size_bytes, read.mtime_ns) != (archive.size_bytes, archive.mtime_ns):
            return None
        return read

    @contextmanager
    def taking(self, archive: Archive) -> Iterator[TakenArchive]:
        """Note an archive in place of what was noted of it before: all of it, or nothing."""
        with self.reporting():
            self.database.execute("BEGIN IMMEDIATE")
        try:
            with self.reporting():
                self._drop(archive)
                number = self.database.execute(
                    "INSERT INTO archives VALUES (NULL, ?, ?, ?, ?, ?, 0, 0, x'', x'', '')",
                    (archive.path, archive.set_id, archive.suffix, archive.size_bytes, archive.mtime_ns),
                ).lastrowid
            yield TakenArchive(self, number or 0)
        except BaseException:
            self.database.rollback()
            raise
        with self.reporting():
            self.database.commit()

    def _drop(self, archive: Archive) -> None:
        row = self.database.execute("SELECT id FROM archives WHERE path = ?", (archive.path,)).fetchone()
        if row is not None:
            for statement in (
                "DELETE FROM members WHERE archive = ?",
                "DELETE FROM frames WHERE archive = ?",
                "DELETE FROM archives WHERE id = ?",
            ):
                self.database.execute(statement, row)

    def frames(self, number: int) -> Iterator[tuple[int, bytes]]:
        """Yield plain length and checksum of an archive's frames."""
        yield from self.database.execute("SELECT plain, sum FROM frames WHERE archive = ? ORDER BY number", (number,))

    def hashes(self, number: int) -> Iterator[tuple[int, bytes]]:
        """Yield place and SHA-256 of an archive's contents that have any bytes, ascending."""
        yield from self.database.execute(
            "SELECT place, sha256 FROM members WHERE archive = ? AND stored > 0 ORDER BY place", (number,)
        )


class TakenArchive:
    """An archive that is being read."""

    def __init__(self, notes: Notes, number: int) -> None:
        self._notes = notes
        self._number = number
        self._frames = self._members = 0

    def member(self, member: Member, sha256: bytes | None) -> None:
        """Note a member of which all content was read."""
        data = None if member.data is None else " ".join(f"{place}+{length}" for place, length in member.data)
        row = (
            self._number, member.path, member.mode, _owner(member.uid), _owner(member.gid), _time(member.mtime_ns),
            member.size_bytes, member.stored_bytes, member.rdev, member.target, member.is_link, member.offset, data,
            sha256,
        )  # fmt: skip
        with self._notes.reporting():
            self._notes.database.execute(
                "INSERT INTO members VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row
            )
        self._members += 1

    def frames(self, frames: Iterable[tuple[int, bytes]]) -> None:
        """Note the next frames: plain length, checksum."""
        with self._notes.reporting():
            for plain_bytes, checksum in frames:
                self._notes.database.execute(
                    "INSERT INTO frames VALUES (?, ?, ?, ?)", (self._number, self._frames, plain_bytes, checksum)
                )
                self._frames += 1

    def finish(self, plain_bytes: int, sha256: bytes, checkpoints: bytes, problem: str) -> None:
        """Note what it is as a whole."""
        with self._notes.reporting():
            self._notes.database.execute(
                "UPDATE archives SET plain = ?, members = ?, sha256 = ?, checkpoints = ?, problem = ? WHERE id = ?",
                (plain_bytes, self._members, sha256, checkpoints, problem, self._number),
            )


def _time(time_ns: int) -> bytes:
    """Return it as bytes: a time of year 9999 does not fit into 64 bits."""
    return time_ns.to_bytes(12, "big", signed=True)


def time_of(noted: bytes) -> int:
    """Return nanoseconds since the epoch."""
    return int.from_bytes(noted, "big", signed=True)


def _owner(number: int) -> int:
    """Return a user or group that Linux can have; any other is nobody."""
    return number if 0 <= number < (1 << 32) - 1 else 65534
