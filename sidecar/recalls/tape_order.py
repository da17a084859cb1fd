"""The order in which what is wanted of the tape in a drive is read: rounds. Pure; one task at a time.

What is to do when nothing is asked any more is planned together: a round. What comes later waits for the next round,
unless it follows on where this one ends: then it joins, so that somebody who reads on keeps the tape running. While
others are held back all joins together may add half of the time that the round was planned for. Why, and figures:
docs/planner.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drivers.virtual.motion import Motion
from sidecar.recalls.queue import Request
from tapefs.mover.messages import FrameRange
from tapefs.planner import plan, records
from tapefs.planner.rounds import Terms
from tapefs.planner.serpentine import SerpentineModel

#: So many requests are planned in 2 ms; more are worth a thread.
VERY_FEW = 5
#: Planning a round may take so long per request: half a per cent of the time it takes to locate there.
_BUDGET_PER_REQUEST_S = 0.1


@dataclass(frozen=True, slots=True)
class Round:
    """Requests in the order to read them."""

    requests: list[Request]
    #: How long that takes.
    planned_s: float


class TapeOrder:
    """Knows where the head of one loaded tape is, and what its round may still take in. Lengths are in blocks."""

    def __init__(self, motion: Motion, block_bytes: int, head_block: int = 0, *, is_forwards: bool = False) -> None:
        """`is_forwards`: what lies there are streams, of which nothing is read but from front to end."""
        self._is_forwards = is_forwards
        self._model = SerpentineModel(motion)
        self._block_bytes = block_bytes
        self._terms = Terms()
        #: Where the head will be when all that was asked has been read.
        self._tail = head_block
        self._room_s = 0.0
        #: Frames that were asked, and where they end: to know where the head is when reading has gone on.
        self._last: Request | None = None

    @property
    def tail_block(self) -> int:
        """Where the head will be when all that was asked has been read."""
        return self._tail

    def blocks_of(self, count_bytes: int) -> int:
        """Return how many blocks of this tape hold so many bytes."""
        return count_bytes // max(1, self._block_bytes)

    def joining(self, todo: Sequence[Request]) -> list[Request]:
        """Return what of `todo`, which is by place, joins the round that runs; note it as asked."""
        near, tail, costs_s = [], self._tail, []
        for request in todo:
            there_s = self._locate_s(tail, request.block)
            is_behind = self._is_forwards and request.block < tail
            if there_s < self._terms.join_s and not is_behind:
                near.append(request)
                costs_s.append(there_s + self._read_s(request))
                tail = request.end_block
        joined = []
        is_anybody_held_back = len(near) < len(todo)
        for request, cost_s in zip(near, costs_s, strict=True):
            if is_anybody_held_back and cost_s > self._room_s:
                break
            self._room_s -= cost_s if is_anybody_held_back else 0.0
            joined.append(request)
        if joined:
            self._end_at(joined[-1])
        return joined

    def plan(self, requests: Sequence[Request], offered: Sequence[Sequence[int]] = ()) -> Round:
        """Return a round of all of these. Changes nothing: it may run in a thread while frames arrive.

        `offered`: orders by the drive, as indices; they are followed where nothing better is found.
        """
        if self._is_forwards:
            ordered = sorted(requests, key=lambda each: (each.block, each.frames.first))
            return Round(ordered, sum(map(self._read_s, ordered)))
        size = self._block_bytes
        found = plan.plan(
            [
                records.Request(each.block * size, (each.end_block - each.block) * size, each.weight)
                for each in requests
            ],
            self._tail * size,
            self._model,
            min(self._terms.budget_s, _BUDGET_PER_REQUEST_S * len(requests)),
            offered,
        )
        return Round([requests[index] for index in found.order], found.done[-1])

    def begin(self, begun: Round) -> None:
        """A round begins."""
        self._room_s = self._terms.join_share * begun.planned_s
        self._end_at(begun.requests[-1])

    def arrived(self, frames: FrameRange) -> None:
        """Frames were staged; behind the last that were asked the tape has run on."""
        last = self._last
        if last is None or frames.segment_id != last.frames.segment_id or frames.last <= last.frames.last:
            return
        per_frame = (last.end_block - last.block) / (last.frames.last - last.frames.first + 1)
        self._tail = last.end_block + round(per_frame * (frames.last - last.frames.last))

    def _end_at(self, request: Request) -> None:
        self._last, self._tail = request, request.end_block

    def _locate_s(self, start: int, target: int) -> float:
        return self._model.locate(start * self._block_bytes, target * self._block_bytes)

    def _read_s(self, request: Request) -> float:
        return self._model.read((request.end_block - request.block) * self._block_bytes)
