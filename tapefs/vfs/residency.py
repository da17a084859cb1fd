"""Where the content of a file is: which bytes of which segments, on which tape, and whether they are staged.

Nothing here fetches anything. One thread uses a Residency.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from operator import eq, le
from typing import NamedTuple, Protocol

from catalog.errors import NotFound
from catalog.ids import EntryNo, SegmentId, SegmentNo
from catalog.index.model import Entry, EntryFlag, NumberedFrame
from catalog.index.reader import IndexReader
from catalog.ledger import Ledger
from catalog.records import SegmentCopy, Volume
from tapefs.errors import BadStructure
from tapefs.vfs.nodes import first_name

#: Plain numbers: an IntFlag costs 1.5 us an operation.
_UNREADABLE = int(EntryFlag.UNREADABLE)
_SPARSE = int(EntryFlag.SPARSE)
_IN_EXTENTS = int(EntryFlag.SPLIT | EntryFlag.SPARSE)


class State(Enum):
    """How soon the content can be read. The values are those of the extended attribute."""

    #: All of it is staged, or there is none.
    ONLINE = "online"
    #: On a tape.
    NEARLINE = "nearline"
    #: On a tape, and somebody waits for it.
    STAGING = "staging"
    #: On a tape that can be read only with a key, which is locked.
    LOCKED = "locked"
    #: It cannot be fetched now: it was unreadable at backup time, lies on no tape, or no sidecar answers.
    OFFLINE = "offline"


class Piece(NamedTuple):
    """A run of a file's content within one segment."""

    file_offset: int
    length: int
    segment_no: SegmentNo
    segment_id: SegmentId
    #: In the segment's plain tar stream.
    offset: int


class Place(NamedTuple):
    """Where a piece begins on a tape."""

    label: str
    #: Tape file and logical block of the payload's block that holds it, and the byte in that block where its frame
    #: begins.
    file: int
    block: int
    byte: int


class Stage(Protocol):
    """What is needed of a segment's staging file."""

    def frames_for(self, offset: int, length: int) -> range:
        """Return the frames that hold these bytes."""
        ...

    def has(self, frames: range) -> bool:
        """Are all of them staged?"""
        ...


def pieces_of(reader: IndexReader, number: EntryNo, entry: Entry) -> tuple[Piece, ...]:
    """Return the pieces of a file in order, none for anything without content; between them are holes, if it has some.

    Raises BadStructure for pieces that do not make up the file.
    """
    number, entry = first_name(reader, number, entry)
    if not stat.S_ISREG(entry.mode) or entry.flags & _UNREADABLE or not entry.size:
        return ()
    if not entry.flags & _IN_EXTENTS:
        segment = SegmentNo(entry.segment)
        return (Piece(0, entry.size, segment, reader.segment(segment).segment_id, entry.offset),)
    parts = reader.extents(number)
    ids = {segment: reader.segment(segment).segment_id for segment in {part.segment for part in parts}}
    pieces = tuple(Piece(at, length, segment, ids[segment], offset) for at, length, segment, offset in parts if length)
    _check(pieces, entry)
    return pieces


def _check(pieces: Sequence[Piece], entry: Entry) -> None:
    may_have_holes = bool(entry.flags & _SPARSE)
    ends = [0, *(place + length for place, length, *_ in pieces)]
    follows = le if may_have_holes else eq
    if not all(map(follows, ends, (piece[0] for piece in pieces))):
        raise BadStructure(f"the parts of {entry.name!r} do not follow one another: the index is damaged")
    end = ends[-1]
    if end > entry.size or (end < entry.size and not may_have_holes):
        raise BadStructure(f"the parts of {entry.name!r} do not make up its {entry.size} bytes: the index is damaged")


