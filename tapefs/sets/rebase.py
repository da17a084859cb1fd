"""Directories of a set that builds on another: what its trailers say is merged with what the base shows.

Blocking; belongs to one thread. What has not changed is shared: a run of files or of subdirectories in which nothing is
another, and every directory that the trailers do not name. Memory does not depend on the length of a directory.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from stat import S_ISDIR, S_ISREG

from catalog.ids import DirectoryNo, EntryNo
from catalog.index.model import Directory, Entry, EntryFlag, Totals, content_bytes
from catalog.index.reader import IndexReader
from catalog.index.writer import IndexWriter
from tapefs.errors import BadStructure
from tapefs.sets.spill import Queue

#: Entries copied at a time.
_BATCH = 1024
_IN_EXTENTS = int(EntryFlag.SPLIT | EntryFlag.SPARSE)
_XATTRS = int(EntryFlag.XATTRS)
_NO_CONTENT = int(EntryFlag.CHANGED | EntryFlag.UNREADABLE)

_Row = tuple[EntryNo, Entry]


class BaseTree:
    """The base as the builder uses it, and which of its directories do not stay as they are."""

    def __init__(self, reader: IndexReader) -> None:
        self.reader = reader
        #: Numbers of the set's own directories begin here.
        self.directories_end = reader.directories_end
        self._replaced: set[DirectoryNo] = set()
        self._totals = Totals(0, 0, 0, 0)

    def enter(self, number: DirectoryNo, parent: Directory | None, name: bytes) -> Directory:
        """The set has lines of its own about a directory of the base. Raises BadStructure unless it was there."""
        if parent is None:
            is_there = number == 0
        else:
            found = self.reader.lookup(parent, name)
            is_there = found is not None and S_ISDIR(found[1].mode) and found[1].offset == number
        if not is_there:
            raise BadStructure(f"directory {number} is not the base's {name!r}")
        return self._drop(number)

    def remove(self, number: DirectoryNo) -> None:
        """A directory of the base is gone, with all that is in it."""
        waiting = array("Q", [number])
        while waiting:
            directory = self._drop(DirectoryNo(waiting.pop()))
            waiting.extend(entry.offset for _, entry in _subdirectories(self.reader, directory))

    def _drop(self, number: DirectoryNo) -> Directory:
        if number in self._replaced:
            raise BadStructure(f"directory {number} has lines of its own, but is gone, or was there before")
        directory = self.reader.directory(number)
        self._replaced.add(number)
        entries, directories, files, content = self._totals
        self._totals = Totals(
            entries + directory.files_count + directory.directories_count, directories + 1,
            files + directory.files_count, content + directory.files_bytes,
        )  # fmt: skip
        return directory

    def share_the_rest(self, writer: IndexWriter) -> None:
        """Have the index take over all directories that were neither entered nor removed."""
        writer.share_directories(self._replaced, self._totals)


class MergedFiles:
    """The files of one directory: those of the base, without what is gone, and with what the set brings."""

    def __init__(self, writer: IndexWriter, base: IndexReader, directory: Directory) -> None:
        self._writer = writer
        self._base = base
        self._directory = directory
        self._rows = _files(base, directory)
        self._next = next(self._rows, None)
        #: Names that are gone, not yet come by.
        self._removed: deque[bytes] = deque()
        self._last = b""
        self._is_shared = True
        self._is_finished = False
        self._first = EntryNo(0)
        self._count = 0
        self._bytes = 0

    def remove(self, names: Sequence[bytes]) -> None:
        """These names, ascending, are gone; they lie behind all that was put. Raises BadStructure."""
        if not names:
            return
        if self._is_finished or names[0] <= self._last:
            raise BadStructure(f"the name {names[0]!r} is removed after {self._last!r}, or behind the subdirectories")
        self._is_shared = False
        if self._removed and names[0] < self._removed[-1]:
            # One that vanished while its directory was being read.
            self._removed = deque(sorted((*self._removed, *names)))
        else:
            self._removed.extend(names)

    def put(self, entry: Entry, *, as_base: bool) -> EntryNo:
        """Add an entry of the set, in place of the base's of that name; return its number. Raises BadStructure.

        With `as_base` it gets the content of that one.
        """
        if entry.name <= self._last or self._is_finished:
            raise BadStructure(f"the name {entry.name!r} comes after {self._last!r}, or behind the subdirectories")
        self._last = entry.name
        self._is_shared = False
        self._copy_until(entry.name)
        replaced = None
        if self._next is not None and self._next[1].name == entry.name:
            replaced, self._next = self._next, next(self._rows, None)
        if not as_base:
            return self._add([entry])
        if replaced is None or not _could_be_same(replaced[1], entry):
            raise BadStructure(f"{entry.name!r} has the content of a file that the base does not have")
        number, old = replaced
        flags = (entry.flags & ~_IN_EXTENTS) | (old.flags & _IN_EXTENTS)
        place = self._add([entry._replace(flags=flags, segment=old.segment, offset=old.offset)])
        if flags & _IN_EXTENTS:
            self._writer.add_extents(place, self._base.extents(number))
        return place

    def finish(self) -> tuple[EntryNo, int, int]:
        """All files have come: return the run's first number, its count, and its bytes. Raises BadStructure."""
        directory = self._directory
        if self._is_shared:
            self._is_finished = True
            return directory.files_first, directory.files_count, directory.files_bytes
        if not self._is_finished:
            self._is_finished = True
            self._copy_until(None)
            if self._removed:
                raise BadStructure(f"the name {self._removed[0]!r} is gone, but the base does not have it")
        return self._first, self._count, self._bytes

    def _copy_until(self, name: bytes | None) -> None:
        """Copy what the base has before `name`, or all the rest."""
        rows: list[_Row] = []
        while self._next is not None and (name is None or self._next[1].name < name):
            if self._removed and self._removed[0] == self._next[1].name:
                self._removed.popleft()
            else:
                rows.append(self._next)
                if len(rows) == _BATCH:
                    self._copy(rows)
                    rows = []
            self._next = next(self._rows, None)
        if name is not None and self._removed and self._removed[0] <= name:
            raise BadStructure(f"the name {self._removed[0]!r} is gone, but the base does not have it, or it is there")
        if rows:
            self._copy(rows)

    def _copy(self, rows: Sequence[_Row]) -> None:
        first = self._add([entry for _, entry in rows])
        for number, (old, entry) in enumerate(rows, first):
            if entry.flags & _IN_EXTENTS:
                self._writer.add_extents(EntryNo(number), self._base.extents(old))
            if entry.flags & _XATTRS:
                self._writer.add_xattrs(EntryNo(number), self._base.xattrs(old))
            if entry.nlink > 1:
                # Its other names may be in runs that are shared: all keep the number that was given first.
                self._writer.add_link(EntryNo(number), self._base.first_name(old))

    def _add(self, entries: list[Entry]) -> EntryNo:
        number = self._writer.add_entries(entries)
        if not self._count:
            self._first = number
        self._count += len(entries)
        self._bytes += content_bytes(entries)
        return number


