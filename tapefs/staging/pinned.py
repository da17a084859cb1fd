"""How much room pinned frames take. One thread."""

from __future__ import annotations

from collections.abc import Iterable

from catalog.errors import NotFound
from catalog.ids import SegmentId
from catalog.ledger import Ledger
from catalog.records import PinnedFrames, StagePin
from tapefs.spans import Spans


def united(pins: Iterable[StagePin]) -> list[PinnedFrames]:
    """Return what the pins hold together; frames that several hold are in it once."""
    found: dict[SegmentId, Spans] = {}
    for pin in pins:
        for segment_id, runs in pin.frames:
            spans = found.setdefault(segment_id, Spans())
            for run in runs:
                spans.add(*run)
    return [PinnedFrames(segment_id, tuple(spans)) for segment_id, spans in found.items()]


class FrameLengths:
    """Plain lengths of runs of frames, from the ledger alone: by the mean of their segment.

    That is exact for whole segments, and right to a frame or two for others, as all but the last have 4 MiB or a file's
    rest more.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._means: dict[SegmentId, float] = {}

    def of(self, frames: Iterable[PinnedFrames]) -> int:
        """Return the sum, in bytes; segments that the ledger does not know have none."""
        return round(
            sum(self._mean(segment_id) * sum(last - first + 1 for first, last in runs) for segment_id, runs in frames)
        )

    def _mean(self, segment_id: SegmentId) -> float:
        mean = self._means.get(segment_id)
        if mean is None:
            try:
                segment = self._ledger.segment(segment_id)
            except NotFound:
                return 0.0
            mean = self._means[segment_id] = segment.plain_bytes / max(segment.frames, 1)
        return mean
