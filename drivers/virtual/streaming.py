"""Does the drive stream? A model of an LTO drive's buffer and speed matching while it writes. One thread: its drive's.

Blocks go into a buffer of some hundred MB. The tape starts when the buffer is half full and then takes from it at a
speed between the generation's slowest and fastest, the slower the less is left: so it settles at the speed of the host.
A host that is slower than the slowest speed lets the buffer run empty; the tape stops and has to back up before it can
start again, a back-hitch. Backing up takes its time, in which the buffer fills; when it is full, the host waits.

The clock is the host's own: what the host had to wait for the drive is taken off by the caller. In the mode `account`
nothing waits, and a host that is faster than the drive finds the buffer full instead.
"""

from __future__ import annotations

from drivers.virtual.generations import Generation

#: Stop, back up, start again. No vendor publishes it; users measure 2 to 5 s.
BACKHITCH_S = 3.5
#: The tape starts when that share of the buffer is full.
_START_SHARE = 0.5
#: Below the first share the tape runs at its slowest, above the second at its fastest.
_SLOWEST_SHARE = 0.25
_FASTEST_SHARE = 0.75
#: Longest time for which the speed is taken to be constant.
_STEP_S = 0.05


class Streaming:
    """The buffer of one drive and the tape behind it. Times are seconds of the host's own clock, never falling."""

    def __init__(self, generation: Generation) -> None:
        #: Times that the buffer ran empty under a running tape since somebody set this to 0.
        self.underruns = 0
        self.adopt(generation)

    def adopt(self, generation: Generation) -> None:
        """Take another cartridge: its speeds; the buffer is empty and the tape stands."""
        self._slowest = generation.slowest_bytes_s
        self._fastest = generation.rate_bytes_s
        self._size = generation.buffer_bytes
        self.rest()

    def flush(self, now_s: float) -> None:
        """The host wants all of it on the tape, and waits."""
        self._advance(now_s)
        self.rest()

    def rest(self) -> None:
        """The buffer has been written out and the tape stands, ready to start."""
        self._level = 0.0
        self._runs = False
        self._seen_s: float | None = None
        #: The tape has backed up by then.
        self._ready_s = 0.0

    def take(self, size_bytes: int, now_s: float) -> float:
        """A block has arrived; return the seconds that a real drive would hold the host up for want of room."""
        self._advance(now_s)
        self._level += size_bytes
        if self._level <= self._size:
            self._start(now_s)
            return 0.0
        self._level = self._size
        if self._runs or now_s >= self._ready_s:
            self._start(now_s)
            return 0.0
        held_s = self._ready_s - now_s
        self._ready_s = now_s
        self._start(now_s)
        return held_s

    def _advance(self, now_s: float) -> None:
        """Let the tape run up to now."""
        then_s = self._seen_s if self._seen_s is not None else now_s
        self._seen_s = max(now_s, then_s)
        while then_s < now_s:
            if not self._runs:
                then_s = max(then_s, self._ready_s)
                if then_s >= now_s or not self._may_start():
                    return
                self._runs = True
            step_s = min(_STEP_S, now_s - then_s)
            speed = self._speed()
            if self._level <= speed * step_s:
                self._underrun(then_s + self._level / speed)
                then_s = self._ready_s
                continue
            self._level -= speed * step_s
            then_s += step_s

    def _underrun(self, at_s: float) -> None:
        self.underruns += 1
        self._level = 0.0
        self._runs = False
        self._ready_s = at_s + BACKHITCH_S

    def _may_start(self) -> bool:
        return self._level >= _START_SHARE * self._size

    def _start(self, now_s: float) -> None:
        if not self._runs and now_s >= self._ready_s and self._may_start():
            self._runs = True

    def _speed(self) -> float:
        share = (self._level / self._size - _SLOWEST_SHARE) / (_FASTEST_SHARE - _SLOWEST_SHARE)
        return self._slowest + min(1.0, max(0.0, share)) * (self._fastest - self._slowest)
