"""How long an LTO drive moves: a pure serpentine model, for the virtual drive and for planners. Any thread.

Data runs over the whole length of the tape on wrap 0, back on wrap 1, and so on; a quarter of the wraps make a band. A
position is the number of payload bytes before it, at the generation's native density: a small virtual cartridge is the
first piece of a real tape.

Locate times follow the linear regression that CERN published for LTO-7 drives: a constant, terms for changing wrap,
band, half of the tape and direction, a term for stepping back on the same wrap, and the distance. Two rules are added:
the place where the head stands costs nothing, and on the same wrap ahead a drive may as well read through the gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from drivers.virtual.generations import Generation, lto

#: Robot arm: take, carry, put.
MOVE_S = 10.0
_REWIND_START_S = 5.0


@dataclass(frozen=True, slots=True)
class Coefficients:
    """The seven numbers of a locate; those of CERN's regression, if nothing else is known of a drive."""

    #: Speed over the tape while locating, inverted.
    s_per_m: float
    start_s: float = 4.29
    wrap_change_s: float = 6.69
    band_change_s: float = 3.2
    #: Negative in CERN's fit: the speed gained on long ways.
    half_change_s: float = -6.04
    direction_change_s: float = 5.22
    step_back_s: float = 11.32


@dataclass(frozen=True, slots=True)
class Place:
    """Where a byte lies on the tape."""

    #: Pass over the tape, from 0; even ones run away from the load point.
    wrap: int
    #: Quarter of the wraps, from 0.
    band: int
    #: Distance from the load point.
    x_m: float


class Motion:
    """The times of one generation of cartridge. Bytes count payload from the start of the tape.

    `coefficients`: those fitted to a certain drive; else the generation's.
    """

    def __init__(self, generation: Generation, coefficients: Coefficients | None = None) -> None:
        self.generation = generation
        self.coefficients = coefficients or Coefficients(s_per_m=1 / generation.locate_m_s)

    def place(self, byte: int) -> Place:
        """Return where `byte` lies; behind the native capacity the end of the last wrap."""
        tape = self.generation
        wrap, rest = divmod(byte, tape.wrap_bytes)
        if wrap >= tape.wraps:
            wrap, rest = tape.wraps - 1, tape.wrap_bytes
        x_m = tape.length_m * rest / tape.wrap_bytes
        return Place(wrap, wrap // tape.wraps_per_band, tape.length_m - x_m if wrap % 2 else x_m)

    def locate_s(self, from_byte: int, to_byte: int) -> float:
        """Return the seconds from the end of one transfer at `from_byte` to the start of one at `to_byte`."""
        return self.between_s(self.place(from_byte), self.place(to_byte))

    def between_s(self, start: Place, target: Place) -> float:
        """Return the same for two places: cheaper when many pairs of few places are compared."""
        if start == target:
            return 0.0
        if start.wrap == target.wrap:
            return self._within_wrap_s(start, target)
        fit = self.coefficients
        seconds = fit.start_s + fit.wrap_change_s + self._distance_s(start, target)
        if start.band != target.band:
            seconds += fit.band_change_s
        if (start.wrap ^ target.wrap) & 1:
            seconds += fit.direction_change_s
        return max(0.0, seconds)

    def _within_wrap_s(self, start: Place, target: Place) -> float:
        seconds = self.coefficients.start_s + self._distance_s(start, target)
        if (target.x_m < start.x_m) != bool(start.wrap & 1):
            return max(0.0, seconds + self.coefficients.step_back_s)
        return max(0.0, min(seconds, abs(target.x_m - start.x_m) / self.generation.read_m_s))

    def _distance_s(self, start: Place, target: Place) -> float:
        half_m = self.generation.length_m / 2
        seconds = abs(target.x_m - start.x_m) * self.coefficients.s_per_m
        return seconds + self.coefficients.half_change_s if (start.x_m < half_m) != (target.x_m < half_m) else seconds

    def nearest_first(self, head_byte: int, spans: Sequence[tuple[int, int]]) -> list[int]:
        """Return the order in which spans (first byte, byte behind the last) are read, always the nearest next."""
        ends = [(self.place(first), self.place(last)) for first, last in spans]
        at, left = self.place(head_byte), set(range(len(spans)))
        order: list[int] = []
        while left:
            # Of equals the first one on the tape: small cartridges are a short piece of one wrap.
            nearest = min(left, key=lambda each: (self.between_s(at, ends[each][0]), spans[each], each))
            order.append(nearest)
            left.remove(nearest)
            at = ends[nearest][1]
        return order

    def read_s(self, count_bytes: int) -> float:
        """Return the seconds to read that many bytes while streaming."""
        return count_bytes / self.generation.rate_bytes_s

    def write_s(self, count_bytes: int) -> float:
        """Return the seconds to write that many bytes while streaming."""
        return count_bytes / self.generation.rate_bytes_s

    def rewind_s(self, from_byte: int) -> float:
        """Return the seconds back to the load point; 0 when the head is there."""
        if from_byte == 0:
            return 0.0
        full_s = 2 * (self.generation.rewind_mean_s - _REWIND_START_S)
        return _REWIND_START_S + full_s * self.place(from_byte).x_m / self.generation.length_m

    def load_s(self) -> float:
        """Return the seconds from the load command to ready at the load point."""
        return self.generation.load_s

    def unload_s(self) -> float:
        """Return the seconds from the rewound tape to the ejected cartridge."""
        return self.generation.unload_s

    def break_even_bytes(self) -> int:
        """Return the gap ahead on one wrap below which reading on beats a locate."""
        tape = self.generation
        per_byte_s = 1 / tape.rate_bytes_s - tape.length_m / tape.wrap_bytes * self.coefficients.s_per_m
        return int(self.coefficients.start_s / per_byte_s) if per_byte_s > 0 else tape.wrap_bytes


def motion_of(generation: int) -> Motion:
    """Return the model of a generation, 5 … 9. Raises ValueError."""
    return Motion(lto(generation))
