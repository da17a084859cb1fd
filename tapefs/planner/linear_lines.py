"""A good order on a straight tape for many files of any weights. numpy; pure; any thread.

The recurrence of `linear_small` for runs that do not lie within one another. Then one vector of lines per file is
enough: `V(b)`, what is still to be paid from first reaching the right end of b, as lines in the weight k skipped right
of b. To tell which lines are worth keeping they are compared at a few k. A run that ends at b may begin at one of the
`near` files left of it, or at one of the `far` beginnings that were good for the files before.

Nothing here is infeasible: a line is a schedule. The time is linear in the number of files; 16 near and 8 far
beginnings come within half a per cent of the optimum on clustered tapes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapefs.planner.linear import Run, Stretch

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

#: At so many k lines are compared, and so many are kept at most.
_KEPT = 16
#: Where between nothing and all: small weights are more frequent, because runs serve most of what was passed.
_SHARES = np.linspace(0.0, 1.0, _KEPT) ** 2
#: Runs from left of the head beyond it: so many pairs of beginning and end are compared at once.
_PAIRS = 2_000_000


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a run may begin."""

    near: int
    far: int


def best_by_lines(stretch: Stretch, reach: Reach) -> list[Run]:
    """Return the runs of the best schedule found."""
    return _Lines(stretch, reach).runs() if stretch.behind else []


