"""The files of a restore in the order of the tape, and the directories in the order they were made. One thread.

Neither grows in memory with the tree: files beyond 200,000 are sorted in runs that go to an unnamed scratch file and
are merged (20 MB at most, and 64 KiB for every 200,000 files while merging); directories go to one at once.
"""

from __future__ import annotations

import heapq
import os
import struct
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from catalog.ids import DirectoryNo, EntryNo, SegmentNo
from tapefs.restore.writer import MadeDirectory

RUN_FILES = 200_000
_READ_BYTES = 64 * 1024
_NEWEST_PATHS = 256

# Big-endian, so that records sort as bytes: segment, offset, length, entry, place of the directory, is split.
_FILE = struct.Struct(">IQQQq?")
#: Place of the directory made before, number, device, inode, is new, bytes of the path; then the path.
_MADE = struct.Struct("<qqQQ?I")
#: Place of the target itself.
TARGET = -1


class PlannedFile(NamedTuple):
    """A file with content, and where that begins."""

    segment: SegmentNo
    offset: int
    #: Of its content there; a split file has further parts, see its extents.
    length: int
    number: EntryNo
    #: Of its directory, in `Directories`.
    place: int
    is_split: bool


class Plan:
    """Add files in any order, `sort`, then iterate by (segment, offset), as often as wanted, also at once."""

    def __init__(self, scratch: Path, run_files: int = RUN_FILES) -> None:
        """Scratch files lie in the folder `scratch`, without names."""
        self._scratch = scratch
        self._run_files = run_files
        self._records: list[bytes] = []
        self._runs: list[tuple[int, int]] = []
        self._file: BinaryIO | None = None

    def add(self, file: PlannedFile) -> None:
        """Take a file in. Raises OSError if the scratch file cannot grow."""
        self._records.append(_FILE.pack(*file))
        if len(self._records) >= self._run_files:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = _scratch_file(self._scratch)
        self._records.sort()
        begin = self._runs[-1][1] if self._runs else 0
        self._runs.append((begin, begin + _append(self._file, self._records)))
        self._records.clear()

    def sort(self) -> None:
        """Put the files in order; called once, after the last `add`. Raises OSError."""
        if self._file is None:
            self._records.sort()
            return
        self._spill()
        runs = self._file
        merged = heapq.merge(*(_records_of(runs, begin, end) for begin, end in self._runs))
        self._file = _scratch_file(self._scratch)
        end = 0
        batch: list[bytes] = []
        for record in merged:
            batch.append(record)
            if len(batch) == _READ_BYTES // _FILE.size:
                end += _append(self._file, batch)
                batch.clear()
        end += _append(self._file, batch)
        runs.close()
        self._runs = [(0, end)]

    def __iter__(self) -> Iterator[PlannedFile]:
        records = iter(self._records) if self._file is None else _records_of(self._file, *self._runs[0])
        for record in records:
            segment, offset, length, number, place, is_split = _FILE.unpack(record)
            yield PlannedFile(SegmentNo(segment), offset, length, EntryNo(number), place, is_split)

    def close(self) -> None:
        """Give the scratch space back."""
        if self._file is not None:
            self._file.close()


class Directories:
    """The directories that were made or found, by a place that `add` returns."""

    def __init__(self, scratch: Path) -> None:
        """The scratch file lies in the folder `scratch`, without a name."""
        self._file = _scratch_file(scratch)
        self._end = 0
        self._newest = TARGET
        #: Returns the path of the directory at a place.
        self.path = lru_cache(_NEWEST_PATHS)(self._path)

    def add(self, path: bytes, number: DirectoryNo, made: MadeDirectory) -> int:
        """Take a directory in; return its place. Raises OSError."""
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
        self._file.flush()
        head = cast("tuple[int, int, int, int, bool, int]", _MADE.unpack(_pread(self._file, _MADE.size, place)))
        return head, _pread(self._file, head[5], place + _MADE.size)

    def close(self) -> None:
        """Give the scratch space back."""
        self._file.close()


def _scratch_file(folder: Path) -> BinaryIO:
    return cast("BinaryIO", tempfile.TemporaryFile(dir=folder))


def _append(file: BinaryIO, parts: list[bytes]) -> int:
    return file.write(b"".join(parts))


def _records_of(file: BinaryIO, begin: int, end: int) -> Iterator[bytes]:
    file.flush()
    step = _READ_BYTES // _FILE.size * _FILE.size
    for at in range(begin, end, step):
        chunk = _pread(file, min(step, end - at), at)
        for start in range(0, len(chunk), _FILE.size):
            yield chunk[start : start + _FILE.size]


def _pread(file: BinaryIO, length: int, at: int) -> bytes:
    content = os.pread(file.fileno(), length, at)
    if len(content) != length:
        raise OSError(f"the scratch file has {len(content)} bytes at {at} instead of {length}")
    return content
