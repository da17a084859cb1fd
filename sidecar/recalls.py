"""The recall queue: who waits for which frames, and what to fetch next from which tape.

Pure bookkeeping: no I/O, no clock (times in seconds are passed in), one task at a time. Equal frames are fetched once,
however many wait for them. A frame that one copy cannot give is looked for on the next copy; only when none is left has
it failed.

A frame that is wanted is either *to do* (on a tape, not yet asked of a mover) or *asked* (a mover works on it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from catalog.ids import BlockNo, FrameNo, SegmentId, VolumeId
from sidecar.spans import Spans
from tapefs.mover.messages import FrameRange

#: A request weighs as much again for every ten minutes it has waited, so that no tape is forgotten.
AGEING_S = 600.0
#: What a staging order that nobody waits for weighs against one waiting reader.
ORDER_WEIGHT = 0.1
#: So many movers may die over the same segment before its recall is given up.
MOST_DEATHS = 3


class Place(NamedTuple):
    """Where a copy of a segment lies."""

    volume_id: VolumeId
    payload_block: BlockNo


class Request(NamedTuple):
    """Frames to fetch from one tape; `payload_block` is where their segment's payload begins."""

    payload_block: BlockNo
    frames: FrameRange


Planner = Callable[[Sequence[Request]], list[Request]]


def order(requests: Sequence[Request]) -> list[Request]:
    """Return the requests by place on the tape. The seam for a planner that knows the motion."""
    return sorted(requests, key=lambda request: (request.payload_block, request.frames.first))


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
class _Wanted:
    """What is wanted of one segment."""

    places: tuple[Place, ...]
    since_s: float
    todo: dict[VolumeId, Spans] = field(default_factory=dict)
    asked: dict[VolumeId, Spans] = field(default_factory=dict)
    #: Frames that a tape could not give.
    refused: dict[VolumeId, Spans] = field(default_factory=dict)
    #: Frames to fetch whether anybody waits or not.
    ordered: Spans = field(default_factory=Spans)
    waiters: dict[str, Waiter] = field(default_factory=dict)
    deaths: int = 0

    def sets(self) -> Iterator[Spans]:
        yield from self.todo.values()
        yield from self.asked.values()

    def is_open(self, first: int, last: int) -> bool:
        """Is any frame of the range to do or asked?"""
        return any(spans.overlaps(first, last) for spans in self.sets())

    def is_over(self) -> bool:
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
                possible = _minus(run, refused)
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


def _minus(run: tuple[int, int], holes: Spans) -> list[tuple[int, int]]:
    left = Spans()
    left.add(*run)
    for hole in holes.within(*run):
        left.remove(*hole)
    return list(left)


