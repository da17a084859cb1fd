"""The files of a restore in the order of the tape, and the directories in the order they were made. One thread.

Neither grows in memory with the tree: files beyond 200,000 are sorted in runs that go to an unnamed scratch file and
are merged (24 MB at most, and 64 KiB for every 200,000 files while merging); directories go to one at once.
"""

from __future__ import annotations

import heapq
import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from catalog.ids import DirectoryNo, EntryNo, SegmentNo
from tapefs.errors import HomeError
from tapefs.restore.writer import MadeDirectory

RUN_FILES = 200_000
_READ_BYTES = 64 * 1024
_NEWEST_PATHS = 256

# Big-endian, so that records sort as bytes: segment, offset, entry, first entry, place of the directory, group.
_FILE = struct.Struct(">IQQQqq")
#: Place of the directory made before, number, device, inode, is new, bytes of the path; then the path.
_MADE = struct.Struct("<qqQQ?I")
#: Place of the target itself.
TARGET = -1


class PlannedFile(NamedTuple):
    """A file with content, and where that begins."""

    segment: SegmentNo
    offset: int
    #: Whose name it gets, and who has its attributes and content: not the same for hardlinks.
    number: EntryNo
    first: EntryNo
    #: Of its directory, in `Directories`.
    place: int
    #: Its group in `Links`; -1 if it has one name only.
    group: int


class Plan:
    """Add files in any order, `sort`, then iterate by (segment, offset), as often as wanted, also at once."""

    def __init__(self, scratch: Path, run_files: int = RUN_FILES) -> None:
        """Scratch files lie in the folder `scratch`, without names."""
        self._records = SortedRecords(scratch, _FILE.size, run_files)

    def add(self, file: PlannedFile) -> None:
        """Take a file in. Raises HomeError if the scratch file cannot grow."""
        self._records.add(_FILE.pack(*file))

    def sort(self) -> None:
        """Put the files in order; called once, after the last `add`. Raises OSError, HomeError."""
        self._records.sort()

    def __iter__(self) -> Iterator[PlannedFile]:
        for record in self._records:
            segment, offset, number, first, place, group = _FILE.unpack(record)
            yield PlannedFile(SegmentNo(segment), offset, EntryNo(number), EntryNo(first), place, group)

    def close(self) -> None:
        """Give the scratch space back."""
        self._records.close()


class SortedRecords:
    """Records of one length, added in any order, then sorted once and read as often as wanted, also at once."""

    def __init__(self, scratch: Path, record_bytes: int, run_records: int = RUN_FILES) -> None:
        """Scratch files lie in the folder `scratch`, without names."""
        self._scratch = scratch
        self._record_bytes = record_bytes
        self._run_records = run_records
        self._records: list[bytes] = []
        self._runs: list[tuple[int, int]] = []
        self._file: BinaryIO | None = None

    def add(self, record: bytes) -> None:
        """Take a record in. Raises HomeError if the scratch file cannot grow."""
        self._records.append(record)
        if len(self._records) >= self._run_records:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            with roomy():
                self._file = scratch_file(self._scratch)
        self._records.sort()
        begin = self._runs[-1][1] if self._runs else 0
        self._runs.append((begin, begin + _append(self._file, self._records)))
        self._records.clear()

    def sort(self) -> None:
        """Put them in order; called once, after the last `add`. Raises OSError, HomeError."""
        if self._file is None:
            self._records.sort()
            return
        self._spill()
        runs = self._file
        merged = heapq.merge(*(self._read(runs, begin, end) for begin, end in self._runs))
        with roomy():
            self._file = scratch_file(self._scratch)
        end = 0
        batch: list[bytes] = []
        for record in merged:
            batch.append(record)
            if len(batch) == _READ_BYTES // self._record_bytes:
                end += _append(self._file, batch)
                batch.clear()
        end += _append(self._file, batch)
        forget(runs)
        self._runs = [(0, end)]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._records) if self._file is None else self._read(self._file, *self._runs[0])

    def _read(self, file: BinaryIO, begin: int, end: int) -> Iterator[bytes]:
        flush(file)
        size = self._record_bytes
        step = _READ_BYTES // size * size
        for at in range(begin, end, step):
            chunk = pread(file, min(step, end - at), at)
            for start in range(0, len(chunk), size):
                yield chunk[start : start + size]

    def close(self) -> None:
        """Give the scratch space back."""
        if self._file is not None:
            forget(self._file)


class Directories:
    """The directories that were made or found, by a place that `add` returns."""

    def __init__(self, scratch: Path) -> None:
        """The scratch file lies in the folder `scratch`, without a name."""
        self._file = scratch_file(scratch)
        self._end = 0
        self._newest = TARGET
        #: Returns the path of the directory at a place.
        self.path = lru_cache(_NEWEST_PATHS)(self._path)

    def add(self, path: bytes, number: DirectoryNo, made: MadeDirectory) -> int:
        """Take a directory in; return its place. Raises HomeError."""
        head = _MADE.pack(self._newest, number, made.dev, made.ino, made.is_new, len(path))
        self._newest = self._end
        self._end += _append(self._file, [head, path])
        return self._newest

    def _path(self, place: int) -> bytes:
        return b"" if place == TARGET else self._at(place)[1]

    def newest_first(self) -> Iterator[tuple[bytes, DirectoryNo, MadeDirectory]]:
        """Yield path, number and state; what is in a directory comes before it."""
        place = self._newest
        while place != TARGET:
            (place, number, dev, ino, is_new, _), path = self._at(place)
            yield path, DirectoryNo(number), MadeDirectory(is_new, dev, ino)

    def _at(self, place: int) -> tuple[tuple[int, int, int, int, bool, int], bytes]:
        flush(self._file)
        head = cast("tuple[int, int, int, int, bool, int]", _MADE.unpack(pread(self._file, _MADE.size, place)))
        return head, pread(self._file, head[5], place + _MADE.size)

    def close(self) -> None:
        """Give the scratch space back."""
        forget(self._file)


def scratch_file(folder: Path) -> BinaryIO:
    """Return an unnamed file in the folder. Raises OSError."""
    return cast("BinaryIO", tempfile.TemporaryFile(dir=folder))


def flush(file: BinaryIO) -> None:
    """Have all that was written read by `pread`. Raises HomeError when the state folder has no room for it."""
    with roomy():
        file.flush()


def forget(file: BinaryIO) -> None:
    """Close a scratch file; what did not fit on the disk is of no use any more."""
    with suppress(OSError):
        file.close()


def _append(file: BinaryIO, parts: list[bytes]) -> int:
    with roomy():
        return file.write(b"".join(parts))


@contextmanager
def roomy() -> Iterator[None]:
    """Make what the disk below a scratch file says an error that names it: the target may be elsewhere."""
    try:
        yield
    except OSError as error:
        raise HomeError(
            f"the disk of the state folder does not take the list of what is to be restored ({error.strerror}): make "
            "room there, then restore again; files that are complete are left alone"
        ) from error


def pread(file: BinaryIO, length: int, at: int) -> bytes:
    """Return exactly these bytes of a scratch file, which was flushed. Raises OSError."""
    content = os.pread(file.fileno(), length, at)
    if len(content) != length:
        raise OSError(f"the scratch file has {len(content)} bytes at {at} instead of {length}")
    return content
