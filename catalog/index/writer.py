"""Collects the namespace index of one set and writes it to a new file, put in place whole by `finish`.

Blocking; one writer belongs to one thread. Memory does not depend on the set's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from operator import itemgetter, lt
from pathlib import Path
from stat import S_IFDIR, S_IFREG
from types import TracebackType
from typing import Generic, NamedTuple, TypeVar

from catalog.ids import EntryNo, SegmentNo, SetId
from catalog.index import layout
from catalog.index.layout import Table
from catalog.index.model import Directory, Entry, EntryFlag, Extent, FrameRow, SegmentRow, Totals
from catalog.index.storage import NewFile

#: Entries packed at a time: enough to spread the fixed costs, few enough to stay in the processor's cache.
BATCH = 1024

Row = TypeVar("Row", FrameRow, tuple[int, bytes])

#: Plain numbers: an IntFlag costs 1.5 us an operation.
_UNREADABLE = int(EntryFlag.UNREADABLE)
_TYPE = 0o170000

_mode_size_flags = itemgetter(1, 4, 12)


class IndexWriter:
    """Collects a set's index; as a context manager it aborts unless `finish` was reached.

    Every method may raise StorageFailed, and ValueError for what is out of order, given twice or too large for its
    field; as work is done in groups, an error may belong to an earlier call. After an error only `abort` makes sense.
    """

    def __init__(self, path: Path, set_id: SetId) -> None:
        """Begin an index that will lie at `path`. Raises Conflict when somebody else is writing it."""
        self._set_id = set_id
        self._entries: list[Entry] = []
        self._packed = 0
        self._directories = 0
        self._files = 0
        self._bytes = 0
        self._frames: _Chunks[FrameRow] = _Chunks(layout.FRAMES_PER_CHUNK)
        self._hashes: _Chunks[tuple[int, bytes]] = _Chunks(layout.HASHES_PER_CHUNK)
        self._file = NewFile(path)

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def add_segment(self, row: SegmentRow) -> None:
        """Record a segment of the set, in any order."""
        self._file.put(Table.SEGMENTS, [layout.encode_segment(row)])

    def add_frames(self, segment: SegmentNo, rows: Sequence[FrameRow]) -> None:
        """Add frames by ascending plain offset; further calls go on. Segments come one after the other."""
        self._put_frames(self._frames.take(segment, rows))

    def add_hashes(self, segment: SegmentNo, rows: Sequence[tuple[int, bytes]]) -> None:
        """Add (place of the content in the plain stream, SHA-256), ascending; further calls go on."""
        self._put_hashes(self._hashes.take(segment, rows))

    def add_entries(self, entries: Sequence[Entry]) -> EntryNo:
        """Number the entries on and return the first number.

        They belong to one run of one directory and ascend by name; a run may come in pieces that follow one another.
        """
        first = self._packed + len(self._entries)
        if first + len(entries) > layout.NUMBERS:
            raise ValueError(f"a set holds at most {layout.NUMBERS} entries")
        names = [entry[0] for entry in entries]
        if not all(map(lt, names, names[1:])):
            raise ValueError("the names of a run do not ascend")
        for start in range(0, len(entries), BATCH):
            self._entries += entries[start : start + BATCH]
            if len(self._entries) >= BATCH:
                self._pack_entries(last=False)
        return EntryNo(first)

    def add_directory(self, directory: Directory) -> None:
        """Record a directory, in any order."""
        if not 0 <= directory.number < layout.NUMBERS:
            raise ValueError(f"directory number {directory.number} is out of range")
        self._file.put(Table.DIRECTORIES, [layout.encode_directory(directory)])
        self._directories += 1

    def add_extents(self, number: EntryNo, extents: Sequence[Extent]) -> None:
        """Record where the parts of a split file lie, in file order."""
        self._file.put(Table.EXTENTS, [layout.encode_extents(number, extents)])

    def flush(self) -> None:
        """Pack all that waits, so that its errors are raised now; costs half-filled blocks."""
        self._pack_entries(last=True)
        self._put_frames(self._frames.rest())
        self._put_hashes(self._hashes.rest())

    def finish(self) -> Totals:
        """Sync the file and put it in place, replacing an older one; afterwards it is never written again."""
        self.flush()
        totals = Totals(self._packed, self._directories, self._files, self._bytes)
        self._file.install(layout.encode_meta(self._set_id, totals))
        return totals

    def abort(self) -> None:
        """Leave nothing behind; harmless twice and after `finish`."""
        self._file.abort()

    def _pack_entries(self, *, last: bool) -> None:
        items, count = layout.encode_entries(self._packed, self._entries, last=last)
        self._count(self._entries[:count])
        del self._entries[:count]
        self._packed += count
        self._file.put(Table.ENTRIES, items)

    def _count(self, entries: list[Entry]) -> None:
        if not entries:
            return
        modes, sizes, flags = zip(*map(_mode_size_flags, entries), strict=True)
        kinds = [mode & _TYPE for mode in modes]
        self._files += len(kinds) - kinds.count(S_IFDIR)
        stored = [kind == S_IFREG and not flag & _UNREADABLE for kind, flag in zip(kinds, flags, strict=True)]
        self._bytes += sum(compress(sizes, stored))

    def _put_frames(self, chunks: list[_Chunk[FrameRow]]) -> None:
        for chunk in chunks:
            frames, ordinal = layout.encode_frames(chunk.segment, chunk.first, chunk.rows)
            self._file.put(Table.FRAMES, [frames])
            self._file.put(Table.FRAME_NUMBERS, [ordinal])

    def _put_hashes(self, chunks: list[_Chunk[tuple[int, bytes]]]) -> None:
        self._file.put(Table.HASHES, [layout.encode_hashes(chunk.segment, chunk.rows) for chunk in chunks])


class _Chunk(NamedTuple, Generic[Row]):
    """Rows that are stored under one key."""

    segment: SegmentNo
    #: Ordinal of the first row in the segment.
    first: int
    rows: list[Row]


class _Chunks(Generic[Row]):
    """Cuts the rows of one segment after the other into chunks of equal size; a row's first field is its place."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._segment = SegmentNo(-1)
        self._first = 0
        self._place = -1
        self._rows: list[Row] = []

    def take(self, segment: SegmentNo, rows: Sequence[Row]) -> list[_Chunk[Row]]:
        """Take rows, return the chunks that are full now. Raises ValueError when places or segments do not ascend."""
        done: list[_Chunk[Row]] = []
        if segment != self._segment:
            if segment < self._segment:
                raise ValueError(f"segment {segment} comes after segment {self._segment}")
            done = self.rest()
            self._segment, self._first, self._place = segment, 0, -1
        places = [self._place, *(row[0] for row in rows)]
        if not all(map(lt, places, places[1:])):
            raise ValueError(f"places in segment {segment} do not ascend")
        self._place = places[-1]
        self._rows += rows
        while len(self._rows) >= self._size:
            done.append(self._cut(self._size))
        return done

    def rest(self) -> list[_Chunk[Row]]:
        """Return what is left as a chunk, if there is any."""
        return [self._cut(self._size)] if self._rows else []

    def _cut(self, size: int) -> _Chunk[Row]:
        chunk = _Chunk(self._segment, self._first, self._rows[:size])
        del self._rows[:size]
        self._first += len(chunk.rows)
        return chunk
