"""Backup of many real files against `tar | zstd -3 -T0`, and the memory of the mover. Blocking."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from statistics import median

from tapefs.bench.stand import Result, Stand, ratio_of, tapefs, timed
from tapefs.bench.trees import Tree
from tapefs.client.presence import connected
from tapefs.home import Home

GOAL = 1.5
MEMORY_MB = 400
_SAMPLE_S = 0.1


def run(stand: Stand, tree: Tree, runs: int) -> list[Result]:
    """Measure both in turns, the page cache warm, the sidecar running."""
    print(f"backup: {tree}")
    _warm(tree)
    theirs, ours, peaks = [], [], []
    for number in range(runs):
        theirs.append(_tar(stand, tree))
        seconds, peak = _backup(stand.new_home(f"backup{number}"), tree)
        ours.append(seconds)
        peaks.append(peak)
        print(f"  tar | zstd {theirs[-1]:.1f} s, tapefs {seconds:.1f} s, mover {peak / 1e6:.0f} MB")
    ratio = ratio_of(ours, theirs)
    what = f"backup of {tree.files:,} files, {tree.bytes / 1e9:.1f} GB"
    peak = max(peaks)
    return [
        Result(
            what,
            f"{median(ours):.1f} s",
            "tar \\| zstd -3 -T0",
            f"{median(theirs):.1f} s",
            ratio,
            f"≤ {GOAL}",
            ratio <= GOAL,
        ),
        Result(
            "memory of the mover meanwhile",
            f"{peak / 1e6:.0f} MB",
            "",
            "",
            None,
            f"≤ {MEMORY_MB} MB",
            peak <= MEMORY_MB * 10**6,
        ),
    ]


def _warm(tree: Tree) -> None:
    subprocess.run(["tar", "-cf", "-", *_names(tree)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)


def _names(tree: Tree) -> list[str]:
    return [str(source) for source in tree.sources]


def _tar(stand: Stand, tree: Tree) -> float:
    target = stand.folder / "reference.tar.zst"
    script = 'out=$1; shift; tar -cf - "$@" 2>/dev/null | zstd -3 -T0 -q >"$out"'
    seconds = timed(["bash", "-c", script, "bash", str(target), *_names(tree)])
    target.unlink()
    return seconds


def _backup(home: Home, tree: Tree) -> tuple[float, int]:
    """Return the seconds of one backup, and the most memory its mover had, in bytes."""
    with connected(home), _MoverMemory(home) as memory:
        seconds = timed(tapefs(home, "backup", "--name", "bench", *tree.sources))
    return seconds, memory.peak_bytes


class _MoverMemory:
    """Watches the mover's own record of its greatest resident size."""

    def __init__(self, home: Home) -> None:
        self.peak_bytes = 0
        self._mark = str(home.path).encode()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> _MoverMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(_SAMPLE_S):
            for folder in Path("/proc").glob("[0-9]*"):
                self.peak_bytes = max(self.peak_bytes, self._peak_of(folder))

    def _peak_of(self, folder: Path) -> int:
        try:
            command = (folder / "cmdline").read_bytes()
            if b"tapefs.mover" not in command or self._mark not in command:
                return 0
            lines = (folder / "status").read_text().splitlines()
        except OSError:
            return 0  # The process has just ended.
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


def made_set(home: Home, tree: Tree) -> float:
    """Back the tree up for other benchmarks; return the seconds."""
    begin = time.perf_counter()
    timed(tapefs(home, "backup", "--name", "bench", *tree.sources))
    return time.perf_counter() - begin
