"""Reads the namespace index of one set.

Blocking, a few microseconds a call; one reader belongs to one thread, several may share a file. The file never changes,
so one LMDB transaction stays open as long as the reader does. What is returned are copies: nothing points into the map.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import cast

import lmdb

from catalog.errors import Damaged, NotFound, WrongVersion
from catalog.ids import DirectoryNo, EntryNo, FrameNo, SegmentNo, SetId
from catalog.index import layout
from catalog.index.layout import NUMBER_KEY, ORDINAL_KEY, PLACE_KEY, SEGMENT_KEY, Table
from catalog.index.model import Directory, Entry, Extent, FrameRow, NumberedFrame, SegmentRow, Totals
from catalog.index.storage import open_shared, release

#: Blocks kept for name searches, which begin at the same ones again and again: 35 instead of 50 us a lookup in a
#: directory of 400,000.
PROBES = 256

#: First entry, number behind the last entry, bytes.
_Block = tuple[int, int, bytes]


class IndexReader:
    """A set's tree, its segments, frames and checksums. Every method may raise Damaged."""

    set_id: SetId
    totals: Totals

    def __init__(self, path: Path) -> None:
        """Open the index. Raises NotFound, WrongVersion, Damaged, StorageFailed."""
        self._path = path
        self._closed = False
        self._opened = open_shared(path)
        try:
            self._begin()
        except BaseException:
            release(self._opened)
            raise
        self._first, self._behind, self._block = 0, 0, b""
        self._probe = lru_cache(maxsize=PROBES)(self._read)
        self._segments: dict[int, SegmentRow] = {}

    def _begin(self) -> None:
        environment = self._opened.environment
        try:
            tables = {table: environment.open_db(table.value, create=False) for table in Table}
            self._transaction = environment.begin()
            self._cursors = {table: self._transaction.cursor(handle) for table, handle in tables.items()}
        except lmdb.NotFoundError as error:
            raise Damaged("this is not an index", str(self._path)) from error
        except lmdb.Error as error:
            raise Damaged(f"the index cannot be read: {error}", str(self._path)) from error
        try:
            self._read_meta()
        except BaseException:
            self._transaction.abort()
            raise

    def _read_meta(self) -> None:
        value = self._get(Table.META, layout.META_KEY)
        version = None if value is None else layout.meta_version(value)
        if value is None or version is None:
            raise Damaged("this is not an index", str(self._path))
        if version != layout.VERSION:
            raise WrongVersion(f"{self._path} has layout {version}, this program knows {layout.VERSION}")
        self.set_id, self.totals = layout.decode_meta(value)

    def __enter__(self) -> IndexReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; harmless twice. Iterators that are still about must not be used any more."""
        if not self._closed:
            self._closed = True
            self._transaction.abort()
            release(self._opened)

    # -- the tree ----------------------------------------------------------------------------------------------------

    def directory(self, number: DirectoryNo) -> Directory:
        """Return a directory. Raises NotFound."""
        value = self._get(Table.DIRECTORIES, self._key(number, "directory"))
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
        """Return where the parts of a split file lie, in file order. Raises NotFound."""
        value = self._get(Table.EXTENTS, self._key(number, "entry"))
        if value is None:
            raise NotFound(f"{self._path}: entry {number} is not split")
        return layout.decode_extents(value)

    # -- segments ----------------------------------------------------------------------------------------------------

    def segment(self, number: SegmentNo) -> SegmentRow:
        """Return a segment that the set uses. Raises NotFound."""
        row = self._segments.get(number)
        if row is None:
            value = self._get(Table.SEGMENTS, SEGMENT_KEY.pack(number)) if 0 <= number < 1 << 32 else None
            if value is None:
                raise NotFound(f"{self._path} has no segment {number}")
            row = self._segments[number] = layout.decode_segment(number, value)
        return row

    def segments(self) -> list[SegmentRow]:
        """Return all segments of the set, by number."""
        cursor = self._cursors[Table.SEGMENTS]
        rows = []
        try:
            found = cursor.first()
            while found:
                key, value = cursor.item()
                self._check(Table.SEGMENTS, key, value)
                rows.append(layout.decode_segment(SegmentNo(SEGMENT_KEY.unpack(key)[0]), value))
                found = cursor.next()
        except lmdb.Error as error:
            raise self._unreadable(error) from error
        return rows

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
        found = self._at_or_before(Table.FRAME_NUMBERS, ORDINAL_KEY.pack(segment, number + 1))
        if found is not None:
            owner, first = cast("tuple[int, int]", ORDINAL_KEY.unpack(found[0]))
            chunk = self._get(Table.FRAMES, PLACE_KEY.pack(segment, layout.decode_plain_offset(found[1])))
            frames = layout.decode_frames(chunk) if chunk is not None and owner == segment else []
            if number - first < len(frames):
                return frames[number - first].row
        raise self._missing(f"frame {number} of segment {segment}")

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
        found = self._at_or_before(Table.HASHES, PLACE_KEY.pack(segment, offset + 1))
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

    def _load(self, number: int) -> None:
        self._first, self._behind, self._block = self._read(number)

    def _read(self, number: int) -> _Block:
        """Return the block that holds an entry. Raises NotFound."""
        if not 0 <= number < self.totals.entries:
            raise NotFound(f"{self._path} has no entry {number}")
        found = self._at_or_before(Table.ENTRIES, NUMBER_KEY.pack(number + 1))
        if found is not None:
            first = NUMBER_KEY.unpack(found[0])[0]
            behind = first + layout.block_count(found[1])
            if number < behind:
                return first, behind, found[1]
        raise self._missing(f"entry {number}")

    def _chunks_from(self, segment: SegmentNo, plain_offset: int) -> Iterator[list[NumberedFrame]]:
        """Yield the chunks of frames from the one that holds the place. Raises Damaged where one is missing."""
        found = self._at_or_before(Table.FRAMES, PLACE_KEY.pack(segment, plain_offset + 1))
        expected: tuple[int, int] | None = None
        while found is not None:
            key, value = found
            frames = layout.decode_frames(value)
            here = (frames[0].number, frames[0].row.plain_offset)
            if PLACE_KEY.unpack(key)[0] != segment or expected not in (None, here):
                break
            yield frames
            last = frames[-1]
            expected = (last.number + 1, last.row.plain_offset + last.row.plain_bytes)
            # Positioned anew, because the caller may have used the cursor meanwhile.
            found = self._at_or_before(Table.FRAMES, PLACE_KEY.pack(segment, expected[1] + 1))
        raise self._missing(f"the frames of segment {segment} around {plain_offset}")

    def _key(self, number: int, kind: str) -> bytes:
        if not 0 <= number < layout.NUMBERS:
            raise NotFound(f"{self._path} has no {kind} {number}")
        return NUMBER_KEY.pack(number)

    def _get(self, table: Table, key: bytes) -> bytes | None:
        try:
            value = self._cursors[table].get(key)
        except lmdb.Error as error:
            raise self._unreadable(error) from error
        if value is not None:
            self._check(table, key, value)
        return value

    def _at_or_before(self, table: Table, behind: bytes) -> tuple[bytes, bytes] | None:
        """Return the last record with a key less than `behind`."""
        cursor = self._cursors[table]
        try:
            found = cursor.prev() if cursor.set_range(behind) else cursor.last()
            if not found:
                return None
            key, value = cursor.item()
        except lmdb.Error as error:
            raise self._unreadable(error) from error
        self._check(table, key, value)
        return key, value

    def _check(self, table: Table, key: bytes, value: bytes) -> None:
        if not layout.is_sound(key, value):
            raise Damaged("a record does not match its checksum", f"{self._path}, {table.name} {key.hex()}")

    def _missing(self, what: str) -> Damaged:
        return Damaged("a record is missing", f"{self._path}, {what}")

    def _unreadable(self, error: lmdb.Error) -> Exception:
        if self._closed:
            return ValueError(f"the reader of {self._path} is closed")
        return Damaged(f"the index cannot be read: {error}", str(self._path))
