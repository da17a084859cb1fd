"""Recalls as the sidecar does them: the queue, with the ledger's copies, the staging area and the mounts around it.

One trio run. Whatever changes the queue rings the bell, so that the drives look again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import structlog
import trio

from catalog.errors import NotFound
from catalog.ids import SegmentId, VolumeId
from catalog.ledger import Ledger
from catalog.records import CopyState, SegmentCopy, VolumeState
from drivers.interface import ElementKind
from sidecar.arrivals import Arrivals
from sidecar.bell import Bell
from sidecar.library import Library
from sidecar.recalls import Place, RecallQueue, Waiter
from tapefs.home import Home
from tapefs.mover.messages import FrameRange
from tapefs.staging.stage import SegmentStage

#: How often deadlines are looked at.
DEADLINES_S = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """A reader's wish as it was posted; `deadline_s` counts from now, 0 means never."""

    waiter_id: str
    frames: FrameRange
    deadline_s: float


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why frames cannot be had: a word for programs, a sentence for people."""

    error: str
    message: str


READ_FAILED = _Refusal("read_failed", "no copy of it could be read just now")


class Recalls:
    """Takes wishes, gives drives their work, tells the mounts what became of it."""

    def __init__(self, home: Home, ledger: Ledger, library: Library, arrivals: Arrivals, bell: Bell) -> None:
        self._home = home
        self._ledger = ledger
        self._library = library
        self._arrivals = arrivals
        self._bell = bell
        self.queue = RecallQueue()
        #: Drives that were given a tape because it was overdue, until their next.
        self.overdue_drives: set[int] = set()
        #: Set when something was staged; the evictor looks at it.
        self.staged = trio.Event()

    # -- wishes ------------------------------------------------------------------------------------------------------

    def wait_for(self, wishes: Sequence[Wish]) -> None:
        """Note waiting readers; those whose frames are here or cannot be had are told at once, over the arrivals."""
        now = trio.current_time()
        by_segment: dict[SegmentId, list[Wish]] = {}
        for wish in wishes:
            by_segment.setdefault(wish.frames.segment_id, []).append(wish)
        for segment_id, same in by_segment.items():
            places, here, refusal = self._look(segment_id, [wish.frames for wish in same])
            for wish in same:
                if self._is_answered(wish.frames, here, refusal):
                    continue
                deadline = now + wish.deadline_s if wish.deadline_s > 0 else math.inf
                self._lose(self.queue.wait_for(Waiter(wish.waiter_id, wish.frames, now, deadline), places), READ_FAILED)
        self._bell.ring()

    def order(self, ranges: Sequence[FrameRange]) -> None:
        """Have frames staged though nobody waits."""
        now = trio.current_time()
        by_segment: dict[SegmentId, list[FrameRange]] = {}
        for frames in ranges:
            by_segment.setdefault(frames.segment_id, []).append(frames)
        for segment_id, same in by_segment.items():
            places, here, refusal = self._look(segment_id, same)
            for frames in same:
                if not self._is_answered(frames, here, refusal):
                    self._lose(self.queue.order_frames(frames, places, now), READ_FAILED)
        self._bell.ring()

    def cancel(self, waiter_ids: Iterable[str]) -> int:
        """Detach waiters; return how many were known."""
        count = self.queue.cancel(waiter_ids)
        self._bell.ring()
        return count

    async def run_deadlines(self) -> None:
        """Let go of late waiters, for ever."""
        while True:
            await trio.sleep(DEADLINES_S)
            self.queue.expire(trio.current_time())

    # -- what the drives report --------------------------------------------------------------------------------------

    def arrived(self, frames: FrameRange) -> None:
        """A mover has staged frames, asked for or not."""
        self.queue.arrived(frames)
        self._arrivals.arrived(frames)
        self.staged.set()
        self._bell.ring()

    def failed(self, volume_id: VolumeId, frames: FrameRange, message: str) -> None:
        """A mover cannot read frames from this tape; other copies are tried first."""
        log.warning("frames unreadable", segment=frames.segment_id, first=frames.first, last=frames.last, error=message)
        self._lose(self.queue.failed(volume_id, frames), _Refusal("read_failed", message))
        self._bell.ring()

    def tape_failed(self, volume_id: VolumeId, message: str) -> None:
        """The tape cannot be had at all."""
        log.warning("tape unusable for recalls", volume=volume_id, error=message)
        self._lose(self.queue.tape_failed(volume_id), _Refusal("offline", message))
        self._bell.ring()

    def mover_died(self, volume_id: VolumeId) -> None:
        """What was asked of the mover is to do again, unless that has killed movers before."""
        self._lose(
            self.queue.mover_died(volume_id), _Refusal("mover_died", "reading it ended several movers: see the log")
        )
        self._bell.ring()

    def settle(
        self, volume_id: VolumeId, asked: Sequence[FrameRange], later: Sequence[FrameRange], message: str
    ) -> None:
        """A mover has answered a Recall: what it neither staged nor refused has failed, with `message`.

        `later`: what further Recalls of this mover, not answered yet, ask for.
        """
        for frames in self.queue.still_asked(volume_id, asked, later):
            if self._staged(frames.segment_id, [frames]) == [True]:
                self.arrived(frames)
            else:
                self.failed(volume_id, frames, message)

    def ask_again(self, volume_id: VolumeId, asked: Sequence[FrameRange], later: Sequence[FrameRange]) -> None:
        """A mover had no room for the frames, and now there is: what is left of them is to do again."""
        self.queue.ask_again(volume_id, self.queue.still_asked(volume_id, asked, later))
        self._bell.ring()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _look(
        self, segment_id: SegmentId, ranges: Sequence[FrameRange]
    ) -> tuple[list[Place], dict[FrameRange, bool], dict[FrameRange, _Refusal]]:
        """Return where the segment can be read, which ranges are staged, and which make no sense."""
        try:
            frames_in_all = self._ledger.segment(segment_id).frames
        except NotFound:
            missing = _Refusal("not_found", f"there is no segment {segment_id} in the catalog")
            return [], {}, dict.fromkeys(ranges, missing)
        here = dict(zip(ranges, self._staged(segment_id, ranges), strict=True))
        places, refusal = self._places(segment_id)
        refused = {frames: refusal for frames in ranges if refusal is not None}
        beyond = _Refusal("not_found", f"segment {segment_id} has only {frames_in_all} frames")
        refused |= {frames: beyond for frames in ranges if frames.last >= frames_in_all}
        return places, here, refused

    def _staged(self, segment_id: SegmentId, ranges: Sequence[FrameRange]) -> list[bool]:
        stage = SegmentStage.open(self._home.staging, segment_id)
        if stage is None:
            return [False] * len(ranges)
        try:
            return [stage.has(range(frames.first, frames.last + 1)) for frames in ranges]
        finally:
            stage.close()

    def _places(self, segment_id: SegmentId) -> tuple[list[Place], _Refusal | None]:
        """Return the copies, best first: in a drive, in a slot; damaged ones and those on doubtful tapes last."""
        copies = self._ledger.copies(segment_id)
        if not copies:
            return [], _Refusal("no_copy", f"segment {segment_id} is on no tape that the catalog knows")
        frames = self._ledger.segment(segment_id).frames
        places = [_place(copy, frames) for copy in sorted(copies, key=self._rank)]
        present = [place for place in places if self._library.is_here(place.volume_id)]
        if not present:
            labels = ", ".join(self._ledger.volume(place.volume_id).label for place in places)
            return [], _Refusal("offline", f"tape {labels} is not in the library: put it in")
        return present, None

    def _rank(self, copy: SegmentCopy) -> tuple[bool, bool]:
        volume = self._ledger.volume(copy.volume_id)
        place = self._library.place_of(volume.label)
        is_doubtful = volume.state is VolumeState.SUSPECT or copy.state is CopyState.DAMAGED
        return is_doubtful, place is None or place.kind is not ElementKind.DRIVE

    def _is_answered(
        self, frames: FrameRange, here: dict[FrameRange, bool], refusal: dict[FrameRange, _Refusal]
    ) -> bool:
        if here.get(frames):
            self._arrivals.arrived(frames)
        elif frames in refusal:
            self._lose([frames], refusal[frames])
        else:
            return False
        return True

    def _lose(self, ranges: Iterable[FrameRange], refusal: _Refusal) -> None:
        for frames in ranges:
            self._arrivals.failed(frames, refusal.error, refusal.message)


def _place(copy: SegmentCopy, frames: int) -> Place:
    return Place(copy.volume_id, copy.payload_block, copy.trailer_block - copy.payload_block, max(frames, 1))
