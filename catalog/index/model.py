"""What an index holds. Named tuples, because a walk makes millions of them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntFlag
from itertools import compress
from operator import itemgetter
from stat import S_IFREG
from typing import NamedTuple

from catalog.ids import DirectoryNo, EntryNo, FrameNo, SegmentId, SegmentNo, SetId


class EntryFlag(IntFlag):
    """What is special about an entry."""

    #: The file changed, grew, shrank or vanished while it was read: the content is what was read, cut or padded.
    CHANGED = 1
    #: The content lies in several members; see the extents.
    SPLIT = 2
    #: The content could not be read at backup time and is not on tape; `size` is what `lstat` said.
    UNREADABLE = 4
    #: Another name of a file whose number stands in the table of links.
    LINKED = 8
    #: The file has holes; the extents are its data.
    SPARSE = 16
    #: It has extended attributes, ACLs among them, in the table of attributes.
    XATTRS = 32
    #: Its ctime was so near when it was read that a later change may bear the same: not to be trusted next time.
    FRESH = 64


class Entry(NamedTuple):
    """One name in a directory."""

    name: bytes
    #: As st_mode, with the type bits.
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    nlink: int
    rdev: int
    #: Device and inode at the source, for hardlinks and to notice changes.
    dev: int
    ino: int
    #: In 512-byte units, as st_blocks.
    blocks: int
    flags: int
    #: Ordinal of the segment that holds the content; 0 where there is none.
    segment: int
    #: Where the content begins in the segment's plain tar stream; for directories the number of the directory.
    offset: int
    #: Of a symbolic link; else empty.
    target: bytes


class Directory(NamedTuple):
    """A directory's own attributes, and where its listing lies.

    The listing is two runs of entries sorted by name: everything but directories, then the directories. Each may be a
    run of an index that this one builds on.
    """

    number: DirectoryNo
    #: The root is its own parent.
    parent: DirectoryNo
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    ctime_ns: int
    nlink: int
    dev: int
    ino: int
    blocks: int
    files_first: EntryNo
    files_count: int
    directories_first: EntryNo
    directories_count: int
    #: What `content_bytes` says of the files.
    files_bytes: int = 0
    #: Of EntryFlag only XATTRS.
    flags: int = 0


class FrameRow(NamedTuple):
    """One independently decodable piece of a payload."""

    #: Place and length in the plain tar stream.
    plain_offset: int
    plain_bytes: int
    #: Place and length in the payload.
    offset: int
    stored_bytes: int
    #: XXH3-128 of the stored bytes.
    checksum: bytes


class NumberedFrame(NamedTuple):
    """A frame with its ordinal in the segment."""

    number: FrameNo
    row: FrameRow


class SegmentRow(NamedTuple):
    """A segment that the set uses."""

    number: SegmentNo
    segment_id: SegmentId
    plain_bytes: int
    stored_bytes: int
    frames: int


class Extent(NamedTuple):
    """A run of a file's data: a part of a file that was split over members, or data between holes."""

    file_offset: int
    length: int
    segment: SegmentNo
    #: In the segment's plain tar stream.
    offset: int


class Base(NamedTuple):
    """An index that another one builds on."""

    set_id: SetId
    #: The first numbers of its own; they end where those of the next index begin.
    entries_first: EntryNo
    segments_first: SegmentNo


class Claim(NamedTuple):
    """A set and the numbers that are its index's own."""

    set_id: SetId
    entries_first: EntryNo
    segments_first: SegmentNo
    entries_end: EntryNo
    segments_end: SegmentNo


class Totals(NamedTuple):
    """What the whole set shows, with the runs it shares; not how many numbers were given."""

    #: Of all listings; the root is in none.
    entries: int
    #: The root among them.
    directories: int
    #: Entries that are not directories.
    files: int
    #: Content of regular files, as `content_bytes` counts it.
    bytes: int


class Meta(NamedTuple):
    """What an index says of itself."""

    set_id: SetId
    totals: Totals
    #: The range of its own numbers; 0 to the end unless it builds on another.
    entries_first: EntryNo
    entries_end: EntryNo
    segments_first: SegmentNo
    segments_end: SegmentNo
    #: How many indexes are below it.
    bases: int


#: Plain numbers: an IntFlag costs 1.5 us an operation.
_NOT_COUNTED = int(EntryFlag.UNREADABLE | EntryFlag.LINKED)
_TYPE = 0o170000
_mode_size_flags = itemgetter(1, 4, 12)


def content_bytes(entries: Sequence[Entry]) -> int:
    """Return the sizes of the regular files that could be read, further names of a file left out."""
    if not entries:
        return 0
    modes, sizes, flags = zip(*map(_mode_size_flags, entries), strict=True)
    counted = [mode & _TYPE == S_IFREG and not flag & _NOT_COUNTED for mode, flag in zip(modes, flags, strict=True)]
    return sum(compress(sizes, counted))
