"""Byte streams to tape blocks and back. Used by one thread at a time, that of the drive."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Protocol

from drivers.errors import EndOfData
from drivers.interface import Drive
from tapefs.errors import BadStructure

#: The largest block that is ever read; larger ones than this are none of ours.
LARGEST_BLOCK_BYTES = 16 * 1024 * 1024


class BlockSink(Protocol):
    """What takes blocks: a drive, or what stands before it."""

    def write_block(self, block: bytes | memoryview) -> bool:
        """Take in one block, which may change afterwards unless it is read-only. See `Drive.write_block`."""
        ...


class BlockWriter:
    """Cuts a stream of bytes into blocks of `block_size`, the last one short."""

    def __init__(self, drive: BlockSink, block_size: int) -> None:
        self._drive = drive
        self._size = block_size
        self._buffer = bytearray(block_size)
        self._view = memoryview(self._buffer)
        self._used = 0
        self._sha256 = hashlib.sha256()
        #: Bytes taken in, blocks written out.
        self.bytes = 0
        self.blocks = 0
        #: The drive has warned that the tape ends soon.
        self.end_is_near = False

    def write(self, data: bytes | memoryview) -> None:
        """Take in bytes; whole blocks go to the drive. Raises what Drive.write_block does."""
        self._sha256.update(data)
        self.bytes += len(data)
        view = memoryview(data)
        if self._used:
            taken = min(self._size - self._used, len(view))
            self._view[self._used : self._used + taken] = view[:taken]
            self._used += taken
            view = view[taken:]
            if self._used < self._size:
                return
            self._put(self._view)
            self._used = 0
        while len(view) >= self._size:
            self._put(view[: self._size])
            view = view[self._size :]
        self._view[: len(view)] = view
        self._used = len(view)

    def finish(self) -> bytes:
        """Write the short last block, if any; return the SHA-256 of all bytes."""
        if self._used:
            self._put(self._view[: self._used])
            self._used = 0
        return self._sha256.digest()

    def _put(self, block: memoryview) -> None:
        self.end_is_near |= self._drive.write_block(block)
        self.blocks += 1


class BlockReader:
    """Reads blocks through one buffer that grows when a block needs it."""

    def __init__(self, drive: Drive, block_size: int) -> None:
        self._drive = drive
        self._view = memoryview(bytearray(max(block_size, 1024 * 1024)))

    def read(self) -> memoryview:
        """Return the next block, valid until the next call; empty for a filemark. Raises EndOfData, BadStructure."""
        while True:
            try:
                return self._view[: self._drive.read_into(self._view)]
            except ValueError:
                if len(self._view) >= LARGEST_BLOCK_BYTES:
                    raise BadStructure("a block on this tape is larger than any tapefs writes") from None
                self._view = memoryview(bytearray(2 * len(self._view)))

    def rest_of_file(self) -> Iterator[memoryview]:
        """Yield the blocks up to the filemark, which is passed over. Raises BadStructure when the tape ends first."""
        while True:
            try:
                block = self.read()
            except EndOfData:
                raise BadStructure("the tape ends within a tape file") from None
            if not block:
                return
            yield block