class MergedDirectories:
    """The subdirectories of one directory: those of the base, without what is gone, and with what the set brings."""

    def __init__(self, writer: IndexWriter, tree: BaseTree, directory: Directory, said: Sequence[int]) -> None:
        """`said` are the numbers of all of them, in name order."""
        self._writer = writer
        self._tree = tree
        self._directory = directory
        self._count = len(said)
        self._said = iter(said)
        self._expected = next(self._said, None)
        self._first = EntryNo(0)
        self._taken = 0
        self._waiting: list[Entry] = []

    def finish(self, changed: Queue) -> tuple[EntryNo, int]:
        """Return first number and count of the run. Raises BadStructure.

        `changed` are the entries that are new or not as the base has them; what of the base is not said is removed.
        """
        if changed.is_empty and self._count == self._directory.directories_count:
            for _, entry in _subdirectories(self._tree.reader, self._directory):
                self._check(entry)
            return self._directory.directories_first, self._directory.directories_count
        entries = chain.from_iterable(changed.drain())
        new = next(entries, None)
        for _, entry in _subdirectories(self._tree.reader, self._directory):
            while new is not None and new.name < entry.name:
                self._take(new)
                new = next(entries, None)
            if new is not None and new.name == entry.name:
                if new.offset != entry.offset:
                    self._tree.remove(DirectoryNo(entry.offset))
                self._take(new)
                new = next(entries, None)
            elif entry.offset == self._expected:
                self._take(entry)
            else:
                self._tree.remove(DirectoryNo(entry.offset))
        for entry in chain(() if new is None else (new,), entries):
            self._take(entry)
        self._write()
        if self._expected is not None:
            raise BadStructure(f"the listing names directory {self._expected}, which is not there")
        return self._first, self._taken

    def _check(self, entry: Entry) -> None:
        if entry.offset != self._expected:
            raise BadStructure(f"directory {entry.offset} is there, but the listing does not name it in its place")
        self._expected = next(self._said, None)

    def _take(self, entry: Entry) -> None:
        self._check(entry)
        self._waiting.append(entry)
        if len(self._waiting) == _BATCH:
            self._write()

    def _write(self) -> None:
        if self._waiting:
            number = self._writer.add_entries(self._waiting)
            self._first = self._first if self._taken else number
            self._taken += len(self._waiting)
            self._waiting = []


def is_as_before(before: Directory, after: Entry) -> bool:
    """Is what its parent says of a directory the same?"""
    return (*before[2:12], before.flags) == (*after[1:7], after.nlink, *after[9:13])


def _files(reader: IndexReader, directory: Directory) -> Iterator[_Row]:
    for _, number, entry in islice(reader.list_from(directory, 0), directory.files_count):
        yield number, entry


def _subdirectories(reader: IndexReader, directory: Directory) -> Iterator[_Row]:
    for _, number, entry in reader.list_from(directory, directory.files_count):
        yield number, entry


def _could_be_same(old: Entry, new: Entry) -> bool:
    return S_ISREG(old.mode) and S_ISREG(new.mode) and old.size == new.size and not old.flags & _NO_CONTENT
