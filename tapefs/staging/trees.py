"""Which frames hold a set, or a tree of it. Reads the index only."""

from __future__ import annotations

from collections.abc import Iterator

from catalog.ids import FrameNo, SegmentId
from catalog.index.reader import IndexReader
from tapefs.client.api import FrameSpan
from tapefs.vfs.archive import Archive, Found
from tapefs.vfs.residency import pieces_of, stretches


class FrameRuns:
    """Frames by segment, as runs; frames that come in tape order cost no memory."""

    def __init__(self) -> None:
        self._runs: dict[SegmentId, list[list[int]]] = {}

    def add(self, segment_id: SegmentId, first: int, last: int) -> None:
        """Add frames `first` to `last`, both included."""
        runs = self._runs.setdefault(segment_id, [])
        if runs and runs[-1][0] <= first <= runs[-1][1] + 1:
            runs[-1][1] = max(runs[-1][1], last)
        else:
            runs.append([first, last])

    def spans(self) -> list[FrameSpan]:
        """Return the runs, joined where they touch, by segment and frame."""
        return [
            FrameSpan(segment=segment_id, first=FrameNo(first), last=FrameNo(last))
            for segment_id, runs in self._runs.items()
            for first, last in _joined(runs)
        ]


def _joined(runs: list[list[int]]) -> Iterator[tuple[int, int]]:
    first, last = -1, -2
    for begin, end in sorted(runs):
        if begin > last + 1:
            if last >= first:
                yield first, last
            first, last = begin, end
        last = max(last, end)
    if last >= first:
        yield first, last


def add_set(runs: FrameRuns, archive: Archive, reader: IndexReader) -> None:
    """Add the frames that hold a set: all of its segments, unless it shows files of other sets too."""
    if reader.bases:
        add_tree(runs, archive, reader, archive.resolve(reader, b""))
        return
    for segment in reader.segments():
        if segment.frames:
            runs.add(segment.segment_id, 0, segment.frames - 1)


def add_tree(runs: FrameRuns, archive: Archive, reader: IndexReader, start: Found) -> None:
    """Add the frames that hold `start` and everything below it."""
    for found in archive.walk(reader, start):
        if found.number is None or found.entry is None:
            continue
        for piece in stretches(pieces_of(reader, found.number, found.entry)):
            frames = reader.frames_covering(piece.segment_no, piece.offset, piece.length)
            runs.add(piece.segment_id, frames[0].number, frames[-1].number)
