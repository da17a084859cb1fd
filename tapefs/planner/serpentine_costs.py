"""What it costs to go from piece to piece on an LTO cartridge: the motion model on vectors. numpy; pure; any thread.

Point 0 is the head, point i + 1 is piece i. `cost(a, b)` is the locate from the end of a to the start of b, and the
reading of b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivers.virtual.motion import Motion
from tapefs.planner.serpentine import Piece

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

#: Up to so many points all costs are kept: 11 MB.
_MATRIX_POINTS = 1200


@dataclass(frozen=True, slots=True)
class Places:
    """Where points lie, one number each per vector."""

    byte: Indices
    wrap: Indices
    band: Indices
    #: Distance from the load point.
    x_m: Floats
    #: In the half of the tape that is nearer to the load point.
    is_near: NDArray[np.bool_]

    def at(self, indices: Indices) -> Places:
        """Return some of the places."""
        return Places(
            self.byte[indices], self.wrap[indices], self.band[indices], self.x_m[indices], self.is_near[indices]
        )


def places_of(motion: Motion, byte: Indices) -> Places:
    """Return where bytes lie: `Motion.place`, for many."""
    tape = motion.generation
    wrap, rest = np.divmod(byte, tape.wrap_bytes)
    rest[wrap >= tape.wraps] = tape.wrap_bytes
    wrap = np.minimum(wrap, tape.wraps - 1)
    along_m = tape.length_m * rest / tape.wrap_bytes
    x_m = np.where(wrap & 1, tape.length_m - along_m, along_m)
    return Places(byte, wrap, wrap // tape.wraps_per_band, x_m, x_m < tape.length_m / 2)


def between_s(motion: Motion, start: Places, target: Places) -> Floats:
    """Return the seconds of locates: `Motion.between_s`, for many; the shapes are broadcast."""
    fit = motion.coefficients
    distance_m = np.abs(target.x_m - start.x_m)
    seconds = distance_m * fit.s_per_m + fit.start_s
    seconds += fit.half_change_s * (start.is_near != target.is_near)
    is_same = start.wrap == target.wrap
    is_back = (target.x_m < start.x_m) != (start.wrap & 1).astype(bool)
    other = fit.wrap_change_s + fit.band_change_s * (start.band != target.band)
    other += fit.direction_change_s * ((start.wrap ^ target.wrap) & 1)
    seconds += np.where(is_same, fit.step_back_s * is_back, other)
    ahead = np.minimum(seconds, distance_m / motion.generation.read_m_s)
    seconds = np.maximum(np.where(is_same & ~is_back, ahead, seconds), 0.0)
    return np.where(is_same & (start.x_m == target.x_m), 0.0, seconds)


class Costs:
    """The costs between the head and all pieces."""

    def __init__(self, motion: Motion, head: float, pieces: Sequence[Piece]) -> None:
        self.motion = motion
        ends = np.array([int(head), *(int(piece.end) for piece in pieces)], dtype=np.intp)
        starts = np.array([int(head), *(int(piece.start) for piece in pieces)], dtype=np.intp)
        #: Where points begin, and where the head is after them.
        self.starts = places_of(motion, starts)
        self.ends = places_of(motion, ends)
        self.read_s: Floats = (ends - starts) / motion.generation.rate_bytes_s
        self.weights = np.array([0.0, *(piece.weight for piece in pieces)])
        self._matrix = (
            self._compute(np.arange(len(ends))[:, None], np.arange(len(ends))[None, :]) if self._fits() else None
        )

    def __len__(self) -> int:
        """Return the number of points: pieces and head."""
        return len(self.weights)

    def cost(self, a: Indices, b: Indices) -> Floats:
        """Return the seconds from having read a to having read b; the shapes are broadcast."""
        if self._matrix is None:
            return self._compute(a, b)
        found: Floats = self._matrix[a, b]
        return found

    def response(self, order: Sequence[int]) -> float:
        """Return the weighted sum of the seconds until each piece is read; `order` counts pieces from 0."""
        points = np.array([0, *order], dtype=np.intp)
        points[1:] += 1
        done = np.cumsum(self.cost(points[:-1], points[1:]))
        return float(done @ self.weights[points[1:]])

    def _fits(self) -> bool:
        return len(self) <= _MATRIX_POINTS

    def _compute(self, a: Indices, b: Indices) -> Floats:
        return between_s(self.motion, self.ends.at(a), self.starts.at(b)) + self.read_s[b]
