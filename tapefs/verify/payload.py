"""The blocks of a payload, read once from front to end; over what is unreadable by locating behind it.

Runs in the drive's thread. Blocks are counted, so that a block of a wrong length shifts nothing behind it.
"""

from __future__ import annotations

import hashlib

from catalog.records import SegmentCopy
from drivers.errors import EndOfData, ReadFailed
from drivers.interface import BlockNo, Drive
from tapefs.errors import BadStructure
from tapefs.tape.blocks import BlockReader


class PayloadScan:
    """One reading of one payload."""

    def __init__(self, drive: Drive, copy: SegmentCopy, payload_bytes: int) -> None:
        self._drive = drive
        self._copy = copy
        self._bytes = payload_bytes
        self._blocks = BlockReader(drive, copy.block_size)
        self._sha256 = hashlib.sha256()
        #: Every block so far was read, and in order: the sum means something.
        self.is_whole = True
        #: What was read and not yet used; the bytes of the payload from `_base` on. None: the head is elsewhere.
        self._buffer = bytearray()
        self._base: int | None = None
        self._next_block = 0
        #: Number of the first block that is not there, once the tape file has ended too early.
        self._ended_at: int | None = None

    def frame(self, offset: int, length: int, kept_from: int | None = None) -> bytes:
        """Return `length` bytes from `offset` on; offsets ascend. Later ones stay readable when one is not.

        Offsets go back as far as `kept_from` of the call before, which is its end if it is not given.

        Raises ReadFailed, BadStructure; other drive errors end the scan.
        """
        try:
            base = self._base
            if base is None or not base <= offset <= base + len(self._buffer):
                base = self._go_to(offset)
            end = offset + length - base
            while len(self._buffer) < end:
                self._add_block()
        except (ReadFailed, BadStructure):
            self._lose()
            raise
        data = bytes(memoryview(self._buffer)[offset - base : end])
        kept = end if kept_from is None else min(end, kept_from - base)
        del self._buffer[:kept]
        self._base = base + kept
        return data

    def finish(self) -> bytes | None:
        """Read what is behind the last frame, and the filemark; return the SHA-256, None if something was not read.

        Raises as `frame`; BadStructure, too, when the payload does not end where it should.
        """
        if not self.is_whole:
            return None
        try:
            if self._base is None:
                self._go_to(0)
            while self._next_block * self._copy.block_size < self._bytes:
                self._buffer.clear()
                self._add_block()
            if self._read():
                raise BadStructure("the payload goes on where it should end")
        except (ReadFailed, BadStructure):
            self._lose()
            raise
        return self._sha256.digest()

    def _lose(self) -> None:
        """The sum is of no use any more, and the next frame is located anew."""
        self.is_whole = False
        self._buffer.clear()
        self._base = None

    def _go_to(self, offset: int) -> int:
        block = offset // self._copy.block_size
        self.is_whole &= block == 0
        if self._ended_at is not None and block >= self._ended_at:
            raise BadStructure("the payload ends before it")
        target = BlockNo(self._copy.payload_block + block)
        if self._drive.position().block != target:
            self._locate(target)
        self._buffer.clear()
        self._next_block = block
        self._base = block * self._copy.block_size
        return self._base

    def _locate(self, target: BlockNo) -> None:
        try:
            self._drive.locate(target)
        except EndOfData:
            raise BadStructure(f"the tape ends before block {target}") from None

    def _add_block(self) -> None:
        expected = min(self._copy.block_size, self._bytes - self._next_block * self._copy.block_size)
        if expected <= 0:
            raise BadStructure("it reaches beyond the payload")
        block = self._read()
        if not block:
            self._ended_at = self._next_block
            raise BadStructure("the payload ends too early")
        if len(block) != expected:
            place = self._copy.payload_block + self._next_block
            raise BadStructure(f"block {place} has {len(block)} bytes, not {expected}")
        if self.is_whole:
            self._sha256.update(block)
        self._buffer += block
        self._next_block += 1

    def _read(self) -> memoryview:
        """Return the next block; empty at a filemark or the end of data."""
        try:
            return self._blocks.read()
        except EndOfData:
            return memoryview(b"")
