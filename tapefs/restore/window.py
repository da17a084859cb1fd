"""Keeps frames coming: wishes for those ahead of the writer, never more than the window, and waits for the one at hand.

Frames that have arrived stay pinned until the writer is past them. One thread; waits by looking at the staging map,
which needs no message from anybody.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from catalog.ids import SegmentId, SegmentNo
from tapefs.errors import RecallDamaged, RecallFailed, RecallLocked, RecallOffline, RecallTimedOut
from tapefs.restore.records import FrameWish, Index, NotFetched
from tapefs.staging.stage import Pin, SegmentStage, runs

#: Wishes that brought nothing for so long are made again: whoever had them may have been started anew.
ASK_AGAIN_S = 30.0
_STAGES_OPEN = 4
#: What arrivals call failures that mean something to a person; others are merely failures.
_FAILURES: dict[str, type[RecallFailed]] = {
    "offline": RecallOffline,
    "damaged": RecallDamaged,
    "no_copy": RecallDamaged,
    "not_found": RecallDamaged,
    "locked": RecallLocked,
}


class FrameKey(NamedTuple):
    """A frame of the set."""

    segment: SegmentNo
    frame: int


@dataclass(frozen=True, slots=True)
class Recalls:
    """How frames are asked for."""

    #: Asks for frames and returns at once.
    fetch: Callable[[list[FrameWish]], None]
    #: Tells which frames cannot be had, and why.
    failed: Callable[[], Mapping[tuple[SegmentId, int], NotFetched]]
    #: Plain bytes of frames wished or pinned ahead of the writer.
    window_bytes: int
    #: Without any frame arriving for so long, the restore gives up.
    deadline_s: float
    poll_s: float
    #: Called at every look while waiting.
    on_wait: Callable[[], None]
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Stages:
    """The open stages of the set's segments.

    A stage is made if there is none, so that mover and restore share its files.
    """

    def __init__(self, folder: Path, index: Index) -> None:
        self._folder = folder
        self._index = index
        self._open: dict[SegmentNo, SegmentStage] = {}

    def __getitem__(self, number: SegmentNo) -> SegmentStage:
        """Return the stage; valid until `keep_only`. Raises the errors of `SegmentStage.create` and of the index."""
        stage = self._open.get(number)
        if stage is None:
            rows = [frame.row for frame in self._index.frames(number)]
            stage = SegmentStage.create(self._folder, self._index.segment(number).segment_id, rows)
            self._open[number] = stage
        return stage

    def is_removed(self, number: SegmentNo) -> bool:
        """Were the files of an open stage removed? What is staged since then is in others."""
        return number in self._open and not self._open[number].is_linked()

    def close(self, number: SegmentNo) -> None:
        """Close one, which is opened again when it is used next."""
        self._open.pop(number).close()

    def __len__(self) -> int:
        return len(self._open)

    def keep_only(self, wanted: set[SegmentNo]) -> None:
        """Close all others."""
        for number in self._open.keys() - wanted:
            self._open.pop(number).close()


class Window:
    """`ahead` yields the frames in the very order in which the writer will `enter` them.

    Repeats in a row do not matter.
    """

    def __init__(self, stages: Stages, recalls: Recalls, ahead: Iterator[FrameKey]) -> None:
        self._stages = stages
        self._recalls = recalls
        self._ahead = ahead
        self._next = next(ahead, None)
        #: The frame at hand and those ahead of it, and the sum of their lengths.
        self._queue: deque[FrameKey] = deque()
        self._queue_bytes = 0
        self._outstanding: set[FrameKey] = set()
        self._pins: dict[FrameKey, Pin] = {}
        self._asked_at_s = self._progress_at_s = recalls.clock()

    def close(self) -> None:
        """Release all pins and close all stages."""
        for pin in self._pins.values():
            pin.release()
        self._pins.clear()
        self._stages.keep_only(set())

    def enter(self, key: FrameKey) -> None:
        """The writer has come to this frame: let go of those before it, and wish for more."""
        queue = self._queue
        if queue and queue[0] == key:
            return
        while queue and queue[0] != key:
            self._leave(queue.popleft())
        if not queue:
            # Files that failed early were passed by without their frames being entered.
            while self._next is not None and self._next != key:
                self._next = next(self._ahead, None)
            self._append(key)
        self._collect()
        self._look_ahead()

    def _append(self, key: FrameKey) -> None:
        self._queue.append(key)
        self._queue_bytes += self._bytes_of(key)

    def _leave(self, key: FrameKey) -> None:
        self._queue_bytes -= self._bytes_of(key)
        self._forget(key)

    def _forget(self, key: FrameKey) -> None:
        self._outstanding.discard(key)
        pin = self._pins.pop(key, None)
        if pin is not None:
            pin.release()

    def _bytes_of(self, key: FrameKey) -> int:
        return self._stages[key.segment].extent_of(key.frame)[1]

    def _look_ahead(self) -> None:
        """Wish for frames until the window is full; not before a quarter of it is empty, to ask seldom."""
        queue = self._queue
        if len(queue) > 1 and self._queue_bytes > self._recalls.window_bytes * 3 // 4:
            return
        # However small the window, the frame behind the one at hand is wished for, too.
        while (key := self._next) is not None and (
            len(queue) < 2 or self._queue_bytes + self._bytes_of(key) <= self._recalls.window_bytes
        ):
            if key != queue[-1]:
                self._append(key)
            self._next = next(self._ahead, None)
        self._ask([key for key in queue if key not in self._outstanding and not self._holds(key)])
        if len(self._stages) > _STAGES_OPEN:
            self._stages.keep_only(self._segments_in_use())

    def _segments_in_use(self) -> set[SegmentNo]:
        keys = {*self._pins, *self._outstanding, *self._queue}
        return {key.segment for key in keys}

    def _holds(self, key: FrameKey) -> bool:
        """Pin the frame if it is staged; tell whether it is pinned."""
        if key in self._pins:
            return True
        stage, frames = self._stages[key.segment], range(key.frame, key.frame + 1)
        pin = stage.pin(frames) if stage.has(frames) else None
        if pin is None:
            return False
        self._pins[key] = pin
        return True

    def _ask(self, keys: list[FrameKey]) -> None:
        """Wish for these frames, joined to ranges in the given order."""
        if not keys:
            return
        self._outstanding.update(keys)
        self._asked_at_s = self._recalls.clock()
        wishes = []
        by_segment: dict[SegmentNo, list[int]] = {}
        for key in keys:
            by_segment.setdefault(key.segment, []).append(key.frame)
        for segment, frames in by_segment.items():
            segment_id = self._stages[segment].segment_id
            wishes += [FrameWish(segment_id, run.start, run.stop - 1) for run in runs(sorted(set(frames)))]
        self._recalls.fetch(wishes)

    def wait_until_staged(self, key: FrameKey, behind: range) -> None:
        """Return once the frame is staged and pinned; `behind` are the frames of the same file that will follow it.

        Raises RecallFailed if the frame cannot be had (its subclasses say more), RecallTimedOut if nothing came
        for too long.
        """
        if self._holds(key):
            self._outstanding.discard(key)
            return
        recalls = self._recalls
        self._progress_at_s = recalls.clock()
        while not self._collect(key):
            if self._stages.is_removed(key.segment):
                self._begin_again(key.segment)
            why = recalls.failed().get((self._stages[key.segment].segment_id, key.frame))
            if why is not None:
                raise _FAILURES.get(why.error, RecallFailed)(why.reason)
            if key not in self._outstanding:
                # Evicted meanwhile, or dropped because it was damaged: the same will be true of those behind it.
                self._ask([key, *self._missing(key.segment, behind)])
            now_s = recalls.clock()
            if now_s - self._progress_at_s > recalls.deadline_s:
                raise RecallTimedOut(
                    f"nothing came from tape for {recalls.deadline_s:.0f} s: see `tapefs drives` and `tapefs jobs`"
                )
            if now_s - max(self._asked_at_s, self._progress_at_s) > ASK_AGAIN_S:
                self._ask(sorted(self._outstanding))
            recalls.on_wait()
            recalls.sleep(recalls.poll_s)

    def _collect(self, wanted: FrameKey | None = None) -> bool:
        """Pin what has come of all outstanding frames; tell whether the wanted one is there."""
        for key in [key for key in self._outstanding if self._holds(key)]:
            self._outstanding.discard(key)
            self._progress_at_s = self._recalls.clock()
        return wanted in self._pins

    def _missing(self, segment: SegmentNo, frames: range) -> Iterator[FrameKey]:
        """Yield the frames among these that are neither staged nor wished for, as many as fit the window."""
        stage = self._stages[segment]
        room_bytes = self._recalls.window_bytes
        for frame in frames:
            room_bytes -= stage.extent_of(frame)[1]
            if room_bytes < 0:
                return
            key = FrameKey(segment, frame)
            if key not in self._outstanding and not stage.has(range(frame, frame + 1)):
                yield key

    def _begin_again(self, segment: SegmentNo) -> None:
        """The set has expired, or somebody has cleaned up: what comes from now on is staged in other files."""
        for key in [key for key in {*self._pins, *self._outstanding} if key.segment == segment]:
            self._forget(key)
        self._stages.close(segment)

    def drop(self, segment: SegmentNo, frames: range) -> None:
        """Throw what is staged of these frames away, so that they come from tape again."""
        for frame in frames:
            self._forget(FrameKey(segment, frame))
        self._stages[segment].evict(frames)
