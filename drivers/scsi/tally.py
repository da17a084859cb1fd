"""Counting what a drive does, by the clock. One thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from drivers.interface import Counters, Seconds


class Tally:
    """Counters that go on from earlier ones. Real drives do not tell backhitches: those stay 0."""

    def __init__(self, before: Counters, now: Callable[[], float] = time.monotonic) -> None:
        self._before = before
        self._now = now
        self.loads = 0
        self.locates = 0
        self.blocks_read = 0
        self.blocks_written = 0
        self.bytes_read = 0
        self.bytes_written = 0
        self.load_s = 0.0
        self.locate_s = 0.0
        self.read_s = 0.0
        self.write_s = 0.0
        self.rewind_s = 0.0

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Add the time of the body to a kind of seconds, however it ends."""
        begun_s = self._now()
        try:
            yield
        finally:
            setattr(self, f"{kind}_s", getattr(self, f"{kind}_s") + self._now() - begun_s)

    def counters(self) -> Counters:
        """Return what the drive has done since its notes begin."""
        before, seconds = self._before, self._before.seconds
        return Counters(
            loads=before.loads + self.loads,
            locates=before.locates + self.locates,
            blocks_read=before.blocks_read + self.blocks_read,
            blocks_written=before.blocks_written + self.blocks_written,
            bytes_read=before.bytes_read + self.bytes_read,
            bytes_written=before.bytes_written + self.bytes_written,
            backhitches=before.backhitches,
            underruns=before.underruns,
            seconds=Seconds(
                load=seconds.load + self.load_s,
                locate=seconds.locate + self.locate_s,
                read=seconds.read + self.read_s,
                write=seconds.write + self.write_s,
                rewind=seconds.rewind + self.rewind_s,
                backhitch=seconds.backhitch,
            ),
        )