class RecallQueue:
    """Everything that is wanted from tape."""

    def __init__(self, planner: Planner = order) -> None:
        self._planner = planner
        self._segments: dict[SegmentId, _Wanted] = {}
        #: Waiter to its segment.
        self._homes: dict[str, SegmentId] = {}

    # -- wishes ------------------------------------------------------------------------------------------------------

    def wait_for(self, waiter: Waiter, places: Sequence[Place]) -> list[FrameRange]:
        """Note a waiting reader. The same id again is harmless. `places` are the copies, best first.

        Returns frames that every place has refused already, or that have none; their waiters are let go.
        """
        if waiter.waiter_id in self._homes:
            return []
        wanted = self._wanted(waiter.frames.segment_id, places, waiter.since_s)
        wanted.waiters[waiter.waiter_id] = waiter
        self._homes[waiter.waiter_id] = waiter.frames.segment_id
        return self._want(wanted, waiter.frames)

    def order_frames(self, frames: FrameRange, places: Sequence[Place], now_s: float) -> list[FrameRange]:
        """Have frames staged without anybody waiting. Returns as `wait_for`."""
        wanted = self._wanted(frames.segment_id, places, now_s)
        wanted.ordered.add(frames.first, frames.last)
        return self._want(wanted, frames)

    def cancel(self, waiter_ids: Iterable[str]) -> int:
        """Detach waiters; return how many were known. What nobody wants any more and no mover works on is forgotten."""
        known = [waiter_id for waiter_id in waiter_ids if waiter_id in self._homes]
        for waiter_id in known:
            segment_id, waiter = self._release(waiter_id)
            wanted = self._segments[segment_id]
            wanted.unwant(waiter.frames.first, waiter.frames.last)
            self._sweep(segment_id)
        return len(known)

    def expire(self, now_s: float) -> int:
        """Let go of waiters behind their deadline; their frames are fetched all the same. Returns how many."""
        late = [
            waiter.waiter_id
            for wanted in self._segments.values()
            for waiter in wanted.waiters.values()
            if waiter.deadline_s <= now_s
        ]
        for waiter_id in late:
            segment_id, waiter = self._release(waiter_id)
            self._segments[segment_id].ordered.add(waiter.frames.first, waiter.frames.last)
            self._sweep(segment_id)
        return len(late)

    # -- what to do --------------------------------------------------------------------------------------------------

    def next_tape(self, now_s: float, is_usable: Callable[[VolumeId], bool]) -> VolumeId | None:
        """Return the usable tape with the most and longest waiting requests to do, or None."""
        weights: dict[VolumeId, float] = {}
        for wanted in self._segments.values():
            for volume_id, spans in wanted.todo.items():
                if spans and is_usable(volume_id):
                    weights[volume_id] = weights.get(volume_id, 0.0) + _weight(wanted, now_s)
        return max(weights, key=lambda volume_id: (weights[volume_id], volume_id), default=None)

    def take(self, volume_id: VolumeId) -> list[FrameRange]:
        """Return all that is to do on a tape, in the order to fetch it; it now counts as asked."""
        requests = []
        for segment_id, wanted in self._segments.items():
            spans = wanted.todo.pop(volume_id, Spans())
            block = next((place.payload_block for place in wanted.places if place.volume_id == volume_id), BlockNo(0))
            for run in spans:
                requests.append(Request(block, _frames(segment_id, run)))
                wanted.asked.setdefault(volume_id, Spans()).add(*run)
        return [request.frames for request in self._planner(requests)]

    def has_todo(self, volume_id: VolumeId) -> bool:
        """Is anything to do on this tape?"""
        return any(wanted.todo.get(volume_id) for wanted in self._segments.values())

    def has_asked(self, volume_id: VolumeId) -> bool:
        """Does a mover work on frames of this tape?"""
        return any(wanted.asked.get(volume_id) for wanted in self._segments.values())

    def tapes(self) -> set[VolumeId]:
        """Return the tapes that have anything to do."""
        return {volume_id for wanted in self._segments.values() for volume_id, spans in wanted.todo.items() if spans}

    def segments(self) -> set[SegmentId]:
        """Return the segments of which anything is wanted."""
        return set(self._segments)

    def is_idle(self) -> bool:
        """Is nothing wanted at all?"""
        return not self._segments

    def waiting(self) -> int:
        """Return how many readers wait."""
        return len(self._homes)

    # -- what became of it -------------------------------------------------------------------------------------------

    def arrived(self, frames: FrameRange) -> list[Waiter]:
        """Frames are staged; return the waiters that have all they wanted, who are forgotten now."""
        wanted = self._segments.get(frames.segment_id)
        if wanted is None:
            return []
        for spans in (*wanted.sets(), wanted.ordered):
            spans.remove(frames.first, frames.last)
        settled = [
            waiter for waiter in _touched(wanted, frames) if not wanted.is_open(waiter.frames.first, waiter.frames.last)
        ]
        for waiter in settled:
            self._release(waiter.waiter_id)
        self._sweep(frames.segment_id)
        return settled

    def failed(self, volume_id: VolumeId, frames: FrameRange) -> list[FrameRange]:
        """A tape could not give these frames; return those that no other copy is left for. Their waiters are let go."""
        wanted = self._segments.get(frames.segment_id)
        if wanted is None:
            return []
        wanted.refused.setdefault(volume_id, Spans()).add(frames.first, frames.last)
        lost: list[FrameRange] = []
        for kind in (wanted.todo, wanted.asked):
            spans = kind.get(volume_id, Spans())
            for run in spans.within(frames.first, frames.last):
                spans.remove(*run)
                lost += [_frames(frames.segment_id, left) for left in wanted.spread(*run)]
        for piece in lost:
            self._give_up(wanted, piece)
        self._sweep(frames.segment_id)
        return lost

    def tape_failed(self, volume_id: VolumeId) -> list[FrameRange]:
        """Nothing can be had from this tape now; return the frames that no other copy is left for."""
        return [
            piece
            for frames in [*self._spans_of("todo", volume_id), *self._spans_of("asked", volume_id)]
            for piece in self.failed(volume_id, frames)
        ]

    def still_asked(
        self, volume_id: VolumeId, ranges: Iterable[FrameRange], later: Sequence[FrameRange] = ()
    ) -> list[FrameRange]:
        """Return what of these ranges has neither arrived nor failed since it was asked of a mover.

        `later`: what was asked of it after that. A frame can be evicted as soon as it has arrived, and be asked for
        again before the first asking is over: then it belongs to the second.
        """
        found = []
        for frames in ranges:
            wanted = self._segments.get(frames.segment_id)
            if wanted is None:
                continue
            again = Spans()
            for other in later:
                if other.segment_id == frames.segment_id:
                    again.add(other.first, other.last)
            for run in wanted.asked.get(volume_id, Spans()).within(frames.first, frames.last):
                found += [_frames(frames.segment_id, left) for left in _minus(run, again)]
        return found

    def ask_again(self, volume_id: VolumeId, ranges: Iterable[FrameRange]) -> None:
        """What was asked in these ranges is to do again."""
        for frames in ranges:
            wanted = self._segments.get(frames.segment_id)
            if wanted is not None and volume_id in wanted.asked:
                for run in wanted.asked[volume_id].within(frames.first, frames.last):
                    wanted.asked[volume_id].remove(*run)
                    wanted.todo.setdefault(volume_id, Spans()).add(*run)

    def mover_died(self, volume_id: VolumeId) -> list[FrameRange]:
        """What was asked is to do again; return frames given up because too many movers died over their segment."""
        given_up: list[FrameRange] = []
        for frames in self._spans_of("asked", volume_id):
            wanted = self._segments.get(frames.segment_id)
            if wanted is None:
                continue
            wanted.deaths += 1
            if wanted.deaths >= MOST_DEATHS:
                given_up += self.failed(volume_id, frames)
            else:
                wanted.asked[volume_id].remove(frames.first, frames.last)
                wanted.todo.setdefault(volume_id, Spans()).add(frames.first, frames.last)
        return given_up

    # -- inside ------------------------------------------------------------------------------------------------------

    def _want(self, wanted: _Wanted, frames: FrameRange) -> list[FrameRange]:
        lost = [_frames(frames.segment_id, run) for run in wanted.want(frames.first, frames.last)]
        for piece in lost:
            self._give_up(wanted, piece)
        self._sweep(frames.segment_id)
        return lost

    def _wanted(self, segment_id: SegmentId, places: Sequence[Place], now_s: float) -> _Wanted:
        if segment_id not in self._segments:
            self._segments[segment_id] = _Wanted(tuple(places), now_s)
        return self._segments[segment_id]

    def _release(self, waiter_id: str) -> tuple[SegmentId, Waiter]:
        segment_id = self._homes.pop(waiter_id)
        return segment_id, self._segments[segment_id].waiters.pop(waiter_id)

    def _give_up(self, wanted: _Wanted, frames: FrameRange) -> None:
        wanted.ordered.remove(frames.first, frames.last)
        for waiter in _touched(wanted, frames):
            self._release(waiter.waiter_id)
            wanted.unwant(waiter.frames.first, waiter.frames.last)

    def _sweep(self, segment_id: SegmentId) -> None:
        if self._segments[segment_id].is_over():
            del self._segments[segment_id]

    def _spans_of(self, kind: str, volume_id: VolumeId) -> list[FrameRange]:
        return [
            _frames(segment_id, run)
            for segment_id, wanted in self._segments.items()
            for run in (wanted.todo if kind == "todo" else wanted.asked).get(volume_id, Spans())
        ]


def _frames(segment_id: SegmentId, run: tuple[int, int]) -> FrameRange:
    return FrameRange(segment_id, FrameNo(run[0]), FrameNo(run[1]))


def _touched(wanted: _Wanted, frames: FrameRange) -> list[Waiter]:
    return [
        waiter
        for waiter in wanted.waiters.values()
        if waiter.frames.first <= frames.last and frames.first <= waiter.frames.last
    ]


def _weight(wanted: _Wanted, now_s: float) -> float:
    ages = [now_s - waiter.since_s for waiter in wanted.waiters.values()]
    ordered = ORDER_WEIGHT * (1 + (now_s - wanted.since_s) / AGEING_S)
    return ordered + sum(1 + age / AGEING_S for age in ages)
