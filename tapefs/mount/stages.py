"""The staging files that are open: shared by everybody who uses them, a few kept for the next one. One thread."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from catalog.ids import SegmentId
from tapefs.staging.stage import SegmentStage

#: Each is three files and a map in memory.
_KEPT = 128


@dataclass(slots=True)
class _Use:
    stage: SegmentStage
    users: int


class Stages:
    """Open staging files, by segment."""

    def __init__(self, folder: Path, kept: int = _KEPT) -> None:
        self._folder = folder
        self._kept = kept
        self._open: OrderedDict[SegmentId, _Use] = OrderedDict()
        #: Still used though their files were removed: what is staged since then is in others.
        self._removed: list[_Use] = []

    def take(self, segment_id: SegmentId) -> SegmentStage | None:
        """Return the segment's stage, to be given back; None (and nothing to give back) if nothing of it was ever
        staged.
        """
        use = self._open.get(segment_id)
        if use is not None and not use.stage.is_linked():
            self._retire(segment_id)
            use = None
        if use is None:
            stage = SegmentStage.open(self._folder, segment_id)
            if stage is None:
                return None
            use = self._open[segment_id] = _Use(stage, 0)
        use.users += 1
        self._open.move_to_end(segment_id)
        return use.stage

    def give_back(self, stage: SegmentStage) -> None:
        """End a use that `take` began."""
        use = self._open.get(stage.segment_id)
        if use is None or use.stage is not stage:
            use = next(each for each in self._removed if each.stage is stage)
        use.users -= 1
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
        """Close all of them."""
        while self._open:
            self._open.popitem()[1].stage.close()
        while self._removed:
            self._removed.pop().stage.close()
