"""Finds the directories in which something is not as in the base. In the mover, and in processes of its own beside it.

A process (`python -m tapefs.backup.scout`), because to list and look at 130,000 names takes as long as `find` does, to
compare them as long again, and a second thread would wait for the first. All take numbers of directories from one
pipe, and mark in shared memory what differs, with all above it. What is marked is looked at again by the walk, which
decides; so to mark too much is never wrong, and whatever is in doubt here is marked.
"""

from __future__ import annotations

import gc
import mmap
import os
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice
from operator import attrgetter, itemgetter
from pathlib import Path
from stat import S_IFDIR

import msgspec

from catalog.ids import DirectoryNo, EntryNo
from catalog.index.marks import Mark, MarkReader
from catalog.index.model import Directory
from catalog.index.reader import IndexReader
from catalog.records import Job
from tapefs.backup.rules import Rules

TOKEN_BYTES = 4
#: A pipe takes 64 KiB without a reader.
MOST_TOKENS = 64 * 1024 // TOKEN_BYTES // 2
#: Directories behind one token, at least: a claim and the way down to the first of them cost as much as two.
LEAST_RANGE = 256
#: Longer listings are left to the walk, which does not hold them in memory.
_LONGEST_LISTING = 100_000
_TYPE = 0o170000

_status_mark = attrgetter("st_mode", "st_uid", "st_gid", "st_nlink", "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")
_ctime_ns = itemgetter(7)


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is told, as JSON on its standard input."""

    index: str
    job: Job
    #: As the walk has them, and when the set was begun.
    sources: list[bytes]
    began_ns: int
    #: Directories with a ctime from then on are not to be trusted.
    fresh_ns: int
    #: Descriptors of the shared memory, a byte for each directory, and of the pipe with the tokens.
    memory: int
    tokens: int
    #: Directories behind one token.
    range: int


class Scout:
    """Compares the directories that its tokens name."""

    def __init__(self, task: Task, reader: IndexReader, memory: mmap.mmap) -> None:
        self._task = task
        self._reader = reader
        self._memory = memory
        self._files, self._directories = MarkReader(reader), MarkReader(reader)
        self._rules = Rules(task.job, task.sources, task.began_ns)
        job = task.job
        self._takes_all = not (job.excludes or job.exclude_caches or job.min_bytes or job.max_bytes)
        self._takes_all = self._takes_all and not (job.min_age_s or job.max_age_s)
        self._above = frozenset(_above(task.sources))
        #: Paths of directories that were met in their parent.
        self._paths: dict[int, bytes] = {}
        #: Paths, and numbers of subdirectories, of what lies above.
        self._path_of = lru_cache(maxsize=1024)(self._find_path)
        self._children_of = lru_cache(maxsize=8)(self._find_children)

    def step(self) -> bool:
        """Do what is behind one token; False when there is none left. Raises Damaged."""
        token = os.read(self._task.tokens, TOKEN_BYTES)
        if not token:
            return False
        first = int.from_bytes(token, "little") * self._task.range
        self._paths.clear()
        for directory in self._reader.directories_from(DirectoryNo(first), first + self._task.range):
            path = self._paths.pop(directory.number, None)
            if path is None:
                path = self._path_of(directory.number)
            if path in self._above or not self._is_same(directory, path, first + self._task.range):
                self._mark(directory)
        return True

    def _is_same(self, directory: Directory, path: bytes, behind: int) -> bool:
        """Compare a listing; note the paths of subdirectories up to `behind`, whose turn comes in this step."""
        count = directory.files_count + directory.directories_count
        if count > _LONGEST_LISTING:
            return False
        files = self._files.run(directory.files_first, directory.files_count)
        subdirectories = self._directories.run(directory.directories_first, directory.directories_count)
        for row, number in zip(subdirectories.rows, subdirectories.offsets, strict=True):
            if number < behind:
                self._paths[number] = path + b"/" + row[0]
        if files.is_doubtful or any(map(self._task.fresh_ns.__le__, map(_ctime_ns, subdirectories.rows))):
            return False
        try:
            live = self._listing(path, count)
            if subdirectories.rows:
                found = [row for row in live if row[1] & _TYPE == S_IFDIR]
                if found != subdirectories.rows:
                    return False
                live = [row for row in live if row[1] & _TYPE != S_IFDIR]
            if live != files.rows:
                return not live and not files.rows
            return all(os.readlink(path + b"/" + files.rows[at][0]) == link for at, link in files.targets.items())
        except OSError:
            return False

    def _listing(self, path: bytes, count: int) -> list[Mark]:
        """Return what is in a directory that should have `count` entries, by name; one more is enough."""
        with os.scandir(path or b"/") as entries:
            wanted: Iterable[os.DirEntry[bytes]] = entries
            if not self._takes_all:
                wanted = self._wanted(path, entries)
            rows = [
                (entry.name, *_status_mark(entry.stat(follow_symlinks=False))) for entry in islice(wanted, count + 1)
            ]
        rows.sort()
        return rows

    def _wanted(self, path: bytes, entries: Iterable[os.DirEntry[bytes]]) -> Iterable[os.DirEntry[bytes]]:
        descriptor = os.open(path or b"/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            is_wanted = self._rules.within(path, descriptor)
        finally:
            os.close(descriptor)
        return entries if is_wanted is None else filter(is_wanted, entries)

    def _mark(self, directory: Directory) -> None:
        """Mark a directory and all above it, up to one that is marked."""
        while not self._memory[directory.number]:
            self._memory[directory.number] = 1
            directory = self._reader.directory(directory.parent)

    def _find_path(self, number: DirectoryNo) -> bytes:
        if number == 0:
            return b""
        parent = self._reader.directory(self._reader.directory(number).parent)
        numbers = self._children_of(parent.number)
        at = bisect_left(numbers, number)
        if at == len(numbers) or numbers[at] != number:
            at = numbers.index(number)
        name = self._reader.entry(EntryNo(parent.directories_first + at)).name
        return self._path_of(parent.number) + b"/" + name

    def _find_children(self, number: DirectoryNo) -> Sequence[int]:
        directory = self._reader.directory(number)
        rows = self._reader.list_from(directory, directory.files_count)
        return array("Q", (entry.offset for _, _, entry in rows))


def _above(sources: Iterable[bytes]) -> Iterable[bytes]:
    """Yield the paths of the directories above the sources, as the walk has them."""
    for source in sources:
        path = source.rstrip(b"/")
        while path:
            path = path.rpartition(b"/")[0]
            yield path


def main() -> None:
    """Be one of the processes: until there are no tokens left, or the mover is gone."""
    # Nothing here makes cycles; looking for some takes a tenth of the time.
    gc.disable()
    mover = os.getppid()
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    with IndexReader(Path(task.index)) as reader, mmap.mmap(task.memory, 0) as memory:
        scout = Scout(task, reader, memory)
        while os.getppid() == mover and scout.step():
            pass


if __name__ == "__main__":
    main()
