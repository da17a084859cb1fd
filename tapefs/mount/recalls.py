"""Reads that wait for tape: who waits for which frames, and how the sidecar learns of it. Trio, all in the event loop.

A waiter registers, tests the staging map, and is posted to the sidecar; a stream brings arrivals. Both may fail at any
time, so nothing depends on them for being right: every waiter looks at the map itself once a second, all waiters are
posted again when the stream is back, and each again now and then in case the sidecar forgot it. Posting is idempotent.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple
from uuid import uuid4

import structlog
import trio

from catalog.ids import SegmentId
from tapefs.errors import NotNow, RecallFailed, RecallTimedOut, TapefsError, Unreachable
from tapefs.mount import readers
from tapefs.mount.errnos import ReaderGone
from tapefs.mount.sidecar_link import Arrival, SidecarLink, WaiterMessage

#: How often a waiter looks at the process it waits for. Looking costs 30 µs, and all of it together shall stay below 10
#: % of a core.
_LOOK_S = 0.2
_LOOK_S_PER_WAITER = 0.0005
#: How often a waiter looks at the map without having been told.
_MAP_S = 1.0
#: After this, or at once if the thread that opened the file is gone, its readers are searched by the open file.
_SEARCH_AFTER_S = 1.0
_SEARCH_S = 0.5
_POST_AGAIN_S = 30.0
#: Waiters in one request, 100 KB of JSON.
_BATCH = 500
_RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0)

log = structlog.get_logger("tapefs.mount")


class Wanted(NamedTuple):
    """Frames of a segment, both ends included."""

    segment_id: SegmentId
    first: int
    last: int


class Caller(NamedTuple):
    """On whose behalf a file is open."""

    inode: int
    uid: int
    #: Thread that opened it; 0 if it is not visible from here.
    thread_id: int


@dataclass(slots=True, eq=False)
class _Waiter:
    wanted: Wanted
    caller: Caller
    #: On trio's clock.
    since_s: float
    deadline_s: float
    id: str = field(default_factory=lambda: str(uuid4()))
    arrived: trio.Event = field(default_factory=trio.Event)
    error: TapefsError | None = None
    #: The thread that opened the file has ended: somebody who inherited the file reads it.
    is_opener_gone: bool = False

    def overlaps(self, first: int, last: int) -> bool:
        return self.wanted.first <= last and first <= self.wanted.last

    def message(self) -> WaiterMessage:
        segment_id, first, last = self.wanted
        left_s = self.deadline_s - trio.current_time()
        # To the sidecar 0 means never, and JSON has no infinity.
        deadline_s = 0.0 if left_s == math.inf else max(0.001, left_s)
        return WaiterMessage(self.id, segment_id, first, last, self.caller.uid, self.caller.thread_id, deadline_s)


class Recalls:
    """All reads of a mount that wait. `run` must run meanwhile."""

    def __init__(self, link: SidecarLink, limit: int) -> None:
        self._link = link
        self._limit = limit
        self._waiters: dict[SegmentId, set[_Waiter]] = {}
        self._count = 0
        self._to_post: dict[str, _Waiter] = {}
        self._to_cancel: list[str] = []
        self._work = trio.Event()
        self._connected = False
        self._ending_inodes: frozenset[int] = frozenset()
        self._closed = False

    # -- for readers -------------------------------------------------------------------------------------------------

    @property
    def can_recall(self) -> bool:
        """Does a sidecar answer?"""
        return self._connected

    def is_awaited(self, segment_id: SegmentId, first: int, last: int) -> bool:
        """Does somebody wait for one of these frames?"""
        return any(waiter.overlaps(first, last) for waiter in self._waiters.get(segment_id, ()))

    async def wait(self, wanted: Wanted, caller: Caller, deadline_s: float, is_staged: Callable[[], bool]) -> None:
        """Return once `is_staged` says so; it may be evicted again by then.

        `deadline_s` is on trio's clock. Raises NotNow (too many wait), RecallTimedOut (the recall goes on),
        RecallFailed, Unreachable (nobody could be asked until the deadline, or the mount ends), ReaderGone.
        """
        if self._closed:
            raise Unreachable("the mount is ending")
        if self._count >= self._limit:
            raise NotNow(f"{self._count} reads wait for tape already")
        waiter = _Waiter(wanted, caller, trio.current_time(), deadline_s)
        self._register(waiter)
        try:
            # Registered before the map is tested: an arrival in between is not missed.
            if not is_staged():
                self._post(waiter)
                await self._until(waiter, is_staged)
        except ReaderGone:
            self._to_cancel.append(waiter.id)
            self._work.set()
            raise
        finally:
            self._unregister(waiter)

    async def _until(self, waiter: _Waiter, is_staged: Callable[[], bool]) -> None:
        map_at_s = waiter.since_s + _MAP_S
        post_at_s = waiter.since_s + _POST_AGAIN_S
        while True:
            look_s = max(_LOOK_S, self._count * _LOOK_S_PER_WAITER)
            with trio.move_on_at(min(trio.current_time() + look_s, waiter.deadline_s)):
                await waiter.arrived.wait()
            now_s = trio.current_time()
            if waiter.error is not None:
                raise waiter.error
            was_told = waiter.arrived.is_set()
            if was_told or now_s >= map_at_s or now_s >= waiter.deadline_s:
                waiter.arrived = trio.Event()
                map_at_s = now_s + _MAP_S
                if is_staged():
                    return
                if was_told:
                    # Evicted before we looked: for the sidecar this wait is over.
                    self._post(waiter)
            self._check_owner(waiter, now_s)
            if now_s >= post_at_s:
                post_at_s = now_s + _POST_AGAIN_S
                self._post(waiter)

    def _check_owner(self, waiter: _Waiter, now_s: float) -> None:
        if now_s >= waiter.deadline_s:
            if self._connected:
                raise RecallTimedOut("the bytes did not come from tape in time; they are still being fetched")
            raise Unreachable("no sidecar answered in time: start one with `tapefs serve`")
        thread_id = waiter.caller.thread_id
        if not thread_id:
            return
        is_ending = readers.is_thread_ending(thread_id)
        waiter.is_opener_gone = is_ending is None
        if is_ending or waiter.caller.inode in self._ending_inodes:
            raise ReaderGone("the reader is being ended by a signal")

    def _register(self, waiter: _Waiter) -> None:
        self._waiters.setdefault(waiter.wanted.segment_id, set()).add(waiter)
        self._count += 1

    def _unregister(self, waiter: _Waiter) -> None:
        segment_id = waiter.wanted.segment_id
        self._waiters[segment_id].discard(waiter)
        if not self._waiters[segment_id]:
            del self._waiters[segment_id]
        self._count -= 1
        self._to_post.pop(waiter.id, None)

    def _post(self, waiter: _Waiter) -> None:
        self._to_post[waiter.id] = waiter
        self._work.set()

    def _all(self) -> list[_Waiter]:
        return [waiter for waiters in self._waiters.values() for waiter in waiters]

    def close(self) -> None:
        """End all waits with Unreachable: the mount is ending."""
        self._closed = True
        for waiter in self._all():
            self._wake(waiter, Unreachable("the mount is ending"))

    def _wake(self, waiter: _Waiter, error: TapefsError | None = None) -> None:
        waiter.error = error or waiter.error
        waiter.arrived.set()

    # -- tasks -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Talk to the sidecar until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow_arrivals)
            nursery.start_soon(self._post_forever)
            nursery.start_soon(self._search_forever)

    async def _follow_arrivals(self) -> None:
        failures = 0
        while True:
            try:
                async with contextlib.aclosing(self._link.arrivals()) as arrivals:
                    async for arrival in arrivals:
                        failures = 0
                        self._note_connected()
                        self._deliver(arrival)
            except Unreachable as error:
                if self._connected:
                    log.warning("sidecar lost; reads of what is not staged wait for it", reason=str(error))
                self._connected = False
            await trio.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
            failures += 1

    def _note_connected(self) -> None:
        if self._connected:
            return
        self._connected = True
        log.info("sidecar connected", waiting=self._count)
        for waiter in self._all():
            self._post(waiter)

    def _deliver(self, arrival: Arrival) -> None:
        if arrival.segment is None:
            return
        error = None
        if arrival.error is not None:
            error = RecallFailed(arrival.message or arrival.error)
            log.error(
                "recall failed", segment=arrival.segment, first=arrival.first, last=arrival.last, reason=str(error)
            )
        for waiter in self._waiters.get(SegmentId(arrival.segment), ()):
            if waiter.overlaps(arrival.first, arrival.last):
                self._wake(waiter, error)

    async def _post_forever(self) -> None:
        failures = 0
        while True:
            await self._work.wait()
            self._work = trio.Event()
            try:
                await self._post_all()
                failures = 0
            except Unreachable:
                # What was not posted is still in its list.
                self._work.set()
                await trio.sleep(_RETRY_S[min(failures, len(_RETRY_S) - 1)])
                failures += 1

    async def _post_all(self) -> None:
        while batch := list(islice(self._to_post.values(), _BATCH)):
            try:
                await self._link.post_waiters([waiter.message() for waiter in batch])
            except RecallFailed as error:
                log.error("recalls refused", count=len(batch), reason=str(error))
                for waiter in batch:
                    self._wake(waiter, error)
            for waiter in batch:
                self._to_post.pop(waiter.id, None)
        gone = list(self._to_cancel)
        if gone:
            with contextlib.suppress(RecallFailed):  # It does not know them any more.
                await self._link.cancel(gone)
            del self._to_cancel[: len(gone)]

    async def _search_forever(self) -> None:
        """While somebody has waited for long, look once a second for readers that are being ended."""
        pause_s = _SEARCH_S
        while True:
            await trio.sleep(pause_s)
            pause_s = _SEARCH_S
            if not self._is_search_due():
                self._ending_inodes = frozenset()
                continue
            started_s = trio.current_time()
            self._ending_inodes = await trio.to_thread.run_sync(readers.inodes_of_ending)
            # On a machine with very many threads the search shall not take more than a tenth of a core.
            pause_s = max(_SEARCH_S, 10 * (trio.current_time() - started_s))

    def _is_search_due(self) -> bool:
        before_s = trio.current_time() - _SEARCH_AFTER_S
        return any(
            waiter.caller.thread_id and (waiter.is_opener_gone or waiter.since_s <= before_s) for waiter in self._all()
        )
