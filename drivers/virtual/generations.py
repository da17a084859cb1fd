"""LTO-5 to LTO-9: capacity, geometry, speeds, and which drive takes which cartridge. Pure; any thread.

Capacities, rates, load and unload times, mean locate and rewind times are the vendors' figures for full-height drives,
half-height where only those are published. The usable length leaves out leader and end zones. The slowest speeds are
those of IBM's drives from LTO-7 on and of HPE's before.
"""

from __future__ import annotations

from dataclasses import dataclass

TB = 10**12
MB = 10**6
BANDS = 4


@dataclass(frozen=True, slots=True)
class Generation:
    """What the motion model needs to know of one LTO generation."""

    #: 5 … 9.
    number: int
    #: Native capacity of a real cartridge.
    capacity_bytes: int
    #: Passes over the length of the tape, in all bands together.
    wraps: int
    #: Length that carries data.
    length_m: float
    #: Native transfer rate, and the slowest at which the tape still runs (speed matching).
    rate_bytes_s: float
    slowest_bytes_s: float
    #: The drive's own buffer.
    buffer_bytes: int
    #: From insertion to ready, and from the unload command to ejected, tape rewound before.
    load_s: float
    unload_s: float
    #: Speed over the tape while locating.
    locate_m_s: float
    #: Mean rewind from anywhere on the tape.
    rewind_mean_s: float

    @property
    def wrap_bytes(self) -> int:
        """Return the bytes that one wrap holds."""
        return self.capacity_bytes // self.wraps

    @property
    def wraps_per_band(self) -> int:
        """Return the number of wraps in one of the four bands."""
        return self.wraps // BANDS

    @property
    def read_m_s(self) -> float:
        """Return the speed over the tape while reading or writing at the native rate."""
        return self.length_m * self.rate_bytes_s / self.wrap_bytes


#: CERN's LTO-7 regression gives 0.0006192 s per longitudinal position; 168,401 of those are 940 m.
_CERN_M_S = 940 / 168_401 / 0.0006192
#: At CERN's speed LTO-9 would need 69 s from the load point on average; full-height drives need 45 s.
_LTO9_M_S = 15.8

GENERATIONS = {
    each.number: each
    for each in (
        Generation(5, 3 * TB // 2, 80, 820, 140 * MB, 47 * MB, 256 * MB, 12, 17, _CERN_M_S, 60),
        Generation(6, 5 * TB // 2, 136, 820, 160 * MB, 54 * MB, 512 * MB, 12, 17, _CERN_M_S, 60),
        Generation(7, 6 * TB, 112, 940, 300 * MB, 101 * MB, 1000 * MB, 15, 20, _CERN_M_S, 60),
        Generation(8, 12 * TB, 208, 940, 360 * MB, 112 * MB, 1000 * MB, 15, 24, _CERN_M_S, 59),
        Generation(9, 18 * TB, 280, 1015, 400 * MB, 177 * MB, 1000 * MB, 17, 30, _LTO9_M_S, 55),
    )
}


def lto(number: int) -> Generation:
    """Return the facts of a generation. Raises ValueError for one that is not modelled."""
    try:
        return GENERATIONS[number]
    except KeyError:
        known = ", ".join(str(each) for each in GENERATIONS)
        raise ValueError(f"LTO generation {number} is unknown: use one of {known}") from None
