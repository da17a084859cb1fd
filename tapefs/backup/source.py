"""What a member is made of: a file opened for reading, or what is never opened. Used by the intake thread alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from catalog.index.model import EntryFlag
from tapefs.backup.attributes import Attributes, read_attributes
from tapefs.backup.base import fresh_flag
from tapefs.backup.holes import Run, data_bytes, data_runs
from tapefs.backup.scan import OpenDirectory

_SPARSE = int(EntryFlag.SPARSE)
_CHANGED = int(EntryFlag.CHANGED)
NO_FILE_ANY_MORE = "it is no regular file any more"
#: Under this much text a run of data takes in the map of a file with holes.
_MAP_BYTES_PER_RUN = 48
_BLOCK = 512

_open_flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Vanished(Exception):
    """The file is gone or has become something else; nothing of it was taken in."""


class Seen(NamedTuple):
    """A regular file as it was when it was opened."""

    status: os.stat_result
    attributes: Attributes
    #: Its data, if it has holes.
    runs: list[Run] | None
    #: Of catalog.index.model.EntryFlag: FRESH, SPARSE, LINKED.
    flags: int


class Source:
    """A regular file of a directory, open for reading."""

    __slots__ = ("attributes", "directory", "fd", "flags", "is_unread", "name", "runs", "status")

    def __init__(
        self,
        directory: OpenDirectory,
        name: bytes,
        fd: int,
        status: os.stat_result,
        attributes: Attributes,
        runs: list[Run] | None,
        flags: int,
    ) -> None:
        """The last four are those of `Seen`."""
        self.directory = directory
        self.name = name
        #: -1: it cannot be read any more, and counts as zeros.
        self.fd = fd
        self.status = status
        self.attributes = attributes
        self.runs = runs
        self.flags = flags
        #: Something of it could not be read, and that has been counted.
        self.is_unread = False

    @classmethod
    def open(
        cls, directory: OpenDirectory, name: bytes, look_around: Callable[[], None], *, keeps_holes: bool = True
    ) -> Source:
        """Open it; without `keeps_holes` they are read as zeros.

        Raises OSError; Vanished when it is no regular file any more; what `look_around` raises.
        """
        fd = open_file(name, directory.held_fd())
        try:
            return cls.of(directory, name, fd, os.fstat(fd), look_around, keeps_holes=keeps_holes)
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def of(
        cls,
        directory: OpenDirectory,
        name: bytes,
        fd: int,
        status: os.stat_result,
        look_around: Callable[[], None],
        *,
        keeps_holes: bool = True,
    ) -> Source:
        """Make one of a file that is open already, `status` being what it is. Raises as `open`."""
        if not stat.S_ISREG(status.st_mode):
            raise Vanished(NO_FILE_ANY_MORE)
        flags = fresh_flag(status)
        attributes = read_attributes(fd)
        runs = None
        if keeps_holes and status.st_blocks * _BLOCK < status.st_size:
            runs = data_runs(fd, status.st_size, look_around)
            flags |= 0 if runs is None else _SPARSE
        return cls(directory, name, fd, status, attributes, runs, flags)

    def again(self, look_around: Callable[[], None], *, keeps_holes: bool = True) -> Source | None:
        """Open what has the name now; None when that is no regular file that can be read."""
        try:
            return Source.open(self.directory, self.name, look_around, keeps_holes=keeps_holes)
        except (OSError, Vanished):
            return None

    @property
    def seen(self) -> Seen:
        """Return how it was."""
        return Seen(self.status, self.attributes, self.runs, self.flags)

    @seen.setter
    def seen(self, seen: Seen) -> None:
        self.status, self.attributes, self.runs, self.flags = seen

    @property
    def stored_bytes(self) -> int:
        """What a whole member takes in the payload beside its headers, at most."""
        runs = self.runs
        if runs is None:
            return self.status.st_size + self.attributes.bytes
        return data_bytes(runs) + self.map_bytes + self.attributes.bytes

    @property
    def map_bytes(self) -> int:
        """What a map of its data takes, at most."""
        return 0 if self.runs is None else (len(self.runs) + 2) * _MAP_BYTES_PER_RUN + _BLOCK

    def close(self) -> None:
        """Let go of it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def has_changed(self) -> bool:
        """Has it been written to, or touched, since it was opened?"""
        if self.fd < 0:
            return True
        now, then = os.fstat(self.fd), self.status
        return (now.st_mtime_ns, now.st_ctime_ns, now.st_size) != (then.st_mtime_ns, then.st_ctime_ns, then.st_size)


@dataclass(slots=True)
class Special:
    """A link, fifo or device node. It is never opened: that could block, or do harm."""

    directory: OpenDirectory
    name: bytes
    status: os.stat_result
    attributes: Attributes
    #: Of a symbolic link.
    target: bytes
    #: As of a Source; CHANGED when it was another every time it was looked at.
    flags: int

    @classmethod
    def look(cls, directory: OpenDirectory, name: bytes) -> Special:
        """Look at it, once more if it changes meanwhile. Raises OSError."""
        special = cls._once(directory, name)
        if special.flags & _CHANGED:
            special = cls._once(directory, name)
        return special

    @classmethod
    def _once(cls, directory: OpenDirectory, name: bytes) -> Special:
        fd = directory.held_fd()
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        target = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else b""
        attributes = read_attributes(b"/proc/self/fd/%d/%b" % (fd, name))
        now = os.stat(name, dir_fd=fd, follow_symlinks=False)
        is_same = (now.st_dev, now.st_ino, now.st_ctime_ns) == (status.st_dev, status.st_ino, status.st_ctime_ns)
        flags = fresh_flag(status) | (0 if is_same else _CHANGED)
        return cls(directory, name, status, attributes, target, flags)


def open_file(name: bytes, directory_fd: int) -> int:
    """Return a descriptor of what has that name in a directory, for reading. Raises OSError."""
    try:
        # Reading for a backup is no access that the file's owner wants to see.
        return os.open(name, _open_flags | os.O_NOATIME, dir_fd=directory_fd)
    except PermissionError:
        return os.open(name, _open_flags, dir_fd=directory_fd)
