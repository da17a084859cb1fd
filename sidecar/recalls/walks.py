"""Walks: what readers that go through a tree in order want next, fetched before they ask. Pure; one task at a time.

A mount names the frames that lie ahead of a reader. They are handed to the recall queue piece by piece, always in the
order of the tape from where the head will be: a reader goes through an incremental set in another order than its tapes
have it, so a tape is read in one pass, and the reader finds what he wants, or waits until the pass comes there. Waiting
readers of other frames come first: what is handed over at a time takes seconds.

A walk has a lease; one whose mount says nothing any more is forgotten. What a walk may have ahead of its reader is a
part of the room for staging, and is not evicted before the reader has passed it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from catalog.ids import FrameNo, SegmentId, VolumeId
from sidecar.recalls.wanted import Place
from tapefs.mover.messages import FrameRange
from tapefs.spans import Spans

#: A walk that its mount does not name again within this time is over.
LEASE_S = 60.0
#: What is handed to the queue at a time: 2.7 s of an LTO-9 drive; others may have to wait for so long, once or twice.
PIECE_BYTES = 1024**3
#: While others wait for the drive, a tape is read ahead of readers for so long: about as long as changing tapes takes.
STAY_S = 120.0
#: All walks together may have this share of the room for staging ahead of their readers.
_SHARE = 2

Runs = Sequence[tuple[int, int]]


@dataclass(slots=True)
class _Walk:
    """What one reader will want next."""

    until_s: float
    #: Frames that the reader has not passed yet.
    ahead: dict[SegmentId, Spans] = field(default_factory=dict)
    #: Those of them that are neither staged nor handed to the queue.
    pending: dict[SegmentId, Spans] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Run:
    """Frames on a tape, both included, and where they begin."""

    block: int
    segment_id: SegmentId
    first: int
    last: int


class Walks:
    """All walks of all mounts."""

    def __init__(self, limit_bytes: int) -> None:
        """`limit_bytes` is the room for staging."""
        self._limit_bytes = limit_bytes
        self._walks: dict[str, _Walk] = {}
        self._places: dict[SegmentId, Sequence[Place]] = {}
        #: Tapes in drives that are being read ahead.
        self._reading: set[VolumeId] = set()

    def __len__(self) -> int:
        """Return how many walks there are."""
        return len(self._walks)

    @property
    def window_bytes(self) -> int:
        """What one walk may have ahead of its reader."""
        return self._limit_bytes // (_SHARE * max(1, len(self._walks)))

    # -- what mounts say ---------------------------------------------------------------------------------------------

    def renew(self, walk_id: str, now_s: float) -> None:
        """Begin a walk, or go on with it."""
        walk = self._walks.setdefault(walk_id, _Walk(0.0))
        walk.until_s = now_s + LEASE_S

    def extend(self, walk_id: str, segment_id: SegmentId, runs: Runs, missing: Runs, places: Sequence[Place]) -> None:
        """The reader comes to `runs` of frames; `missing` of them are not staged."""
        walk = self._walks[walk_id]
        for run in runs:
            walk.ahead.setdefault(segment_id, Spans()).add(*run)
        if places and missing:
            self._places[segment_id] = places
            for run in missing:
                walk.pending.setdefault(segment_id, Spans()).add(*run)

    def passed(self, walk_id: str, frames: FrameRange) -> None:
        """The reader has gone past these frames, or will not come to them."""
        walk = self._walks.get(walk_id)
        if walk is not None:
            _remove(walk.ahead, frames)
            _remove(walk.pending, frames)
            self._sweep()

    def end(self, walk_id: str) -> bool:
        """Forget a walk; return whether it was known. What is handed to the queue already is fetched."""
        known = self._walks.pop(walk_id, None) is not None
        self._sweep()
        return known

    def expire(self, now_s: float) -> int:
        """Forget walks whose lease has ended; return how many."""
        late = [walk_id for walk_id, walk in self._walks.items() if walk.until_s <= now_s]
        for walk_id in late:
            self.end(walk_id)
        return len(late)

    # -- what becomes of frames --------------------------------------------------------------------------------------

    def settled(self, frames: FrameRange) -> None:
        """Frames have arrived, or cannot be had."""
        for walk in self._walks.values():
            _remove(walk.pending, frames)

    def tape_failed(self, volume_id: VolumeId) -> None:
        """Nothing can be had from this tape now."""
        for walk in self._walks.values():
            for segment_id in [each for each in walk.pending if self._volume(each) == volume_id]:
                del walk.pending[segment_id]
        self._sweep()

    def ahead(self) -> Mapping[SegmentId, Runs]:
        """Return the frames that readers have not passed yet, for the evictor to keep."""
        found: dict[SegmentId, Spans] = {}
        for walk in self._walks.values():
            for segment_id, spans in walk.ahead.items():
                for run in spans:
                    found.setdefault(segment_id, Spans()).add(*run)
        return {segment_id: list(spans) for segment_id, spans in found.items()}

    # -- what to do --------------------------------------------------------------------------------------------------

    def next_tape(self, is_usable: Callable[[VolumeId], bool]) -> VolumeId | None:
        """Return the usable tape of which most is wanted ahead of readers, None when nothing is."""
        frames: dict[VolumeId, int] = {}
        for segment_id, spans in self._pending():
            volume_id = self._volume(segment_id)
            if is_usable(volume_id):
                frames[volume_id] = frames.get(volume_id, 0) + sum(last + 1 - first for first, last in spans)
        return max(frames, key=lambda volume_id: (frames[volume_id], volume_id), default=None)

    def has_pending(self, volume_id: VolumeId) -> bool:
        """Is anything of this tape wanted ahead of readers, and not handed over?"""
        return any(self._volume(segment_id) == volume_id for segment_id, _ in self._pending())

    def take(
        self, volume_id: VolumeId, head_block: int, most_blocks: int, open_blocks: int
    ) -> list[tuple[FrameRange, Sequence[Place]]]:
        """Return what to hand to the queue next of a tape that is in a drive, with the places of its segments.

        Nothing while half of `most_blocks` of that tape is in the queue (`open_blocks`). In the order of the tape from
        `head_block` on; behind the end it begins at the front again.
        """
        self._reading.add(volume_id)
        if 2 * open_blocks >= most_blocks:
            return []
        runs = sorted(self._runs_on(volume_id), key=lambda run: (run.block, run.first))
        ahead = [run for run in runs if run.block >= head_block]
        taken, left = [], most_blocks
        for run in ahead + [run for run in runs if run.block < head_block]:
            places = self._places[run.segment_id]
            last = min(run.last, max(run.first, places[0].frame_behind(run.first, left) - 1))
            taken.append((FrameRange(run.segment_id, FrameNo(run.first), FrameNo(last)), places))
            left -= places[0].block(last + 1) - places[0].block(run.first)
            if left <= 0:
                break
        for frames, _ in taken:
            self.settled(frames)
        self._sweep()
        return taken

    def leave(self, volume_id: VolumeId) -> None:
        """The tape is not read ahead any more: whoever waits for it has to ask for it."""
        self._reading.discard(volume_id)

    def will_fetch(self, frames: FrameRange, is_open: Callable[[int], bool]) -> bool:
        """Is the tape with these frames being read ahead, and will the pass come to all of them?

        `is_open`: is a frame of that segment in the queue?
        """
        places = self._places.get(frames.segment_id)
        if places is None or places[0].volume_id not in self._reading:
            return False
        pending = [
            walk.pending[frames.segment_id] for walk in self._walks.values() if frames.segment_id in walk.pending
        ]
        if not any(spans.overlaps(frames.first, frames.last) for spans in pending):
            return False
        return all(
            is_open(frame) or any(spans.overlaps(frame, frame) for spans in pending)
            for frame in range(frames.first, frames.last + 1)
        )

    # -- inside ------------------------------------------------------------------------------------------------------

    def _volume(self, segment_id: SegmentId) -> VolumeId:
        return self._places[segment_id][0].volume_id

    def _pending(self) -> Iterator[tuple[SegmentId, Spans]]:
        for walk in self._walks.values():
            yield from walk.pending.items()

    def _runs_on(self, volume_id: VolumeId) -> Iterator[_Run]:
        """Yield what is pending on a tape, each frame once."""
        joined: dict[SegmentId, Spans] = {}
        for segment_id, spans in self._pending():
            if self._volume(segment_id) == volume_id:
                for run in spans:
                    joined.setdefault(segment_id, Spans()).add(*run)
        for segment_id, spans in joined.items():
            place = self._places[segment_id][0]
            for first, last in spans:
                yield _Run(place.block(first), segment_id, first, last)

    def _sweep(self) -> None:
        """Forget the places of what nobody wants any more."""
        wanted = {segment_id for segment_id, _ in self._pending()}
        for segment_id in self._places.keys() - wanted:
            del self._places[segment_id]


def _remove(kept: dict[SegmentId, Spans], frames: FrameRange) -> None:
    spans = kept.get(frames.segment_id)
    if spans is not None:
        spans.remove(frames.first, frames.last)
        if not spans:
            del kept[frames.segment_id]
