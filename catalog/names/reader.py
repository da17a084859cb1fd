"""Reads a names file: its blocks one by one, the entries that bear a name, the directory of an entry. Blocking.

A reader belongs to one thread. It is small: what it holds is the table, and some chunks of the map to directories.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import IO

import zstandard

from catalog.errors import Damaged, NotFound, StorageFailed
from catalog.ids import DirectoryNo, EntryNo
from catalog.names import layout
from catalog.names.layout import BlockRow, ChunkRow

#: Chunks of the map to directories that are kept: 64 KiB each.
_CHUNKS_KEPT = 16


class Block:
    """The names of a block, and on demand the entries that bear them."""

    def __init__(self, reader: NamesReader, row: BlockRow, text: bytes) -> None:
        #: A NUL, then every name with a NUL behind it, ascending.
        self.text = text
        self._reader = reader
        self._row = row
        self._places: bytes | None = None
        #: The name asked for last, and the entries of all before it.
        self._at = (0, 0)

    def is_of(self, reader: NamesReader) -> bool:
        """Did that reader read it?"""
        return self._reader is reader

    def load(self) -> None:
        """Read the numbers, after which nothing of the block can fail. Raises Damaged, StorageFailed."""
        self._loaded()

    def count(self, ordinal: int) -> int:
        """Return how many entries bear the name with this ordinal, counted from 0. Raises Damaged, StorageFailed."""
        row = self._row
        return int.from_bytes(self._loaded()[ordinal : row.count_width_bytes * row.names : row.names], "little")

    def numbers(self, ordinal: int) -> Iterator[EntryNo]:
        """Yield the numbers of the entries that bear the name, ascending. Raises Damaged, StorageFailed."""
        row, places = self._row, self._loaded()
        start = row.count_width_bytes * row.names + self._before(ordinal)
        first = self._reader.entries_first
        for at in range(start, start + self.count(ordinal)):
            yield EntryNo(first + int.from_bytes(places[at :: row.entries], "little"))

    def _before(self, ordinal: int) -> int:
        """Return how many entries the names before this one have; quick when asked for in order."""
        at, before = self._at
        if ordinal < at:
            at = before = 0
        row, places = self._row, self._loaded()
        for plane in range(row.count_width_bytes):
            before += sum(places[plane * row.names + at : plane * row.names + ordinal]) << (8 * plane)
        self._at = (ordinal, before)
        return before

    def _loaded(self) -> bytes:
        if self._places is None:
            self._places = self._reader.places(self._row)
        return self._places


class NamesReader:
    """One names file. Every method may raise Damaged, StorageFailed."""

    def __init__(self, path: Path, file: IO[bytes] | None = None) -> None:
        """Open the file; with `file` that one, which `close` closes. Raises NotFound, WrongVersion."""
        self.path = path
        self._decompressor = zstandard.ZstdDecompressor()
        self._file = file if file is not None else _open(path)
        try:
            self._table = self._read_table()
        except BaseException:
            self._file.close()
            raise
        self.set_id = self._table.set_id
        self.entries_first = self._table.entries_first
        self.entries_end = self._table.entries_end
        self._firsts = [chunk.first_entry for chunk in self._table.chunks]
        self._chunk = lru_cache(maxsize=_CHUNKS_KEPT)(self._read_chunk)

    @property
    def names(self) -> int:
        """How many distinct names there are."""
        return sum(row.names for row in self._table.blocks)

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return len(self._table.blocks)

    def first_name(self, number: int) -> bytes:
        """Return the first name of a block, without reading that."""
        return self._table.blocks[number].first_name

    def blocks_with(self, prefix: bytes) -> range:
        """Return the blocks that may hold names which begin so; all of them for no prefix."""
        key = attrgetter("first_name")
        start = bisect_left(self._table.blocks, prefix, key=key)
        stop = bisect_right(self._table.blocks, prefix, key=lambda row: row.first_name[: len(prefix)])
        return range(max(0, start - 1), stop)

    def block(self, number: int) -> Block:
        """Return a block."""
        row = self._table.blocks[number]
        stored = self._stored(row.offset, row.names_stored_bytes, row.names_digest)
        return Block(self, row, self._plain(stored, row.names_bytes))

    def places(self, row: BlockRow) -> bytes:
        """Return the plain numbers of a block; for Block."""
        place = row.offset + row.names_stored_bytes
        stored = self._stored(place, row.numbers_stored_bytes, row.numbers_digest)
        return self._plain(stored, row.names * row.count_width_bytes + row.entries * row.number_width_bytes)

    def run_of(self, entry: EntryNo) -> tuple[EntryNo, DirectoryNo]:
        """Return the first entry of the run that an entry is in, and the directory. Raises NotFound for others'."""
        if not self.entries_first <= entry < self.entries_end:
            raise NotFound(f"{self.path} has no entry {entry}")
        firsts, directories = self._chunk(bisect_right(self._firsts, entry) - 1)
        at = bisect_right(firsts, entry) - 1
        return EntryNo(firsts[at]), DirectoryNo(directories[at])

    def read_all(self) -> None:
        """Read everything once, to be sure of it."""
        for number in range(self.blocks):
            self.block(number).load()
        for number in range(len(self._table.chunks)):
            self._read_chunk(number)

    def close(self) -> None:
        """Let go of the file; harmless twice."""
        self._file.close()

    def _read_table(self) -> layout.Table:
        try:
            size = os.fstat(self._file.fileno()).st_size
        except OSError as error:
            raise self._unreadable(error) from error
        tail = self._read(max(0, size - layout.TAIL.size), layout.TAIL.size)
        offset, length, digest = layout.decode_tail(tail, str(self.path))
        if offset + length + layout.TAIL.size != size:
            raise Damaged("the names file is cut short", str(self.path))
        data = self._read(offset, length)
        layout.check_table(data, digest, str(self.path))
        return layout.decode_table(data)

    def _read_chunk(self, number: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        row: ChunkRow = self._table.chunks[number]
        stored = self._stored(row.offset, row.stored_bytes, row.digest)
        plain = self._plain(stored, 16 * row.runs)
        firsts = layout.from_planes(plain, row.runs, 8)
        return tuple(first + row.first_entry for first in firsts), layout.from_planes(
            plain[8 * row.runs :], row.runs, 8
        )

    def _stored(self, offset: int, length: int, digest: bytes) -> bytes:
        stored = self._read(offset, length)
        if layout.digest(stored) != digest:
            raise Damaged("a block of names does not match its checksum", f"{self.path}, byte {offset}")
        return stored

    def _plain(self, stored: bytes, plain_bytes: int) -> bytes:
        try:
            plain = self._decompressor.decompress(stored, max_output_size=plain_bytes)
        except zstandard.ZstdError as error:
            raise Damaged(f"a block of names cannot be decompressed: {error}", str(self.path)) from error
        if len(plain) != plain_bytes:
            raise Damaged(f"a block of names has {len(plain)} bytes instead of {plain_bytes}", str(self.path))
        return plain

    def _read(self, offset: int, length: int) -> bytes:
        try:
            return os.pread(self._file.fileno(), length, offset)
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> StorageFailed:
        return StorageFailed(f"cannot read {self.path}: {error.strerror}", retryable=False)


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        raise NotFound(f"there is no names file at {path}") from None
    except OSError as error:
        raise StorageFailed(f"cannot read {path}: {error.strerror}", retryable=False) from error
