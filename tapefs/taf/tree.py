"""The tree of one set of TAF's, from what was noted of its archives, as a namespace index. Blocking; one thread.

Archives hold their members in any order, some without the directories above them; names may be hostile. What has no
place in a tree (`..`, an absolute path) is refused and told. Where two members have one name, the first keeps it, and
the other is shown beside it unless it is the same: TAF packs sources that have files of one name into one set.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from catalog.ids import DirectoryNo, EntryNo, SegmentId, SegmentNo, SetId
from catalog.index.model import Directory, Entry, EntryFlag, Extent, FrameRow, SegmentRow, Totals, content_bytes
from catalog.index.writer import IndexWriter
from tapefs.restore.beneath import BadName, check_name
from tapefs.restore.making import join
from tapefs.taf.notes import Notes, ReadArchive, time_of

_BATCH = 1024
_IMPLIED = (stat.S_IFDIR | 0o755, 0, 0)
_PATH_BYTES = 8192
_TARGET_BYTES = 4095
_NAME_BYTES = 255
_BLOCK_BYTES = 512

_SCHEMA = """
CREATE TABLE directories (path BLOB PRIMARY KEY, above BLOB, name BLOB NOT NULL, member INTEGER) WITHOUT ROWID;
CREATE INDEX directories_above ON directories (above, name);
CREATE TABLE names (directory BLOB NOT NULL, name BLOB NOT NULL, member INTEGER NOT NULL,
    content INTEGER NOT NULL, PRIMARY KEY (directory, name)) WITHOUT ROWID;
