"""A pulse: how late the event loop is, and how long each drive was in which state. One trio run."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence

import trio

from sidecar.drives.drive import DriveTask

#: So often it wakes; the worst of that many wakings is what is told.
EVERY_S, KEPT = 0.25, 40


class Lag:
    """The newest latenesses."""

    def __init__(self, drives: Sequence[DriveTask]) -> None:
        self._drives = drives
        #: Seconds by drive and state.
        self.drive_seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._newest = [0.0] * KEPT
        self._place = 0
        #: When the sidecar began, for its uptime.
        self.began_s = time.monotonic()

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            before = trio.current_time()
            await trio.sleep(EVERY_S)
            spent_s = trio.current_time() - before
            self._newest[self._place] = max(spent_s - EVERY_S, 0.0)
            for drive in self._drives:
                self.drive_seconds[drive.name, drive.state] += spent_s
            self._place = (self._place + 1) % KEPT

    def worst_s(self) -> float:
        """Return the worst of the last ten seconds."""
        return max(self._newest)

    def uptime_s(self) -> float:
        """Return for how long the sidecar has been running."""
        return time.monotonic() - self.began_s
