"""Reads the namespace index of one set, and of those it builds on.

Blocking, a few microseconds a call; one reader belongs to one thread, several may share a file. What is returned are
copies: nothing points into the map, and an index below may be closed and opened again at any time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import cast

from catalog.errors import NotFound
from catalog.ids import DirectoryNo, EntryNo, FrameNo, SegmentNo, SetId
from catalog.index import layout
from catalog.index.attributes import decode_directory_xattrs, find_xattrs
from catalog.index.bases import Chain, OpenBases
from catalog.index.layer import Layer
from catalog.index.layout import NUMBER_KEY, ORDINAL_KEY, PLACE_KEY, SEGMENT_KEY, Table
from catalog.index.model import (
    Base,
    Directory,
    Entry,
    EntryFlag,
    Extent,
    FrameRow,
    NumberedFrame,
    SegmentRow,
    Totals,
)

#: Blocks kept for name searches, which begin at the same ones again and again: 35 instead of 50 us a lookup in a
#: directory of 400,000.
PROBES = 256

#: Plain numbers: an IntFlag costs 1.5 us an operation.
_EXTENTS = int(EntryFlag.SPLIT | EntryFlag.SPARSE)
_LINKED = int(EntryFlag.LINKED)
_XATTRS = int(EntryFlag.XATTRS)

_LINKS_AT_A_TIME = 1000

#: First entry, number behind the last entry, bytes.
_Block = tuple[int, int, bytes]


class IndexReader:
    """A set's tree, its segments, frames and checksums. Every method may raise Damaged.

    Directories are of this index alone. Entries and segments with numbers below `entries_first` and `segments_first`
    are those of the indexes it builds on, which lie beside it and are opened when something of them is asked for;
    Damaged names the file if one is missing or another.
    """

    set_id: SetId
    #: What the whole set shows.
    totals: Totals
    #: The ranges of this index's own numbers.
    entries_first: EntryNo
    entries_end: EntryNo
    segments_first: SegmentNo
    segments_end: SegmentNo
    #: The indexes below, the oldest first.
    bases: tuple[Base, ...]

    def __init__(self, path: Path, opened: OpenBases | None = None) -> None:
        """Open the index. Raises NotFound, WrongVersion, Damaged, StorageFailed.

        Readers of one thread may share `opened`; without it the reader opens the indexes below for itself.
        """
        self._path = path
        self._layer = Layer(path)
        meta = self._layer.meta
        self.set_id, self.totals = meta.set_id, meta.totals
        self.entries_first, self.entries_end = meta.entries_first, meta.entries_end
        self.segments_first, self.segments_end = meta.segments_first, meta.segments_end
        self._bases_opened = OpenBases() if opened is None else opened
        self._owns_bases = opened is None
        try:
            self.bases = tuple(self._layer.bases())
        except BaseException:
            self._layer.close()
            raise
        self._chain = Chain(path, meta, self.bases, self._bases_opened)
        self._first, self._behind, self._block = 0, 0, b""
        self._probe = lru_cache(maxsize=PROBES)(self._read)
        self._segments: dict[int, SegmentRow] = {}

    def __enter__(self) -> IndexReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; harmless twice. Iterators that are still about must not be used any more."""
        self._layer.close()
        if self._owns_bases:
            self._bases_opened.close()

    # -- the tree ----------------------------------------------------------------------------------------------------

    def directory(self, number: DirectoryNo) -> Directory:
        """Return a directory. Raises NotFound."""
        value = self._layer.get(Table.DIRECTORIES, self._key(number, "directory"))
        if value is None:
            raise NotFound(f"{self._path} has no directory {number}")
        return layout.decode_directory(number, value)

    def entry(self, number: EntryNo) -> Entry:
        """Return an entry. Raises NotFound."""
        if not self._first <= number < self._behind:
            self._load(number)
        return layout.decode_entry(self._block, number - self._first)

    def lookup(self, directory: Directory, name: bytes) -> tuple[EntryNo, Entry] | None:
        """Return the entry of that name in the directory, with its number; None when there is none."""
        number = self._find(directory.files_first, directory.files_count, name)
        if number is None:
            number = self._find(directory.directories_first, directory.directories_count, name)
        if number is None:
            return None
        return number, layout.decode_entry(self._block, number - self._first)

    def list_from(self, directory: Directory, position: int) -> Iterator[tuple[int, EntryNo, Entry]]:
        """Yield (next position, number, entry) from the position on, counted from 0 over files, then directories.

        Block by block; may be abandoned, and taken up again by another call with the position that came last.
        """
        if position < 0:
            raise ValueError("a position is not negative")
        files = directory.files_count
        yield from self._list_run(directory.files_first, position, files, 0)
        yield from self._list_run(
            directory.directories_first, max(0, position - files), directory.directories_count, files
        )

    def extents(self, number: EntryNo) -> list[Extent]:
        """Return where the data of a split or a sparse file lies, in file order. Raises NotFound for others."""
        value = self._flagged(Table.EXTENTS, number, _EXTENTS)
        if value is None:
            raise NotFound(f"{self._path}: entry {number} is neither split nor sparse")
        return layout.decode_extents(value)

    def link(self, number: EntryNo) -> EntryNo:
        """Return the number of the first name of a LINKED entry's file. Raises NotFound for others."""
        value = self._flagged(Table.LINKS, number, _LINKED)
        if value is None:
            raise NotFound(f"{self._path}: entry {number} is no further name of a file")
        return layout.decode_link(value)

    def first_name(self, number: EntryNo) -> EntryNo:
        """Return the number that all names of an entry's file have in common; for most it is its own.

        Worth asking for what has more than one link: also a first name bears another's number where the entry was
        copied from an index below.
        """
        value = self._flagged(Table.LINKS, number, _LINKED)
        return number if value is None else layout.decode_link(value)

    def links(self) -> Iterator[tuple[EntryNo, EntryNo]]:
        """Yield (number, number that all names of its file have in common) of what the table of links has.

        Of the indexes below too, from the newest to the oldest; also of entries that this set does not show.
        """
        # An index without entries begins where the next one does, and has no links.
        for first in dict.fromkeys((self.entries_first, *(base.entries_first for base in reversed(self.bases)))):
            behind = b""
            # In pieces: whoever takes them may have the layer closed meanwhile.
            while rows := self._entry_layer(first).rows_behind(Table.LINKS, behind, _LINKS_AT_A_TIME):
                for key, value in rows:
                    yield EntryNo(NUMBER_KEY.unpack(key)[0]), layout.decode_link(value)
                behind = rows[-1][0]

    def xattrs(self, number: EntryNo) -> list[tuple[bytes, bytes]]:
        """Return the extended attributes of an entry that is no directory, by name; none unless it has XATTRS."""
        self._key(number, "entry")
        layer = self._entry_layer(number)
        found = layer.at_or_before(Table.XATTRS, NUMBER_KEY.pack(number + 1))
        xattrs = None if found is None else find_xattrs(NUMBER_KEY.unpack(found[0])[0], found[1], number)
        if xattrs is None:
            if self.entry(number).flags & _XATTRS:
                raise layer.missing(f"the attributes of entry {number}")
            return []
        return xattrs

    def directory_xattrs(self, number: DirectoryNo) -> list[tuple[bytes, bytes]]:
        """Return the extended attributes of a directory, by name. Raises NotFound."""
        if not self.directory(number).flags & _XATTRS:
            return []
        value = self._layer.get(Table.DIRECTORY_XATTRS, NUMBER_KEY.pack(number))
        if value is None:
            raise self._layer.missing(f"the attributes of directory {number}")
        return decode_directory_xattrs(value)

    @property
    def directories_end(self) -> DirectoryNo:
        """Return the number behind the greatest one that a directory has."""
        key = self._layer.last_key(Table.DIRECTORIES)
        return DirectoryNo(0 if key is None else NUMBER_KEY.unpack(key)[0] + 1)

    def directories_from(self, number: DirectoryNo, behind: int) -> Iterator[Directory]:
        """Yield the directories from that number up to `behind`, by number."""
        for key, value in self._layer.rows(Table.DIRECTORIES, NUMBER_KEY.pack(number)):
            found = DirectoryNo(NUMBER_KEY.unpack(key)[0])
            if found >= behind:
                return
            yield layout.decode_directory(found, value)

    def directory_records(self, table: Table, batch: int) -> Iterator[list[layout.Item]]:
        """Yield all records of DIRECTORIES or DIRECTORY_XATTRS as they are in the file, for another index to take."""
        key = b""
        while rows := self._layer.rows_behind(table, key, batch):
            yield rows
            key = rows[-1][0]

    def has_run(self, first: EntryNo, count: int) -> bool:
        """Tell whether the entries from `first` on are all this index's own, or all of one index below."""
        if first >= self.entries_first:
            return first + count <= self.entries_end
        return self._chain.is_in_one(first, count)

    # -- segments ----------------------------------------------------------------------------------------------------

    def segment(self, number: SegmentNo) -> SegmentRow:
        """Return a segment that the set uses. Raises NotFound."""
        row = self._segments.get(number)
        if row is None:
            layer = self._segment_layer(number)
            value = layer.get(Table.SEGMENTS, SEGMENT_KEY.pack(number)) if 0 <= number < 1 << 32 else None
            if value is None:
                raise NotFound(f"{layer.path} has no segment {number}")
            row = self._segments[number] = layout.decode_segment(number, value)
        return row

    def segments(self) -> list[SegmentRow]:
        """Return the segments that the set itself has written, by number; not those of the indexes below."""
        return [
            layout.decode_segment(SegmentNo(SEGMENT_KEY.unpack(key)[0]), value)
            for key, value in self._layer.rows(Table.SEGMENTS)
        ]

    def frames_covering(self, segment: SegmentNo, plain_offset: int, length: int) -> list[NumberedFrame]:
        """Return the frames that hold any of those bytes of the plain stream, in order. Raises NotFound."""
        end = min(plain_offset + length, self.segment(segment).plain_bytes)
        frames: list[NumberedFrame] = []
        if plain_offset >= end or plain_offset < 0:
            return frames
        for chunk in self._chunks_from(segment, plain_offset):
            frames += [
                frame
                for frame in chunk
                if frame.row.plain_offset < end and frame.row.plain_offset + frame.row.plain_bytes > plain_offset
            ]
            if chunk[-1].row.plain_offset + chunk[-1].row.plain_bytes >= end:
                break
        return frames

    def frame(self, segment: SegmentNo, number: FrameNo) -> FrameRow:
        """Return one frame by its ordinal. Raises NotFound."""
        if not 0 <= number < self.segment(segment).frames:
            raise NotFound(f"{self._path}: segment {segment} has no frame {number}")
        layer = self._segment_layer(segment)
        found = layer.at_or_before(Table.FRAME_NUMBERS, ORDINAL_KEY.pack(segment, number + 1))
        if found is not None:
            owner, first = cast("tuple[int, int]", ORDINAL_KEY.unpack(found[0]))
            chunk = layer.get(Table.FRAMES, PLACE_KEY.pack(segment, layout.decode_plain_offset(found[1])))
            frames = layout.decode_frames(chunk) if chunk is not None and owner == segment else []
            if number - first < len(frames):
                return frames[number - first].row
        raise layer.missing(f"frame {number} of segment {segment}")

    def frames(self, segment: SegmentNo) -> Iterator[NumberedFrame]:
        """Yield all frames of a segment, in order. Raises NotFound."""
        count = self.segment(segment).frames
        if count == 0:
            return
        for chunk in self._chunks_from(segment, 0):
            yield from chunk
            if chunk[-1].number + 1 == count:
                return

    def sha256(self, segment: SegmentNo, offset: int) -> bytes | None:
        """Return the SHA-256 of the content that begins there in the plain stream; None when none does."""
        if not (0 <= segment < 1 << 32 and 0 <= offset < (1 << 64) - 1):
            return None
        found = self._segment_layer(segment).at_or_before(Table.HASHES, PLACE_KEY.pack(segment, offset + 1))
        if found is None or PLACE_KEY.unpack(found[0])[0] != segment:
            return None
        return layout.find_hash(found[1], offset)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _find(self, first: int, count: int, name: bytes) -> EntryNo | None:
        """Search a run; on success the entry's block is the one read last.

        Halves the range of numbers, block by block, then within the block: 15 blocks for a million names.
        """
        low, high = first, first + count
        while low < high:
            middle = (low + high) // 2
            if not self._first <= middle < self._behind:
                self._first, self._behind, self._block = self._probe(middle)
            start, stop = max(low, self._first), min(high, self._behind)
            block, base = self._block, self._first
            if name < layout.name_at(block, start - base):
                high = start
            elif name > layout.name_at(block, stop - 1 - base):
                low = stop
            else:
                at = layout.find_name(block, name, start - base, stop - base)
                return None if at is None else EntryNo(base + at)
        return None

    def _list_run(self, first: int, start: int, count: int, before: int) -> Iterator[tuple[int, EntryNo, Entry]]:
        """Yield a run's entries from place `start` on; `before` positions lie before the run."""
        number, stop = first + start, first + count
        while number < stop:
            if not self._first <= number < self._behind:
                self._load(number)
            base, behind = self._first, min(stop, self._behind)
            entries = layout.decode_entries(self._block, number - base, behind - base)
            position = before + number - first + 1
            rows = zip(range(position, position + len(entries)), range(number, behind), entries, strict=True)
            yield from cast("Iterator[tuple[int, EntryNo, Entry]]", rows)
            number = behind

    def block_of(self, number: int) -> _Block:
        """Return the block that holds an entry: its first entry, the one behind its last, its bytes."""
        return self._read(number)

    def _load(self, number: int) -> None:
        self._first, self._behind, self._block = self._read(number)

    def _read(self, number: int) -> _Block:
        """Return the block that holds an entry. Raises NotFound."""
        if not 0 <= number < self.entries_end:
            raise NotFound(f"{self._path} has no entry {number}")
        layer = self._entry_layer(number)
        found = layer.at_or_before(Table.ENTRIES, NUMBER_KEY.pack(number + 1))
        if found is not None:
            first = NUMBER_KEY.unpack(found[0])[0]
            behind = first + layout.block_count(found[1])
            if number < behind:
                return first, behind, found[1]
        raise layer.missing(f"entry {number}")

    def _chunks_from(self, segment: SegmentNo, plain_offset: int) -> Iterator[list[NumberedFrame]]:
        """Yield the chunks of frames from the one that holds the place. Raises Damaged where one is missing."""
        expected: tuple[int, int] | None = None
        place = plain_offset
        while True:
            # Looked for anew, because the caller may have had the layer closed meanwhile, or used its cursor.
            layer = self._segment_layer(segment)
            found = layer.at_or_before(Table.FRAMES, PLACE_KEY.pack(segment, place + 1))
            frames = [] if found is None else layout.decode_frames(found[1])
            if found is None or PLACE_KEY.unpack(found[0])[0] != segment:
                break
            if expected not in (None, (frames[0].number, frames[0].row.plain_offset)):
                break
            yield frames
            last = frames[-1]
            place = last.row.plain_offset + last.row.plain_bytes
            expected = (last.number + 1, place)
        raise layer.missing(f"the frames of segment {segment} around {plain_offset}")

    def _flagged(self, table: Table, number: EntryNo, flags: int) -> bytes | None:
        """Return an entry's record in a table. None if it has none of the flags; else the record must be there."""
        key = self._key(number, "entry")
        layer = self._entry_layer(number)
        value = layer.get(table, key)
        if value is None and self.entry(number).flags & flags:
            raise layer.missing(f"{table.name} of entry {number}")
        return value

    def _entry_layer(self, number: int) -> Layer:
        return self._layer if number >= self.entries_first else self._chain.of_entry(number)

    def _segment_layer(self, number: int) -> Layer:
        return self._layer if number >= self.segments_first or number < 0 else self._chain.of_segment(number)

    def _key(self, number: int, kind: str) -> bytes:
        if not 0 <= number < layout.NUMBERS:
            raise NotFound(f"{self._path} has no {kind} {number}")
        return NUMBER_KEY.pack(number)
