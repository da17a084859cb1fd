"""The recall queue: who waits for which frames, and what to fetch next from which tape.

Pure bookkeeping: no I/O, no clock (times in seconds are passed in), one task at a time. Equal frames are fetched once,
however many wait for them. A frame that one copy cannot give is looked for on the next copy; only when none is left has
it failed.

A frame that is wanted is either *to do* (on a tape, not yet asked of a mover) or *asked* (a mover works on it).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from catalog.ids import FrameNo, SegmentId, VolumeId
from sidecar.recalls.wanted import Place, Waiter, Wanted, without
from tapefs.mover.messages import FrameRange
from tapefs.planner.tapes import Demand, next_tape, weight_of
from tapefs.spans import Spans

#: What a staging order that nobody waits for weighs against one waiting reader.
ORDER_WEIGHT = 0.1
#: For the choice of a tape: exchanging two, a locate in a planned order, a frame of 4 MiB at 300 MB/s.
EXCHANGE_S = 110.0
_LOCATE_S = 20.0
_FRAME_S = 0.014
#: So many movers may die over the same segment before its recall is given up.
MOST_DEATHS = 3


class Request(NamedTuple):
    """Frames to fetch from one tape."""

    #: Where on the tape they begin and end, about.
    block: int
    end_block: int
    #: How many wait for them, each more the longer he does.
    weight: float
    frames: FrameRange


class Stretch(NamedTuple):
    """Frames that are wanted of one tape, one after the other."""

    frames: FrameRange
    #: When all of them will be there, if nothing else wants the drive: a rough estimate.
    eta_s: float


class RecallQueue:
    """Everything that is wanted from tape."""

    def __init__(self) -> None:
        self._segments: dict[SegmentId, Wanted] = {}
        #: Waiter to its segment.
        self._homes: dict[str, SegmentId] = {}
        #: Grows whenever there may be more to do on some tape.
        self.news = 0
        #: Waiters let go since they were last asked for.
        self._released: list[str] = []

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

    def order_frames(
        self, frames: FrameRange, places: Sequence[Place], now_s: float, *, is_awaited: bool = False
    ) -> list[FrameRange]:
        """Have frames staged without any reader; `is_awaited`: somebody waits for them. Returns as `wait_for`."""
        wanted = self._wanted(frames.segment_id, places, now_s)
        wanted.ordered.add(frames.first, frames.last)
        if is_awaited:
            wanted.awaited.add(frames.first, frames.last)
            wanted.awaited_since_s = min(wanted.awaited_since_s, now_s)
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

    def next_tape(
        self, now_s: float, is_usable: Callable[[VolumeId], bool], drives: int = 1, overdue_drives: int = 0
    ) -> tuple[VolumeId, bool] | None:
        """Return the usable tape to load next, and whether that is because it is overdue; None when nothing is to do.

        `overdue_drives`: so many of the `drives` have a tape that was overdue. See `tapefs.planner.tapes`.
        """
        demands: dict[VolumeId, Demand[VolumeId]] = {}
        for wanted in self._segments.values():
            for volume_id, spans in wanted.todo.items():
                if spans and is_usable(volume_id):
                    known = demands.get(volume_id, Demand(volume_id, 0.0, 0.0, 0.0))
                    demands[volume_id] = Demand(
                        tape=volume_id,
                        weight=known.weight + _weight(wanted, now_s),
                        oldest_s=max(known.oldest_s, *(now_s - each.since_s for each in wanted.waiters.values()), 0.0),
                        service_s=known.service_s + sum(_service_s(run) for run in spans),
                    )
        by_name = sorted(demands.values(), key=lambda demand: demand.tape, reverse=True)
        return next_tape(by_name, EXCHANGE_S, drives, overdue_drives)

    def waited_s(self, now_s: float) -> dict[VolumeId, float]:
        """Return for how long somebody has waited for what is to do on each tape; the longest counts."""
        found: dict[VolumeId, float] = {}
        for wanted in self._segments.values():
            for volume_id, spans in wanted.todo.items():
                since_s = wanted.waited_since_s(spans)
                if since_s < math.inf:
                    found[volume_id] = max(found.get(volume_id, 0.0), now_s - since_s)
        return found

    def todo(self, volume_id: VolumeId, now_s: float) -> list[Request]:
        """Return all that is to do on a tape, by place."""
        requests: list[Request] = []
        for segment_id, wanted in self._segments.items():
            spans = wanted.todo.get(volume_id)
            if spans:
                place = next(place for place in wanted.places if place.volume_id == volume_id)
                requests += [
                    Request(
                        block=place.block(run[0]),
                        end_block=place.block(run[1] + 1),
                        weight=_weight_of(wanted, run, now_s),
                        frames=_frames(segment_id, run),
                    )
                    for run in spans
                ]
        return sorted(requests, key=lambda request: (request.block, request.frames.first))

    def ask(self, volume_id: VolumeId, requests: Iterable[Request]) -> None:
        """What `todo` has just returned, all or some of it, counts as asked from now on."""
        for request in requests:
            frames = request.frames
            wanted = self._segments[frames.segment_id]
            wanted.todo[volume_id].remove(frames.first, frames.last)
            wanted.asked.setdefault(volume_id, Spans()).add(frames.first, frames.last)

    def has_todo(self, volume_id: VolumeId) -> bool:
        """Is anything to do on this tape?"""
        return any(wanted.todo.get(volume_id) for wanted in self._segments.values())

    def has_asked(self, volume_id: VolumeId) -> bool:
        """Does a mover work on frames of this tape?"""
        return any(wanted.asked.get(volume_id) for wanted in self._segments.values())

    def open_blocks(self, volume_id: VolumeId) -> int:
        """Return how many blocks of a tape are to do or asked, about."""
        return sum(
            place.block(last + 1) - place.block(first)
            for wanted in self._segments.values()
            for place in wanted.places
            if place.volume_id == volume_id
            for kind in (wanted.todo, wanted.asked)
            for first, last in kind.get(volume_id, ())
        )

    def is_open(self, frames: FrameRange) -> bool:
        """Is any of these frames to do or asked?"""
        wanted = self._segments.get(frames.segment_id)
        return wanted is not None and wanted.is_open(frames.first, frames.last)

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

    def take_released(self) -> list[str]:
        """Return the ids of the waiters that were let go since the last call, whatever for."""
        released, self._released = self._released, []
        return released

    def not_wanted(self, frames: FrameRange) -> list[tuple[int, int]]:
        """Return the runs of the range that are neither to do nor asked."""
        left = Spans()
        left.add(frames.first, frames.last)
        wanted = self._segments.get(frames.segment_id)
        if wanted is not None:
            for spans in wanted.sets():
                for run in spans.within(frames.first, frames.last):
                    left.remove(*run)
        return list(left)

    def plans(
        self, asked: Iterable[FrameRange], is_loaded: Callable[[VolumeId], bool], now_s: float
    ) -> dict[VolumeId, list[Stretch]]:
        """Return what is wanted of every tape as it will be fetched, as far as that is known.

        `asked`: what the movers work on, in their order; what is to do comes behind it and is ordered by place here.
        """
        order: dict[SegmentId, list[tuple[int, FrameRange]]] = {}
        for place, frames in enumerate(asked):
            order.setdefault(frames.segment_id, []).append((place, frames))
        behind_all = math.inf
        tapes: dict[VolumeId, list[tuple[float, int, FrameRange]]] = {}
        for segment_id, wanted in self._segments.items():
            for volume_id, spans in wanted.asked.items():
                for run in spans:
                    known = [place for place, each in order.get(segment_id, ()) if each.first <= run[1] <= each.last]
                    found = tapes.setdefault(volume_id, [])
                    found.append((min(known, default=behind_all), run[0], _frames(segment_id, run)))
        plans = {}
        for volume_id in tapes.keys() | self.tapes():
            first = [frames for _, _, frames in sorted(tapes.get(volume_id, []))]
            plan = [*first, *(request.frames for request in self.todo(volume_id, now_s))]
            plans[volume_id] = list(_stretches(plan, 0.0 if is_loaded(volume_id) else EXCHANGE_S))
        return plans

    # -- what became of it -------------------------------------------------------------------------------------------

    def arrived(self, frames: FrameRange) -> list[Waiter]:
        """Frames are staged; return the waiters that have all they wanted, who are forgotten now."""
        wanted = self._segments.get(frames.segment_id)
        if wanted is None:
            return []
        for spans in (*wanted.sets(), wanted.ordered):
            spans.remove(frames.first, frames.last)
        settled = [
            waiter for waiter in wanted.touched(frames) if not wanted.is_open(waiter.frames.first, waiter.frames.last)
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
        self.news += 1
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
                found += [_frames(frames.segment_id, left) for left in without(run, again)]
        return found

    def ask_again(self, volume_id: VolumeId, ranges: Iterable[FrameRange]) -> None:
        """What was asked in these ranges is to do again."""
        self.news += 1
        for frames in ranges:
            wanted = self._segments.get(frames.segment_id)
            if wanted is not None and volume_id in wanted.asked:
                for run in wanted.asked[volume_id].within(frames.first, frames.last):
                    wanted.asked[volume_id].remove(*run)
                    wanted.todo.setdefault(volume_id, Spans()).add(*run)

    def mover_died(self, volume_id: VolumeId) -> list[FrameRange]:
        """What was asked is to do again; return frames given up because too many movers died over their segment."""
        self.news += 1
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

    def _want(self, wanted: Wanted, frames: FrameRange) -> list[FrameRange]:
        self.news += 1
        lost = [_frames(frames.segment_id, run) for run in wanted.want(frames.first, frames.last)]
        for piece in lost:
            self._give_up(wanted, piece)
        self._sweep(frames.segment_id)
        return lost

    def _wanted(self, segment_id: SegmentId, places: Sequence[Place], now_s: float) -> Wanted:
        if segment_id not in self._segments:
            self._segments[segment_id] = Wanted(tuple(places), now_s)
        return self._segments[segment_id]

    def _release(self, waiter_id: str) -> tuple[SegmentId, Waiter]:
        segment_id = self._homes.pop(waiter_id)
        self._released.append(waiter_id)
        return segment_id, self._segments[segment_id].waiters.pop(waiter_id)

    def _give_up(self, wanted: Wanted, frames: FrameRange) -> None:
        wanted.ordered.remove(frames.first, frames.last)
        for waiter in wanted.touched(frames):
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


def _weight(wanted: Wanted, now_s: float) -> float:
    waiting = sum(weight_of(now_s - waiter.since_s) for waiter in wanted.waiters.values())
    return waiting + weight_of(now_s - wanted.since_s, ORDER_WEIGHT)


def _weight_of(wanted: Wanted, run: tuple[int, int], now_s: float) -> float:
    """Return what a run of frames weighs, which several may wait for or nobody."""
    waiting = sum(weight_of(now_s - waiter.since_s) for waiter in wanted.touched(_frames(SegmentId(""), run)))
    return waiting + weight_of(now_s - wanted.since_s, ORDER_WEIGHT)


def _stretches(plan: Iterable[FrameRange], begin_s: float) -> Iterator[Stretch]:
    at_s = begin_s
    for frames in plan:
        at_s += _service_s((frames.first, frames.last))
        yield Stretch(frames, at_s)


def _service_s(run: tuple[int, int]) -> float:
    return _LOCATE_S + (run[1] - run[0] + 1) * _FRAME_S
