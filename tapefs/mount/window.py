"""What lies ahead of a reader that goes through a tree: in the order in which he comes to it, and found by its place.

Pure bookkeeping, one thread. Files that follow one another in a segment are one item, up to a certain size, and a large
file is several: a window of a million small files is some ten thousand items.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from catalog.ids import SegmentId
from tapefs.mount.tree_order import Stretch

#: Headers and padding between the contents of two files; more for long names and attributes.
_GAP_BYTES = 64 * 1024

Frame = tuple[SegmentId, int]


@dataclass(slots=True)
class _Item:
    """Content that a reader comes to in one go."""

    ordinal: int
    segment_id: SegmentId
    start: int
    end: int
    #: Frames, both included, and where in the segment the last one ends.
    first: int
    last: int
    frame_end: int


class Window:
    """The items ahead.

    `frames_of` tells which frames hold the bytes of a stretch: first and last, and where in the segment that one ends.
    """

    def __init__(self, frames_of: Callable[[Stretch], tuple[int, int, int]], grain_bytes: int) -> None:
        self._frames_of = frames_of
        self._grain_bytes = grain_bytes
        self._items: deque[_Item] = deque()
        #: By segment: where each of its items begins, and its ordinal.
        self._starts: dict[SegmentId, list[tuple[int, int]]] = {}
        #: How many items want a frame.
        self._wanted: dict[Frame, int] = {}
        #: Ordinal of the item that comes next.
        self._next = 0
        #: Plain bytes of the items, those that the reader is at included.
        self.ahead_bytes = 0

    def __len__(self) -> int:
        """Return how many items there are."""
        return len(self._items)

    def add(self, stretch: Stretch) -> list[Frame]:
        """Put content behind what is there; return the frames that nothing wanted before.

        What is there already, as under another name of the file, is not put there again.
        """
        new: list[Frame] = []
        for offset in range(stretch.offset, stretch.offset + stretch.length, self._grain_bytes):
            length = min(self._grain_bytes, stretch.offset + stretch.length - offset)
            if self.find(stretch.segment_id, offset) is None:
                new += self._add(stretch._replace(offset=offset, length=length))
        return new

    def _add(self, piece: Stretch) -> list[Frame]:
        end = piece.offset + piece.length
        tail = self._items[-1] if self._items else None
        if (
            tail is not None
            and tail.segment_id == piece.segment_id
            and 0 <= piece.offset - tail.end <= _GAP_BYTES
            and end - tail.start <= self._grain_bytes
        ):
            return self._lengthen(tail, piece)
        first, last, frame_end = self._frames_of(piece)
        self._items.append(_Item(self._next, piece.segment_id, piece.offset, end, first, last, frame_end))
        insort(self._starts.setdefault(piece.segment_id, []), (piece.offset, self._next))
        self._next += 1
        self.ahead_bytes += piece.length
        return self._want(piece.segment_id, range(first, last + 1))

    def _lengthen(self, item: _Item, piece: Stretch) -> list[Frame]:
        """Put a piece to the item that it follows; most are of frames that the item has already."""
        end, before = piece.offset + piece.length, item.last
        self.ahead_bytes += end - item.end
        item.end = end
        if end > item.frame_end:
            _, item.last, item.frame_end = self._frames_of(piece)
        return self._want(item.segment_id, range(before + 1, item.last + 1))

    def _want(self, segment_id: SegmentId, numbers: range) -> list[Frame]:
        new: list[Frame] = []
        for number in numbers:
            frame = segment_id, number
            count = self._wanted.get(frame, 0)
            self._wanted[frame] = count + 1
            if not count:
                new.append(frame)
        return new

    def find(self, segment_id: SegmentId, offset: int) -> int | None:
        """Return the ordinal of the item that holds this byte; None if none does."""
        starts = self._starts.get(segment_id)
        place = bisect_right(starts, (offset, self._next)) - 1 if starts else -1
        if starts is None or place < 0:
            return None
        ordinal = starts[place][1]
        return ordinal if offset < self._item(ordinal).end else None

    def bytes_to(self, ordinal: int) -> int:
        """Return how far an item is ahead of the first one, in bytes; 0 for one that is not there."""
        if not self._items or ordinal <= self._items[0].ordinal:
            return 0
        count = ordinal - self._items[0].ordinal
        return sum(self._items[place].end - self._items[place].start for place in range(count))

    def drop_before(self, ordinal: int) -> list[Frame]:
        """The reader has passed all before this item: return the frames that nothing wants any more."""
        dropped: list[Frame] = []
        while self._items and self._items[0].ordinal < ordinal:
            dropped += self._drop(self._items.popleft())
        return dropped

    def _drop(self, item: _Item) -> Iterable[Frame]:
        starts = self._starts[item.segment_id]
        starts.remove((item.start, item.ordinal))
        if not starts:
            del self._starts[item.segment_id]
        self.ahead_bytes -= item.end - item.start
        for number in range(item.first, item.last + 1):
            frame = item.segment_id, number
            self._wanted[frame] -= 1
            if not self._wanted[frame]:
                del self._wanted[frame]
                yield frame

    def _item(self, ordinal: int) -> _Item:
        return self._items[ordinal - self._items[0].ordinal]
