"""What is wanted of one segment: frames to do and asked, on which tapes, by whom.

Pure bookkeeping, for the recall queue; one task at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from catalog.ids import BlockNo, VolumeId
from tapefs.mover.messages import FrameRange
from tapefs.spans import Spans


class Place(NamedTuple):
    """Where a copy of a segment lies."""

    volume_id: VolumeId
    payload_block: BlockNo
    #: Blocks of the payload, and how many frames they hold: frames are taken for equally long.
    payload_blocks: int = 0
    frames: int = 1

    def block(self, frame: int) -> int:
        """Return the block where a frame begins, about."""
        return self.payload_block + frame * self.payload_blocks // self.frames

    def frame_behind(self, frame: int, blocks: int) -> int:
        """Return the frame that begins so many blocks behind the beginning of `frame`, about."""
        return frame + blocks * self.frames // max(1, self.payload_blocks)


@dataclass(frozen=True, slots=True)
class Waiter:
    """A reader that waits for frames."""

    #: Chosen by the client, unique.
    waiter_id: str
    frames: FrameRange
    since_s: float
    #: When it gives up; infinite for never.
    deadline_s: float


@dataclass(slots=True)
class Wanted:
    """What is wanted of one segment."""

    places: tuple[Place, ...]
    since_s: float
    todo: dict[VolumeId, Spans] = field(default_factory=dict)
    asked: dict[VolumeId, Spans] = field(default_factory=dict)
    #: Frames that a tape could not give.
    refused: dict[VolumeId, Spans] = field(default_factory=dict)
    #: Frames to fetch whether anybody waits or not.
    ordered: Spans = field(default_factory=Spans)
    #: Of these, what somebody waits for all the same, as a restore does, and since when.
    awaited: Spans = field(default_factory=Spans)
    awaited_since_s: float = math.inf
    waiters: dict[str, Waiter] = field(default_factory=dict)
    deaths: int = 0

    def sets(self) -> Iterator[Spans]:
        """Yield what is to do, and what is asked, tape by tape."""
        yield from self.todo.values()
        yield from self.asked.values()

    def is_open(self, first: int, last: int) -> bool:
        """Is any frame of the range to do or asked?"""
        return any(spans.overlaps(first, last) for spans in self.sets())

    def waited_since_s(self, spans: Spans) -> float:
        """Return since when somebody has waited for any of these frames; infinite for nobody."""
        waiting = [
            waiter.since_s
            for waiter in self.waiters.values()
            if spans.overlaps(waiter.frames.first, waiter.frames.last)
        ]
        if any(spans.overlaps(*run) for run in self.awaited):
            waiting.append(self.awaited_since_s)
        return min(waiting, default=math.inf)

    def is_over(self) -> bool:
        """Does nobody wait, and is nothing to do or asked?"""
        return not self.waiters and not any(self.sets())

    def want(self, first: int, last: int) -> list[tuple[int, int]]:
        """Put the frames of the range that are not wanted yet to do; return the runs that no place is left for."""
        new = Spans()
        new.add(first, last)
        for spans in self.sets():
            for run in spans.within(first, last):
                new.remove(*run)
        return [lost for run in new for lost in self.spread(*run)]

    def spread(self, first: int, last: int) -> list[tuple[int, int]]:
        """Put every frame of the range to do on its first place; return the runs that no place is left for."""
        left = Spans()
        left.add(first, last)
        for place in self.places:
            refused = self.refused.get(place.volume_id, Spans())
            for run in left:
                possible = without(run, refused)
                for piece in possible:
                    self.todo.setdefault(place.volume_id, Spans()).add(*piece)
                    left.remove(*piece)
        return list(left)

    def unwant(self, first: int, last: int) -> None:
        """Forget what is to do in the range and neither ordered nor waited for."""
        for spans in self.todo.values():
            before = spans.within(first, last)
            spans.remove(first, last)
            for low, high in before:
                for kept in self._still_wanted(low, high):
                    spans.add(*kept)

    def _still_wanted(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        yield from self.ordered.within(low, high)
        for waiter in self.waiters.values():
            first, last = max(low, waiter.frames.first), min(high, waiter.frames.last)
            if first <= last:
                yield first, last

    def touched(self, frames: FrameRange) -> list[Waiter]:
        """Return those who wait for any of these frames."""
        return [
            waiter
            for waiter in self.waiters.values()
            if waiter.frames.first <= frames.last and frames.first <= waiter.frames.last
        ]


def without(run: tuple[int, int], holes: Spans) -> list[tuple[int, int]]:
    """Return what is left of a run without the holes in it."""
    left = Spans()
    left.add(*run)
    for hole in holes.within(*run):
        left.remove(*hole)
    return list(left)
