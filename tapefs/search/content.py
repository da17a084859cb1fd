"""What makes two versions of a file the same: attributes, and content by its SHA-256. Blocking, reads indexes only."""

from __future__ import annotations

import hashlib
import stat
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from catalog.errors import Damaged
from catalog.ids import EntryNo, SegmentNo
from catalog.index.model import Entry, EntryFlag
from catalog.index.reader import IndexReader

#: Plain numbers: an IntFlag costs 1.5 us an operation.
_UNREADABLE = int(EntryFlag.UNREADABLE)
_IN_EXTENTS = int(EntryFlag.SPLIT | EntryFlag.SPARSE)
_EMPTY = hashlib.sha256(b"").digest()


class Content(NamedTuple):
    """What a file holds."""

    #: Of regular files that lie on tape in one piece; else empty.
    sha256: bytes
    #: Equal if and only if the content is: sums and places of the pieces, target of a link, numbers of a device.
    identity: object


def content_of(reader: IndexReader, number: EntryNo, entry: Entry) -> Content:
    """Return it for an entry, of a hardlinked file the first name's. Raises Damaged when a checksum is missing."""
    if not stat.S_ISREG(entry.mode):
        return Content(b"", (entry.target, entry.rdev))
    if entry.flags & _UNREADABLE:
        # Nobody knows what it held.
        return Content(b"", (reader.set_id, number))
    if not entry.size:
        return Content(_EMPTY, _EMPTY)
    if not entry.flags & _IN_EXTENTS:
        sha256 = _sum_at(reader, SegmentNo(entry.segment), entry.offset, number)
        return Content(sha256, sha256)
    extents = reader.extents(number)
    places = tuple((extent.file_offset, extent.length) for extent in extents)
    members = [next(group) for _, group in groupby(extents, key=itemgetter(2))]
    sums = tuple(_sum_at(reader, member.segment, member.offset, number) for member in members)
    return Content(b"", (places, sums))


def attributes_of(entry: Entry) -> tuple[int, ...]:
    """Return those that make another version when they change; times of reading and of inodes do not."""
    size = 0 if stat.S_ISDIR(entry.mode) else entry.size
    return entry.mode, entry.uid, entry.gid, size, entry.mtime_ns


def _sum_at(reader: IndexReader, segment: SegmentNo, offset: int, number: EntryNo) -> bytes:
    sha256 = reader.sha256(segment, offset)
    if sha256 is None:
        raise Damaged("the checksum of a file is missing", f"set {reader.set_id}, entry {number}")
    return sha256
