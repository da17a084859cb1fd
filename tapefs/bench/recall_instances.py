"""Requests for the benchmarks of the planner, made from a seed. Pure; any thread."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from drivers.virtual.motion import Motion
from tapefs.planner.records import Request

#: The cartridges of the computing centre IN2P3: 20 TB, here in units of a MB.
TAPE_MB = 20_000_000
#: How far a cluster of files on LTO spreads.
_CLUSTER_BYTES = 30e9


@dataclass(frozen=True, slots=True)
class LinearInstance:
    """A straight tape; the head stands at its right end."""

    requests: tuple[Request, ...]
    length: float
    #: Mean length of all files on the tape, wanted or not.
    mean_file: float
    #: The requests in the order in which the first of each was asked for.
    asked: tuple[int, ...]


def clustered_tape(seed: int) -> LinearInstance:
    """Return what stands in for a tape of IN2P3, whose logs are not at hand, from what is published about them.

    111 to 4,142 aggregates on a tape, 490 in the middle; 57 to 130 of them wanted, in clusters, by 1,200 to 10,000
    requests, 2,600 in the middle, very unevenly.
    """
    chance = random.Random(seed)  # noqa: S311 - no secret: the same requests every time
    count = round(min(max(chance.lognormvariate(math.log(490), 0.8), 150), 4142))
    sizes = [chance.lognormvariate(0, 1) for _ in range(count)]
    scale = TAPE_MB / sum(sizes)
    starts, at = [], 0.0
    for size in sizes:
        starts.append(math.floor(at))
        at += size * scale
    ends = [*starts[1:], TAPE_MB]
    wanted = _clusters(chance, count, chance.randint(57, 130))
    total = min(max(chance.lognormvariate(math.log(2600), 0.6), 1200), 10_000)
    shares = [chance.lognormvariate(0, 1.5) for _ in wanted]
    weights = [max(1, round(total * share / sum(shares))) for share in shares]
    requests = tuple(
        Request(starts[file], ends[file] - starts[file], weight) for file, weight in zip(wanted, weights, strict=True)
    )
    # The first of w requests that come at random times: the least of w uniform numbers.
    first = [1 - chance.random() ** (1 / weight) for weight in weights]
    asked = sorted(range(len(requests)), key=lambda index: first[index])
    return LinearInstance(requests, TAPE_MB, TAPE_MB / count, tuple(asked))


def _clusters(chance: random.Random, count: int, wanted: int) -> list[int]:
    """Return the numbers of `wanted` files: runs of neighbours with small holes, and some alone."""
    chosen: set[int] = set()
    while len(chosen) < wanted:
        at = chance.randrange(count)
        for _ in range(1 if chance.random() < 0.3 else chance.randint(5, 25)):
            if at < count and len(chosen) < wanted:
                chosen.add(at)
            at += 1 if chance.random() < 0.7 else chance.randint(2, 4)
    return sorted(chosen)


def scattered_tape(seed: int, count: int, length: int = 10**9) -> list[Request]:
    """Return disjoint requests anywhere on a straight tape."""
    chance = random.Random(seed)  # noqa: S311 - no secret: the same requests every time
    cuts = sorted(chance.sample(range(length + 1), 2 * count))
    return [Request(start, end - start) for start, end in zip(cuts[::2], cuts[1::2], strict=True)]


def on_lto(seed: int, motion: Motion, count: int, length_bytes: int, clusters: int = 0) -> list[Request]:
    """Return requests of one length anywhere on a cartridge, or near a few places, in the order of asking."""
    chance = random.Random(seed)  # noqa: S311 - no secret: the same requests every time
    room = motion.generation.capacity_bytes - length_bytes
    places = [chance.randrange(room) for _ in range(clusters)]

    def start() -> int:
        if not places:
            return chance.randrange(room)
        return min(max(0, round(chance.gauss(chance.choice(places), _CLUSTER_BYTES))), room)

    return [Request(start(), length_bytes) for _ in range(count)]


def by_position(requests: Sequence[Request]) -> list[int]:
    """Return the order of whoever only sorts."""
    return sorted(range(len(requests)), key=lambda index: (requests[index].start, requests[index].length))
