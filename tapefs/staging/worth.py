"""Which staged frames to drop first: those used long ago that are cheap to fetch again. Pure functions.

A frame's score is the moment of its last use, put forward by what fetching it again costs: the lowest score goes first.

    score  = last use + weight x median age of all staged frames
    weight = WEIGHT x cost / (cost + LOCATE_S)
    cost   = (mount + LOCATE_S) / frames of its run

A run is what is staged without a gap: a thousand neighbours come back with one locate, a thousand scattered frames with
a thousand. So runs are dropped before single frames of about their age, and what lies on a tape that is in a drive
before what has to be mounted. A frame whose tape is not in the library has the weight OFFLINE. The median age
makes that a question of proportions: the dearest frames stay a few times as long as the cheapest, whether the area is
turned over in an hour or in a month, and no frame stays for ever. (GreedyDual, with the time between two uses as its
currency.) What the figures are worth is measured by `scripts/bench eviction`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median_low
from typing import NamedTuple

from catalog.ids import SegmentId

#: A locate on a full tape, on average; and getting a tape into a drive that has another one. Seconds.
LOCATE_S = 50.0
MOUNT_S = 120.0
#: In median ages: the most that cost puts a frame forward, and what counts for tapes that somebody must bring.
WEIGHT = 16.0
OFFLINE = 24.0


class Tape(NamedTuple):
    """Where a segment's nearest copy is."""

    #: Seconds until it is in a drive; None: it is not in the library.
    mount_s: float | None


class Staged(NamedTuple):
    """A frame that may be dropped; of one segment they come in the order of their numbers."""

    segment_id: SegmentId
    frame: int
    plain_bytes: int
    last_used_s: float
    #: How many frames its run has.
    run_frames: int


def weight_of(tape: Tape, run_frames: int) -> float:
    """Return by how many median ages a frame of such a run is put forward."""
    if tape.mount_s is None:
        return OFFLINE
    cost_s = (tape.mount_s + LOCATE_S) / run_frames
    return WEIGHT * cost_s / (cost_s + LOCATE_S)


def in_order(frames: Sequence[Staged], tapes: Mapping[SegmentId, Tape], now_s: float) -> list[Staged]:
    """Return the frames, those to be dropped first in front. Segments without an entry are taken to be in a drive."""
    if not frames:
        return []
    age_s = now_s - median_low(frame.last_used_s for frame in frames)
    in_drive = Tape(0.0)
    weights: dict[tuple[SegmentId, int], float] = {}

    def score(frame: Staged) -> tuple[float, float, SegmentId, int]:
        key = (frame.segment_id, frame.run_frames)
        weight = weights.get(key)
        if weight is None:
            weight = weights[key] = weight_of(tapes.get(frame.segment_id, in_drive), frame.run_frames)
        # Of frames that were just used, when the median age is 0, the cheap ones go first, too.
        return frame.last_used_s + weight * age_s, weight, frame.segment_id, frame.frame

    return sorted(frames, key=score)


def run_lengths(staged: Iterable[int]) -> dict[int, int]:
    """Return for each frame of a segment that is staged how many its run has; `staged` is ascending."""
    lengths: dict[int, int] = {}
    run: list[int] = []
    for frame in staged:
        if run and frame != run[-1] + 1:
            lengths.update(dict.fromkeys(run, len(run)))
            run = []
        run.append(frame)
    lengths.update(dict.fromkeys(run, len(run)))
    return lengths
