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
from catalog.records import Segment
from drivers.errors import DriveError
from drivers.interface import ElementKind
from sidecar.bell import Bell
from sidecar.recalls.arrivals import Arrivals
from sidecar.recalls.desk import Choice, Desk, standing_of
from sidecar.recalls.guard import Action, Mode, Reader
from sidecar.recalls.log import Entry
from sidecar.recalls.queue import RecallQueue
from sidecar.recalls.readings import Outcome, Reading, Wait
from sidecar.recalls.walks import Walks
from sidecar.recalls.wanted import Place, Waiter
from sidecar.recalls.whereabouts import Whereabouts
from sidecar.tapes.library import Library
from tapefs.errors import KeyMissing
from tapefs.home import Home
from tapefs.keys.driving import require_key
from tapefs.keys.reading import identity_of
from tapefs.mover.messages import FrameRange
from tapefs.spans import Spans
from tapefs.staging.stage import SegmentStage

#: How often deadlines are looked at.
DEADLINES_S = 1.0
#: So long an inventory counts when a tape is missed.
INVENTORY_S = 2.0

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

    def __init__(
        self, home: Home, ledger: Ledger, library: Library, arrivals: Arrivals, bell: Bell, walks: Walks
    ) -> None:
        self._home = home
        self._ledger = ledger
        self._library = library
        self.whereabouts = Whereabouts(ledger, library)
        self._arrivals = arrivals
        self._bell = bell
        self.queue = RecallQueue()
        self.walks = walks
        #: Reads that wait for what is being read ahead: nothing is fetched for them apart.
        self._joined: dict[str, tuple[Reader, Wait]] = {}
        #: Drives that were given a tape because it was overdue, until their next.
        self.overdue_drives: set[int] = set()
        self.desk = Desk(home)
        #: Set when something was staged; the evictor looks at it.
        self.staged = trio.Event()
        #: Frames that movers have staged since the start, or found staged.
        self.fetched_frames = 0
        self._looking = trio.Lock()
        self._looked_s = -math.inf

    # -- wishes ------------------------------------------------------------------------------------------------------

    async def look_around(self, segments: Iterable[SegmentId]) -> None:
        """Ask the robot anew if no tape of one of the segments is here: somebody may have put one in meanwhile."""
        if not any(self.whereabouts.is_away(segment_id) for segment_id in set(segments)):
            return
        async with self._looking:
            if trio.current_time() < self._looked_s + INVENTORY_S:
                return
            try:
                await self._library.refresh()
            except DriveError as error:
                log.warning("the library does not tell what is in it", error=str(error))
            self._looked_s = trio.current_time()

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
                if self._is_answered(wait.frames, found):
                    continue
                if self._is_read_ahead(wait.frames) and self.desk.may_read_ahead(reader):
                    self.desk.receive(reader, wait, found.frame_bytes)
                    self._joined[wait.waiter_id] = reader, wait
                else:
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

    def order(self, ranges: Sequence[FrameRange], *, is_awaited: bool = False) -> None:
        """Have frames staged without a reader; `is_awaited`: somebody waits for them, so backups give way."""
        now = trio.current_time()
        by_segment: dict[SegmentId, list[FrameRange]] = {}
        for frames in ranges:
            by_segment.setdefault(frames.segment_id, []).append(frames)
        for segment_id, same in by_segment.items():
            found = self._look(segment_id, same)
            for frames in same:
                if not self._is_answered(frames, found):
                    lost = self.queue.order_frames(frames, found.places, now, is_awaited=is_awaited)
                    self._lose(lost, READ_FAILED)
            self._note_released(Outcome.FAILED, READ_FAILED.message, [segment_id])
        self._bell.ring()

    # -- walks -------------------------------------------------------------------------------------------------------

    def walk(self, walk_id: str, reader: Reader, to_come: Sequence[FrameRange], passed: Sequence[FrameRange]) -> int:
        """A reader goes through a tree: note what he comes to next, and what he has passed.

        Returns how many bytes may be named ahead of him; 0 if nothing is read ahead for him.
        """
        if not self.desk.may_read_ahead(reader):
            self.walks.end(walk_id)
            return 0
        self.walks.renew(walk_id, trio.current_time())
        for frames in passed:
            self.walks.passed(walk_id, frames)
        by_segment: dict[SegmentId, list[FrameRange]] = {}
        for frames in to_come:
            by_segment.setdefault(frames.segment_id, []).append(frames)
        for segment_id, same in by_segment.items():
            found = self._look(segment_id, same)
            runs: list[tuple[int, int]] = [
                (frames.first, frames.last) for frames in same if frames not in found.refused
            ]
            self.walks.extend(walk_id, segment_id, runs, self._missing(segment_id, runs), found.places)
        self._bell.ring()
        return self.walks.window_bytes

    def end_walks(self, walk_ids: Iterable[str]) -> int:
        """Forget walks; return how many were known."""
        count = sum(self.walks.end(walk_id) for walk_id in walk_ids)
        self._look_after_joined()
        return count

    def read_ahead(self, volume_id: VolumeId, head_block: int, most_blocks: int) -> None:
        """Have the queue fetch more of what walks want of a tape that is in a drive."""
        if not len(self.walks):
            return
        now = trio.current_time()
        for frames, places in self.walks.take(volume_id, head_block, most_blocks, self.queue.open_blocks(volume_id)):
            self._lose(self.queue.order_frames(frames, places, now), READ_FAILED)

    def stop_reading_ahead(self, volume_id: VolumeId) -> None:
        """The tape is about to leave, or others want the drive: who waits for it asks like everybody."""
        self.walks.leave(volume_id)
        self._look_after_joined()

    def _is_read_ahead(self, frames: FrameRange) -> bool:
        def is_open(frame: int) -> bool:
            return self.queue.is_open(FrameRange(frames.segment_id, FrameNo(frame), FrameNo(frame)))

        return self.walks.will_fetch(frames, is_open)

    def _look_after_joined(self) -> None:
        """Those whose frames are not read ahead any more ask for them, or have them."""
        now = trio.current_time()
        left = [
            waiter_id
            for waiter_id, (_, wait) in self._joined.items()
            if wait.deadline_s <= now or not self._is_read_ahead(wait.frames)
        ]
        waits = [self._joined.pop(waiter_id) for waiter_id in left]
        for _, wait in waits:
            if wait.deadline_s <= now:
                self.desk.over(wait.waiter_id, Outcome.LATE)
        self._receive([(reader, self.desk.take_back(wait)) for reader, wait in waits if wait.deadline_s > now])

    def _end_joined(self, frames: FrameRange, outcome: Outcome) -> None:
        """Let go of reads that waited for what is read ahead: they have all their frames, or lost some."""
        concerned = [
            wait
            for _, wait in self._joined.values()
            if wait.frames.segment_id == frames.segment_id
            and wait.frames.first <= frames.last
            and frames.first <= wait.frames.last
        ]
        for wait in concerned:
            if outcome is not Outcome.FETCHED or self._staged(frames.segment_id, [wait.frames]) == [True]:
                del self._joined[wait.waiter_id]
                self.desk.over(wait.waiter_id, outcome)

    def _missing(self, segment_id: SegmentId, runs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return which of these frames are not staged."""
        stage = SegmentStage.open(self._home.staging, segment_id)
        if stage is None:
            return list(runs)
        try:
            missing = Spans()
            for first, last in runs:
                for frame in stage.missing(range(first, last + 1)):
                    missing.add(frame, frame)
            return list(missing)
        finally:
            stage.close()

    def cancel(self, waiter_ids: Iterable[str]) -> int:
        """Detach waiters; return how many were known."""
        waiter_ids = list(waiter_ids)
        for waiter_id in waiter_ids:
            self._joined.pop(waiter_id, None)
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
            place = self._library.place_of(self._ledger.volume(volume_id).code)
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
            self.walks.expire(trio.current_time())
            self._look_after_joined()

    # -- what the drives report --------------------------------------------------------------------------------------

    def arrived(self, frames: FrameRange) -> None:
        """A mover has staged frames, asked for or not."""
        self.desk.allowances.arrived(frames.segment_id, frames.first, frames.last, trio.current_time())
        self.fetched_frames += frames.last - frames.first + 1
        self.queue.arrived(frames)
        self.walks.settled(frames)
        self._end_joined(frames, Outcome.FETCHED)
        self._note_released(Outcome.FETCHED)
        self._arrivals.arrived(frames)
        self.staged.set()
        self._bell.ring()

    def failed(self, volume_id: VolumeId, frames: FrameRange, message: str, error: str = "read_failed") -> None:
        """A mover cannot read frames from this tape; other copies are tried first. `error` as arrivals have it."""
        _log_unreadable(frames, message)
        self._lose_of_all(error, message, volume_id, self.queue.failed(volume_id, frames))
        self._bell.ring()

    def tape_failed(self, volume_id: VolumeId, message: str) -> None:
        """The tape cannot be had at all."""
        self.walks.tape_failed(volume_id)
        self.walks.leave(volume_id)
        log.warning("tape unusable for recalls", volume=volume_id, error=message)
        self._lose_of_all("offline", message, volume_id, self.queue.tape_failed(volume_id))
        self._bell.ring()

    def mover_died(self, volume_id: VolumeId, reason: str) -> None:
        """What was asked of the mover is to do again, unless that has killed movers, or failed drives, before."""
        message = f"reading it ended several movers: see the log; the last time: {reason}"
        self._lose(self.queue.mover_died(volume_id), _Refusal("mover_died", message))
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
                _log_unreadable(frames, message)
                self._lose(self.queue.failed(volume_id, frames), _Refusal("read_failed", message))
                self._bell.ring()

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
        locked = self._locked(segment)
        here = dict(zip(ranges, self._staged(segment_id, ranges), strict=True))
        places = [] if locked is not None else self.whereabouts.places(segment_id)
        if places:
            places, locked = self._readable(places)
        refused: dict[FrameRange, _Refusal] = {}
        if not places:
            refused = dict.fromkeys(ranges, locked or _Refusal(*self.whereabouts.why_nowhere(segment_id)))
        beyond = _Refusal("not_found", f"segment {segment_id} has only {segment.frames} frames")
        refused |= {frames: beyond for frames in ranges if frames.last >= segment.frames}
        return _Found(places, here, refused, -(-segment.plain_bytes // max(1, segment.frames)))

    def _locked(self, segment: Segment) -> _Refusal | None:
        """Why a segment cannot be decrypted, so that no tape is moved for it; None: it can, or need not be."""
        if not segment.key_fingerprint:
            return None
        try:
            identity_of(self._home, segment.key_fingerprint)
        except KeyMissing as error:
            return _Refusal("locked", str(error))
        return None

    def _readable(self, places: list[Place]) -> tuple[list[Place], _Refusal | None]:
        """Return those on tapes that can be read; when none can, why: the key of what drives encrypted is locked."""
        readable, why = [], None
        for place in places:
            try:
                require_key(self._home, self._ledger.volume(place.volume_id))
            except KeyMissing as error:
                why = _Refusal("locked", str(error))
            else:
                readable.append(place)
        return readable, None if readable else why

    def _staged(self, segment_id: SegmentId, ranges: Sequence[FrameRange]) -> list[bool]:
        stage = SegmentStage.open(self._home.staging, segment_id)
        if stage is None:
            return [False] * len(ranges)
        try:
            return [stage.has(range(frames.first, frames.last + 1)) for frames in ranges]
        finally:
            stage.close()

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
            self._end_joined(frames, Outcome.FAILED)
            self._arrivals.failed(frames, refusal.error, refusal.message)

    def _lose_of_all(self, error: str, message: str, volume_id: VolumeId, ranges: Iterable[FrameRange]) -> None:
        """Tell that frames cannot be had of this tape, nor of any other that is here."""
        for frames in ranges:
            told = self.whereabouts.told_of_all(message, volume_id, frames.segment_id)
            is_elsewhere = self.whereabouts.is_whole_elsewhere(frames.segment_id)
            self._lose([frames], _Refusal("offline" if is_elsewhere else error, told))

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


def _log_unreadable(frames: FrameRange, message: str) -> None:
    log.warning("frames unreadable", segment=frames.segment_id, first=frames.first, last=frames.last, error=message)
