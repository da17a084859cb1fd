"""The best order on a straight tape, for whole weights. numpy; pure; any thread.

The recurrence of `linear_small`, as a table over the weight that was skipped: N² / 2 vectors with one number per unit
of weight. Needs N² n / 4 numbers of 8 bytes and N³ n / 24 steps or so, n the sum of the weights.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tapefs.planner.linear import Points, Run, Stretch, points_of

Floats = NDArray[np.float64]


def best_by_table(stretch: Stretch) -> list[Run]:
    """Return the runs of the best schedule; the weights are whole numbers."""
    return _Table(points_of(stretch)).runs() if stretch.behind else []


class _Table:
    """`rows[a][b - a, k]` is T'(a, b, k)."""

    def __init__(self, points: Points) -> None:
        self._points = points
        count, head = len(points.starts), points.head
        self._weights = [round(weight) for weight in points.weights]
        self._skippable = [round(points.right(last)) for last in range(count)]
        self._rows = [np.empty((count - first, self._skippable[first] + 1)) for first in range(min(count, head + 1))]
        skipped = np.arange(round(points.left[-1] + points.weights[-1]) + 1, dtype=np.float64)
        for last in range(count):
            self._fill(last, skipped[: self._skippable[last] + 1])

    def _fill(self, last: int, skipped: Floats) -> None:
        points, width = self._points, len(skipped)
        #: T'(c, b, k) and the price of the run c … b, for every c.
        priced = np.empty((last + 1, width))
        gain = 2 * points.starts[last] * points.weights[last]
        weight = self._weights[last]
        for first in range(min(last, points.head), -1, -1):
            row = self._rows[first][last - first, :width]
            if first == last:
                np.multiply(skipped + points.left[last], -2 * points.starts[last], out=row)
            else:
                np.add(self._rows[first][last - first - 1, weight : weight + width], gain, out=row)
                begins = min(last, points.head)
                if last != points.head and begins > first:
                    runs = self._rows[first][: begins - first, :width] + priced[first + 1 : begins + 1]
                    np.minimum(row, runs.min(axis=0), out=row)
            price, saved = points.price(first, last)
            np.add(row, price * (skipped + points.left[first]) - saved, out=priced[first])

    def runs(self) -> list[Run]:
        """Walk through the table again and return the runs in the order of time."""
        found: list[Run] = []
        todo: list[tuple[int, int, int] | Run] = [(0, len(self._points.starts) - 1, 0)]
        while todo:
            each = todo.pop()
            if isinstance(each, Run):
                found.append(each)
                continue
            first, last, skipped = each
            if first == last:
                continue
            begin = self._begin(first, last, skipped)
            if begin is None:
                todo.append((first, last - 1, skipped + self._weights[last]))
            else:
                todo += [(first, begin - 1, skipped), self._points.run(begin, last), (begin, last, skipped)]
        return found

    def _begin(self, first: int, last: int, skipped: int) -> int | None:
        """Return where the run that ends at `last` begins; None when `last` is skipped."""
        points = self._points
        if last == points.head:
            return None
        weight = self._weights[last]
        best = float(self._rows[first][last - first - 1, skipped + weight])
        best += 2 * points.starts[last] * points.weights[last]
        found = None
        for begin in range(first + 1, min(last, points.head) + 1):
            price, saved = points.price(begin, last)
            cost = float(self._rows[first][begin - first - 1, skipped] + self._rows[begin][last - begin, skipped])
            cost += price * (skipped + points.left[begin]) - saved
            if cost < best:
                best, found = cost, begin
        return found