class _Lines:
    """The lines of all files left of the head, row by row; unused places have an infinite base."""

    def __init__(self, stretch: Stretch, reach: Reach) -> None:
        self._stretch = stretch
        self._starts = np.array(stretch.starts)
        self._ends = np.array(stretch.ends)
        self._weights = np.array(stretch.weights)
        #: Before each file, and after the last: the weight so far, and weight times start so far.
        self._left = np.concatenate(([0.0], np.cumsum(self._weights)))
        self._moments = np.concatenate(([0.0], np.cumsum(self._weights * self._starts)))
        count = stretch.behind
        self._slopes = np.zeros((count, _KEPT))
        self._bases = np.full((count, _KEPT), np.inf)
        #: What a line did at its file: where its run begins, -1 when the file is skipped; and the line it goes on with.
        self._begins = np.full((count, _KEPT), -1, dtype=np.intp)
        self._parents = np.zeros((count, _KEPT), dtype=np.intp)
        self._bases[0, 0] = 0.0
        self._slopes[0, 0] = -2 * self._starts[0]
        self._reach = reach
        self._far: Indices = np.empty(0, dtype=np.intp)
        for last in range(1, count):
            self._fill(last)

    def _run(self, begins: Indices, last: int) -> tuple[Floats, Floats]:
        """Return slope and base of what runs from `begins` to `last` add to the lines before them."""
        starts = self._starts[begins]
        price = 2 * (self._ends[last] + self._stretch.u_turn)
        slopes = price - 2 * starts
        bases = price * self._left[begins] + 2 * (self._moments[last + 1] - self._moments[begins + 1])
        bases -= 2 * starts * (self._left[last + 1] - self._weights[begins])
        return slopes, bases

    def _fill(self, last: int) -> None:
        begins = np.concatenate((self._far, np.arange(max(1, last - self._reach.near + 1), last + 1, dtype=np.intp)))
        more_slope, more_base = self._run(begins, last)
        before, weight = begins - 1, self._weights[last]
        slopes = np.concatenate((self._slopes[last - 1], (self._slopes[before] + more_slope[:, None]).ravel()))
        bases = np.concatenate((self._bases[last - 1], (self._bases[before] + more_base[:, None]).ravel()))
        bases[:_KEPT] += weight * (slopes[:_KEPT] + 2 * self._starts[last])
        skipped = _SHARES * (self._left[-1] - self._left[last + 1])
        costs = np.multiply.outer(skipped, slopes) + bases
        kept = np.array(list(dict.fromkeys(costs.argmin(axis=1).tolist())), dtype=np.intp)
        choice, line = np.divmod(kept, _KEPT)
        self._slopes[last, : len(kept)] = slopes[kept]
        self._bases[last, : len(kept)] = bases[kept]
        self._begins[last, : len(kept)] = np.where(choice == 0, -1, begins[choice - 1])
        self._parents[last, : len(kept)] = line
        if self._reach.far and last >= self._reach.near:
            self._keep_far(begins, costs)

    def _keep_far(self, begins: Indices, costs: Floats) -> None:
        """Of the far beginnings and the one that becomes far, keep those that come nearest to the best."""
        count = len(self._far) + 1
        if count > self._reach.far:
            far = costs[:, _KEPT : _KEPT * (count + 1)].reshape(_KEPT, count, _KEPT).min(axis=2)
            worst = int((far - costs.min(axis=1)[:, None]).min(axis=0).argmax())
            self._far = np.delete(begins[:count], worst)
        else:
            self._far = begins[:count]

    def runs(self) -> list[Run]:
        """Return the runs in the order of time."""
        behind = self._stretch.behind
        found: list[Run] = []
        if behind == len(self._stretch):
            return self._walk(behind - 1, 0.0)
        ends = np.arange(behind, len(self._stretch))
        skipped = self._left[-1] - self._left[ends + 1]
        everything = self._left[-1] - self._left[behind]
        best = float(self._least(behind - 1, np.array([everything]))[0] + self._tail(behind))
        next_file, left_over = behind - 1, float(everything)
        for begin in self._crossing(len(ends)):
            costs = self._cross(begin, ends, skipped)
            end = int(costs.argmin())
            if costs[end] < best:
                best, next_file, left_over = float(costs[end]), begin - 1, float(skipped[end])
                found = [Run(begin, behind + end)]
        return found + self._walk(next_file, left_over)

    def _crossing(self, count: int) -> list[int]:
        """Return where runs past the head may begin: there, near it, and here and there; 0 would be the last run."""
        behind = self._stretch.behind
        spaced = np.linspace(1, behind, num=min(behind, max(_PAIRS // count, 1)), dtype=np.intp)
        return sorted({*spaced.tolist(), *range(max(1, behind - self._reach.near), behind + 1)}, reverse=True)

    def _cross(self, begin: int, ends: Indices, skipped: Floats) -> Floats:
        """Return what it costs to run first from `begin`, or from the head if that is all behind, to each of `ends`."""
        after = self._least(begin - 1, skipped) + self._tail(ends + 1)
        if begin == self._stretch.behind:
            head, u_turn = self._stretch.head, self._stretch.u_turn
            inside = self._left[ends + 1] - self._left[begin]
            moved: Floats = 2 * (self._moments[ends + 1] - self._moments[begin] - head * inside) - u_turn * inside
            moved += (2 * (self._ends[ends] - head) + u_turn) * (self._left[-1] - inside)
            return after + moved
        price = 2 * (self._ends[ends] + self._stretch.u_turn)
        start, weight = self._starts[begin], self._weights[begin]
        moved = 2 * (self._moments[ends + 1] - self._moments[begin + 1] - start * (self._left[ends + 1] - weight))
        run: Floats = moved + price * self._left[begin] + (price - 2 * start) * skipped
        return after + run

    def _tail(self, first: Indices | int) -> Floats:
        """Return what skipping all files from `first` on adds."""
        added: Floats = 2 * np.asarray(self._moments[-1] - self._moments[first])
        return added

    def _least(self, file: int, skipped: Floats) -> Floats:
        """Return V(file) for several weights skipped."""
        least: Floats = (np.multiply.outer(skipped, self._slopes[file]) + self._bases[file]).min(axis=1)
        return least

    def _walk(self, file: int, skipped: float) -> list[Run]:
        """Return the runs of the best line of a file."""
        line = int((self._bases[file] + self._slopes[file] * skipped).argmin())
        found: list[Run] = []
        while file > 0:
            begin, line_before = int(self._begins[file, line]), int(self._parents[file, line])
            if begin >= 0:
                found.append(Run(begin, file))
            file, line = (begin if begin >= 0 else file) - 1, line_before
        return found