def stretches(pieces: Iterable[Piece]) -> list[Piece]:
    """Join pieces that lie one behind the other in a segment, as the data of a sparse file does: few of many.

    Their `file_offset` is that of the first one, and their length counts no holes.
    """
    joined: list[Piece] = []
    segment, end = -1, -1
    for piece in pieces:
        _, length, segment_no, _, offset = piece
        if segment_no != segment or offset != end:
            if joined:
                joined[-1] = joined[-1]._replace(length=end - joined[-1].offset)
            joined.append(piece)
            segment = segment_no
        end = offset + length
    if joined:
        joined[-1] = joined[-1]._replace(length=end - joined[-1].offset)
    return joined


class Residency:
    """Answers where files are.

    `stage_of` gives the staging file of a segment for one question, None if there is none; `is_awaited` tells whether
    somebody waits for frames of a segment (first to last, both included); `can_recall` whether recalls are possible at
    all; `has_key` whether the key of that fingerprint is unlocked.
    """

    def __init__(
        self,
        ledger: Ledger,
        stage_of: Callable[[SegmentId], Stage | None],
        is_awaited: Callable[[SegmentId, int, int], bool],
        can_recall: Callable[[], bool],
        has_key: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._ledger = ledger
        self._stage_of = stage_of
        self._is_awaited = is_awaited
        self._can_recall = can_recall
        self._has_key = has_key

    def state(self, reader: IndexReader, entry: Entry, pieces: tuple[Piece, ...]) -> State:
        """Return how soon the file can be read."""
        if entry.flags & _UNREADABLE:
            return State.OFFLINE
        pieces = tuple(stretches(pieces))
        if all(self._is_staged(piece) for piece in pieces):
            return State.ONLINE
        if not self._can_recall() or not all(self._ledger.copies(piece.segment_id) for piece in pieces):
            return State.OFFLINE
        if any(self._is_locked(piece.segment_id) for piece in pieces if not self._is_staged(piece)):
            return State.LOCKED
        if any(self._is_awaited(piece.segment_id, *_frame_range(reader, piece)) for piece in pieces):
            return State.STAGING
        return State.NEARLINE

    def _is_staged(self, piece: Piece) -> bool:
        stage = self._stage_of(piece.segment_id)
        return stage is not None and stage.has(stage.frames_for(piece.offset, piece.length))

    def _is_locked(self, segment_id: SegmentId) -> bool:
        """Does it take a key that is locked, its own or that of each tape it lies on?"""
        key = self._ledger.segment(segment_id).key_fingerprint
        if key:
            return not self._has_key(key)
        try:
            volumes = [self._ledger.volume(copy.volume_id) for copy in self._ledger.copies(segment_id)]
        except NotFound:
            return False  # A tape was given up just now.
        return all(volume.by_drive and not self._has_key(volume.key_fingerprint) for volume in volumes)

    def place(self, reader: IndexReader, piece: Piece) -> Place | None:
        """Return where the piece begins on the first tape that has it; None if no tape does."""
        home = self._home_of(piece.segment_id)
        if home is None:
            return None
        copy, volume = home
        frame = _frame_at(reader, piece, piece.offset)
        blocks, byte = divmod(frame.row.offset, copy.block_size)
        return Place(volume.label, copy.header_file + 1, copy.payload_block + blocks, byte)

    def _home_of(self, segment_id: SegmentId) -> tuple[SegmentCopy, Volume] | None:
        for copy in self._ledger.copies(segment_id):
            try:
                return copy, self._ledger.volume(copy.volume_id)
            except NotFound:
                continue
        return None


def _frame_range(reader: IndexReader, piece: Piece) -> tuple[int, int]:
    last = _frame_at(reader, piece, piece.offset + piece.length - 1)
    return _frame_at(reader, piece, piece.offset).number, last.number


def _frame_at(reader: IndexReader, piece: Piece, offset: int) -> NumberedFrame:
    frames = reader.frames_covering(piece.segment_no, offset, 1)
    if not frames:
        raise BadStructure(f"segment {piece.segment_id} has no byte {offset}: the index is damaged")
    return frames[0]
