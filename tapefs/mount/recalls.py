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
from tapefs.errors import (
    NotNow,
    RecallDeferred,
    RecallDenied,
    RecallFailed,
    RecallLocked,
    RecallOverLimit,
    RecallTimedOut,
    TapefsError,
    Unreachable,
)
from tapefs.mount import readers, who
from tapefs.mount.errnos import ReaderGone
from tapefs.mount.link import Arrival, Link, WaiterMessage

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
#: Waiters in one request, 200 KB of JSON; the sidecar takes 1 MiB, so long paths make it fewer.
_BATCH = 500
_BATCH_PATHS = 300_000
#: What was seen of a reader is right for so long, and kept of so many.
_SEEN_S, _SEEN = 10.0, 1000
#: How often the log tells of a user who has too many reads waiting.
_TELL_S = 60.0
_RETRY_S = (0.1, 0.2, 0.5, 1.0, 2.0)

#: What the sidecar calls a refusal.
_REFUSALS: dict[str, type[RecallFailed]] = {
    "denied": RecallDenied,
    "limit": RecallOverLimit,
    "deferred": RecallDeferred,
}

#: What the sidecar calls failures that are no common ones.
_FAILURES: dict[str, type[RecallFailed]] = {"locked": RecallLocked}

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
    gid: int = 0
    #: The file for people, if its whole path is not to be seen, and its size.
    name: str = ""
    size_bytes: int = 0


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

    def message(self, seen: who.Seen) -> WaiterMessage:
        segment_id, first, last = self.wanted
        left_s = self.deadline_s - trio.current_time()
        # To the sidecar 0 means never, and JSON has no infinity.
        deadline_s = 0.0 if left_s == math.inf else max(0.001, left_s)
        caller = self.caller
        gids = tuple(dict.fromkeys((caller.gid, *seen.gids)))
        path = seen.path or caller.name
        return WaiterMessage(
            self.id,
            segment_id,
            first,
            last,
            caller.uid,
            seen.pid or caller.thread_id,
            deadline_s,
            gids,
            seen.commands,
            path,
            caller.size_bytes,
        )


class Recalls:
    """All reads of a mount that wait. `run` must run meanwhile."""

    def __init__(self, link: Link, limit: int, user_limit: int) -> None:
        """So many reads may wait at a time, and so many of one user."""
        self._link = link
        self._limit = limit
        self._user_limit = user_limit
        self._user_counts: dict[int, int] = {}
        #: When the log was last told that a user has too many.
        self._told_s: dict[int, float] = {}
        self._by_id: dict[str, _Waiter] = {}
        self._seen: dict[tuple[int, int], tuple[who.Seen, float]] = {}
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
        if self._user_counts.get(caller.uid, 0) >= self._user_limit:
            self._tell_too_many(caller.uid)
            raise NotNow(f"{self._user_limit} reads of user {caller.uid} wait for tape already")
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

    def _tell_too_many(self, uid: int) -> None:
        now_s = trio.current_time()
        if now_s - self._told_s.get(uid, -math.inf) >= _TELL_S:
            self._told_s[uid] = now_s
            log.info("a user has too many reads waiting; further ones get EBUSY", uid=uid, limit=self._user_limit)

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
        if is_ending or (waiter.caller.inode in self._ending_inodes and self._may_be_another(waiter)):
            raise ReaderGone("the reader is being ended by a signal")

    def _may_be_another(self, waiter: _Waiter) -> bool:
        """Tell whether somebody else than the file's opener may be the reader: he inherited it, or is another thread.

        Without this look, who is killed takes along whoever waits for the same file.
        """
        return waiter.is_opener_gone or not readers.is_waiting_itself(waiter.caller.thread_id)

    def _register(self, waiter: _Waiter) -> None:
        self._waiters.setdefault(waiter.wanted.segment_id, set()).add(waiter)
        self._by_id[waiter.id] = waiter
        self._user_counts[waiter.caller.uid] = self._user_counts.get(waiter.caller.uid, 0) + 1
        self._count += 1

    def _unregister(self, waiter: _Waiter) -> None:
        segment_id = waiter.wanted.segment_id
        self._waiters[segment_id].discard(waiter)
        if not self._waiters[segment_id]:
            del self._waiters[segment_id]
        del self._by_id[waiter.id]
        self._user_counts[waiter.caller.uid] -= 1
        if not self._user_counts[waiter.caller.uid]:
            del self._user_counts[waiter.caller.uid]
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
        """Talk to the sidecar until cancelled. May be begun again when it has failed: who waits is posted once more."""
        self._connected = False
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
        if arrival.waiter is not None:
            self._refuse(arrival)
        if arrival.segment is None:
            return
        error = None
        if arrival.error is not None:
            error = _FAILURES.get(arrival.error, RecallFailed)(arrival.message or arrival.error)
            log.error(
                "recall failed", segment=arrival.segment, first=arrival.first, last=arrival.last, reason=str(error)
            )
        for waiter in self._waiters.get(SegmentId(arrival.segment), ()):
            if waiter.overlaps(arrival.first, arrival.last):
                self._wake(waiter, error)

    def _refuse(self, arrival: Arrival) -> None:
        waiter = self._by_id.get(arrival.waiter or "")
        if waiter is None:
            return
        caller = waiter.caller
        log.info("recall refused", uid=caller.uid, thread=caller.thread_id, file=caller.name, reason=arrival.message)
        self._wake(waiter, _REFUSALS.get(arrival.error or "", RecallFailed)(arrival.message))

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
            seen = await self._look_at_all(batch)
            batch = _light_enough(batch, seen)
            try:
                await self._link.post_waiters([waiter.message(seen[_opener(waiter)]) for waiter in batch])
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

    async def _look_at_all(self, waiters: list[_Waiter]) -> dict[tuple[int, int], who.Seen]:
        """Return who opened the files that these waiters read."""
        now_s = trio.current_time()
        known = {opener: found[0] for opener, found in self._seen.items() if now_s - found[1] < _SEEN_S}
        openers = {_opener(waiter) for waiter in waiters}
        known |= {opener: who.Seen() for opener in openers if not opener[0]}
        new = openers - known.keys()
        if new:
            found = await trio.to_thread.run_sync(lambda: {opener: who.look_at(*opener) for opener in new})
            kept = list(self._seen.items())[-_SEEN:]
            self._seen = dict(kept) | {opener: (seen, now_s) for opener, seen in found.items()}
            known |= found
        return {opener: known[opener] for opener in openers}

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


def _opener(waiter: _Waiter) -> tuple[int, int]:
    return waiter.caller.thread_id, waiter.caller.inode


def _light_enough(waiters: list[_Waiter], seen: dict[tuple[int, int], who.Seen]) -> list[_Waiter]:
    """Return as many of the waiters, from the first on, as one request can take."""
    left = _BATCH_PATHS
    for place, waiter in enumerate(waiters):
        left -= len(seen[_opener(waiter)].path or waiter.caller.name)
        if left < 0:
            return waiters[: max(1, place)]
    return waiters
