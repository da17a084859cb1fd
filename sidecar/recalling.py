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
from catalog.ids import FrameNo, SegmentId, VolumeId
from catalog.ledger import Ledger
from catalog.records import CopyState, SegmentCopy, VolumeState
from drivers.interface import ElementKind
from sidecar.arrivals import Arrivals
from sidecar.bell import Bell
from sidecar.desk import Choice, Desk, standing_of
from sidecar.guard import Action, Mode, Reader
from sidecar.library import Library
from sidecar.readings import Outcome, Reading, Wait
from sidecar.recall_log import Entry
from sidecar.recalls import Place, RecallQueue, Waiter
from tapefs.home import Home
from tapefs.mover.messages import FrameRange
from tapefs.staging.stage import SegmentStage
from tapefs.staging.worth import MOUNT_S, Tape

#: How often deadlines are looked at.
DEADLINES_S = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """A reader's wish as it was posted; `deadline_s` counts from now, 0 means never."""

    waiter_id: str
    frames: FrameRange
    deadline_s: float
    reader: Reader


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why frames cannot be had: a word for programs, a sentence for people."""

    error: str
    message: str


READ_FAILED = _Refusal("read_failed", "no copy of it could be read just now")


@dataclass(frozen=True, slots=True)
class _Found:
    """What is known of a segment."""

    places: list[Place]
    #: Which of the ranges asked for are staged.
    here: dict[FrameRange, bool]
    #: Why these ranges cannot be had.
    refused: dict[FrameRange, _Refusal]
    #: Mean plain size of its frames.
    frame_bytes: int


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
        self.desk = Desk(home)
        #: Set when something was staged; the evictor looks at it.
        self.staged = trio.Event()

    # -- wishes ------------------------------------------------------------------------------------------------------

    def wait_for(self, wishes: Sequence[Wish]) -> None:
        """Note waiting readers; those whose frames are here or cannot be had are told at once, over the arrivals."""
        now = trio.current_time()
        self._receive(
            [
                (
                    wish.reader,
                    Wait(
                        wish.waiter_id,
                        wish.frames,
                        now,
                        now + wish.deadline_s if wish.deadline_s > 0 else math.inf,
                        is_held=False,
                    ),
                )
                for wish in wishes
                if not self.desk.is_known(wish.waiter_id)
            ]
        )

    def _receive(self, waits: Sequence[tuple[Reader, Wait]]) -> None:
        by_segment: dict[SegmentId, list[tuple[Reader, Wait]]] = {}
        for reader, wait in waits:
            by_segment.setdefault(wait.frames.segment_id, []).append((reader, wait))
        for segment_id, same in by_segment.items():
            found = self._look(segment_id, [wait.frames for _, wait in same])
            for reader, wait in same:
                if not self._is_answered(wait.frames, found):
                    self._admit(reader, wait, found)
            self._note_released(Outcome.FAILED, READ_FAILED.message, [segment_id])
        self._bell.ring()

    def _admit(self, reader: Reader, wait: Wait, found: _Found) -> None:
        """Have the frames fetched for a reader, unless it may not, or has to ask."""
        verdict = self.desk.receive(reader, wait, found.frame_bytes)
        if verdict.action is Action.ASK:
            return
        if verdict.action is Action.DENY:
            self._refuse(wait, Outcome.REFUSED, _Refusal("denied", verdict.reason))
            return
        new = self.queue.not_wanted(wait.frames)
        volume_id = found.places[0].volume_id
        new_bytes = found.frame_bytes * sum(last - first + 1 for first, last in new)
        refusal = self.desk.allowances.refusal(reader.uid, new_bytes, volume_id, trio.current_time()) if new else None
        if refusal is not None:
            self._refuse(wait, Outcome.REFUSED, _Refusal("limit", refusal))
            return
        self.desk.allowances.admit(reader.uid, wait.frames.segment_id, new, found.frame_bytes, volume_id)
        if verdict.action is Action.NONBLOCK:
            self._refuse(wait, Outcome.DEFERRED, _Refusal("deferred", f"{verdict.reason}: it is being fetched"))
            self._lose(self.queue.order_frames(wait.frames, found.places, wait.since_s), READ_FAILED)
        else:
            waiter = Waiter(wait.waiter_id, wait.frames, wait.since_s, wait.deadline_s)
            self._lose(self.queue.wait_for(waiter, found.places), READ_FAILED)

    def _refuse(self, wait: Wait, outcome: Outcome, refusal: _Refusal) -> None:
        self.desk.over(wait.waiter_id, outcome, refusal.message)
        self._arrivals.refused(wait.waiter_id, refusal.error, refusal.message)

    def order(self, ranges: Sequence[FrameRange]) -> None:
        """Have frames staged though nobody waits."""
        now = trio.current_time()
        by_segment: dict[SegmentId, list[FrameRange]] = {}
        for frames in ranges:
            by_segment.setdefault(frames.segment_id, []).append(frames)
        for segment_id, same in by_segment.items():
            found = self._look(segment_id, same)
            for frames in same:
                if not self._is_answered(frames, found):
                    self._lose(self.queue.order_frames(frames, found.places, now), READ_FAILED)
            self._note_released(Outcome.FAILED, READ_FAILED.message, [segment_id])
        self._bell.ring()

    def cancel(self, waiter_ids: Iterable[str]) -> int:
        """Detach waiters; return how many were known."""
        known = [waiter_id for waiter_id in waiter_ids if self.desk.is_known(waiter_id)]
        self.queue.cancel(known)
        self._note_released(Outcome.LEFT)
        for waiter_id in known:
            self.desk.over(waiter_id, Outcome.LEFT)  # It was waiting for an operator.
        self._bell.ring()
        return len(known)

    # -- operators ---------------------------------------------------------------------------------------------------

    def grant(self, number: int, *, whole_process: bool) -> int:
        """Have fetched what a reader asks for; return how many reads. Raises NoSuchThing."""
        concerned = self.desk.say(number, True, whole_process=whole_process)
        numbers = {reading.number for reading in concerned}
        return self._reconsider([held for held in self.desk.held() if held[0].number in numbers])

    def deny(self, number: int, *, whole_process: bool) -> int:
        """Refuse a reader what it waits for, asked for or granted; return how many reads. Raises NoSuchThing."""
        waits = [
            wait
            for reading in self.desk.say(number, False, whole_process=whole_process)
            for wait in list(reading.waits.values())
        ]
        for wait in waits:
            self._refuse(wait, Outcome.REFUSED, _Refusal("denied", "an operator has denied it"))
        self.queue.cancel([wait.waiter_id for wait in waits])
        self._note_released(Outcome.REFUSED)
        self._bell.ring()
        return len(waits)

    async def switch(self, mode: Mode) -> None:
        """Change what readers get that no rule names. Those who ask get it at once; who waits for tape goes on."""
        await trio.to_thread.run_sync(self.desk.guard.switch, mode)
        log.info("recalls switched", mode=mode.value)
        self._reconsider(self.desk.held())

    def _reconsider(self, held: Sequence[tuple[Reading, Wait]]) -> int:
        """Decide anew about reads that wait for an operator."""
        self._receive([(reading.reader, self.desk.take_back(wait)) for reading, wait in held])
        return len(held)

    def waiting(self, choice: Choice, asked: Iterable[FrameRange]) -> list[Entry]:
        """Return who waits now, oldest first. `asked`: what the movers work on, in their order."""

        def label(volume_id: VolumeId) -> str:
            return self._ledger.volume(volume_id).label

        def is_loaded(volume_id: VolumeId) -> bool:
            place = self._library.place_of(label(volume_id))
            return place is not None and place.kind is ElementKind.DRIVE

        plans = self.queue.plans(asked, is_loaded, trio.current_time())
        return self.desk.waiting(choice, standing_of(plans, label))

    async def run_deadlines(self) -> None:
        """Let go of late waiters, for ever."""
        while True:
            await trio.sleep(DEADLINES_S)
            self.queue.expire(trio.current_time())
            self._note_released(Outcome.LATE)
            self.desk.take_late()

    # -- what the drives report --------------------------------------------------------------------------------------

    def arrived(self, frames: FrameRange) -> None:
        """A mover has staged frames, asked for or not."""
        self.desk.allowances.arrived(frames.segment_id, frames.first, frames.last, trio.current_time())
        self.queue.arrived(frames)
        self._note_released(Outcome.FETCHED)
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

    def _look(self, segment_id: SegmentId, ranges: Sequence[FrameRange]) -> _Found:
        """Return where the segment can be read, which ranges are staged, and which make no sense."""
        try:
            segment = self._ledger.segment(segment_id)
        except NotFound:
            missing = _Refusal("not_found", f"there is no segment {segment_id} in the catalog")
            return _Found([], {}, dict.fromkeys(ranges, missing), 0)
        here = dict(zip(ranges, self._staged(segment_id, ranges), strict=True))
        places, refusal = self._places(segment_id)
        refused = {frames: refusal for frames in ranges if refusal is not None}
        beyond = _Refusal("not_found", f"segment {segment_id} has only {segment.frames} frames")
        refused |= {frames: beyond for frames in ranges if frames.last >= segment.frames}
        return _Found(places, here, refused, -(-segment.plain_bytes // max(1, segment.frames)))

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

    def nearest(self, segment_id: SegmentId) -> Tape:
        """Return how far its nearest copy is from a drive."""
        places = [
            self._library.place_of(self._ledger.volume(c.volume_id).label) for c in self._ledger.copies(segment_id)
        ]
        kinds = {place.kind for place in places if place is not None}
        if not kinds:
            return Tape(None)
        return Tape(0.0 if ElementKind.DRIVE in kinds else MOUNT_S)

    def _rank(self, copy: SegmentCopy) -> tuple[bool, bool]:
        volume = self._ledger.volume(copy.volume_id)
        place = self._library.place_of(volume.label)
        is_doubtful = volume.state is VolumeState.SUSPECT or copy.state is CopyState.DAMAGED
        return is_doubtful, place is None or place.kind is not ElementKind.DRIVE

    def _is_answered(self, frames: FrameRange, found: _Found) -> bool:
        if found.here.get(frames):
            self._arrivals.arrived(frames)
        elif frames in found.refused:
            self._lose([frames], found.refused[frames])
        else:
            return False
        return True

    def _lose(self, ranges: Iterable[FrameRange], refusal: _Refusal) -> None:
        """Tell that frames cannot be had."""
        lost = list(ranges)
        self._note_released(Outcome.FAILED, refusal.message, {frames.segment_id for frames in lost})
        for frames in lost:
            self._arrivals.failed(frames, refusal.error, refusal.message)

    def _note_released(self, outcome: Outcome, reason: str = "", segments: Iterable[SegmentId] = ()) -> None:
        """Note what became of the waiters that the queue has let go, and whose frames do not come any more."""
        touched = set(segments)
        for waiter_id in self.queue.take_released():
            touched.update(self.desk.segment_of(waiter_id))
            self.desk.over(waiter_id, outcome, reason)
        for segment_id in touched:
            for run in self.desk.allowances.pending(segment_id):
                self.desk.allowances.dropped(segment_id, self.queue.not_wanted(_range(segment_id, run)))


def _range(segment_id: SegmentId, run: tuple[int, int]) -> FrameRange:
    return FrameRange(segment_id, FrameNo(run[0]), FrameNo(run[1]))


def _place(copy: SegmentCopy, frames: int) -> Place:
    return Place(copy.volume_id, copy.payload_block, copy.trailer_block - copy.payload_block, max(frames, 1))
