"""Making an order on an LTO cartridge better bit by bit. numpy; pure but for the clock of its budget; any thread.

A step swaps two neighbouring blocks of pieces, one of them short: that is moving one to 21 pieces to another place.
What a swap is worth depends on the lengths and weights of the blocks, not on when they come. So all swaps of a kind are
rated at once, and of those that gain the best are made whose stretches of the order do not touch: then each gains what
was computed. With many pieces only some distances are tried each time, drawn anew with a fixed seed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tapefs.planner.serpentine_costs import Costs, Floats, Indices

#: Pieces of the short block.
_SHORT = (1, 2, 3, 5, 8, 13, 21)
#: So many swaps are rated at once: 20 ms.
_AT_ONCE = 200_000
#: A gain below this share of the whole is rounding.
_WORTH = 1e-9
#: So often an order is disturbed, if it is long enough; a near disturbance stays within so many places.
_KICKS = 40
_LEAST_KICKED = 8
_NEAR = 30
#: When only some distances are tried, so many rounds without gain end the search.
_IDLE_ROUNDS = 3


class _Kind(NamedTuple):
    """Which of two neighbouring blocks is short, and its pieces."""

    short: int
    is_first: bool


class _Swaps(NamedTuple):
    """Blocks at the places `first` … `middle` and `middle + 1` … `last`, to change places; by rising `first`."""

    first: Indices
    middle: Indices
    last: Indices


def improve(costs: Costs, order: list[int], budget_s: float, now: Callable[[], float] = time.monotonic) -> list[int]:
    """Return an order with no greater weighted sum of responses; ends with the budget, or when nothing helps."""
    until = now() + budget_s
    search = _Search(costs, order)
    kinds = [_Kind(short, is_first) for short in _SHORT if short < len(order) for is_first in (True, False)]
    idle, turn = 0, 0
    while idle < len(kinds) * search.patience and now() < until:
        idle = 0 if search.step(kinds[turn % len(kinds)]) else idle + 1
        turn += 1
    return search.order()


def kick(costs: Costs, order: list[int], budget_s: float, now: Callable[[], float] = time.monotonic) -> list[int]:
    """Return an order with no greater weighted sum, after disturbing and improving it again and again.

    For orders that `improve` has brought to an end. 40 kicks gain 1 % with 100 pieces and take less than a second.
    """
    until = now() + budget_s
    chance = random.Random(0)  # noqa: S311 - no secret: the same plan every time, but for the budget
    best, least = order, costs.response(order)
    for turn in range(_KICKS):
        if now() >= until or len(order) < _LEAST_KICKED:
            break
        other = improve(costs, _disturbed(best, chance, is_near=turn % 2 == 0), until - now(), now)
        response = costs.response(other)
        if response < least:
            best, least = other, response
    return best


def _disturbed(order: list[int], chance: random.Random, is_near: bool) -> list[int]:
    """Return the order with two neighbouring blocks swapped and two more, within a short stretch of it or anywhere."""
    room = min(len(order), _NEAR) if is_near else len(order)
    first = chance.randrange(len(order) - room + 1)
    a, b, c, d = sorted(first + place for place in chance.sample(range(room + 1), 4))
    return [*order[:a], *order[c:d], *order[b:c], *order[a:b], *order[d:]]


class _Search:
    """An order under work: `_points[p]` is the point at place p, the head is at place 0."""

    def __init__(self, costs: Costs, order: list[int]) -> None:
        self._costs = costs
        self._points: Indices = np.array([0, *(piece + 1 for piece in order)], dtype=np.intp)
        self._chance = np.random.default_rng(0)
        self._whole: dict[_Kind, _Swaps] = {}
        self._is_whole = len(order) ** 2 <= _AT_ONCE
        #: So many idle turns of every kind mean the end.
        self.patience = 1 if self._is_whole else _IDLE_ROUNDS
        self._measure()

    def order(self) -> list[int]:
        """Return the pieces in order."""
        return [int(point) - 1 for point in self._points[1:]]

    def _measure(self) -> None:
        """Compute for each place: the step to it, when it is done, and what waits for it; all end with a zero."""
        steps = self._costs.cost(self._points[:-1], self._points[1:])
        self._steps = np.concatenate(([0.0], steps, [0.0]))
        self._done = np.concatenate(([0.0], np.cumsum(steps), [0.0]))
        weights = self._costs.weights[self._points]
        self._waiting = np.concatenate((np.cumsum(weights[::-1])[::-1], [0.0]))
        self._worth = _WORTH * float(self._steps @ self._waiting)

    def step(self, kind: _Kind) -> bool:
        """Make the best swaps of a kind; return whether there were any."""
        swaps = self._swaps(kind)
        change = self._change(swaps)
        rows = np.flatnonzero(np.diff(swaps.first, prepend=0))
        best = np.minimum.reduceat(change, rows)
        gaining = np.flatnonzero(best < -self._worth)
        if not len(gaining):
            return False
        # Which of a row it was: the first that has the row's minimum.
        is_best = change == np.repeat(best, np.diff(rows, append=len(change)))
        where = np.flatnonzero(is_best)
        chosen = where[np.searchsorted(where, rows[gaining])]
        self._make(swaps, chosen[np.argsort(change[chosen], kind="stable")])
        self._measure()
        return True

    def _make(self, swaps: _Swaps, chosen: Indices) -> None:
        is_taken = np.zeros(len(self._points) + 2, dtype=np.bool_)
        for number in chosen.tolist():
            first, middle, last = int(swaps.first[number]), int(swaps.middle[number]), int(swaps.last[number])
            if is_taken[first - 1 : last + 2].any():
                continue
            is_taken[first : last + 1] = True
            blocks = self._points[first : middle + 1].copy(), self._points[middle + 1 : last + 1].copy()
            self._points[first : last + 1] = np.concatenate(blocks[::-1])

    def _swaps(self, kind: _Kind) -> _Swaps:
        count = len(self._points) - 1
        longest = count - kind.short
        if not self._is_whole:
            lengths = self._chance.integers(1, longest + 1, size=max(4, _AT_ONCE // count))
            # Half of them short: a greedy order is mostly wrong in its near neighbourhood.
            lengths[::2] = np.arange(1, len(lengths[::2]) + 1)
            return _swaps(count, kind, np.unique(lengths[lengths <= longest]))
        if kind not in self._whole:
            self._whole[kind] = _swaps(count, kind, np.arange(1, longest + 1))
        return self._whole[kind]

    def _change(self, swaps: _Swaps) -> Floats:
        """Return what each swap adds to the weighted sum."""
        first, middle, last = swaps
        points, done, steps, waiting = self._points, self._done, self._steps, self._waiting
        after = np.append(points, 0)
        cost = self._costs.cost
        to_second = cost(points[first - 1], after[middle + 1])
        to_first = cost(points[last], points[first])
        onwards = np.where(last + 1 < len(points), cost(points[middle], after[last + 1]), 0.0)
        within_first = done[middle] - done[first]
        within_second = done[last] - done[middle + 1]
        old_first, old_second, old_onwards = steps[first], steps[middle + 1], steps[last + 1]
        second_later = to_second - (old_first + within_first + old_second)
        first_later = to_second + within_second + to_first - old_first
        rest_later = to_second + to_first + onwards - old_first - old_second - old_onwards
        waiting_rest = waiting[last + 1]
        waiting_second = waiting[middle + 1] - waiting_rest
        waiting_first = waiting[first] - waiting[middle + 1]
        change: Floats = waiting_second * second_later + waiting_first * first_later + waiting_rest * rest_later
        return change


def _swaps(count: int, kind: _Kind, lengths: Indices) -> _Swaps:
    """Return all swaps of a kind among `count` pieces whose long block has one of the `lengths`."""
    first, length = np.meshgrid(np.arange(1, count + 1), lengths, indexing="ij")
    fits = first + length + kind.short - 1 <= count
    first, length = first[fits], length[fits]
    middle = first + (kind.short if kind.is_first else length) - 1
    return _Swaps(first, middle, first + length + kind.short - 1)