CREATE INDEX names_of ON names (content);
CREATE INDEX names_by_member ON names (member);
"""
_MEMBERS = """SELECT id, path, mode, size, target, is_link, sha256 FROM members WHERE archive = ? ORDER BY id"""
_FILES = """SELECT names.name, names.content, m.archive, m.mode, m.uid, m.gid, m.mtime, m.size, m.stored, m.rdev,
    m.target, m.place, m.data, (SELECT count(*) FROM names AS others WHERE others.content = names.content)
    FROM names JOIN members AS m ON m.id = names.content WHERE names.directory = ? ORDER BY names.name"""
_SUBDIRECTORIES = "SELECT path, name FROM directories WHERE above = ? ORDER BY name"
_ATTRIBUTES = """SELECT m.mode, m.uid, m.gid, m.mtime FROM directories JOIN members AS m ON m.id = member
    WHERE directories.path = ?"""


@dataclass(slots=True)
class Planted:
    """What became of the members of a set."""

    #: Members that are not shown, by path, and why.
    refused: list[tuple[bytes, str]] = field(default_factory=list)
    refused_count: int = 0
    #: Members that are shown under another name: by path, the new one.
    renamed: list[tuple[bytes, bytes]] = field(default_factory=list)
    renamed_count: int = 0
    #: Members that are there twice and the same.
    same: int = 0

    def refuse(self, path: bytes, reason: str) -> None:
        """A member is not shown."""
        self.refused_count += 1
        if len(self.refused) < _BATCH:
            self.refused.append((path, reason))

    def rename(self, path: bytes, name: bytes) -> None:
        """A member is shown under another name."""
        self.renamed_count += 1
        if len(self.renamed) < _BATCH:
            self.renamed.append((path, name))


class Tree:
    """One set's names, in tables of their own beside the notes; a context manager that drops them."""

    def __init__(self, notes: Notes, archives: Sequence[ReadArchive]) -> None:
        self._notes = notes
        self._database = notes.database
        self._archives = archives
        self.planted = Planted()
        #: Directories that are known to be there.
        self._seen: set[bytes] = set()

    def __enter__(self) -> Tree:
        self._drop()
        self._database.executescript(_SCHEMA)
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()

    def _drop(self) -> None:
        self._database.executescript("DROP TABLE IF EXISTS directories; DROP TABLE IF EXISTS names;")

    # -- planting ----------------------------------------------------------------------------------------------------

    def plant(self) -> Planted:
        """Give every member its place. Raises StorageFailed."""
        with self._notes.reporting():
            self._database.execute("BEGIN")
            self._database.execute("INSERT INTO directories VALUES (x'', NULL, x'', NULL)")
            for archive in self._archives:
                for row in self._database.execute(_MEMBERS, (archive.number,)):
                    self._plant(archive, *row)
            self._part_files_and_directories()
            self._database.commit()
        return self.planted

    def _plant(
        self,
        archive: ReadArchive,
        member: int,
        raw_path: bytes,
        mode: int,
        size: int,
        target: bytes,
        is_link: int,
        sha256: bytes | None,
    ) -> None:
        try:
            path = relative(raw_path)
            if stat.S_ISDIR(mode):
                self._enter(path)
                self._database.execute("UPDATE directories SET member = ? WHERE path = ?", (member, path))
                return
            directory, _, name = path.rpartition(b"/")
            check_name(name)
            if stat.S_ISLNK(mode) and (len(target) > _TARGET_BYTES or b"\0" in target):
                raise BadName(f"its target, of {len(target)} bytes, is none")
            content = self._content(archive, member, target) if is_link else member
            self._enter(directory)
        except BadName as error:
            self.planted.refuse(raw_path, str(error))
        except OSError as error:
            self.planted.refuse(raw_path, error.strerror or str(error))
        else:
            self._name(raw_path, directory, name, member, content)

    def _content(self, archive: ReadArchive, member: int, target: bytes) -> int:
        """Return the member that a hard link is another name of. Raises BadName if there is none."""
        plain = target[2:] if target.startswith(b"./") else target
        row = self._database.execute(
            "SELECT id, is_link, mode FROM members WHERE archive = ? AND path IN (?, ?) AND id < ? "
            "ORDER BY id DESC LIMIT 1",
            (archive.number, plain, b"./" + plain, member),
        ).fetchone()
        if row is not None and row[1]:
            content = self._database.execute("SELECT content FROM names WHERE member = ?", (row[0],)).fetchone()
            row = None if content is None else (content[0], 0, 0)
        if row is None or stat.S_ISDIR(row[2]):
            raise BadName(f"another name of {os.fsdecode(target)!r}, which is not there")
        return int(row[0])

    def _enter(self, path: bytes) -> None:
        """Have a directory, and those above it. Raises BadName, OSError for a name that is too long."""
        missing = []
        while path and path not in self._seen:
            missing.append(path)
            path, _, name = path.rpartition(b"/")
            check_name(name)
        if len(self._seen) > 100_000:
            self._seen.clear()
        for path in reversed(missing):
            above, _, name = path.rpartition(b"/")
            self._database.execute("INSERT OR IGNORE INTO directories VALUES (?, ?, ?, NULL)", (path, above, name))
            self._seen.add(path)

    def _name(self, path: bytes, directory: bytes, name: bytes, member: int, content: int) -> None:
        if self._take_name(directory, name, member, content):
            return
        if self._is_same(directory, name, content):
            self.planted.same += 1
            return
        self.planted.rename(path, self._beside(directory, name, member, content))

    def _take_name(self, directory: bytes, name: bytes, member: int, content: int) -> bool:
        try:
            self._database.execute("INSERT INTO names VALUES (?, ?, ?, ?)", (directory, name, member, content))
        except sqlite3.IntegrityError:
            return False
        return True

    def _is_same(self, directory: bytes, name: bytes, content: int) -> bool:
        query = "SELECT mode & 61440, size, target, rdev, sha256 FROM members WHERE id = ?"
        numbers = (self._holder(directory, name), content)
        one, other = (self._database.execute(query, (number,)).fetchone() for number in numbers)
        return bool(one == other)

    def _holder(self, directory: bytes, name: bytes) -> int:
        row = self._database.execute(
            "SELECT content FROM names WHERE directory = ? AND name = ?", (directory, name)
        ).fetchone()
        return int(row[0])

    def _beside(self, directory: bytes, name: bytes, member: int, content: int) -> bytes:
        """Take a free name beside one that is taken, and return it."""
        number = 2
        while True:
            ending = b" (%d)" % number
            free = name[: _NAME_BYTES - len(ending)] + ending
            if self._take_name(directory, free, member, content):
                return free
            number += 1

    def _part_files_and_directories(self) -> None:
        """A file that has the name of a directory gets another."""
        clashes = self._database.execute(
            "SELECT names.directory, names.name, names.member, names.content FROM names JOIN directories ON "
            "directories.above = names.directory AND directories.name = names.name"
        ).fetchall()
        for directory, name, member, content in clashes:
            self._database.execute("DELETE FROM names WHERE directory = ? AND name = ?", (directory, name))
            self.planted.rename(join(directory, name), self._beside(directory, name, member, content))

    # -- the index ---------------------------------------------------------------------------------------------------

    def write(self, path: Path, set_id: SetId, segments: Sequence[SegmentId]) -> Totals:
        """Write the index, with a segment for each archive. Raises StorageFailed, Conflict."""
        with self._notes.reporting(), IndexWriter(path, set_id) as writer:
            for number, (archive, segment_id) in enumerate(zip(self._archives, segments, strict=True)):
                rows = list(frame_rows(self._notes, archive))
                writer.add_frames(SegmentNo(number), rows)
                for batch in _batches(self._notes.hashes(archive.number)):
                    writer.add_hashes(SegmentNo(number), batch)
                writer.add_segment(
                    SegmentRow(SegmentNo(number), segment_id, archive.plain_bytes, archive.size_bytes, len(rows))
                )
            _Walk(self._database, writer, [archive.number for archive in self._archives]).run()
            return writer.finish()


