"""Sets of frames as disjoint runs. Plain data structure, no threads, no I/O.

A recall of a whole tape names millions of frames; kept one by one they would cost a hundred bytes each.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Spans:
    """A set of numbers, kept as sorted runs (first, last), both included, with a gap between any two."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._lasts: list[int] = []

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Iterate over a snapshot of the runs."""
        return iter(list(zip(self._firsts, self._lasts, strict=True)))

    def __bool__(self) -> bool:
        return bool(self._firsts)

    def add(self, first: int, last: int) -> None:
        """Put the numbers `first` to `last` in; those that are in already stay."""
        low = bisect_left(self._lasts, first - 1)
        high = bisect_right(self._firsts, last + 1)
        if low < high:
            first = min(first, self._firsts[low])
            last = max(last, self._lasts[high - 1])
        self._firsts[low:high] = [first]
        self._lasts[low:high] = [last]

    def remove(self, first: int, last: int) -> None:
        """Take the numbers `first` to `last` out; those that are not in do no harm."""
        low = bisect_left(self._lasts, first)
        high = bisect_right(self._firsts, last)
        if low >= high:
            return
        left, right = self._firsts[low], self._lasts[high - 1]
        kept = [(left, first - 1)] if left < first else []
        kept += [(last + 1, right)] if right > last else []
        self._firsts[low:high] = [run[0] for run in kept]
        self._lasts[low:high] = [run[1] for run in kept]

    def overlaps(self, first: int, last: int) -> bool:
        """Is any of the numbers `first` to `last` in?"""
        at = bisect_left(self._lasts, first)
        return at < len(self._firsts) and self._firsts[at] <= last

    def within(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return the runs of what is in among `first` to `last`, cut to it."""
        low = bisect_left(self._lasts, first)
        high = bisect_right(self._firsts, last)
        return [(max(first, self._firsts[at]), min(last, self._lasts[at])) for at in range(low, high)]

    def clear(self) -> None:
        """Take everything out."""
        self._firsts.clear()
        self._lasts.clear()
