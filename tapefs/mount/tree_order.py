"""What a reader that goes through a tree comes to next: the files' content, as `cp -r`, `tar` and `rsync` take them.

Of each directory the files by name, then its directories by name. Works on numbers only, which stay right for ever, so
it may be left for hours and gone on with, also after the index was closed meanwhile. One thread.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import NamedTuple

from catalog.ids import DirectoryNo, EntryNo, SegmentId, SegmentNo, SetId
from catalog.index.model import Directory, Entry, EntryFlag
from catalog.index.reader import IndexReader
from tapefs.vfs.archive import Archive
from tapefs.vfs.residency import pieces_of, stretches

_UNREADABLE = int(EntryFlag.UNREADABLE)
_PLAIN = ~int(EntryFlag.XATTRS | EntryFlag.FRESH)


class Stretch(NamedTuple):
    """Content that lies in one piece in a segment's plain stream."""

    segment_no: SegmentNo
    segment_id: SegmentId
    offset: int
    length: int


@dataclass(slots=True)
class _Level:
    """A directory, and how far it is listed."""

    number: DirectoryNo
    position: int


class TreeOrder:
    """A place in a set's tree, from which it goes on."""

    def __init__(self, archive: Archive, set_id: SetId, directory: Directory, position: int, root: DirectoryNo) -> None:
        """Begin in `directory` behind the entry at `position`, counted from 1; end with the directory `root`."""
        self._archive = archive
        self._set_id = set_id
        self._levels = [_Level(directory.number, position)]
        self._root = root

    @property
    def is_over(self) -> bool:
        """Has everything been told?"""
        return not self._levels

    def go_on(self, entries: int) -> list[Stretch]:
        """Return the content of the next so many entries, less when the tree ends. Raises CatalogError."""
        reader = self._archive.index(self._set_id)
        found: list[Stretch] = []
        while entries > 0 and self._levels:
            entries -= self._list(reader, entries, found)
        return found

    def _list(self, reader: IndexReader, most: int, found: list[Stretch]) -> int:
        """List the deepest directory until a folder comes, it ends, or enough was seen; return how much was seen."""
        level = self._levels[-1]
        count = 0
        for position, number, entry in reader.list_from(reader.directory(level.number), level.position):
            level.position = position
            count += 1
            if stat.S_ISDIR(entry.mode):
                self._levels.append(_Level(DirectoryNo(entry.offset), 0))
                return count
            if stat.S_ISREG(entry.mode) and entry.size:
                found += stretches_of(reader, number, entry)
            if count >= most:
                return count
        self._leave(reader)
        return count + 1

    def _leave(self, reader: IndexReader) -> None:
        """The deepest directory is at its end: go on above it."""
        left = self._levels.pop()
        if self._levels or left.number == self._root:
            return
        directory = reader.directory(left.number)
        if directory.parent == directory.number:
            return
        parent = reader.directory(directory.parent)
        for position, _, entry in reader.list_from(parent, parent.files_count):
            if entry.offset == left.number:
                self._levels.append(_Level(parent.number, position))
                return


def stretches_of(reader: IndexReader, number: EntryNo, entry: Entry) -> list[Stretch]:
    """Return where the content of a regular file lies; nothing for one that was unreadable."""
    if entry.nlink == 1 and not entry.flags & _PLAIN:
        segment_no = SegmentNo(entry.segment)
        return [Stretch(segment_no, reader.segment(segment_no).segment_id, entry.offset, entry.size)]
    return [
        Stretch(piece.segment_no, piece.segment_id, piece.offset, piece.length)
        for piece in stretches(pieces_of(reader, number, entry))
    ]
