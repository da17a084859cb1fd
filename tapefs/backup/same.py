"""Is a file's content what an index says of it? Blocking, pure but for reading."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from itertools import groupby
from operator import attrgetter

from catalog.errors import Damaged
from catalog.ids import EntryNo, SegmentNo
from catalog.index.model import Entry, EntryFlag, Extent
from catalog.index.reader import IndexReader

_READ_BYTES = 1024 * 1024
_IN_EXTENTS = int(EntryFlag.SPLIT | EntryFlag.SPARSE)
_segment_of = attrgetter("segment")


def has_same_content(
    reader: IndexReader, number: EntryNo, entry: Entry, fd: int, look_around: Callable[[], None]
) -> bool:
    """Compare an open regular file with the SHA-256 sums of an entry; holes must be zeros.

    The file must have the entry's size. Raises OSError; Damaged when a sum is missing.
    """
    extents = _extents(reader, number, entry)
    end = 0
    for segment, runs in groupby(extents, _segment_of):
        place, sha256 = -1, hashlib.sha256()
        for extent in runs:
            if not _is_zero(fd, end, extent.file_offset, look_around):
                return False
            end = extent.file_offset + extent.length
            _feed(fd, extent.file_offset, end, sha256, look_around)
            place = extent.offset if place < 0 else place
        expected = reader.sha256(segment, place)
        if expected is None:
            raise Damaged("the checksum of a file is missing", f"entry {number}, {entry.name!r}")
        if sha256.digest() != expected:
            return False
    return _is_zero(fd, end, entry.size, look_around)


def _extents(reader: IndexReader, number: EntryNo, entry: Entry) -> list[Extent]:
    if entry.flags & _IN_EXTENTS:
        return reader.extents(number)
    return [Extent(0, entry.size, SegmentNo(entry.segment), entry.offset)] if entry.size else []


def _feed(fd: int, start: int, end: int, sha256: hashlib._Hash, look_around: Callable[[], None]) -> None:
    """Add that range to a sum; a file that has shrunk meanwhile just gives another sum."""
    while start < end and (data := os.pread(fd, min(_READ_BYTES, end - start), start)):
        look_around()
        sha256.update(data)
        start += len(data)


def _is_zero(fd: int, start: int, end: int, look_around: Callable[[], None]) -> bool:
    while start < end:
        data = os.pread(fd, min(_READ_BYTES, end - start), start)
        if not data or data.count(0) != len(data):
            return False
        look_around()
        start += len(data)
    return True
