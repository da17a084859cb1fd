"""Local trailers from what lies on tape: from a TRAILER, or from the SET INDEX that repeats it. Drive's thread.

The bytes are taken over as they are, frame by frame, because a local trailer is compared with its tape and copied to
others. Only the last line is decoded here; the zstd frames have checksums, and whoever builds an index checks the rest.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from catalog.crash import crash_point
from catalog.errors import StorageFailed
from catalog.ids import SegmentId
from tapefs.durable import sync_folder
from tapefs.errors import BadStructure
from tapefs.format.lines import FramePiece, frame_pieces
from tapefs.format.records import End, IndexEnd, IndexHead, IndexSegment
from tapefs.home import Home

_after_trailer = crash_point("rebuild.trailer.after")

#: An end line has some 400 bytes.
_TAIL_BYTES = 4096
#: What an index says itself comes in frames of some kilobytes; a line has 16 MiB at most.
_MOST_OWN_BYTES = 64 << 20
_OWN = (b'{"t":"index"', b'{"t":"segment"', b'{"t":"index_end"')
_KIND_BYTES = 24


class TrailerFile:
    """The local trailer of one segment while it comes to be."""

    def __init__(self, home: Home, segment_id: SegmentId) -> None:
        """Raises StorageFailed."""
        self.path = home.trailer(segment_id)
        self._part = self.path.with_name(f".{self.path.name}.rebuild")
        self._segment_id = segment_id
        self._tail = b""
        self.lines = 0
        self.stored_bytes = 0
        try:
            self._file: BinaryIO = self._part.open("wb")
        except OSError as error:
            raise _full(self._part, error) from error

    def add(self, stored: memoryview | bytes, text: bytes) -> None:
        """Take in stored bytes, and the text in them. Raises StorageFailed."""
        self.write(stored)
        self.lines += text.count(b"\n")
        self._tail = text[-_TAIL_BYTES:] if len(text) >= _TAIL_BYTES else (self._tail + text)[-_TAIL_BYTES:]

    def write(self, stored: memoryview | bytes) -> None:
        """Take in stored bytes. Raises StorageFailed."""
        self.stored_bytes += len(stored)
        try:
            self._file.write(stored)
        except OSError as error:
            raise _full(self._part, error) from error

    def last_line(self) -> End:
        """Return what the end line says. Raises BadStructure when there is none of this segment."""
        text = self._tail
        line = text[:-1].rpartition(b"\n")[2] if text.endswith(b"\n") else b""
        try:
            end = msgspec.json.decode(line, type=End)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BadStructure(f"the end line is missing ({error})") from error
        if end.segment != self._segment_id:
            raise BadStructure(f"it is that of segment {end.segment}")
        return end

    def keep(self) -> None:
        """Sync it and give it its name. Raises StorageFailed."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._part.rename(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise _full(self._part, error) from error
        _after_trailer()

    def discard(self) -> None:
        """Forget it; harmless once it is kept."""
        self._file.close()
        self._part.unlink(missing_ok=True)


def _full(path: Path, error: OSError) -> StorageFailed:
    return StorageFailed(f"cannot write {path}: {error.strerror}", retryable=False)


class _Frame:
    """A zstd frame of an index, of which kind its first line tells."""

    def __init__(self) -> None:
        self.is_own: bool | None = None
        #: All text of one that is the index's own, else what came before the kind was known.
        self.text = bytearray()
        self.held = b""

    def begin(self, piece: FramePiece) -> None:
        """Take in what comes first, until the kind is known."""
        self.held += bytes(piece.stored)
        self.add(piece.text)
        if len(self.text) >= _KIND_BYTES or piece.is_last:
            self.is_own = self.text.startswith(_OWN)

    def add(self, text: bytes) -> None:
        """Take in more text. Raises BadStructure when it is more than an index says of itself."""
        self.text += text
        if len(self.text) > _MOST_OWN_BYTES:
            raise BadStructure("the table of a SET INDEX is longer than any")


def end_of(path: Path, segment_id: SegmentId) -> tuple[End, int]:
    """Return the last line of a local trailer, and the trailer's length. Raises BadStructure, OSError."""
    tail = b""
    with path.open("rb") as file:
        for piece in frame_pieces(file):
            tail = (tail + piece.text)[-_TAIL_BYTES:]
        size = file.tell()
    try:
        end = msgspec.json.decode(tail[:-1].rpartition(b"\n")[2], type=End)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadStructure(f"the end line is missing ({error})") from error
    if end.segment != segment_id:
        raise BadStructure(f"it is that of segment {end.segment}")
    return end, size


