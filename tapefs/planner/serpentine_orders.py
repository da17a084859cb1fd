"""Orders to begin with on an LTO cartridge, as numbers of pieces, which are by place. numpy; pure; any thread."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tapefs.planner.serpentine_costs import Costs

Floats = NDArray[np.float64]
Order = list[int]


def by_block(costs: Costs) -> Order:
    """Return the order of the blocks: what everybody does."""
    return list(range(len(costs) - 1))


def scan(costs: Costs) -> Order:
    """Return one way there and one back along the tape, whatever the wraps; the way that begins nearer comes first."""
    x_m, wrap = costs.starts.x_m[1:], costs.starts.wrap[1:]
    pieces = np.arange(len(x_m))
    out = pieces[wrap & 1 == 0]
    back = pieces[wrap & 1 == 1]
    ways = [out[np.argsort(x_m[out], kind="stable")], back[np.argsort(-x_m[back], kind="stable")]]
    if not costs.ends.is_near[0]:
        ways.reverse()
    return [int(piece) for way in ways for piece in way]


def nearest(costs: Costs, with_reading: bool) -> Order:
    """Return what a greedy drive does: always what is nearest; with the reading counted, by weight, or without.

    10,000 pieces take half a second.
    """
    row = _Rows(costs, with_reading)
    order: Order = []
    at = 0
    for _ in range(len(costs) - 1):
        at = row.nearest(at)
        order.append(at - 1)
    return order


class _Rows:
    """The pieces that are left, for a head that goes from one to the next.

    The costs of a step depend on the place only by the halves of wraps where it begins and ends, but for the distance
    and for the pieces on the head's own wrap: a table, and few operations on long vectors.
    """

    def __init__(self, costs: Costs, with_reading: bool) -> None:
        motion = costs.motion
        fit = motion.coefficients
        self._fit = fit
        self._reading_per_locating = 1 / (motion.generation.read_m_s * fit.s_per_m)
        self._end_s = costs.ends.x_m * fit.s_per_m
        self._end_half = costs.ends.wrap * 2 + costs.ends.is_near
        self._table = _halves(costs)
        #: The pieces that are left, by place; infinitely far when they are gone.
        self._left = np.arange(1, len(costs))
        self._x_s = costs.starts.x_m * fit.s_per_m
        self._half = costs.starts.wrap * 2 + costs.starts.is_near
        self._wrap = costs.starts.wrap
        self._more = costs.read_s if with_reading else np.zeros(len(costs))
        self._scale = 1 / np.maximum(costs.weights, 1e-300) if with_reading else np.ones(len(costs))
        self._gone = 0
        self._pick(self._left)

    def _pick(self, places: NDArray[np.intp]) -> None:
        self._x_s, self._half, self._wrap = self._x_s[places], self._half[places], self._wrap[places]
        self._more, self._scale = self._more[places], self._scale[places]
        self._gone = 0

    def nearest(self, at: int) -> int:
        """Return the point that is nearest to the end of another, and forget it."""
        half = int(self._end_half[at])
        seconds = np.abs(self._x_s - self._end_s[at])
        seconds += self._table[half].take(self._half)
        self._correct(seconds, half >> 1, float(self._end_s[at]))
        seconds += self._more
        seconds *= self._scale
        place = int(seconds.argmin())
        found = int(self._left[place])
        self._x_s[place] = np.inf
        self._gone += 1
        if self._gone * 2 > len(self._left) and self._gone < len(self._left):
            kept = np.flatnonzero(np.isfinite(self._x_s))
            self._left = self._left[kept]
            self._pick(kept)
        return found

    def _correct(self, seconds: Floats, wrap: int, end_s: float) -> None:
        """On the head's own wrap behind is dear, and ahead may be read through."""
        first, last = np.searchsorted(self._wrap, (wrap, wrap + 1))
        if first == last:
            return
        own = seconds[first:last]
        ahead_s = self._x_s[first:last] - end_s
        if wrap & 1:
            ahead_s = -ahead_s
        is_back = (ahead_s < 0) & np.isfinite(own)
        own[is_back] += self._fit.step_back_s
        own[~is_back] = np.minimum(own[~is_back], np.abs(ahead_s[~is_back]) * self._reading_per_locating)
        np.maximum(own, 0.0, out=own)


def _halves(costs: Costs) -> Floats:
    """Return what a locate costs beside the distance, from each half of each wrap to each; on one wrap: ahead."""
    motion = costs.motion
    fit = motion.coefficients
    halves = np.arange(2 * motion.generation.wraps)
    wrap, is_near = halves >> 1, halves & 1
    band = wrap // motion.generation.wraps_per_band
    other = fit.wrap_change_s + fit.band_change_s * (band[:, None] != band)
    other = other + fit.direction_change_s * ((wrap[:, None] ^ wrap) & 1)
    seconds: Floats = np.where(wrap[:, None] == wrap, 0.0, other)
    seconds += fit.start_s + fit.half_change_s * (is_near[:, None] != is_near)
    return seconds
