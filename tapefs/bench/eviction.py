"""What the staging area's order of eviction is worth: locates and fetched frames on traces, beside those of LRU.

Everything is computed, nothing is read: 2,000 frames of room, the same function that the evictor calls, an eviction
whenever a twentieth more than the limit is staged. A frame that is not staged is fetched; that costs a locate unless it
lies behind the one fetched before, with no more between them than is read over.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import click

from catalog.ids import SegmentId
from tapefs.staging.worth import Staged, Tape, in_order, run_lengths

ROOM = 2000
#: What is read over instead of located, and the frames of a segment.
READ_OVER = 128
SEGMENT = 1000
#: A request every so often.
STEP_S = 0.5

Frame = tuple[int, int]
Order = Callable[[list[Staged], float], list[Staged]]


def run() -> None:
    """Print a table: per trace the locates and the frames fetched in both orders, and their ratios."""
    click.echo("| trace | requests | locates, LRU | locates | ratio | frames fetched, LRU | frames fetched | ratio |")
    click.echo("|---|---|---|---|---|---|---|---|")
    for name, make in TRACES.items():
        trace = list(make())
        old_locates, old_frames = simulate(trace, _least_recently_used)
        locates, frames = simulate(trace, _by_worth)
        click.echo(
            f"| {name} | {len(trace):,} | {old_locates:,} | {locates:,} | {locates / old_locates:.2f} "
            f"| {old_frames:,} | {frames:,} | {frames / old_frames:.2f} |"
        )


def simulate(trace: Iterable[Frame], order: Order) -> tuple[int, int]:
    """Return how many locates and how many fetched frames a trace costs."""
    staged: dict[Frame, float] = {}
    locates = fetched = 0
    head: Frame = (-1, 0)
    now_s = 0.0
    for place in trace:
        now_s += STEP_S
        if place not in staged:
            fetched += 1
            if place[0] != head[0] or not 0 <= place[1] - head[1] <= READ_OVER:
                locates += 1
            head = (place[0], place[1] + 1)
        staged[place] = now_s
        if len(staged) > ROOM + ROOM // 20:
            for victim in order(_frames(staged), now_s)[: len(staged) - ROOM]:
                del staged[int(victim.segment_id), victim.frame]
    return locates, fetched


def _frames(staged: dict[Frame, float]) -> list[Staged]:
    by_segment: dict[int, list[int]] = {}
    for segment, frame in sorted(staged):
        by_segment.setdefault(segment, []).append(frame)
    return [
        Staged(SegmentId(str(segment)), frame, 1, staged[segment, frame], length)
        for segment, frames in by_segment.items()
        for frame, length in run_lengths(frames).items()
    ]


def _least_recently_used(frames: list[Staged], now_s: float) -> list[Staged]:
    return sorted(frames, key=lambda each: each.last_used_s)


def _by_worth(frames: list[Staged], now_s: float) -> list[Staged]:
    tapes = {frame.segment_id: Tape(0.0) for frame in frames}
    return in_order(frames, tapes, now_s)


# -- traces ------------------------------------------------------------------------------------------------------------


def _loop() -> Iterator[Frame]:
    """The same walk over 2,500 frames, eight times."""
    for _ in range(8):
        yield from ((number // SEGMENT, number % SEGMENT) for number in range(2500))


def _zipf() -> Iterator[Frame]:
    """Single frames out of 20,000, the nth most wanted one 1/n as often as the first."""
    chance = random.Random(1)  # noqa: S311 -- a trace, no secret
    places = [(number // SEGMENT, number % SEGMENT) for number in range(20_000)]
    chance.shuffle(places)
    yield from chance.choices(places, [1 / (number + 1) for number in range(len(places))], k=20_000)


def _mixture() -> Iterator[Frame]:
    """The same, and after every 200 of them a walk over 400 frames that nobody has looked at before."""
    singles = _zipf()
    for walk in range(60):
        yield from (next(singles) for _ in range(200))
        yield from ((100 + walk, frame) for frame in range(400))


def _again() -> Iterator[Frame]:
    """As the mixture, but the walks go over the same ten trees in turn."""
    singles = _zipf()
    for walk in range(60):
        yield from (next(singles) for _ in range(200))
        yield from ((100 + walk % 10, frame) for frame in range(400))


def _drifting() -> Iterator[Frame]:
    """Runs of 50 frames, each read three times within a short while, and never again."""
    chance = random.Random(2)  # noqa: S311 -- a trace, no secret
    for place in range(0, 20_000, 50):
        frames = [(place // SEGMENT, place % SEGMENT + each) for each in range(50)]
        yield from chain(frames, frames, chance.sample(frames, 50))


TRACES: dict[str, Callable[[], Iterator[Frame]]] = {
    "loop larger than the room": _loop,
    "single frames, Zipf": _zipf,
    "single frames and new walks": _mixture,
    "single frames and ten walks in turn": _again,
    "fresh runs, each used for a while": _drifting,
}
