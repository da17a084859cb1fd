"""The sources of an archive are removed, each file only if it is as it lies on tape. Mover's main thread.

A file goes if it was read without a mark, if type, device, inode, size, mtime, ctime and extended attributes are as
recorded, and nobody has it open for writing; one whose ctime cannot be trusted is compared by content. Everything is
done relative to open directories, never through a link. Directories inside a source go when they are empty. What stays
is told with the reason. A crash leaves the rest where it was; a second run finds it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from catalog.crash import crash_point
from catalog.ids import DirectoryNo, EntryNo
from catalog.index.model import Directory, Entry, EntryFlag
from catalog.index.reader import IndexReader
from tapefs.backup.attributes import read_attributes
from tapefs.backup.lease import LeaseRefused, deaf_to_writers, take_read_lease
from tapefs.backup.same import has_same_content

_before_unlink = crash_point("archive.unlink.before")
_after_unlink = crash_point("archive.unlink.after")

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
#: Holds a file without opening it.
_NAME_FLAGS = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_BROKEN = int(EntryFlag.CHANGED | EntryFlag.UNREADABLE)
_FRESH, _XATTRS = int(EntryFlag.FRESH), int(EntryFlag.XATTRS)
#: Who has mapped a file can go on writing to a page until the kernel writes it back, and the ctime stays that of his
#: first write: 8 s were seen, 35 s are usual at most.
MAPPED_NS = 60_000_000_000
ROOT = DirectoryNo(0)


class _Stays(Exception):
    """The file is not removed; the message says why."""


@dataclass(frozen=True, slots=True)
class _Level:
    """A directory on the way down."""

    fd: int
    path: bytes
    #: What the set has in it.
    rows: Iterator[tuple[EntryNo, Entry]]


@dataclass(slots=True)
class Removal:
    """What was done."""

    files: int = 0
    directories: int = 0
    #: Names that were not removed, each told with its reason.
    kept: int = 0
    #: Names that were gone already.
    missing: int = 0


@dataclass(slots=True)
class Remover:
    """Removes what one set has of some sources."""

    reader: IndexReader
    #: Told (path, reason) of everything that stays.
    tell: Callable[[bytes, str], None]
    #: Called with the path of every file, and while one is read; may raise.
    look_around: Callable[[bytes], None]
    #: Files with a ctime from then on are compared by content.
    doubtful_from_ns: int = sys.maxsize
    done: Removal = field(default_factory=Removal)
    #: (st_dev, st_ino) of files with several names -> their ctime since we removed one of them.
    _ctimes: dict[tuple[int, int], int] = field(default_factory=dict)

    def remove(self, sources: Sequence[bytes]) -> Removal:
        """Remove the sources (absolute, as the walk met them). A source that is a directory stays, empty at best."""
        with deaf_to_writers():
            for source in _outermost(sources):
                try:
                    self._source(source)
                except OSError as error:
                    self._keep(source, str(error.strerror))
        return self.done

    def _source(self, source: bytes) -> None:
        """Go down to the source and remove what is in it, or it. Raises OSError."""
        fd = os.open(b"/", _DIRECTORY_FLAGS)
        try:
            directory, path = self.reader.directory(ROOT), b""
            for name in filter(None, source.split(b"/")):
                found = self.reader.lookup(directory, name)
                path += b"/" + name
                if found is None:
                    self._keep(path, "it is not in the set")
                    return
                if not stat.S_ISDIR(found[1].mode):
                    self._file(fd, path, *found)
                    return
                directory = self.reader.directory(DirectoryNo(found[1].offset))
                child = self._enter(fd, path, directory)
                if child is None:
                    return
                os.close(fd)
                fd = child
            self._tree(_Level(fd, path, self._rows(directory)))
        finally:
            os.close(fd)

    def _tree(self, top: _Level) -> None:
        """Remove what is in a directory, but not itself; a stack, for trees may be deeper than calls."""
        stack = [top]
        try:
            while stack:
                level = stack[-1]
                row = next(level.rows, None)
                if row is None:
                    self._leave(stack)
                    continue
                number, entry = row
                path = level.path + b"/" + entry.name
                if not stat.S_ISDIR(entry.mode):
                    self._file(level.fd, path, number, entry)
                    continue
                directory = self.reader.directory(DirectoryNo(entry.offset))
                child = self._enter(level.fd, path, directory)
                if child is not None:
                    stack.append(_Level(child, path, self._rows(directory)))
        finally:
            for level in stack[1:]:
                os.close(level.fd)

    def _rows(self, directory: Directory) -> Iterator[tuple[EntryNo, Entry]]:
        return ((number, entry) for _, number, entry in self.reader.list_from(directory, 0))

    def _leave(self, stack: list[_Level]) -> None:
        level = stack.pop()
        if stack:
            os.close(level.fd)
            self._rmdir(stack[-1].fd, level.path)

    def _enter(self, parent: int, path: bytes, directory: Directory) -> int | None:
        """Open a directory; None, which is told, when it is not the one that was backed up, or cannot be opened."""
        try:
            fd = os.open(path.rpartition(b"/")[2], _DIRECTORY_FLAGS, dir_fd=parent)
        except FileNotFoundError:
            self.done.missing += 1
            return None
        except OSError as error:
            self._keep(path, str(error.strerror))
            return None
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != (directory.dev, directory.ino):
            os.close(fd)
            self._keep(path, "another directory is in its place")
            return None
        return fd

    def _rmdir(self, parent: int, path: bytes) -> None:
        try:
            os.rmdir(path.rpartition(b"/")[2], dir_fd=parent)
        except OSError as error:
            is_filled = error.errno in (errno.ENOTEMPTY, errno.EEXIST)
            self._keep(path, "it is not empty" if is_filled else str(error.strerror))
        else:
            self.done.directories += 1

    # -- files -------------------------------------------------------------------------------------------------------

    def _file(self, parent: int, path: bytes, number: EntryNo, entry: Entry) -> None:
        self.look_around(path)
        try:
            if entry.flags & _BROKEN:
                raise _Stays("it could not be backed up as it was")
            with _held(entry.name, _NAME_FLAGS, parent) as fd:
                self._check(os.fstat(fd), entry)
                if not stat.S_ISREG(entry.mode):
                    self._opened(parent, fd, path, number, entry)
                    return
                # The very file that was looked at: opening a device that was put in its place could do harm.
                with _held(f"/proc/self/fd/{fd}", _FILE_FLAGS, None) as readable:
                    self._opened(parent, readable, path, number, entry)
        except FileNotFoundError:
            self.done.missing += 1
        except (_Stays, LeaseRefused) as error:
            self._keep(path, str(error))
        except OSError as error:
            self._keep(path, str(error.strerror))

    def _opened(self, parent: int, fd: int, path: bytes, number: EntryNo, entry: Entry) -> None:
        """Remove the name of an open file. Raises _Stays, LeaseRefused, OSError."""
        is_regular = stat.S_ISREG(entry.mode)
        if is_regular:
            # From here on nobody writes to it: whoever wants to waits until it is closed.
            take_read_lease(fd)
        status = os.fstat(fd)
        self._check(status, entry)
        self._check_attributes(fd if is_regular else b"/proc/self/fd/%d/%b" % (parent, entry.name), number, entry)
        is_doubtful = is_regular and (entry.flags & _FRESH or entry.ctime_ns >= self.doubtful_from_ns)
        if is_doubtful and not has_same_content(self.reader, number, entry, fd, lambda: self.look_around(path)):
            raise _Stays("its content has changed since it was read")
        named = os.stat(entry.name, dir_fd=parent, follow_symlinks=False)
        if (named.st_dev, named.st_ino) != (status.st_dev, status.st_ino):
            raise _Stays("another file is in its place")
        _before_unlink()
        os.unlink(entry.name, dir_fd=parent)
        _after_unlink()
        if status.st_nlink > 1:
            self._ctimes[status.st_dev, status.st_ino] = os.fstat(fd).st_ctime_ns
        self.done.files += 1

    def _check(self, status: os.stat_result, entry: Entry) -> None:
        """Raise _Stays unless that is the file that was read."""
        ctime_ns = self._ctimes.get((status.st_dev, status.st_ino), entry.ctime_ns)
        recorded = (stat.S_IFMT(entry.mode), entry.dev, entry.ino)
        if (stat.S_IFMT(status.st_mode), status.st_dev, status.st_ino) != recorded:
            raise _Stays("another file is in its place")
        if (status.st_size, status.st_mtime_ns, status.st_ctime_ns) != (entry.size, entry.mtime_ns, ctime_ns):
            raise _Stays("it has changed since it was read")

    def _check_attributes(self, place: int | bytes, number: EntryNo, entry: Entry) -> None:
        """Raise _Stays unless the set has all extended attributes: what could not be had of them was only told."""
        now = read_attributes(place)
        if now.problem:
            raise _Stays(f"not all of it is in the set: {now.problem}")
        if list(now.xattrs) != (self.reader.xattrs(number) if entry.flags & _XATTRS else []):
            raise _Stays("its extended attributes are not as in the set")

    def _keep(self, path: bytes, reason: str) -> None:
        self.done.kept += 1
        self.tell(path, f"not removed: {reason}")


@contextmanager
def _held(name: bytes | str, flags: int, parent: int | None) -> Iterator[int]:
    fd = os.open(name, flags, dir_fd=parent)
    try:
        yield fd
    finally:
        os.close(fd)


def _outermost(sources: Sequence[bytes]) -> list[bytes]:
    """Return the sources without those that lie in others, each once."""
    found: list[bytes] = []
    for source in sorted(set(sources)):
        if not any(source.startswith(each.rstrip(b"/") + b"/") for each in found):
            found.append(source)
    return found
