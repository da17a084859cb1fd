"""Where the data of a file with holes lies. Blocking; any thread.

All runs begin at a multiple of 512, and end at one or with the file: between two runs of a member GNU tar expects
padding to 512, and libarchive none.
"""

from __future__ import annotations

import errno
import heapq
import os
from collections.abc import Callable

#: Place in the file, length.
Run = tuple[int, int]

#: Runs a file is stored with at most: then the map in front of the data has under 200 KiB, and the line in the trailer
#: stays short. Beyond that the smallest holes are stored as zeros.
MOST_RUNS = 4096
_LOOK_AROUND_EVERY = 1024
_BLOCK = 512


def data_runs(fd: int, size: int, look_around: Callable[[], None]) -> list[Run] | None:
    """Return the runs of data of an open file, ascending and apart; None when it has no holes or they cannot be told.

    `look_around` is called now and then; what it raises ends the search.
    """
    runs: list[Run] = []
    place = steps = 0
    while place < size:
        try:
            start = os.lseek(fd, place, os.SEEK_DATA)
            end = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            # The filesystem does not say; all of it is read.
            return None
        if start >= size:
            break
        if end <= start or start < place:
            return None
        _add(runs, start // _BLOCK * _BLOCK, min(-(-end // _BLOCK) * _BLOCK, size))
        place = end
        steps += 1
        if len(runs) > 2 * MOST_RUNS:
            runs = fewer(runs, MOST_RUNS)
        if steps % _LOOK_AROUND_EVERY == 0:
            look_around()
    runs = fewer(runs, MOST_RUNS)
    return None if runs == [(0, size)] else runs


def _add(runs: list[Run], start: int, end: int) -> None:
    """Append a run, or make the last one longer if it touches it."""
    if runs and sum(runs[-1]) >= start:
        start = runs.pop()[0]
    runs.append((start, end - start))


def fewer(runs: list[Run], most: int) -> list[Run]:
    """Return at most `most` runs, with the largest of the holes between them."""
    if len(runs) <= most:
        return runs
    holes = ((runs[n + 1][0] - sum(runs[n]), n) for n in range(len(runs) - 1))
    kept = sorted(n for _, n in heapq.nlargest(most - 1, holes))
    firsts = [0, *(n + 1 for n in kept)]
    lasts = [*kept, len(runs) - 1]
    return [(runs[a][0], sum(runs[b]) - runs[a][0]) for a, b in zip(firsts, lasts, strict=True)]


def data_bytes(runs: list[Run]) -> int:
    """Return how much data they are."""
    return sum(length for _, length in runs)


def cut(runs: list[Run], offset: int, size: int, room: int) -> tuple[int, list[Run]]:
    """Return where a part ends that begins at `offset` and holds up to `room` bytes of data, and its runs.

    It holds whole blocks of 512, at least one. A part that takes the last of the data ends at `size`; others end where
    their data does.
    """
    part: list[Run] = []
    room = max(room // _BLOCK, 1) * _BLOCK
    for place, length in runs:
        start, end = max(place, offset), place + length
        if start >= end:
            continue
        if not room:
            return sum(part[-1]), part
        taken = min(end - start, room)
        part.append((start, taken))
        room -= taken
        if taken < end - start:
            return start + taken, part
    return size, part
