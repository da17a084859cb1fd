"""Learns the motion of one drive from its own locates. numpy; pure; any thread.

The seven coefficients of the model are fitted to measured locates by least squares. Single locates can take long for
reasons of their own (a retry, a busy bus), so what lies far off counts less (Huber's weights). The coefficients of
before stand for some measurements, too: what too few locates tell about stays as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from drivers.virtual.motion import Coefficients, Motion
from tapefs.planner.serpentine_costs import Places, places_of

Floats = NDArray[np.float64]

#: The coefficients of before count as so many measurements of each term.
_BEFORE = 5.0
#: Distance of those, as a share of the tape: that of two random places.
_BEFORE_WAY = 1 / 3
#: Errors up to so many deviations count in full: 95 % of the efficiency of plain least squares.
_HUBER = 1.345
#: From the median of absolute errors to the standard deviation.
_MEDIAN_TO_DEVIATION = 1.4826
#: An error smaller than this is no outlier, however good the others fit.
_LEAST_DEVIATION_S = 0.05
_ROUNDS = 30
#: Of fewer it is not known which are outliers.
_LEAST_LOCATES = 20


@dataclass(frozen=True, slots=True)
class Locate:
    """A locate that was measured; bytes of payload from the start of the tape."""

    start_byte: int
    target_byte: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Fit:
    """What came out."""

    coefficients: Coefficients
    #: Locates that told something; not those that stayed or may have read through a gap. 0: nothing was changed.
    used: int
    #: Median of the absolute errors of those, by the coefficients of before and by the new ones.
    error_before_s: float
    error_s: float


def refit(motion: Motion, locates: Sequence[Locate]) -> Fit:
    """Return coefficients for the drive of these locates, starting from those of `motion`."""
    start = places_of(motion, np.array([each.start_byte for each in locates], dtype=np.intp))
    target = places_of(motion, np.array([each.target_byte for each in locates], dtype=np.intp))
    terms, tells = _terms(motion, start, target)
    seconds = np.array([each.seconds for each in locates])
    terms, seconds = terms[tells], seconds[tells]
    before = _numbers(motion.coefficients)
    if len(seconds) < _LEAST_LOCATES:
        return Fit(motion.coefficients, 0, 0.0, 0.0)
    found = _robust(terms, seconds, before, motion.generation.length_m)
    # A locate takes time, and more for more distance, whatever the noise says.
    found[:2] = np.maximum(found[:2], before[:2] * 0.05)
    return Fit(
        coefficients=Coefficients(*(float(number) for number in found)),
        used=len(seconds),
        error_before_s=float(np.median(np.abs(seconds - terms @ before))),
        error_s=float(np.median(np.abs(seconds - terms @ found))),
    )


def _numbers(coefficients: Coefficients) -> Floats:
    return np.array([getattr(coefficients, field.name) for field in fields(Coefficients)])


def _terms(motion: Motion, start: Places, target: Places) -> tuple[Floats, NDArray[np.bool_]]:
    """Return what each coefficient is multiplied with, and which locates tell anything about them."""
    distance_m = np.abs(target.x_m - start.x_m)
    is_same = start.wrap == target.wrap
    is_back = is_same & ((target.x_m < start.x_m) != (start.wrap & 1).astype(bool))
    terms = np.column_stack(
        (
            distance_m,
            np.ones(len(distance_m)),
            ~is_same,
            start.band != target.band,
            start.is_near != target.is_near,
            ((start.wrap ^ target.wrap) & 1) != 0,
            is_back,
        )
    ).astype(np.float64)
    is_read_through = is_same & ~is_back & (np.abs(target.byte - start.byte) <= 2 * motion.break_even_bytes())
    return terms, (start.byte != target.byte) & ~is_read_through


def _robust(terms: Floats, seconds: Floats, before: Floats, length_m: float) -> Floats:
    """Return the coefficients by least squares, with weights from the errors of the round before."""
    scale = np.ones(len(before))
    scale[0] = length_m * _BEFORE_WAY
    prior = np.diag(scale * np.sqrt(_BEFORE))
    found, weights = before, np.ones(len(seconds))
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)
        rows = np.vstack((terms * root[:, None], prior))
        new = np.linalg.lstsq(rows, np.concatenate((seconds * root, prior @ before)))[0]
        if np.allclose(new, found, rtol=1e-6, atol=1e-9):
            break
        found = new
        errors = np.abs(seconds - terms @ found)
        deviation = max(_MEDIAN_TO_DEVIATION * float(np.median(errors)), _LEAST_DEVIATION_S)
        weights = np.minimum(1.0, _HUBER * deviation / np.maximum(errors, 1e-12))
    return found