def take_trailer(home: Home, segment_id: SegmentId, blocks: Iterable[bytes | memoryview]) -> tuple[End, int]:
    """Make the local trailer of a TRAILER that is being read; return its last line and its length.

    Raises BadStructure, StorageFailed, and what reading raises.
    """
    trailer = TrailerFile(home, segment_id)
    try:
        for stored, text, _ in frame_pieces(blocks):
            trailer.add(stored, text)
        end = trailer.last_line()
        trailer.keep()
    finally:
        trailer.discard()
    return end, trailer.stored_bytes


class IndexReading:
    """A SET INDEX that is being read: what it says, and the trailers that it repeats.

    Each of its zstd frames holds either lines of its own or a piece of one trailer, as our writer makes them. Of any
    other the trailers are read instead: it is told as damaged.
    """

    def __init__(self, home: Home, *, takes_trailers: bool = True) -> None:
        """The trailers go to `home`, if they are to be taken."""
        self._home = home
        self._takes_trailers = takes_trailers
        self._lines = 0
        self._at_hand: IndexSegment | None = None
        self._trailer: TrailerFile | None = None
        self._end: IndexEnd | None = None
        self._own = msgspec.json.Decoder(IndexHead | IndexSegment | IndexEnd)
        self.head: IndexHead | None = None
        self.table: list[IndexSegment] = []
        #: Trailers that were taken: what their last line says, and their length.
        self.trailers: dict[SegmentId, tuple[End, int]] = {}

    def read(self, blocks: Iterable[bytes | memoryview]) -> None:
        """Read it to its end. What was found before an error is right. Raises BadStructure, StorageFailed, others."""
        try:
            frame = _Frame()
            for piece in frame_pieces(blocks):
                self._take_piece(frame, piece)
                if piece.is_last:
                    if frame.is_own:
                        self._take_own(frame.text)
                    frame = _Frame()
            if self._end is None:
                raise BadStructure("the SET INDEX is cut short")
        finally:
            if self._trailer is not None:
                self._trailer.discard()
                self._trailer = None

    def _take_piece(self, frame: _Frame, piece: FramePiece) -> None:
        if frame.is_own is None:
            frame.begin(piece)
            if frame.is_own is False:
                self._take_repeated(frame.held, bytes(frame.text))
        elif frame.is_own:
            frame.add(piece.text)
        else:
            self._take_repeated(piece.stored, piece.text)

    def _take_own(self, text: bytearray) -> None:
        """Take lines that are the index's own."""
        self._finish_trailer()
        try:
            lines = self._own.decode_lines(text)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise BadStructure(f"the lines of a SET INDEX do not say what they should: {error}") from error
        for line in lines:
            if self._end is not None or (self.head is None) != isinstance(line, IndexHead):
                raise BadStructure("the lines of a SET INDEX are not in their order")
            if isinstance(line, IndexHead):
                self.head = line
            elif isinstance(line, IndexSegment):
                self.table.append(line)
                self._at_hand = line
            else:
                self._finish(line)
            self._lines += 1

    def _finish(self, end: IndexEnd) -> None:
        if self.head is None or end.index != self.head.index or end.lines != self._lines:
            raise BadStructure(f"a SET INDEX has {self._lines} lines, but its last one says {end.lines}")
        self._end = end

    def _take_repeated(self, stored: memoryview | bytes, text: bytes) -> None:
        """Take lines that a trailer has, too."""
        if self._at_hand is None or self._end is not None:
            raise BadStructure("a SET INDEX repeats lines of no segment")
        if not self._takes_trailers:
            self._lines += text.count(b"\n")
            return
        if self._trailer is None:
            self._trailer = TrailerFile(self._home, self._at_hand.segment)
        self._trailer.add(stored, text)

    def _finish_trailer(self) -> None:
        if self._trailer is None or self._at_hand is None:
            return
        trailer, self._trailer = self._trailer, None
        try:
            end = trailer.last_line()
            trailer.keep()
        finally:
            trailer.discard()
        self._lines += trailer.lines
        self.trailers[self._at_hand.segment] = (end, trailer.stored_bytes)
