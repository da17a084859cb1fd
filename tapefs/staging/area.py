"""The whole staging folder.

How much room it takes, and making room. Any process, any thread; blocks for disk I/O only.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from catalog.ids import SegmentId
from tapefs.errors import UsageError
from tapefs.staging.pair import MAP, PLAIN, adopt_pair, changing, pair_paths, remove_pair
from tapefs.staging.stage import SegmentStage, now_s, runs
from tapefs.staging.worth import Staged, Tape, in_order, run_lengths

_STAT_BLOCK_BYTES = 512


#: Frames by segment, as ascending runs of first and last, both included.
Runs = Mapping[SegmentId, Sequence[tuple[int, int]]]


class Census(NamedTuple):
    """What the staging folder holds."""

    used_bytes: int
    segments: int
    frames: int
    #: Left by the machine's last run, not compared yet.
    doubtful: int

    def counts(self) -> dict[str, int]:
        """Return what is counted, by name."""
        return {"segments": self.segments, "frames": self.frames, "doubtful_frames": self.doubtful}


class StagingArea:
    """The staging folder; it may be missing, then it is empty."""

    def __init__(self, folder: Path, clock: Callable[[], float] = now_s) -> None:
        self._folder = folder
        self._clock = clock

    def used_bytes(self, segments: Collection[SegmentId] | None = None) -> int:
        """Return the disk space of the staged content, by allocated blocks; of all, or of these segments.

        Maps (32 bytes a frame) do not count.
        """
        return sum(self._used_by(segment_id) for segment_id in (self.segments() if segments is None else segments))

    def _used_by(self, segment_id: SegmentId) -> int:
        try:
            return pair_paths(self._folder, segment_id)[0].stat().st_blocks * _STAT_BLOCK_BYTES
        except FileNotFoundError:
            return 0

    def segments(self) -> list[SegmentId]:
        """Return the segments that have files here, usable or not, in no order."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        stems = {os.path.splitext(name)[0] for name in names if name.endswith((PLAIN, MAP))}
        return [segment_id for segment_id in map(SegmentId, stems) if self._is_segment(segment_id)]

    def _is_segment(self, segment_id: SegmentId) -> bool:
        try:
            pair_paths(self._folder, segment_id)
        except UsageError:
            return False
        return True

    def census(self, of: Collection[SegmentId] | None = None) -> Census:
        """Count what is there, of all segments or of these; about 1 ms for 10,000 frames."""
        segments = frames = doubtful = 0
        for segment_id in self.segments() if of is None else of:
            with self._stage(segment_id) as stage:
                if stage is not None:
                    every = range(stage.frame_count)
                    segments += 1
                    frames += self._staged_frames(stage)
                    doubtful += len(stage.doubtful(every))
        return Census(self.used_bytes(of), segments, frames, doubtful)

    def adopt(self) -> int:
        """Take over what the machine's last run has left: its frames are doubtful until they have been compared with
        their checksums (`SegmentStage.revive`). Return how many segments that were. Raises OSError.
        """
        return sum(self._adopt(segment_id) for segment_id in self.segments())

    def _adopt(self, segment_id: SegmentId) -> bool:
        with self._stage(segment_id) as stage:
            if stage is not None:
                return False
        with changing(self._folder):
            return adopt_pair(self._folder, segment_id)

    def doubtful(self) -> list[tuple[SegmentId, range]]:
        """Return the runs of frames that are to be compared before they are used, what was used last first."""
        found: list[tuple[int, SegmentId, range]] = []
        for segment_id in self.segments():
            with self._stage(segment_id) as stage:
                if stage is not None:
                    for run in runs(stage.doubtful(range(stage.frame_count))):
                        found.append((max(map(stage.last_used, run)), segment_id, run))
        return [(segment_id, run) for _, segment_id, run in sorted(found, key=lambda each: -each[0])]

    def revive(self, segment_id: SegmentId, frames: range) -> int:
        """Compare doubtful frames with their checksums; return how many are staged again. Raises OSError."""
        with self._stage(segment_id) as stage:
            return 0 if stage is None else stage.revive(frames)

    def missing(self, wanted: Runs) -> int:
        """Return how many of these frames are not staged."""
        missing = 0
        for segment_id, wanted_runs in wanted.items():
            with self._stage(segment_id) as stage:
                for first, last in wanted_runs:
                    frames = range(first, last + 1)
                    missing += len(frames) if stage is None else len(stage.missing(frames))
        return missing

    def missing_runs(self, segment_id: SegmentId, frames: range) -> list[range]:
        """Return which of these frames of a segment are not staged; what it does not have is missing, too."""
        with self._stage(segment_id) as stage:
            if stage is None:
                return [frames]
            end = max(frames.start, min(frames.stop, stage.frame_count))
            found = list(runs(stage.missing(range(frames.start, end))))
        return [*found, range(end, frames.stop)] if end < frames.stop else found

    def evict_all(self, segments: Collection[SegmentId] | None = None, pinned: Runs | None = None) -> int:
        """Drop everything of these segments (None: of all) that is neither open nor in `pinned`.

        Return the bytes dropped. Raises OSError.
        """
        freed = 0
        for segment_id in self.segments() if segments is None else segments:
            freed += self._remove_unusable(segment_id)
            with self._stage(segment_id) as stage:
                if stage is not None:
                    held = (pinned or {}).get(segment_id, ())
                    freed += sum(stage.evict(frames) for frames in _between(held, stage.frame_count))
        return freed

    def remove(self, segments: Collection[SegmentId]) -> int:
        """Drop everything of segments that nobody will ask for again, and their files unless something of them is open.

        Return the bytes dropped. Raises OSError.
        """
        freed = self.evict_all(segments)
        for segment_id in segments:
            with changing(self._folder), self._stage(segment_id) as stage:
                if stage is None or not self._staged_frames(stage):
                    remove_pair(self._folder, segment_id)
        return freed

    def _staged_frames(self, stage: SegmentStage) -> int:
        return stage.frame_count - len(stage.missing(range(stage.frame_count)))

    def shrink_to(
        self,
        limit_bytes: int,
        keep: Collection[SegmentId] = (),
        pinned: Runs | None = None,
        tapes: Mapping[SegmentId, Tape] | None = None,
    ) -> int:
        """Drop the frames that are worth least (see `tapefs.staging.worth`) until at most `limit_bytes` are used.

        None of the segments `keep`, none in `pinned`, and none that is open; `tapes` says what fetching costs. Returns
        the bytes dropped; look at `used_bytes` for whether it was enough. Takes about 300 bytes of memory for every
        staged frame: 80 MB for a terabyte in frames of 4 MiB. Raises OSError.
        """
        if self.used_bytes() <= limit_bytes:
            return 0
        self.adopt()
        segments = self.segments()
        freed = sum(self._remove_unusable(segment_id) for segment_id in segments)
        candidates = sorted(set(segments) - set(keep))
        staged = [
            each for segment_id in candidates for each in self._staged(segment_id, (pinned or {}).get(segment_id))
        ]
        freed += self._drop(in_order(staged, tapes or {}, self._clock()), limit_bytes)
        for segment_id in candidates:
            if self.used_bytes() <= limit_bytes:
                break
            with self._stage(segment_id) as stage:
                if stage is not None:
                    stage.reclaim()
        return freed

    def _drop(self, ordered: Iterable[Staged], limit_bytes: int) -> int:
        victims = deque(ordered)
        freed = 0
        while victims and (excess := self.used_bytes() - limit_bytes) > 0:
            for segment_id, frames in _take(victims, excess).items():
                freed += self._evict(segment_id, frames)
        return freed

    def _staged(self, segment_id: SegmentId, held: Sequence[tuple[int, int]] | None) -> list[Staged]:
        """Return the frames that may be dropped; pinned ones count as neighbours of theirs."""
        with self._stage(segment_id) as stage:
            if stage is None:
                return []
            every = range(stage.frame_count)
            gone = set(stage.missing(every)).difference(stage.doubtful(every))
            lengths = run_lengths(frame for frame in every if frame not in gone)
            return [
                Staged(segment_id, frame, stage.extent_of(frame)[1], stage.last_used(frame), lengths[frame])
                for frames in _between(held or (), stage.frame_count)
                for frame in frames
                if frame in lengths
            ]

    def _evict(self, segment_id: SegmentId, frames: Sequence[int]) -> int:
        with self._stage(segment_id) as stage:
            return 0 if stage is None else sum(stage.evict(run) for run in runs(frames))

    def _remove_unusable(self, segment_id: SegmentId) -> int:
        """Remove a pair that nothing will ever be served from: of an earlier boot, damaged, or one file of two."""
        with self._stage(segment_id) as stage:
            if stage is not None:
                return 0
        with changing(self._folder), self._stage(segment_id) as stage:
            if stage is not None:
                return 0
            used_bytes = self._used_by(segment_id)
            remove_pair(self._folder, segment_id)
            return used_bytes

    @contextmanager
    def _stage(self, segment_id: SegmentId) -> Iterator[SegmentStage | None]:
        stage = SegmentStage.open(self._folder, segment_id)
        try:
            yield stage
        finally:
            if stage is not None:
                stage.close()


def _take(victims: deque[Staged], wanted_bytes: int) -> dict[SegmentId, list[int]]:
    """Remove victims from the front until they make up `wanted_bytes`; return their frames by segment, ascending."""
    taken: dict[SegmentId, list[int]] = {}
    while victims and wanted_bytes > 0:
        victim = victims.popleft()
        taken.setdefault(victim.segment_id, []).append(victim.frame)
        wanted_bytes -= victim.plain_bytes
    for frames in taken.values():
        frames.sort()
    return taken


def _between(held: Sequence[tuple[int, int]], count: int) -> Iterator[range]:
    """Yield the frames of a segment of `count` that are in none of the runs."""
    begin = 0
    for first, last in held:
        if begin < first:
            yield range(begin, min(first, count))
        begin = last + 1
    if begin < count:
        yield range(begin, count)
