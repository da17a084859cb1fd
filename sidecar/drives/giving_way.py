"""Which running backup is to leave its drive to which recall: when a reader has waited for long, and no drive is free.

One trio run; looked at now and then by every drive that runs a backup. A tape that one drive gives way for is not the
business of the others.
"""

from __future__ import annotations

from collections.abc import Callable

from catalog.ids import VolumeId
from sidecar.recalls.queue import RecallQueue

#: How often a drive with a backup looks.
LOOK_S = 1.0
#: So long at most has a recall the drive, while others come behind it: then the backup writes a segment.
LONGEST_S = 600.0


class GivingWay:
    """What all drives know of it."""

    def __init__(self, queue: RecallQueue, after_s: float) -> None:
        """A reader waits `after_s` before a backup gives way; 0 means that none ever does."""
        self._queue = queue
        self._after_s = after_s
        self._tapes: dict[int, VolumeId] = {}

    def tape_for(self, drive: int, now_s: float, is_usable: Callable[[VolumeId], bool]) -> VolumeId | None:
        """Return the tape that the drive's backup is to give way for, None if it need not; note which."""
        if not self._after_s:
            return None
        others = {volume_id for number, volume_id in self._tapes.items() if number != drive}
        mine = self._tapes.get(drive)
        waited = self._queue.waited_s(now_s)
        late = [volume_id for volume_id, waited_s in waited.items() if waited_s >= self._after_s]
        usable = [volume_id for volume_id in late if volume_id not in others and is_usable(volume_id)]
        if mine in usable:
            return mine
        self.over(drive)
        if usable:
            self._tapes[drive] = max(usable, key=lambda volume_id: waited[volume_id])
        return self._tapes.get(drive)

    def over(self, drive: int) -> None:
        """The drive's backup does not give way any more."""
        self._tapes.pop(drive, None)
