"""The best order on a straight tape, for few files of any weights. Pure Python; any thread.

The exact recurrence, over schedules as straight lines. `T(a, b, k)` is what is still to be paid, beyond the lower
bound, from first reaching the right end of b until coming back to it by the run that begins at a, when a weight k has
been skipped right of b. As a function of k every schedule is a line, so the best is a minimum of lines, and only those
that are best for some k are kept. Written with `T'(a, b, k) = T(a, b, k) - 2 end(b) (k + left(a))`:

    T'(b, b, k) = -2 start(b) (k + left(b))
    skip b      = T'(a, b - 1, k + weight(b)) + 2 start(b) weight(b)
    run c … b   = T'(a, c - 1, k) + T'(c, b, k) + 2 (end(b) + turn) (k + left(c))       a < c <= b

`left(b)` is the weight left of b. Files right of the head count as skipped from the start. The head itself is one more
place for a run to begin, which saves what begins there a turn.
"""

from __future__ import annotations

from typing import NamedTuple

from tapefs.planner.linear import Points, Run, Stretch, points_of


class _Runs(NamedTuple):
    """The runs of a schedule from right to left, shared between schedules."""

    inner: _Runs | None
    run: Run
    rest: _Runs | None


class _Line(NamedTuple):
    """What a schedule costs when weight k was skipped before: `base + slope * k`."""

    slope: float
    base: float
    runs: _Runs | None


def best_of_few(stretch: Stretch) -> list[Run]:
    """Return the runs of the best schedule. The time grows with the fourth power of the number of files or so."""
    if not stretch.behind:
        return []
    points = points_of(stretch)
    best: dict[tuple[int, int], list[_Line]] = {}
    for last in range(len(points.starts)):
        for first in range(min(last, points.head), -1, -1):
            best[first, last] = _envelope(_choices(points, best, first, last), points.right(last))
    return _flat(min(best[0, len(points.starts) - 1], key=lambda line: line.base).runs)


def _choices(points: Points, best: dict[tuple[int, int], list[_Line]], first: int, last: int) -> list[_Line]:
    start, weight = points.starts[last], points.weights[last]
    if first == last:
        return [_Line(-2 * start, -2 * start * points.left[last], None)]
    lines = [
        _Line(line.slope, line.base + line.slope * weight + 2 * start * weight, line.runs)
        for line in best[first, last - 1]
    ]
    if last == points.head:
        return lines
    for begin in range(first + 1, min(last, points.head) + 1):
        price, saved = points.price(begin, last)
        run = points.run(begin, last)
        lines += [
            _Line(
                rest.slope + inner.slope + price,
                rest.base + inner.base + price * points.left[begin] - saved,
                _Runs(inner.runs, run, rest.runs),
            )
            for rest in best[first, begin - 1]
            for inner in best[begin, last]
        ]
    return lines


def _envelope(lines: list[_Line], most: float) -> list[_Line]:
    """Return the lines that are lowest somewhere in 0 … `most`, by falling slope."""
    kept: list[_Line] = []
    for line in sorted(lines, key=lambda line: (-line.slope, line.base)):
        if kept and line.slope == kept[-1].slope:
            continue
        while kept and (
            line.base <= kept[-1].base or (len(kept) > 1 and _meet(kept[-2], line) <= _meet(kept[-2], kept[-1]))
        ):
            kept.pop()
        if not kept or _meet(kept[-1], line) < most:
            kept.append(line)
    return kept


def _meet(steep: _Line, flat: _Line) -> float:
    return (flat.base - steep.base) / (steep.slope - flat.slope)


def _flat(runs: _Runs | None) -> list[Run]:
    """Return the runs in the order of time: what lies within a run comes before it, what lies left of it after."""
    flat: list[Run] = []
    todo: list[_Runs | Run | None] = [runs]
    while todo:
        each = todo.pop()
        if isinstance(each, Run):
            flat.append(each)
        elif each is not None:
            todo += [each.rest, each.run, each.inner]
    return flat
