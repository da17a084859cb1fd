"""Keeps the staging area within its limit. One trio run; the work on files is done in a thread."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from functools import partial

import structlog
import trio

from catalog.errors import CatalogError
from catalog.ids import SegmentId
from sidecar.recalls.pins import Pins
from sidecar.recalls.recalling import Recalls
from tapefs.home import Home
from tapefs.spans import Spans
from tapefs.staging.area import Census, Runs, StagingArea
from tapefs.staging.worth import Tape

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
    """Shrinks the staging area after arrivals, and empties it on request; what is pinned stays."""

    def __init__(self, home: Home, recalls: Recalls, pins: Pins, limit: int) -> None:
        """`limit` in bytes; see `limit_bytes`."""
        self.limit_bytes = limit
        self._area = StagingArea(home.staging)
        self._recalls = recalls
        self._pins = pins
        self._working = trio.Lock()
        #: Plain bytes dropped since the start to make room.
        self.dropped_bytes = 0
        self._was_above = False

    async def revive(self) -> None:
        """Compare what the machine's last run has left with its checksums, so that it need not come from tape again.

        To be run at the start, beside everything else; again it finds nothing to do. What readers want meanwhile is
        compared by movers, at once.
        """
        frames = 0
        try:
            await trio.to_thread.run_sync(self._area.adopt)
            for segment_id, run in await trio.to_thread.run_sync(self._area.doubtful):
                for first in range(run.start, run.stop, _COMPARED):
                    piece = range(first, min(first + _COMPARED, run.stop))
                    frames += await trio.to_thread.run_sync(self._area.revive, segment_id, piece)
        except (OSError, CatalogError) as error:
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
        """Drop what is staged of these segments, or of all; open files and pins keep theirs.

        Returns bytes freed. Raises OSError.
        """
        async with self._working:
            return await trio.to_thread.run_sync(self._area.evict_all, segments, self._pins.held())

    async def settle(self) -> None:
        """Wait until nothing is dropped any more by what was pinned before; what is pinned by now stays."""
        async with self._working:
            return

    async def make_room(self) -> int:
        """The disk is full: drop half of what is staged, what is worth least first; return the bytes dropped.

        0 also when that fails: then there is no room.
        """
        async with self._working:
            try:
                half_bytes = await trio.to_thread.run_sync(self._area.used_bytes) // 2
                freed = await self._shrink_to(half_bytes, frozenset())
            except (OSError, CatalogError) as error:
                log.error("cannot make room in the staging area", error=str(error))
                return 0
        log.warning("the disk of the staging area is full", freed_bytes=freed)
        return freed

    def census(self) -> Census:
        """Count what is staged. Blocking; any thread."""
        return self._area.census()

    async def _shrink(self) -> None:
        async with self._working:
            try:
                freed = await self._shrink_to(self.limit_bytes, self._recalls.queue.segments())
                used_bytes = await trio.to_thread.run_sync(self._area.used_bytes)
            except (OSError, CatalogError) as error:
                log.error("cannot make room in the staging area", error=str(error))
                return
        if freed:
            log.info("staging area was full", freed_bytes=freed, limit_bytes=self.limit_bytes)
        is_above = used_bytes > self.limit_bytes
        if is_above and not self._was_above:
            log.warning(
                "the staging area is above its limit: what is left is pinned or open",
                used_bytes=used_bytes,
                limit_bytes=self.limit_bytes,
            )
        self._was_above = is_above

    async def _shrink_to(self, limit_bytes: int, wanted: Collection[SegmentId]) -> int:
        """Drop what is worth least, what readers wait for only when nothing else is left. Raises OSError."""
        if await trio.to_thread.run_sync(self._area.used_bytes) <= limit_bytes:
            return 0
        segments = await trio.to_thread.run_sync(self._area.segments)
        tapes = {segment_id: self._recalls.whereabouts.nearest(segment_id) for segment_id in segments}
        held, ahead = self._pins.held(), self._recalls.walks.ahead()
        make_room = partial(self._make_room, limit_bytes, wanted, held, both(held, ahead), tapes)
        freed = await trio.to_thread.run_sync(make_room)
        self.dropped_bytes += freed
        return freed

    def _make_room(
        self,
        limit_bytes: int,
        wanted: Collection[SegmentId],
        pinned: Runs,
        kept: Runs,
        tapes: Mapping[SegmentId, Tape],
    ) -> int:
        """`kept`: what is pinned, and what lies ahead of readers that go through a tree."""
        freed = self._area.shrink_to(limit_bytes, wanted, kept, tapes)
        for held in (kept, pinned):
            if self._area.used_bytes() > limit_bytes:
                freed += self._area.shrink_to(limit_bytes, (), held, tapes)
        return freed


def both(some: Runs, more: Runs) -> Runs:
    """Return the frames of both."""
    found: dict[SegmentId, Spans] = {}
    for runs_of in (some, more):
        for segment_id, runs in runs_of.items():
            spans = found.setdefault(segment_id, Spans())
            for run in runs:
                spans.add(*run)
    return {segment_id: list(spans) for segment_id, spans in found.items()}
