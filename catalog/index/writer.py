"""Collects the namespace index of one set and writes it to a new file, put in place whole by `finish`.

Blocking; one writer belongs to one thread. Memory does not depend on the set's size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import add, lt, sub
from pathlib import Path
from types import TracebackType
from typing import Generic, NamedTuple, TypeVar

from catalog.ids import DirectoryNo, EntryNo, SegmentNo, SetId
from catalog.index import layout
from catalog.index.attributes import XattrChunks, encode_directory_xattrs, encode_xattrs
from catalog.index.layout import Table
from catalog.index.model import Base, Directory, Entry, EntryFlag, Extent, FrameRow, Meta, SegmentRow, Totals
from catalog.index.reader import IndexReader
from catalog.index.storage import NewFile

#: Entries packed at a time: enough to spread the fixed costs, few enough to stay in the processor's cache.
BATCH = 1024

#: A plain number: an IntFlag costs 1.5 us an operation.
_XATTRS = int(EntryFlag.XATTRS)

Row = TypeVar("Row", FrameRow, tuple[int, bytes])


class IndexWriter:
    """Collects a set's index; as a context manager it aborts unless `finish` was reached.

    Every method may raise StorageFailed, and ValueError for what is out of order, given twice or too large for its
    field; as work is done in groups, an error may belong to an earlier call. After an error only `abort` makes sense.
    """

    def __init__(self, path: Path, set_id: SetId, base: IndexReader | None = None) -> None:
        """Begin an index that will lie at `path`. Raises Conflict when somebody else is writing it.

        With a `base`, entries and segments are numbered on from its `entries_end` and `segments_end`, and the files of
        a directory may be a run of entries of the base, or of one below it. The base must lie beside this index,
        named by its set.
        """
        self._set_id = set_id
        self._entries: list[Entry] = []
        self._bases: tuple[Base, ...] = ()
        self._first = self._packed = EntryNo(0)
        self._segments_first = self._segments_end = SegmentNo(0)
        if base is not None:
            self._bases = (*base.bases, Base(base.set_id, base.entries_first, base.segments_first))
            self._first = self._packed = base.entries_end
            self._segments_first = self._segments_end = base.segments_end
        self._base = base
        self._totals = Totals(0, 0, 0, 0)
        #: Where the run that reaches farthest ends.
        self._runs_end = self._first
        #: Directories with the flag XATTRS, less those whose attributes have come.
        self._xattrs_owed = 0
        self._frames: _Chunks[FrameRow] = _Chunks(layout.FRAMES_PER_CHUNK)
        self._hashes: _Chunks[tuple[int, bytes]] = _Chunks(layout.HASHES_PER_CHUNK)
        self._xattrs = XattrChunks()
        self._file = NewFile(path)

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def add_segment(self, row: SegmentRow) -> None:
        """Record a segment of the set, in any order."""
        self._check_segment(row.number)
        self._segments_end = max(self._segments_end, SegmentNo(row.number + 1))
        self._file.put(Table.SEGMENTS, [layout.encode_segment(row)])

    def add_frames(self, segment: SegmentNo, rows: Sequence[FrameRow]) -> None:
        """Add frames by ascending plain offset; further calls go on. Segments come one after the other."""
        self._check_segment(segment)
        self._put_frames(self._frames.take(segment, rows))

    def add_hashes(self, segment: SegmentNo, rows: Sequence[tuple[int, bytes]]) -> None:
        """Add (place of the content in the plain stream, SHA-256), ascending; further calls go on."""
        self._check_segment(segment)
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
        """Record a directory, in any order; the set's totals are the sums of what its directories say."""
        if not 0 <= directory.number < layout.NUMBERS:
            raise ValueError(f"directory number {directory.number} is out of range")
        self._check_runs(directory)
        self._file.put(Table.DIRECTORIES, [layout.encode_directory(directory)])
        entries, directories, files, content = self._totals
        count = directory.files_count
        self._totals = Totals(
            entries + count + directory.directories_count, directories + 1, files + count,
            content + directory.files_bytes,
        )  # fmt: skip
        self._xattrs_owed += bool(directory.flags & _XATTRS)

    def share_directories(self, without: Iterable[DirectoryNo], totals: Totals) -> None:
        """Take all directories of the base over as they are, without those that have changed or are gone.

        `totals` is what the directories left out add up to in the base; of `entries` their listings.
        """
        if self._base is None:
            raise ValueError("there is no base to share directories with")
        keys = frozenset(map(layout.NUMBER_KEY.pack, without))
        for table in (Table.DIRECTORIES, Table.DIRECTORY_XATTRS):
            for items in self._base.directory_records(table, BATCH):
                self._file.put(table, [item for item in items if item[0] not in keys])
        shared = map(sub, self._base.totals, totals)
        self._totals = Totals(*map(add, self._totals, shared))

    def add_extents(self, number: EntryNo, extents: Sequence[Extent]) -> None:
        """Record where the data of a split or sparse file lies, in file order. In any order of numbers, as all below.

        A sparse file may have none at all.
        """
        self._put_of_entry(Table.EXTENTS, number, layout.encode_extents(number, extents))

    def add_link(self, number: EntryNo, first: EntryNo) -> None:
        """Record that an entry is another name of the file whose first name is `first`, in this index or below."""
        if not 0 <= first < number:
            raise ValueError(f"entry {number} cannot be another name of {first}, which does not come before it")
        self._put_of_entry(Table.LINKS, number, layout.encode_link(number, first))

    def add_xattrs(self, number: EntryNo, xattrs: Sequence[tuple[bytes, bytes]]) -> None:
        """Record the extended attributes of an entry that is no directory: at least one, ascending by name.

        The numbers must ascend.
        """
        self._check_number(number)
        self._file.put(Table.XATTRS, self._xattrs.take(number, xattrs))

    def add_directory_xattrs(self, number: DirectoryNo, xattrs: Sequence[tuple[bytes, bytes]]) -> None:
        """Record the extended attributes of a directory with the flag XATTRS: at least one, ascending by name."""
        self._file.put(Table.DIRECTORY_XATTRS, [encode_directory_xattrs(number, encode_xattrs(xattrs))])
        self._xattrs_owed -= 1

    def flush(self) -> None:
        """Pack all that waits, so that its errors are raised now; costs half-filled blocks."""
        self._pack_entries(last=True)
        self._put_frames(self._frames.rest())
        self._put_hashes(self._hashes.rest())
        self._file.put(Table.XATTRS, self._xattrs.rest())

    def finish(self, check: Callable[[Totals], None] = lambda _: None) -> Totals:
        """Sync the file and put it in place, replacing an older one; afterwards it is never written again.

        Return what the set shows; before anything is in place `check` may refuse it.
        """
        self.flush()
        if self._runs_end > self._packed:
            raise ValueError(f"a directory's run ends at entry {self._runs_end}, but there are {self._packed}")
        if self._xattrs_owed:
            raise ValueError("the directories with attributes are not those whose attributes were given")
        check(self._totals)
        if self._bases:
            self._file.put(Table.META, [layout.encode_bases(self._bases)])
        numbers = (self._first, self._packed, self._segments_first, self._segments_end)
        self._file.install(layout.encode_meta(Meta(self._set_id, self._totals, *numbers, len(self._bases))))
        return self._totals

    def abort(self) -> None:
        """Leave nothing behind; harmless twice and after `finish`."""
        self._file.abort()

    def _pack_entries(self, *, last: bool) -> None:
        items, count = layout.encode_entries(self._packed, self._entries, last=last)
        del self._entries[:count]
        self._packed = EntryNo(self._packed + count)
        self._file.put(Table.ENTRIES, items)

    def _put_of_entry(self, table: Table, number: EntryNo, item: layout.Item) -> None:
        self._check_number(number)
        self._file.put(table, [item])

    def _check_number(self, number: EntryNo) -> None:
        if not self._first <= number < self._packed + len(self._entries):
            raise ValueError(f"there is no entry {number} of this index")

    def _check_segment(self, number: SegmentNo) -> None:
        if number < self._segments_first:
            raise ValueError(f"segment {number} belongs to the base, whose last is {self._segments_first - 1}")

    def _check_runs(self, directory: Directory) -> None:
        """Raise ValueError unless each of the two runs is our own, or wholly of one index below."""
        self._check_run(directory.files_first, directory.files_count)
        self._check_run(directory.directories_first, directory.directories_count)

    def _check_run(self, first: EntryNo, count: int) -> None:
        if count and (first >= self._first or self._base is None):
            self._check_own(first, count)
        elif count and self._base is not None and not self._base.has_run(first, count):
            raise ValueError(f"the entries from {first} to {first + count} are not of one index below")

    def _check_own(self, first: int, count: int) -> None:
        """Check a run's beginning; the end is checked when all entries have come."""
        if first < self._first or count < 0:
            raise ValueError(f"the run of {count} entries from {first} is not of this index")
        self._runs_end = max(self._runs_end, EntryNo(first + count))

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
