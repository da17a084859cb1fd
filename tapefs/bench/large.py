"""A backup of large files against compressing the same frames from memory on all processors. Blocking."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from threading import local

from catalog.lmdb_ledger import LmdbLedger
from tapefs.bench.backup import LEVELS, Taken, backup_at, stored_by
from tapefs.bench.stand import Result, Stand, ratio_of
from tapefs.bench.trees import Tree
from tapefs.bench.usage import Spent
from tapefs.codecs import CODECS
from tapefs.home import Home

GOAL = 0.9
_FILES = 2
_FILE_BYTES = 768 << 20
_FRAME_BYTES = 4 << 20
_CODEC = "zstd"
_LEVEL = 3


def run(stand: Stand, tree: Tree, runs: int) -> list[Result]:
    """Measure both in turns: large files made of a tar of the tree, in the page cache, and their frames in memory."""
    folder = stand.folder / "large"
    size = _make(folder, tree)
    print(f"large: {_FILES} files, {size / 1e9:.2f} GB out of {tree}")
    memory: list[Taken] = []
    turns: dict[str, list[tuple[float, Taken]]] = {level: [] for level in LEVELS}
    for number in range(runs):
        memory.append(_from_memory(folder))
        print(f"  from memory {memory[-1]}")
        for level in LEVELS:
            home = stand.new_home(f"large{number}-{level}")
            taken = backup_at(level, home, folder)
            turns[level].append((_job_s(home), taken))
            print(f"  tapefs at level {level} {taken}, the job {turns[level][-1][0]:.2f} s")
    return [result for level in LEVELS for result in _results_at(level, size, memory, turns[level])]


def _results_at(level: str, size: int, memory: list[Taken], turns: list[tuple[float, Taken]]) -> list[Result]:
    jobs, commands = [job_s for job_s, _ in turns], [taken.spent.wall_s for _, taken in turns]
    cpu = [taken.spent.cpu_s for _, taken in turns]
    theirs = [each.spent.wall_s for each in memory]
    ratio, whole = 1 / ratio_of(jobs, theirs), 1 / ratio_of(commands, theirs)
    used = ratio_of(cpu, [each.spent.cpu_s for each in memory])
    there = f"{size / 1e6 / median(theirs):.0f} MB/s"
    return [
        Result(
            f"backup of {_FILES} files, {size / 1e9:.1f} GB, level {level}, from the job's start to its end",
            f"{size / 1e6 / median(jobs):.0f} MB/s", "the same frames compressed from memory at level 3", there, ratio,
            f"≥ {GOAL}", ratio >= GOAL,
        ),
        Result(
            "the same, the command", f"{size / 1e6 / median(commands):.0f} MB/s", "the same", there, whole, "", None,
        ),
        Result(
            "processor time of that", f"{median(cpu):.1f} s", "the same",
            f"{median([each.spent.cpu_s for each in memory]):.1f} s", used, "", None,
        ),
        stored_by([taken for _, taken in turns], memory),
    ]  # fmt: skip


def _make(folder: Path, tree: Tree) -> int:
    """Make files of what tar makes of the tree, as often as it takes; return how many bytes."""
    folder.mkdir()
    pieces = _tar_pieces(tree)
    for number in range(_FILES):
        with (folder / f"file{number}").open("wb") as file:
            while file.tell() < _FILE_BYTES:
                file.write(next(pieces))
    pieces.close()
    return sum(path.stat().st_size for path in folder.iterdir())


def _tar_pieces(tree: Tree) -> Generator[bytes, None, None]:
    command = ["tar", "-cf", "-", *map(str, tree.sources)]
    while True:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tar:
            if tar.stdout is None:
                raise AssertionError("tar has no output")
            while piece := tar.stdout.read(_FRAME_BYTES):
                yield piece


def _from_memory(folder: Path) -> Taken:
    """Compress all of it with a thread per processor, each with a compressor of its own."""
    frames = [frame for path in sorted(folder.iterdir()) for frame in _frames(path)]
    mine = local()

    def compress(frame: bytes) -> int:
        return len(mine.encode(memoryview(frame)))

    def begin() -> None:
        mine.encode = CODECS[_CODEC].encoder(_LEVEL)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), initializer=begin) as threads:
        list(threads.map(compress, frames[:8]))
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        stored = sum(threads.map(compress, frames))
        return Taken(Spent(time.perf_counter() - wall_s, time.process_time() - cpu_s), stored)


def _frames(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while frame := file.read(_FRAME_BYTES):
            yield frame


def _job_s(home: Home) -> float:
    """Return how long the newest run took, as the ledger has it."""
    ledger = LmdbLedger.open(home.ledger)
    try:
        job = ledger.job(ledger.backup_sets()[-1].job_number)
    finally:
        ledger.close()
    return (job.finished_at_ns - job.started_at_ns) / 1e9
