"""The staging files that are open: shared by everybody who uses them, a few kept for the next one. One thread.

Whoever reads many small files opens hundreds that lie in one frame, one after the other. So a frame's pin, and what was
seen of a staging file's links, serve the next ones, too, until `rest`: which the mount calls before it sleeps and after
every few dozen requests. A pin without a user lasts for milliseconds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from catalog.ids import SegmentId
from tapefs.staging.stage import Pin, SegmentStage

#: Each is three files and a map in memory.
_KEPT = 128


@dataclass(slots=True)
class _Use:
    stage: SegmentStage
    users: int


class SharedPin:
    """A pin on one frame, for any number of users."""

    __slots__ = ("_idle", "frame", "pin", "stage", "users")

    def __init__(self, stage: SegmentStage, frame: int, pin: Pin, idle: set[SharedPin]) -> None:
        self.stage = stage
        self.frame = frame
        self.pin = pin
        self.users = 0
        self._idle = idle

    def use(self) -> None:
        """Begin a use."""
        if not self.users:
            self._idle.discard(self)
        self.users += 1

    def release(self) -> None:
        """End a use: the frame may go when nobody else uses it, and nobody wants it again until `Stages.rest`."""
        self.users -= 1
        if not self.users:
            self._idle.add(self)


class Stages:
    """Open staging files, by segment."""

    def __init__(self, folder: Path, kept: int = _KEPT) -> None:
        self._folder = folder
        self._kept = kept
        self._open: OrderedDict[SegmentId, _Use] = OrderedDict()
        #: Still used though their files were removed: what is staged since then is in others.
        self._removed: list[_Use] = []
        #: Whose links were looked at since the last rest.
        self._seen: set[SegmentId] = set()
        #: Pins on single frames, and those of them that nobody uses.
        self._pins: dict[tuple[SegmentStage, int], SharedPin] = {}
        self._idle_pins: set[SharedPin] = set()
        #: Is there somebody who calls `rest`? Otherwise nothing may outlast its use.
        self._rests = False

    def rest(self) -> None:
        """Let go of pins that nobody uses, and look anew at what is used next. Cheap when there is nothing to do."""
        self._rests = True
        if self._seen:
            self._seen.clear()
        while self._idle_pins:
            shared = self._idle_pins.pop()
            del self._pins[shared.stage, shared.frame]
            shared.pin.release()

    def pin(self, stage: SegmentStage, frames: range) -> Pin | SharedPin | None:
        """Keep frames of a stage that was taken until the pin is released; None if one of them is not staged."""
        if len(frames) != 1 or not self._rests:
            return stage.pin(frames)
        shared = self._pins.get((stage, frames.start))
        if shared is None:
            pin = stage.pin(frames)
            if pin is None:
                return None
            shared = self._pins[stage, frames.start] = SharedPin(stage, frames.start, pin, self._idle_pins)
        elif not stage.has(frames):
            # A pin does not keep what was found to be wrong.
            return None
        shared.use()
        return shared

    def take(self, segment_id: SegmentId) -> SegmentStage | None:
        """Return the segment's stage, to be given back; None (and nothing to give back) if nothing of it was ever
        staged.
        """
        use = self._open.get(segment_id)
        if use is None or segment_id not in self._seen:
            use = self._look_at(segment_id, use)
            if use is None:
                return None
            if self._rests:
                self._seen.add(segment_id)
        use.users += 1
        self._open.move_to_end(segment_id)
        return use.stage

    def _look_at(self, segment_id: SegmentId, use: _Use | None) -> _Use | None:
        """Return the open stage if its files are still there, else a new one, if there are new ones."""
        if use is not None:
            if use.stage.is_linked():
                return use
            self._retire(segment_id)
        stage = SegmentStage.open(self._folder, segment_id)
        if stage is None:
            return None
        use = self._open[segment_id] = _Use(stage, 0)
        return use

    def give_back(self, stage: SegmentStage) -> None:
        """End a use that `take` began."""
        use = self._open.get(stage.segment_id)
        if use is None or use.stage is not stage:
            use = next(each for each in self._removed if each.stage is stage)
        use.users -= 1
        if self._removed or len(self._open) > self._kept:
            self._close_idle()

    def _retire(self, segment_id: SegmentId) -> None:
        self._removed.append(self._open.pop(segment_id))
        self._close_idle()

    def look(self, segment_id: SegmentId) -> SegmentStage | None:
        """Return the segment's stage for a question that is asked at once, before anything else is done with this
        object.
        """
        stage = self.take(segment_id)
        if stage is not None:
            self._open[segment_id].users -= 1
        return stage

    def _close_idle(self) -> None:
        for use in [use for use in self._removed if not use.users]:
            self._removed.remove(use)
            use.stage.close()
        if len(self._open) <= self._kept:
            return
        idle = [segment_id for segment_id, use in self._open.items() if not use.users]
        for segment_id in idle[: len(self._open) - self._kept]:
            self._open.pop(segment_id).stage.close()

    def close(self) -> None:
        """Close all of them, and their pins with them."""
        self._pins.clear()
        self._idle_pins.clear()
        while self._open:
            self._open.popitem()[1].stage.close()
        while self._removed:
            self._removed.pop().stage.close()
