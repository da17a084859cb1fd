"""The level of the next frame, where a job leaves it open: as small as the archive can be without holding the drive up.

Frames decode on their own, so each may have a level of its own. A run begins with the highest. It goes down step by
step while compressing is what everything waits for, and up again when the drive or the source is slower. Pure; who uses
it locks.
"""

from __future__ import annotations

from dataclasses import dataclass

#: So many looks in a row must agree before the level goes down, or up: one look may fall on a hiccup, and a drive that
#: stops costs more than some tape.
_DOWN_AFTER = 3
_UP_AFTER = 8
#: Workers that wait for a processor this share of their time compete with the run's other threads, or with other
#: programs; below the other share there is room for a better level.
_CROWDED = 0.1
_AT_EASE = 0.05


@dataclass(frozen=True, slots=True)
class Pressure:
    """What a worker sees when it begins a frame."""

    #: Frames that are filled and wait for a worker.
    waiting: int
    #: Frames that are compressed and wait to be written.
    finished: int
    #: The drive would take more than it gets.
    drive_is_hungry: bool
    #: Share of the workers' time at work, lately, in which they had no processor.
    lateness: float


class LevelControl:
    """Chooses among `levels`, from fast to small, for so many workers."""

    def __init__(self, levels: range, workers: int) -> None:
        self._levels = levels
        self._workers = workers
        self._level = levels[-1]
        #: Looks in a row that wanted it faster, or, below 0, smaller.
        self._wish = 0

    def next(self, seen: Pressure) -> int:
        """Return the level of the frame that is begun now."""
        if self._could_be_smaller(seen):
            self._wish = min(self._wish, 0) - 1
        elif seen.waiting >= self._workers or seen.lateness >= _CROWDED:
            self._wish = max(self._wish, 0) + 1
        else:
            self._wish = 0
        if self._wish >= _DOWN_AFTER:
            self._level = max(self._level - 1, self._levels[0])
            self._wish = 0
        elif self._wish <= -_UP_AFTER:
            self._level = min(self._level + 1, self._levels[-1])
            self._wish = 0
        return self._level

    def _could_be_smaller(self, seen: Pressure) -> bool:
        # Where processors are short the thread that writes may be late for want of one.
        drive_is_slower = not seen.drive_is_hungry or (seen.finished > self._workers and seen.lateness < _CROWDED)
        return drive_is_slower or (seen.waiting == 0 and seen.lateness < _AT_EASE)
