"""What one drive's mover is asked to read for recalls: rounds from the tape in the drive, and which tape comes next.

Belongs to the drive's task, in its trio run. Choosing is synchronous, so that two drives never take the same tape.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog
import trio

from catalog.ids import VolumeId
from drivers.errors import DriveError
from sidecar.drives.bay import Bay
from sidecar.drives.health import DriveFailed
from sidecar.drives.movers import DRIVE_FAILED, Call, CommandFailed, Mover
from sidecar.drives.shared import Shared
from sidecar.recalls.queue import Request
from sidecar.recalls.tape_order import VERY_FEW, Round
from sidecar.recalls.walks import PIECE_BYTES, STAY_S
from tapefs.errors import NoTape
from tapefs.mover.messages import FrameRange, FramesArrived, FramesFailed, Recall, Recommend

Step = Callable[[], Awaitable[None]]

#: So long may a drive think about the order of a round; then it is planned without.
RECOMMEND_S = 5.0

log = structlog.get_logger(__name__)


class Asking:
    """One drive's."""

    def __init__(self, bay: Bay, shared: Shared) -> None:
        self._bay = bay
        self._shared = shared
        self._recalls = shared.recalls
        #: What the queue's `news` was when it was last looked at.
        self._news = -1
        #: What the mover was asked for and has not answered, oldest first.
        self._asks: list[list[FrameRange]] = []
        #: The drive is being asked for an order; and it is not any more, since a mover died of that.
        self._is_recommending = False
        self._dies_recommending = False

    def asked(self) -> list[FrameRange]:
        """Return what the mover was asked to stage, in its order, of which some may have come."""
        return [frames for ask in self._asks for frames in ask]

    def mover_started(self) -> None:
        """There is another mover, which was asked for nothing."""
        self._asks = []

    def mover_died(self, reason: str) -> None:
        """The mover is gone; others may give what it was asked for."""
        if self._bay.tape is not None:
            self._recalls.mover_died(self._bay.tape, reason)
        self._recalls.overdue_drives.discard(self._bay.number)
        # Else it would die of it again, and the frames of the round be given up.
        self._dies_recommending = self._dies_recommending or self._is_recommending
        self._is_recommending = False

    def note(self, report: FramesArrived | FramesFailed) -> None:
        """Take what the mover says of frames."""
        frames = FrameRange(report.segment_id, report.first, report.last)
        if isinstance(report, FramesArrived):
            self._bay.order.arrived(frames)
            self._recalls.arrived(frames)
        elif self._bay.tape is not None:
            self._recalls.failed(self._bay.tape, frames, report.message, report.error)

    # -- choosing ----------------------------------------------------------------------------------------------------

    def other_tape(self, now_s: float) -> tuple[VolumeId, bool] | None:
        """Return which tape to load for recalls, and whether because it is overdue."""
        others_overdue = len(self._recalls.overdue_drives - {self._bay.number})
        return self._recalls.queue.next_tape(now_s, self._bay.is_usable, self._shared.library.drives, others_overdue)

    def is_waited_for(self) -> bool:
        """Does anybody want to read a tape that this drive could fetch, or that is in it?"""
        tape, walks = self._bay.tape, self._recalls.walks
        if tape is not None and (self._recalls.queue.has_todo(tape) or walks.has_pending(tape)):
            return True
        return self.other_tape(trio.current_time()) is not None or walks.next_tape(self._bay.is_usable) is not None

    def step(self, mover: Mover, nursery: trio.Nursery, volume_id: VolumeId, now_s: float) -> Step | None:
        """Return the step that asks for more of the tape in the drive: a round, or what joins the one that runs."""
        queue = self._recalls.queue
        is_running = queue.has_asked(volume_id)
        if is_running and queue.news == self._news:
            return None
        self._news = queue.news
        todo = queue.todo(volume_id, now_s)
        requests = self._bay.order.joining(todo) if is_running else todo
        return partial(self._ask, mover, nursery, volume_id, requests, not is_running) if requests else None

    def read_ahead(self, volume_id: VolumeId, *, is_awaited: bool, now_s: float) -> None:
        """Have more fetched of what walks want of the tape in the drive; not for long while others wait for it."""
        if is_awaited and now_s > self._bay.since_s + STAY_S:
            self._recalls.stop_reading_ahead(volume_id)
        else:
            order = self._bay.order
            self._recalls.read_ahead(volume_id, order.tail_block, order.blocks_of(PIECE_BYTES))

    # -- steps -------------------------------------------------------------------------------------------------------

    async def mount(self, mover: Mover, volume_id: VolumeId, is_overdue: bool) -> None:
        """Get a tape into the drive, threaded and checked; recalls from it fail when that does not work.

        Raises DriveFailed, MoverDied: then they are for another drive, unless several have failed with that tape.
        """
        self._bay.last_was_backup = False
        if is_overdue:
            self._recalls.overdue_drives.add(self._bay.number)
        else:
            self._recalls.overdue_drives.discard(self._bay.number)
        try:
            await self._bay.thread(mover, volume_id)
        except (CommandFailed, NoTape, DriveError) as error:
            self._recalls.tape_failed(volume_id, str(error))
        except DriveFailed as error:
            if self._bay.is_given_up(volume_id):
                self._recalls.tape_failed(volume_id, str(error))
            raise

    async def _ask(
        self, mover: Mover, nursery: trio.Nursery, volume_id: VolumeId, requests: list[Request], is_round: bool
    ) -> None:
        """Ask for frames from the tape in the drive, planned if they are a round; do not wait for them."""
        self._recalls.queue.ask(volume_id, requests)
        self._bay.last_was_backup = False
        frames = [request.frames for request in requests]
        # At once: what answers to former asks settle meanwhile depends on it.
        self._asks.append(frames)
        if is_round:
            begun = await self._planned(mover, requests)
            self._bay.order.begin(begun)
            frames[:] = [request.frames for request in begun.requests]
        # What a walk wants is known: reading on would only take the room that it needs.
        most_bytes = 0 if len(self._recalls.walks) else self._shared.read_on_bytes
        call = await mover.start_call(
            lambda number: Recall(id=number, volume_id=volume_id, frames=frames, read_on_bytes=most_bytes)
        )
        nursery.start_soon(self._follow, call, volume_id, frames)

    async def _planned(self, mover: Mover, requests: list[Request]) -> Round:
        order = self._bay.order
        if len(requests) <= VERY_FEW:
            return order.plan(requests)
        offered = await self._recommended(mover, requests)
        return await trio.to_thread.run_sync(order.plan, requests, offered)

    async def _recommended(self, mover: Mover, requests: list[Request]) -> list[Sequence[int]]:
        """Return the order that the drive recommends, if it does. One that has none for a tape is asked only once.

        Raises MoverDied.
        """
        bay = self._bay
        if not bay.recommends or self._dies_recommending:
            return []
        bay.recommends, self._is_recommending = False, True
        extents = [(each.block, max(each.block, each.end_block - 1)) for each in requests]
        order: Sequence[int] = ()
        with trio.move_on_after(RECOMMEND_S) as patience:
            try:
                order = (await mover.call(lambda number: Recommend(id=number, extents=extents))).order
            except CommandFailed as error:
                log.warning("the mover could not ask the drive for an order", drive=bay.name, error=str(error))
        if patience.cancelled_caught:
            log.warning("the drive thinks too long about an order", drive=bay.name, seconds=RECOMMEND_S)
        self._is_recommending = False
        bay.recommends = bool(order)
        return [order] if order else []

    async def _follow(self, call: Call, volume_id: VolumeId, frames: list[FrameRange]) -> None:
        message, has_room_again = "the mover ended the recall without these frames", False
        try:
            await call.wait_done()
            self._shared.fleet.of(self._bay.name).worked()
        except CommandFailed as error:
            message = str(error)
            if error.kind == DRIVE_FAILED:
                # What it has not given is to do again, by whichever drive gets the tape: see `mover_died`.
                raise DriveFailed(message) from error
            if error.kind == "no_space":
                # It ends by itself: without anything left to drop the recall fails.
                has_room_again = await self._shared.make_room() > 0
                message = "the disk of the staging area is full, and all that is there is pinned or open"
        place = next(place for place, each in enumerate(self._asks) if each is frames)
        later = [each for ask in self._asks[place + 1 :] for each in ask]
        del self._asks[place]
        if has_room_again:
            self._recalls.ask_again(volume_id, frames, later)
        else:
            self._recalls.settle(volume_id, frames, later, message)
