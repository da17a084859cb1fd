"""What is read: random parts of random files, by every call that reads, from the mount and from the source. Blocking.

The source must lie still. Each way of reading gets both files open, and gives what it read of each.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

#: Lengths that are asked for: a byte, around a page and around read-ahead, odd ones, more than most files have.
_LENGTHS = (1, 7, 100, 511, 512, 4095, 4096, 4097, 12_345, 65_536, 131_071, 131_073, 400_000)
#: Reads of a file while it is open.
BURST = 20


@dataclass
class Tally:
    """What was compared, and what differed."""

    reads: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    differences: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    """A part of a file: what a read asks for."""

    offset: int
    length: int


#: Reads a part of an open file.
Way = Callable[[int, Part], bytes]


def _pread(fd: int, part: Part) -> bytes:
    return os.pread(fd, part.length, part.offset)


def _seek_and_read(fd: int, part: Part) -> bytes:
    os.lseek(fd, part.offset, os.SEEK_SET)
    return os.read(fd, part.length)


def _preadv(fd: int, part: Part) -> bytes:
    buffers = [bytearray(-(-part.length // 3)) for _ in range(3)]
    count = os.preadv(fd, buffers, part.offset)
    return b"".join(buffers)[: min(count, part.length)]


def _mapped(fd: int, part: Part) -> bytes:
    size = os.fstat(fd).st_size
    if part.offset >= size:
        return b""
    begin = part.offset - part.offset % mmap.ALLOCATIONGRANULARITY
    length = min(size, part.offset + part.length) - begin
    with mmap.mmap(fd, length, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ, offset=begin) as view:
        return view[part.offset - begin :]


def _sendfile(fd: int, part: Part) -> bytes:
    target = os.memfd_create("target")
    try:
        offset, left = part.offset, part.length
        while left > 0 and (count := os.sendfile(target, fd, offset, left)):
            offset, left = offset + count, left - count
        return _all_of(target)
    finally:
        os.close(target)


def _copy_file_range(fd: int, part: Part) -> bytes:
    """By read and write where the kernel refuses to copy between two file systems, as `cp` does then."""
    target = os.memfd_create("target")
    try:
        offset, left = part.offset, part.length
        while left > 0 and (count := os.copy_file_range(fd, target, left, offset)):
            offset, left = offset + count, left - count
        return _all_of(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return _pread(fd, part)
    finally:
        os.close(target)


def _splice(fd: int, part: Part) -> bytes:
    read, write = os.pipe()
    try:
        found = []
        offset, left = part.offset, part.length
        while left > 0 and (count := os.splice(fd, write, min(left, 60_000), offset_src=offset)):
            found.append(os.read(read, count))
            offset, left = offset + count, left - count
        return b"".join(found)
    finally:
        os.close(read)
        os.close(write)


def _all_of(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


#: With how often each is taken.
WAYS: dict[str, tuple[Way, int]] = {
    "pread": (_pread, 60),
    "lseek and read": (_seek_and_read, 10),
    "preadv": (_preadv, 10),
    "private mmap": (_mapped, 10),
    "sendfile": (_sendfile, 4),
    "copy_file_range": (_copy_file_range, 2),
    "splice": (_splice, 4),
}
#: How a file is opened in the mount; the source always as usual, because others demand alignment of O_DIRECT.
MODES = {"": 0, " with O_DIRECT": os.O_DIRECT, " with O_NONBLOCK": os.O_NONBLOCK, " with O_NOATIME": os.O_NOATIME}


def readable_files(source: bytes) -> list[bytes]:
    """Return the regular files below `source`, relative to it."""
    found = []
    for folder, _, files in os.walk(source):
        for name in files:
            path = os.path.join(folder, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                found.append(os.path.relpath(path, source))
    return sorted(found)


class RandomReads:
    """Random reads, the same ones for the same seed."""

    def __init__(self, source: bytes, root: bytes, seed: int) -> None:
        self._source = source
        self._root = root
        self._chance = random.Random(seed)
        self._files = readable_files(source)
        #: Large files are read as often as their bytes say, small ones as often as there are of them.
        self._weights = [1 + os.path.getsize(os.path.join(source, name)) // 100_000 for name in self._files]
        self.tally = Tally()

    def burst(self) -> None:
        """Open a file in both trees and compare some reads of it."""
        [name] = self._chance.choices(self._files, self._weights)
        mode, flags = self._chance.choice(list(MODES.items()))
        with ExitStack() as stack:
            theirs, ours = (
                os.open(os.path.join(top, name), os.O_RDONLY | how)
                for top, how in ((self._source, 0), (self._root, flags))
            )
            stack.callback(os.close, theirs)
            stack.callback(os.close, ours)
            size = os.fstat(theirs).st_size
            for _ in range(BURST):
                self._compare(name, mode, theirs, ours, self._part(size))
            if self._chance.random() < 0.3:
                os.posix_fadvise(ours, 0, 0, os.POSIX_FADV_DONTNEED)

    def _part(self, size: int) -> Part:
        """Anywhere in the file, sometimes across its end or behind it, mostly not on a border of anything."""
        offset = self._chance.choice((0, size, max(0, size - 5000), self._chance.randrange(size + 5000)))
        if self._chance.random() < 0.7:
            offset = self._chance.randrange(size + 1)
        if self._chance.random() < 0.2:
            offset -= offset % 4096
        return Part(offset, self._chance.choice(_LENGTHS))

    def _compare(self, name: bytes, mode: str, theirs: int, ours: int, part: Part) -> None:
        [word] = self._chance.choices(list(WAYS), [share for _, share in WAYS.values()])
        way = WAYS[word][0]
        wanted = _pread(theirs, part)
        try:
            found = way(ours, part)
        except OSError as error:
            self.tally.differences.append(f"{word}{mode} of {name!r} at {part}: {error}")
            return
        self.tally.reads[word + mode] += 1
        self.tally.bytes += len(wanted)
        if found != wanted:
            self.tally.differences.append(
                f"{word}{mode} of {name!r} at {part}: {len(found)} bytes, {first_difference(wanted, found)}"
            )


def first_difference(wanted: bytes, found: bytes) -> str:
    """Say where two strings of bytes differ first."""
    for place, (one, other) in enumerate(zip(wanted, found, strict=False)):
        if one != other:
            return f"byte {place} is {other}, not {one}"
    return f"{len(wanted)} were wanted"


def whole_files(source: bytes, root: bytes, most_bytes: int = 1 << 26) -> Iterator[str]:
    """Compare all of every file up to some size, as `cat` reads it."""
    for name in readable_files(source):
        if os.path.getsize(os.path.join(source, name)) > most_bytes:
            continue
        with open(os.path.join(source, name), "rb") as theirs, open(os.path.join(root, name), "rb") as ours:
            wanted, found = theirs.read(), ours.read()
        if wanted != found:
            yield f"all of {name!r}: {first_difference(wanted, found)}"
