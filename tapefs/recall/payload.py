"""Frames of one segment, read from the tape in the drive. Runs in the drive's thread."""

from __future__ import annotations

from collections.abc import Sequence

from catalog.index.model import FrameRow
from catalog.records import SegmentCopy
from drivers.errors import EndOfData, ReadFailed
from drivers.interface import BlockNo, Drive
from tapefs.codecs import Codec
from tapefs.errors import BadStructure
from tapefs.format.frames import frame_checksum
from tapefs.keys.chunks import Unsealer
from tapefs.recall.locates import LocateLog
from tapefs.tape.blocks import BlockReader


class PayloadReader:
    """Reads frames in any order; going on behind the last one costs no locate.

    Up to `read_over_bytes` ahead of the head are read over instead of located: the tape is faster that way.
    """

    def __init__(
        self,
        drive: Drive,
        copy: SegmentCopy,
        rows: Sequence[FrameRow],
        codec: Codec,
        locates: LocateLog | None = None,
        read_over_bytes: int = 0,
        unsealer: Unsealer | None = None,
    ) -> None:
        """With an `unsealer` the payload is encrypted; `rows` count the bytes before that."""
        self.copy = copy
        self._most_over = read_over_bytes // copy.block_size
        self.rows = rows
        self._drive = drive
        self._codec = codec
        self._unsealer = unsealer
        self._locates = locates
        self._blocks = BlockReader(drive, copy.block_size)
        #: Bytes of the payload that were read and not yet used, and where they begin; the head stands behind them.
        self._buffer = bytearray()
        self._base: int | None = None

    def plain(self, number: int) -> bytes:
        """Return a frame decoded. Raises BadStructure when it is damaged, and drive errors; others stay readable."""
        row = self.rows[number]
        try:
            stored = self._stored(row)
            if frame_checksum(stored) != row.checksum:
                raise BadStructure(f"frame {number} of segment {self.copy.segment_id} is damaged on tape")
            return self._codec.decode(stored, row.plain_bytes)
        except BaseException:
            self.forget()
            raise

    def forget(self) -> None:
        """The head was moved, or may have been: the next frame is located anew."""
        self._buffer.clear()
        self._base = None

    def _stored(self, row: FrameRow) -> bytes:
        end = row.offset + row.stored_bytes
        if self._unsealer is None:
            return self._on_tape(row.offset, end, end)
        places = self._unsealer.places
        # The next frame begins in the chunk in which this one ends.
        sealed = self._on_tape(*places.extent(row.offset, row.stored_bytes), places.chunk_at(end))
        return self._unsealer.open(sealed, row.offset, row.stored_bytes)

    def _on_tape(self, first: int, end: int, kept_from: int) -> bytes:
        """Return bytes `first` to `end` of the payload as it is on tape; those from `kept_from` on stay at hand."""
        base = self._base
        if base is None or not base <= first <= base + len(self._buffer):
            base = self._locate(first)
        while len(self._buffer) < end - base:
            self._buffer += self._next_block()
        stored = bytes(self._buffer[first - base : end - base])
        del self._buffer[: min(kept_from, end) - base]
        self._base = min(kept_from, end)
        return stored

    def _locate(self, offset: int) -> int:
        block = offset // self.copy.block_size
        target = BlockNo(self.copy.payload_block + block)
        ahead = target - self._drive.position().block
        if not (0 <= ahead <= self._most_over and self._read_over(ahead)):
            self._go_to(target)
        self._buffer.clear()
        self._base = block * self.copy.block_size
        return self._base

    def _go_to(self, target: BlockNo) -> None:
        try:
            if self._locates is None:
                self._drive.locate(target)
            else:
                self._locates.locate(target, self.copy.block_size)
        except EndOfData:
            # The tape was cut: what lies before that place is still there.
            self.forget()
            raise self._too_short() from None

    def _too_short(self) -> BadStructure:
        return BadStructure(f"the payload of segment {self.copy.segment_id} ends too early on tape")

    def _read_over(self, count: int) -> bool:
        """Read over blocks and filemarks that nobody wants; False if something is wrong with them."""
        try:
            for _ in range(count):
                self._blocks.read()
        except (EndOfData, ReadFailed, BadStructure):
            return False
        return True

    def _next_block(self) -> memoryview:
        try:
            block = self._blocks.read()
        except EndOfData:
            block = memoryview(b"")
        if not block:
            raise self._too_short()
        return block
