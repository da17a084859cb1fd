"""Requests to stage files, from the ledger to the drives and back. One trio run; threads write the ledger.

A file is SUBMITTED until the pins have room for it, STARTED while its frames are asked for, COMPLETED when all of it is
staged and pinned. All of that survives the sidecar: what was STARTED is asked for again. What is COMPLETED stays staged
for its lifetime, or until its client releases it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec
import structlog
import trio

from catalog.errors import CatalogError
from catalog.ids import SegmentId, new_uuid
from catalog.ledger import Ledger
from catalog.stage_records import StageFile, StageRequest, StageState
from sidecar.http.callers import Caller, Role
from sidecar.recalls.arrivals import Arrivals
from sidecar.recalls.evictor import Evictor
from sidecar.recalls.guard import Reader
from sidecar.recalls.pins import Pins
from sidecar.recalls.recalling import Recalls, Wish
from sidecar.view.files import NOBODY_UID, Files, Item
from sidecar.view.link import OwnLink
from tapefs.errors import NoRoom, NoSuchThing, TapefsError, Unreachable
from tapefs.mount.link import Arrival
from tapefs.mover.messages import FrameRange
from tapefs.vfs.residency import State

#: Files that are pinned and asked for together.
_BATCH = 500
#: Requests of a burst are looked at together.
_GATHER_S = 0.1
#: All files are looked at after this, should an arrival have been missed.
_SWEEP_S = 30.0
#: A request that is over is remembered so long.
KEPT_S = 7 * 86_400
_NS_PER_S = 1_000_000_000

#: Who looks things up here: whether the client may have them was decided when it asked.
_SELF = Caller("wlcg", Role.ADMIN)

log = structlog.get_logger(__name__)

_Key = tuple[str, int]


@dataclass(slots=True, eq=False)
class _Work:
    """A file that is asked for."""

    key: _Key
    item: Item
    frames: list[FrameRange]
    waiters: list[str] = field(default_factory=list)

    def overlaps(self, segment: str, first: int, last: int) -> bool:
        return any(
            frames.segment_id == segment and frames.first <= last and first <= frames.last for frames in self.frames
        )


def is_of(request: StageRequest, caller: Caller) -> bool:
    """Is it his? Two tokens may have one name; of requests of an earlier version only that is known."""
    return request.owner_id == caller.identity if request.owner_id else request.owner == caller.name


class BulkStaging:
    """All requests. `run` must run meanwhile."""

    def __init__(
        self, ledger: Ledger, files: Files, recalls: Recalls, pins: Pins, evictor: Evictor, arrivals: Arrivals
    ) -> None:
        """Read the ledger: blocking."""
        self._ledger = ledger
        self._files = files
        self._recalls = recalls
        self._pins = pins
        self._evictor = evictor
        self._link = OwnLink(recalls, arrivals)
        self._requests = {each.request_id: each for each in ledger.stage_requests()}
        self._works: dict[_Key, _Work] = {}
        self._by_segment: dict[SegmentId, set[_Key]] = {}
        self._by_waiter: dict[str, _Key] = {}
        self._dirty: set[str] = set()
        self._news = trio.Event()
        self._changing = trio.Lock()

    # -- for clients -------------------------------------------------------------------------------------------------

    async def add(self, files: Sequence[StageFile], owner: Caller) -> StageRequest:
        """Record a request; what becomes of it is to be polled. Raises CatalogError."""
        request = StageRequest(
            request_id=new_uuid(),
            owner=owner.name,
            owner_id=owner.identity,
            created_at_ns=time.time_ns(),
            files=tuple(files),
            pin_id=new_uuid(),
        )
        await trio.to_thread.run_sync(self._ledger.put_stage_request, request)
        self._requests[request.request_id] = request
        self._news.set()
        return request

    async def add_once(self, files: Sequence[StageFile], owner: Caller) -> StageRequest:
        """Return the open request of this owner for the same files, so that asking again adds none; else as `add`."""
        paths = [file.path for file in files]
        for known in self._requests.values():
            if is_of(known, owner) and known.is_open and [file.path for file in known.files] == paths:
                return known
        return await self.add(files, owner)

    def request(self, request_id: str) -> StageRequest:
        """Return a request. Raises NoSuchThing."""
        request = self._requests.get(request_id)
        if request is None:
            raise NoSuchThing(f"there is no request {request_id}")
        return request

    async def cancel(self, request_id: str, paths: Iterable[str]) -> None:
        """Give up files that are not staged yet. Raises NoSuchThing, also for a path that the request does not have."""
        async with self._changing:
            for number in self._numbers(request_id, paths):
                if not self._requests[request_id].files[number].state.is_over:
                    self._end((request_id, number), StageState.CANCELLED)
            await self._pin_what_is_left(request_id)
        await self._flush()

    async def release(self, request_id: str, paths: Iterable[str]) -> None:
        """Let files go: they stay staged until the room is needed. Raises as cancel."""
        async with self._changing:
            for number in self._numbers(request_id, paths):
                self._change((request_id, number), is_released=True)
            await self._pin_what_is_left(request_id)
        self._news.set()
        await self._flush()

    async def delete(self, request_id: str) -> None:
        """Give up what is not staged yet, and forget the request; what is staged stays pinned for its lifetime.

        Raises NoSuchThing.
        """
        await self.cancel(request_id, [file.path for file in self.request(request_id).files])
        await trio.to_thread.run_sync(self._ledger.drop_stage_request, request_id)
        self._requests.pop(request_id, None)
        self._dirty.discard(request_id)

    def _numbers(self, request_id: str, paths: Iterable[str]) -> list[int]:
        by_path: dict[str, list[int]] = {}
        for number, file in enumerate(self.request(request_id).files):
            by_path.setdefault(file.path, []).append(number)
        wanted = list(dict.fromkeys(paths))
        unknown = [path for path in wanted if path not in by_path]
        if unknown:
            raise NoSuchThing(f"request {request_id} has no file {unknown[0]!r}")
        return [number for path in wanted for number in by_path[path]]

    # -- working -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Begin files as there is room, and note what arrives, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._listen)
            while True:
                self._news = trio.Event()
                self._sweep()
                async with self._changing:
                    await self._begin()
                await self._flush()
                await self._forget_old()
                with trio.move_on_after(_SWEEP_S):
                    await self._news.wait()
                    await trio.sleep(_GATHER_S)

    async def _listen(self, task_status: trio.TaskStatus[None]) -> None:
        is_first = True
        while True:
            try:
                async with aclosing(self._link.arrivals()) as arrivals:
                    async for arrival in arrivals:
                        if is_first:
                            is_first = False
                            task_status.started()
                        self._note(arrival)
            except Unreachable:
                # Cut off for being slow, or the sidecar is about to end; the sweep finds what was missed.
                if is_first:
                    is_first = False
                    task_status.started()
                self._news.set()
                await trio.sleep(1.0)

    def _note(self, arrival: Arrival) -> None:
        if arrival.waiter is not None:
            key = self._by_waiter.get(arrival.waiter)
            if key is not None:
                self._end(key, StageState.FAILED, arrival.message or arrival.error or "refused")
        elif arrival.segment is not None:
            for key in list(self._by_segment.get(SegmentId(arrival.segment), ())):
                if self._works[key].overlaps(arrival.segment, arrival.first, arrival.last):
                    self._look(key, arrival.message or arrival.error or "")

    def _look(self, key: _Key, error: str = "") -> None:
        """End a file that is staged, or of which frames cannot be had."""
        try:
            if self._files.state(self._works[key].item) is State.ONLINE:
                self._end(key, StageState.COMPLETED)
            elif error:
                self._end(key, StageState.FAILED, error)
        except (TapefsError, CatalogError, OSError) as problem:
            self._end(key, StageState.FAILED, str(problem))

    def _sweep(self) -> None:
        for key in list(self._works):
            self._look(key)

    async def _begin(self) -> None:
        """Begin what is submitted, oldest request first, as far as the pins have room."""
        await self._files.refresh()
        for request_id in list(self._requests):
            works: list[_Work] = []
            for number, file in enumerate(self._requests[request_id].files):
                key = request_id, number
                if file.state.is_over or key in self._works:
                    continue
                work = self._found(key, file)
                if work is not None:
                    works.append(work)
                if len(works) == _BATCH:
                    if not await self._start(request_id, works):
                        return
                    works = []
                await trio.lowlevel.checkpoint()
            if works and not await self._start(request_id, works):
                return

    def _found(self, key: _Key, file: StageFile) -> _Work | None:
        """Return what is to be staged; end the file when it cannot be, or need not."""
        try:
            item = self._files.find(file.path_bytes, _SELF)
            if not item.is_file:
                self._end(key, StageState.FAILED, "it is no regular file")
                return None
            frames = self._files.frames(item)
        except (TapefsError, CatalogError, OSError) as error:
            self._end(key, StageState.FAILED, str(error))
            return None
        if not frames:
            self._end(key, StageState.COMPLETED)
            return None
        return _Work(key, item, frames)

    async def _start(self, request_id: str, works: Sequence[_Work]) -> bool:
        """Pin files and ask for them; False when the pins have no room for the next one."""
        request = self._requests[request_id]
        try:
            await self._pin(request, [frames for work in works for frames in work.frames], self._lifetime_s(works))
        except NoRoom:
            if len(works) > 1:
                half = len(works) // 2
                return await self._start(request_id, works[:half]) and await self._start(request_id, works[half:])
            if self._pins.used_bytes():
                return False
            self._end(works[0].key, StageState.FAILED, "it is larger than all that may be pinned in the staging area")
            return True
        except (TapefsError, CatalogError, OSError) as error:
            for work in works:
                self._end(work.key, StageState.FAILED, str(error))
            return True
        await self._evictor.settle()
        await self._ask(works)
        return True

    async def _ask(self, works: Sequence[_Work]) -> None:
        wishes: list[Wish] = []
        for work in works:
            self._works[work.key] = work
            if self._file(work.key).state is StageState.SUBMITTED:
                self._change(work.key, state=StageState.STARTED, started_at_ns=time.time_ns())
            for frames in work.frames:
                waiter_id = new_uuid()
                work.waiters.append(waiter_id)
                self._by_waiter[waiter_id] = work.key
                self._by_segment.setdefault(frames.segment_id, set()).add(work.key)
                reader = Reader(
                    NOBODY_UID, commands=("wlcg",), path=self._file(work.key).path, size_bytes=work.item.size_bytes
                )
                wishes.append(Wish(waiter_id, frames, 0.0, reader))
            self._look(work.key)
        wishes = [wish for wish in wishes if wish.waiter_id in self._by_waiter]
        await self._recalls.look_around(wish.frames.segment_id for wish in wishes)
        self._recalls.wait_for(wishes)

    # -- pins --------------------------------------------------------------------------------------------------------

    async def _pin(self, request: StageRequest, frames: Sequence[FrameRange], lifetime_s: int) -> None:
        await self._pins.add(
            frames,
            owner=request.owner,
            reason=f"request {request.request_id} to stage files",
            lifetime_s=lifetime_s,
            pin_id=request.pin_id,
        )

    async def _pin_what_is_left(self, request_id: str) -> None:
        """Have a new pin hold what is still wanted before the old one ends."""
        request = self._requests[request_id]
        known = next((pin for pin in self._pins.all() if pin.pin_id == request.pin_id), None)
        if known is None:
            return
        left = [
            frames
            for file in request.files
            if file.state in (StageState.STARTED, StageState.COMPLETED) and not file.is_released
            for frames in self._files.frames(self._files.find(file.path_bytes, _SELF))
        ]
        renewed = msgspec.structs.replace(request, pin_id=new_uuid())
        if left:
            left_s = max(1, (known.expires_at_ns - time.time_ns()) // _NS_PER_S)
            await self._pin(renewed, left, left_s)
        self._requests[request_id] = renewed
        self._dirty.add(request_id)
        await self._pins.drop(known.pin_id)
        self._news.set()

    def _lifetime_s(self, works: Iterable[_Work]) -> int:
        return max(self._file(work.key).lifetime_s for work in works)

    # -- records -----------------------------------------------------------------------------------------------------

    def _file(self, key: _Key) -> StageFile:
        return self._requests[key[0]].files[key[1]]

    def _end(self, key: _Key, state: StageState, error: str = "") -> None:
        """Nothing more becomes of a file."""
        work = self._works.pop(key, None)
        if work is not None:
            self._recalls.cancel(work.waiters)
            for waiter_id in work.waiters:
                self._by_waiter.pop(waiter_id, None)
            for frames in work.frames:
                keys = self._by_segment.get(frames.segment_id, set())
                keys.discard(key)
                if not keys:
                    self._by_segment.pop(frames.segment_id, None)
        now_ns = time.time_ns()
        started_at_ns = self._file(key).started_at_ns or (now_ns if state is StageState.COMPLETED else 0)
        self._change(key, state=state, error=error, started_at_ns=started_at_ns, finished_at_ns=now_ns)
        if state is StageState.FAILED:
            log.warning("a file could not be staged", request=key[0], path=self._file(key).path, error=error)
        self._news.set()

    def _change(self, key: _Key, **changes: object) -> None:
        request = self._requests[key[0]]
        files = list(request.files)
        files[key[1]] = msgspec.structs.replace(files[key[1]], **changes)
        self._requests[key[0]] = msgspec.structs.replace(request, files=tuple(files))
        self._dirty.add(key[0])

    async def _flush(self) -> None:
        """Write what has changed, and have the pins of what has been staged last for its lifetime from now on."""
        for request_id in list(self._dirty):
            self._dirty.discard(request_id)
            request = self._requests.get(request_id)
            if request is None:
                continue
            try:
                await trio.to_thread.run_sync(self._ledger.put_stage_request, request)
                await self._prolong(request)
            except (CatalogError, TapefsError) as error:
                log.error("a request to stage cannot be written down", request=request_id, error=str(error))
                self._dirty.add(request_id)

    async def _prolong(self, request: StageRequest) -> None:
        done = [file for file in request.files if file.state is StageState.COMPLETED and not file.is_released]
        is_pinned = any(pin.pin_id == request.pin_id for pin in self._pins.all())
        if done and is_pinned:
            ends_ns = max(file.finished_at_ns + file.lifetime_s * _NS_PER_S for file in done)
            left_s = (ends_ns - time.time_ns()) / _NS_PER_S
            if left_s > 0:
                await self._pins.add(
                    [],
                    owner=request.owner,
                    reason=f"request {request.request_id} to stage files",
                    lifetime_s=left_s,
                    pin_id=request.pin_id,
                )

    async def _forget_old(self) -> None:
        before_ns = time.time_ns() - KEPT_S * _NS_PER_S
        for request in list(self._requests.values()):
            if 0 < request.completed_at_ns < before_ns:
                await trio.to_thread.run_sync(self._ledger.drop_stage_request, request.request_id)
                del self._requests[request.request_id]
