"""Keeps the staging area within its limit. One trio run; the work on files is done in a thread."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection
from functools import partial

import structlog
import trio

from catalog.ids import SegmentId
from sidecar.recalling import Recalls
from tapefs.home import Home
from tapefs.staging.area import StagingArea

#: Pause between two looks while frames arrive: at 400 MB/s the area grows by half a gigabyte meanwhile.
PAUSE_S = 1.0
#: Frames compared at a time, some 60 MB: between two an ending sidecar may end.
_COMPARED = 16

log = structlog.get_logger(__name__)


def limit_bytes(home: Home) -> int:
    """Return the room that staging may take: as set, or a quarter of what is free now. Blocking."""
    os.makedirs(home.staging, mode=0o700, exist_ok=True)
    return home.settings.staging.limit_bytes or shutil.disk_usage(home.staging).free // 4


class Evictor:
    """Shrinks the staging area after arrivals, and empties it on request."""

    def __init__(self, home: Home, recalls: Recalls, limit: int) -> None:
        """`limit` in bytes; see `limit_bytes`."""
        self._area = StagingArea(home.staging)
        self._recalls = recalls
        self._limit = limit
        self._working = trio.Lock()

    async def revive(self) -> None:
        """Compare what the machine's last run has left with its checksums, so that it need not come from tape again.

        To be run once, beside everything else. What readers want meanwhile is compared by movers, at once.
        """
        frames = 0
        try:
            await trio.to_thread.run_sync(self._area.adopt)
            for segment_id, run in await trio.to_thread.run_sync(self._area.doubtful):
                for first in range(run.start, run.stop, _COMPARED):
                    piece = range(first, min(first + _COMPARED, run.stop))
                    frames += await trio.to_thread.run_sync(self._area.revive, segment_id, piece)
        except OSError as error:
            log.error("cannot compare what an earlier run of the machine has staged", error=str(error))
        if frames:
            log.info("staged before the machine was started, and still right", frames=frames)

    async def run(self) -> None:
        """Look after every arrival, for ever."""
        while True:
            await self._shrink()
            await trio.sleep(PAUSE_S)
            await self._recalls.staged.wait()
            self._recalls.staged = trio.Event()

    async def evict(self, segments: Collection[SegmentId] | None) -> int:
        """Drop what is staged of these segments, or of all; open files keep theirs.

        Returns bytes freed. Raises OSError.
        """
        async with self._working:
            return await trio.to_thread.run_sync(self._area.evict_all, segments)

    async def make_room(self) -> int:
        """The disk is full: drop half of what is staged, what was used longest ago first; return the bytes dropped.

        0 also when that fails: then there is no room.
        """
        async with self._working:
            try:
                freed = await trio.to_thread.run_sync(self._drop_half)
            except OSError as error:
                log.error("cannot make room in the staging area", error=str(error))
                return 0
        log.warning("the disk of the staging area is full", freed_bytes=freed)
        return freed

    def _drop_half(self) -> int:
        return self._area.shrink_to(self._area.used_bytes() // 2)

    async def _shrink(self) -> None:
        wanted = self._recalls.queue.segments()
        async with self._working:
            try:
                freed = await trio.to_thread.run_sync(partial(self._make_room, wanted))
            except OSError as error:
                log.error("cannot make room in the staging area", error=str(error))
                return
        if freed:
            log.info("staging area was full", freed_bytes=freed, limit_bytes=self._limit)

    def _make_room(self, wanted: Collection[SegmentId]) -> int:
        """Drop what was used longest ago; what readers wait for only when nothing else is left."""
        freed = self._area.shrink_to(self._limit, wanted)
        if self._area.used_bytes() > self._limit:
            freed += self._area.shrink_to(self._limit)
        return freed
