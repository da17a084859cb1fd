"""Reads an archive of TAF's back: is every frame of it still what it was when it was imported?

A stream that is damaged is lost from there on, up to the next place from which it can be decompressed. Runs in the
drive's thread.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing

from catalog.ids import DirectoryNo, EntryNo
from catalog.index.model import Directory, Entry, EntryFlag, FrameRow
from catalog.index.reader import IndexReader
from catalog.records import Segment, SegmentCopy
from drivers.interface import Drive
from tapefs.errors import BadStructure
from tapefs.home import Home
from tapefs.restore.making import join
from tapefs.taf.recall import ArchiveReader

_SPARSE = int(EntryFlag.SPARSE)


def damaged_frames(
    drive: Drive, segment: Segment, copy: SegmentCopy, rows: Sequence[FrameRow], told: Callable[[int], None]
) -> tuple[list[int], str]:
    """Return the frames that are not what they were, and why the first is not.

    `told` hears the end of each frame in the archive, and may raise. Raises drive errors.
    """
    damaged: list[int] = []
    reason = ""
    with closing(ArchiveReader(drive, segment, copy, rows)) as reader:
        number = 0
        while number < len(rows):
            try:
                reader.plain(number)
            except BadStructure as error:
                reason = reason or str(error)
                following = reader.next_beginning(number)
                damaged += range(number, following)
                number = following
            else:
                number += 1
            told(rows[number - 1].offset + rows[number - 1].stored_bytes)
    return damaged, reason


def lost_paths(home: Home, segment: Segment, frames: Collection[int]) -> Iterator[bytes]:
    """Yield the paths of files with content in these frames. Raises CatalogError."""
    with IndexReader(home.index(segment.set_id)) as index:
        number = next(each.number for each in index.segments() if each.segment_id == segment.segment_id)
        rows = [each.row for each in index.frames(number)]
        spans = [(rows[frame].plain_offset, rows[frame].plain_offset + rows[frame].plain_bytes) for frame in frames]
        stack: list[tuple[bytes, Directory]] = [(b"", index.directory(DirectoryNo(0)))]
        while stack:
            path, directory = stack.pop()
            for _, entry_number, entry in index.list_from(directory, 0):
                below = join(path, entry.name)
                if stat.S_ISDIR(entry.mode):
                    stack.append((below, index.directory(DirectoryNo(entry.offset))))
                elif _has_content(entry) and entry.segment == number and _touches(index, entry_number, entry, spans):
                    yield below


def _has_content(entry: Entry) -> bool:
    return stat.S_ISREG(entry.mode) and bool(entry.blocks)


def _touches(index: IndexReader, number: EntryNo, entry: Entry, spans: Sequence[tuple[int, int]]) -> bool:
    end = entry.offset + entry.size
    if entry.flags & _SPARSE:
        last = index.extents(number)[-1]
        end = last.offset + last.length
    return any(entry.offset < span_end and start < end for start, span_end in spans)
