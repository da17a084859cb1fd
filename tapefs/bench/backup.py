"""Full backups against `tar | zstd -3 -T0`, and the memory of the mover: real files, and many small ones. Blocking."""

from __future__ import annotations

import random
import subprocess
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tapefs.bench.stand import Result, Stand, ratio_of, tapefs, timed
from tapefs.bench.trees import Tree, measure
from tapefs.bench.usage import Spent, Staff, spent
from tapefs.client.presence import connected
from tapefs.home import Home

GOAL = 0.8
MEMORY_MB = 400
#: Twenty times what TAF was measured with.
GOAL_FILES_PER_S = 20 * 1370

_SMALL_FILES = 100_000
_LEAST_BYTES = 512
_MOST_BYTES = 16 * 1024
_FILES_IN_A_FOLDER = 50
_SEED = 3


@dataclass(frozen=True, slots=True)
class _Turn:
    """One run of each."""

    theirs: Spent
    ours: Spent
    peak_bytes: int


def run(stand: Stand, tree: Tree, runs: int) -> list[Result]:
    """Measure real files."""
    print(f"backup: {tree}")
    return _results(f"backup of {tree.files:,} files, {tree.bytes / 1e9:.1f} GB", _turns(stand, tree, runs))


def run_small(stand: Stand, runs: int) -> list[Result]:
    """Measure many small files, made for it."""
    tree = _small_tree(stand.folder / "small")
    print(f"small: {tree}")
    turns = _turns(stand, tree, runs)
    rate = tree.files / median([turn.ours.wall_s for turn in turns])
    return [
        *_results(f"backup of {tree.files:,} files of 0.5 to 16 KiB", turns),
        Result(
            "the same, by the second", f"{rate:,.0f} files/s", "20 times TAF's rate", f"{GOAL_FILES_PER_S:,} files/s",
            rate / GOAL_FILES_PER_S, "≥ 1.0", rate >= GOAL_FILES_PER_S,
        ),
    ]  # fmt: skip


def _turns(stand: Stand, tree: Tree, runs: int) -> list[_Turn]:
    """Measure both in turns, the page cache warm, the sidecar running."""
    turns = []
    for number in range(runs):
        _warm(tree)
        theirs = _tar(stand, tree)
        home = stand.new_home(f"backup{number}")
        _warm(tree)
        with connected(home), Staff(home) as staff:
            ours = spent(tapefs(home, "backup", "--name", "bench", *tree.sources), staff.cpu_s)
        turns.append(_Turn(theirs, ours, staff.peak_bytes))
        print(f"  tar | zstd {theirs}, tapefs {ours}, mover {staff.peak_bytes / 1e6:.0f} MB")
    return turns


def _results(what: str, turns: list[_Turn]) -> list[Result]:
    wall = ratio_of([turn.ours.wall_s for turn in turns], [turn.theirs.wall_s for turn in turns])
    cpu = ratio_of([turn.ours.cpu_s for turn in turns], [turn.theirs.cpu_s for turn in turns])
    peak_mb = max(turn.peak_bytes for turn in turns) / 1e6
    ours, theirs = [turn.ours for turn in turns], [turn.theirs for turn in turns]
    return [
        Result(
            what, f"{median([each.wall_s for each in ours]):.1f} s", "tar \\| zstd -3 -T0",
            f"{median([each.wall_s for each in theirs]):.1f} s", wall, f"≤ {GOAL}", wall <= GOAL,
        ),
        Result(
            "processor time of that", f"{median([each.cpu_s for each in ours]):.1f} s", "the same",
            f"{median([each.cpu_s for each in theirs]):.1f} s", cpu, "", None,
        ),
        Result(
            "memory of the mover meanwhile", f"{peak_mb:.0f} MB", "", "", None, f"≤ {MEMORY_MB} MB",
            peak_mb <= MEMORY_MB,
        ),
    ]  # fmt: skip


def _small_tree(folder: Path) -> Tree:
    """Make small files out of Python's own library, the same ones every time."""
    library = Path(sysconfig.get_paths()["stdlib"])
    text = b"".join(path.read_bytes() for path in sorted(library.glob("*.py")))
    dice = random.Random(_SEED)  # noqa: S311 - no secret: the same files every time
    for number in range(_SMALL_FILES):
        inner = folder / f"{number // 1000:03d}" / f"{number // _FILES_IN_A_FOLDER % 20:02d}"
        if number % _FILES_IN_A_FOLDER == 0:
            inner.mkdir(parents=True)
        size = dice.randint(_LEAST_BYTES, _MOST_BYTES)
        start = dice.randrange(len(text) - size)
        (inner / f"file{number:06d}").write_bytes(text[start : start + size])
    return measure(folder)


def _warm(tree: Tree) -> None:
    # To /dev/null itself tar reads nothing.
    command = 'tar -cf - "$@" 2>/dev/null | cat >/dev/null'
    subprocess.run(["bash", "-c", command, "bash", *_names(tree)], check=True)


def _names(tree: Tree) -> list[str]:
    return [str(source) for source in tree.sources]


def _tar(stand: Stand, tree: Tree) -> Spent:
    target = stand.folder / "reference.tar.zst"
    script = 'out=$1; shift; tar -cf - "$@" 2>/dev/null | zstd -3 -T0 -q >"$out"'
    taken = spent(["bash", "-c", script, "bash", str(target), *_names(tree)])
    target.unlink()
    return taken


def made_set(home: Home, tree: Tree) -> float:
    """Back the tree up for other benchmarks; return the seconds."""
    begin = time.perf_counter()
    timed(tapefs(home, "backup", "--name", "bench", *tree.sources))
    return time.perf_counter() - begin