def frame_rows(notes: Notes, archive: ReadArchive) -> Iterator[FrameRow]:
    """Yield an archive's frames. Where they lie in the file is only about right: nobody reads just there."""
    at = 0
    for plain_bytes, checksum in notes.frames(archive.number):
        first, end = (archive.size_bytes * place // archive.plain_bytes for place in (at, at + plain_bytes))
        yield FrameRow(at, plain_bytes, first, max(end - first, 1), checksum)
        at += plain_bytes


def relative(path: bytes) -> bytes:
    """Return a member's path as tar means it, without `./` before and `/` behind. Raises BadName."""
    while path.startswith(b"./"):
        path = path[2:].lstrip(b"/")
    path = path.rstrip(b"/") or path
    if path in (b"", b"."):
        return b""
    if len(path) > _PATH_BYTES:
        raise BadName(f"a path of {len(path)} bytes")
    if path.startswith(b"/"):
        raise BadName("an absolute path")
    return path


def _batches(rows: Iterator[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


@dataclass(slots=True)
class _Open:
    """A directory that is being walked."""

    path: bytes
    name: bytes
    number: DirectoryNo
    files_first: EntryNo
    files_count: int
    files_bytes: int
    waiting: list[tuple[bytes, bytes]]
    entries: list[Entry] = field(default_factory=list)


class _Walk:
    """From the root on: a directory's files by name, its subdirectories by name with all below, then their entries."""

    def __init__(self, database: sqlite3.Connection, writer: IndexWriter, archives: Sequence[int]) -> None:
        self._database = database
        self._writer = writer
        self._segment_of = {archive: SegmentNo(number) for number, archive in enumerate(archives)}
        self._directories = 0
        #: The first names of files that have several.
        self._first: dict[int, EntryNo] = {}

    def run(self) -> None:
        """Write all."""
        stack = [self._enter(b"", b"")]
        while stack:
            at = stack[-1]
            if at.waiting:
                stack.append(self._enter(*at.waiting.pop()))
                continue
            stack.pop()
            entry = self._leave(at, stack[-1].number if stack else DirectoryNo(0))
            if stack:
                stack[-1].entries.append(entry)

    def _enter(self, path: bytes, name: bytes) -> _Open:
        number = DirectoryNo(self._directories)
        self._directories += 1
        first, count, content = EntryNo(0), 0, 0
        cursor = self._database.execute(_FILES, (path,))
        while rows := cursor.fetchmany(_BATCH):
            made = [self._entry(*row) for row in rows]
            start = self._writer.add_entries([entry for entry, _, _ in made])
            first = first if count else start
            content += self._relate(start, made)
            count += len(made)
        waiting = self._database.execute(_SUBDIRECTORIES, (path,)).fetchall()
        return _Open(path, name, number, first, count, content, waiting[::-1])

    def _entry(
        self,
        name: bytes,
        content: int,
        archive: int,
        mode: int,
        uid: int,
        gid: int,
        mtime: bytes,
        size: int,
        stored: int,
        rdev: int,
        target: bytes,
        place: int,
        data: str | None,
        names: int,
    ) -> tuple[Entry, int, list[Extent]]:
        """Return an entry, the content it is a name of, and the extents of a file with holes."""
        segment = self._segment_of[archive]
        flags, extents = 0, []
        if data is not None:
            flags, extents = int(EntryFlag.SPARSE), _extents(data, segment, place)
        if names > 1 and content in self._first:
            flags |= EntryFlag.LINKED
        elif names > 1:
            # Its number is put in by `_relate`; a name of the same file in this batch must know.
            self._first[content] = EntryNo(-1)
        is_link = stat.S_ISLNK(mode)
        time_ns = time_of(mtime)
        entry = Entry(
            name, mode, uid, gid, len(target) if is_link else size, time_ns, time_ns, names, rdev, 0,
            content if names > 1 else 0, -(-stored // _BLOCK_BYTES), int(flags), segment if stored else 0,
            place if stored else 0, target if is_link else b"",
        )  # fmt: skip
        return entry, content, extents

    def _relate(self, start: EntryNo, made: list[tuple[Entry, int, list[Extent]]]) -> int:
        """Add extents and links of new entries; return their content bytes."""
        for number, (entry, content, extents) in enumerate(made, start):
            if entry.flags & EntryFlag.SPARSE:
                self._writer.add_extents(EntryNo(number), extents)
            if entry.flags & EntryFlag.LINKED:
                self._writer.add_link(EntryNo(number), self._first[content])
            elif entry.nlink > 1:
                self._first[content] = EntryNo(number)
        return content_bytes([entry for entry, _, _ in made])

    def _leave(self, at: _Open, parent: DirectoryNo) -> Entry:
        first = EntryNo(0)
        if at.entries:
            first = self._writer.add_entries(at.entries)
        row = self._database.execute(_ATTRIBUTES, (at.path,)).fetchone()
        mode, uid, gid, mtime = row or (*_IMPLIED, None)
        time_ns = 0 if mtime is None else time_of(mtime)
        nlink = 2 + len(at.entries)
        self._writer.add_directory(
            Directory(
                at.number, parent, mode, uid, gid, 0, time_ns, time_ns, nlink, 0, 0, 0, at.files_first,
                at.files_count, first, len(at.entries), at.files_bytes,
            )
        )  # fmt: skip
        return Entry(at.name, mode, uid, gid, 0, time_ns, time_ns, nlink, 0, 0, 0, 0, 0, 0, at.number, b"")


def _extents(data: str, segment: SegmentNo, place: int) -> list[Extent]:
    extents = []
    for run in data.split():
        at, length = map(int, run.split("+"))
        extents.append(Extent(at, length, segment, place))
        place += length
    return extents
