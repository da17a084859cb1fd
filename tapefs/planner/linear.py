"""A tape that lies straight before the head: unit speed both ways, a price per turn. Pure; any thread.

The linear tape scheduling problem: a request is served when the head crosses it from left to right, and the weighted
sum of service times is to be as small as can be. The head may stand anywhere; its first move is free to go either way,
so a head at the right end pays its first turn where it begins to read.

`Stretch` is the form that the algorithms work on: equal requests merged, the rest disjoint and sorted. A solution is a
list of runs, each the first and the last file of one move to the right; the last run always goes on to the right end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from tapefs.errors import UsageError
from tapefs.planner.records import Request


class RequestsOverlap(UsageError):
    """Two requests share a piece of tape without being equal; `left` and `right` are their indices."""

    def __init__(self, left: int, right: int) -> None:
        super().__init__(f"requests {left} and {right} overlap and are not equal")
        self.left = left
        self.right = right


@dataclass(frozen=True, slots=True)
class LinearModel:
    """The motion of the problem; one unit of time per unit of length."""

    u_turn: float

    def set_out(self, head: float, target: float) -> float:
        """Return the time from standing at `head` to reading at `target`: behind, with one turn."""
        return target - head if target >= head else head - target + self.u_turn

    def locate(self, start: float, target: float) -> float:
        """Return the time from reading up to `start` to reading at `target`: behind, with two turns."""
        return target - start if target >= start else start - target + 2 * self.u_turn

    def read(self, length: float) -> float:
        """Return the time to cross so much."""
        return length


@dataclass(frozen=True, slots=True)
class Run:
    """A move to the right over the files `first` … `last`."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Disjoint files in the order of the tape. The parallel tuples are as long as there are files."""

    starts: tuple[float, ...]
    ends: tuple[float, ...]
    weights: tuple[float, ...]
    #: The requests that each file stands for.
    members: tuple[tuple[int, ...], ...]
    head: float
    u_turn: float
    #: So many files begin left of the head; the others the head may reach without a turn.
    behind: int

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self.starts)

    def order(self, runs: Iterable[Run]) -> tuple[int, ...]:
        """Return the requests as these runs serve them; the last run need not be given."""
        served = [False] * len(self)
        order: list[int] = []
        for run in (*runs, Run(0, len(self) - 1)):
            for file in range(run.first, run.last + 1):
                if not served[file]:
                    served[file] = True
                    order += self.members[file]
        return tuple(order)


def stretch_of(requests: Sequence[Request], head: float, u_turn: float) -> Stretch:
    """Merge equal requests and sort. Raises RequestsOverlap when some overlap without being equal."""
    same: dict[tuple[float, float], list[int]] = {}
    for index, request in enumerate(requests):
        same.setdefault((request.start, request.end), []).append(index)
    places = sorted(same)
    for left, right in pairwise(places):
        if right[0] < left[1]:
            raise RequestsOverlap(same[left][0], same[right][0])
    return Stretch(
        starts=tuple(start for start, _ in places),
        ends=tuple(end for _, end in places),
        weights=tuple(sum(requests[index].weight for index in same[place]) for place in places),
        members=tuple(tuple(same[place]) for place in places),
        head=head,
        u_turn=u_turn,
        behind=sum(start < head for start, _ in places),
    )


@dataclass(frozen=True, slots=True)
class Points:
    """A stretch as the recurrences want it: its files, and the head as a file without length and weight among them."""

    starts: list[float]
    ends: list[float]
    weights: list[float]
    #: Weight of all files left of each.
    left: list[float]
    #: Place of the head; their number when all files begin left of it, for then it plays no part.
    head: int
    u_turn: float

    def run(self, first: int, last: int) -> Run:
        """Return a run over these points as one over files."""
        return Run(first, last if last < self.head else last - 1)

    def right(self, last: int) -> float:
        """Return the weight of all files right of a point: what can have been skipped there."""
        return self.left[-1] + self.weights[-1] - self.left[last] - self.weights[last]

    def price(self, first: int, last: int) -> tuple[float, float]:
        """Return what a run costs per weight outside of it, and what it saves in all."""
        if first != self.head:
            return 2 * (self.ends[last] + self.u_turn), 0.0
        inside = self.left[last] + self.weights[last] - self.left[first]
        return 2 * self.ends[last] + self.u_turn, self.u_turn * inside


def points_of(stretch: Stretch) -> Points:
    """Put the head among the files."""
    place = stretch.behind
    here = [stretch.head] if place < len(stretch) else []
    weights = [*stretch.weights[:place], *[0.0 for _ in here], *stretch.weights[place:]]
    return Points(
        starts=[*stretch.starts[:place], *here, *stretch.starts[place:]],
        ends=[*stretch.ends[:place], *here, *stretch.ends[place:]],
        weights=weights,
        left=[0.0, *accumulate(weights)][:-1],
        head=place,
        u_turn=stretch.u_turn,
    )
