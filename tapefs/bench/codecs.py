"""Codecs and the engines of gzip side by side, on frames from memory with a thread per core. Blocking."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from statistics import median

from tapefs.bench.stand import machine, ratio_of
from tapefs.bench.trees import Tree
from tapefs.codecs import CODECS, Encoder
from tapefs.codecs.pgzip import isal_encoder, pgzip_encoder, zlib_encoder, zlib_ng_encoder

_FRAME_BYTES = 4 << 20
_FRAMES = 16
#: The one that the others are compared with.
_AGAINST = ("pgzip", 6)

#: Makes an encoder for a level.
_Maker = Callable[[int], Encoder]


@dataclass(frozen=True, slots=True)
class _Way:
    """A way of compressing; `made_by` is empty where the codec leaves no choice."""

    codec: str
    made_by: str
    level: int
    make: _Maker

    def encode(self, plain: memoryview) -> bytes | memoryview:
        """Compress a frame."""
        return self.make(self.level)(plain)

    def decode(self, stored: memoryview) -> bytes:
        """Get a frame of the usual length back."""
        return CODECS[self.codec].decode(stored, _FRAME_BYTES)


def _ways() -> Iterator[_Way]:
    for name, level in (("zstd", 1), ("zstd", 3), ("zstd", 9), ("tar", 0)):
        yield _Way(name, "", level, CODECS[name].encoder)
    engines: tuple[tuple[str, _Maker, Sequence[int]], ...] = (
        ("pgzip", pgzip_encoder, (1, 3, 4, 6, 9)),
        ("zlib", zlib_encoder, (6,)),
        ("ISA-L", isal_encoder, (1, 2, 3)),
        ("zlib-ng", zlib_ng_encoder, (1, 3, 4, 6, 9)),
    )
    for made_by, make, levels in engines:
        for level in levels:
            yield _Way("pgzip", made_by, level, make)
    for name in ("py7zr", "7zip_command"):
        for level in (1, 5, 9):
            yield _Way(name, "", level, CODECS[name].encoder)


def run(tree: Tree, runs: int) -> None:
    """Measure all ways in turns and print their table."""
    frames = _frames(tree)
    print(f"codecs: {len(frames)} frames of {_FRAME_BYTES >> 20} MiB out of {tree}")
    size = sum(map(len, frames))
    ways = list(_ways())
    seconds: dict[_Way, list[float]] = {way: [] for way in ways}
    reading: dict[_Way, list[float]] = {way: [] for way in ways}
    gains: dict[_Way, float] = {}
    for _ in range(runs):
        for way in ways:
            stored, spent_s = _timed(frames, way.encode)
            seconds[way].append(spent_s / size)
            gains[way] = size / sum(map(len, stored))
            _, spent_s = _timed([memoryview(frame) for frame in stored], way.decode)
            reading[way].append(spent_s / size)
    _print(ways, seconds, reading, gains)


def _print(
    ways: Sequence[_Way], seconds: dict[_Way, list[float]], reading: dict[_Way, list[float]], gains: dict[_Way, float]
) -> None:
    against = next(way for way in ways if (way.made_by, way.level) == _AGAINST)
    print(f"\n{machine()}\n")
    print(
        f"| codec | made by | level | MB/s | against {against.made_by} {against.level} | plain / stored | read MB/s |"
    )
    print("|---|---|---|---|---|---|---|")
    for way in ways:
        speed = ratio_of(seconds[against], seconds[way])
        rate, back = (1e-6 / median(times[way]) for times in (seconds, reading))
        print(
            f"| {way.codec} | {way.made_by} | {way.level} | {rate:.0f} | {speed:.2f} | {gains[way]:.2f} | {back:.0f} |"
        )


def _frames(tree: Tree) -> list[memoryview]:
    """Return frames of a tar stream of the tree, evenly out of all of it."""
    apart = max(1, tree.bytes // _FRAME_BYTES // _FRAMES)
    command = ["tar", "-cf", "-", *map(str, tree.sources)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tar:
        frames = [frame for frame in islice(_read(tar), 0, None, apart) if len(frame) == _FRAME_BYTES]
    return [memoryview(frame) for frame in frames[:_FRAMES]]


def _read(tar: subprocess.Popen[bytes]) -> Iterator[bytes]:
    if tar.stdout is None:
        raise AssertionError("tar has no output")
    while frame := tar.stdout.read(_FRAME_BYTES):
        yield frame


def _timed(
    items: Sequence[memoryview], work: Callable[[memoryview], bytes | memoryview]
) -> tuple[list[bytes | memoryview], float]:
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        list(threads.map(int, range(8)))
        begin = time.perf_counter()
        done = list(threads.map(work, items))
        return done, time.perf_counter() - begin
