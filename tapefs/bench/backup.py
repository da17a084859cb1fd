"""Full backups against `tar | zstd -3 -T0`, and the memory of the mover: real files, and many small ones. Blocking."""

from __future__ import annotations

import random
import subprocess
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from catalog.lmdb_ledger import LmdbLedger
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


#: `auto` is the default; with the peer's own level what is stored can be compared, too.
LEVELS = ("auto", "3")


@dataclass(frozen=True, slots=True)
class Taken:
    """What a run took: time, and room on tape."""

    spent: Spent
    stored_bytes: int
    peak_bytes: int = 0

    def __str__(self) -> str:
        return f"{self.spent}, {self.stored_bytes / 1e6:.0f} MB stored"


@dataclass(frozen=True, slots=True)
class _Turn:
    """One run of each; of ours one by level."""

    theirs: Taken
    ours: dict[str, Taken]


def run(stand: Stand, tree: Tree, runs: int) -> list[Result]:
    """Measure real files."""
    print(f"backup: {tree}")
    return _results(f"backup of {tree.files:,} files, {tree.bytes / 1e9:.1f} GB", _turns(stand, tree, runs))


def run_small(stand: Stand, runs: int) -> list[Result]:
    """Measure many small files, made for it."""
    tree = _small_tree(stand.folder / "small")
    print(f"small: {tree}")
    turns = _turns(stand, tree, runs)
    rate = tree.files / median([turn.ours["auto"].spent.wall_s for turn in turns])
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
        print(f"  tar | zstd {theirs}")
        ours = {}
        for level in LEVELS:
            _warm(tree)
            ours[level] = taken = backup_at(level, stand.new_home(f"backup{number}-{level}"), *tree.sources)
            print(f"  tapefs at level {level} {taken}, mover {taken.peak_bytes / 1e6:.0f} MB")
        turns.append(_Turn(theirs, ours))
    return turns


def backup_at(level: str, home: Home, *sources: Path) -> Taken:
    """Make a full backup in a state folder that is new, the sidecar running."""
    with connected(home), Staff(home) as staff:
        taken = spent(tapefs(home, "backup", "--name", "bench", "--level", level, *sources), staff.cpu_s)
    ledger = LmdbLedger.open(home.ledger)
    try:
        (backup_set,) = ledger.backup_sets()
    finally:
        ledger.close()
    return Taken(taken, backup_set.stored_bytes, staff.peak_bytes)


def _results(what: str, turns: list[_Turn]) -> list[Result]:
    peak_mb = max(taken.peak_bytes for turn in turns for taken in turn.ours.values()) / 1e6
    return [
        *(result for level in LEVELS for result in _results_at(level, what, turns)),
        Result(
            "memory of the mover meanwhile", f"{peak_mb:.0f} MB", "", "", None, f"≤ {MEMORY_MB} MB",
            peak_mb <= MEMORY_MB,
        ),
    ]  # fmt: skip


def _results_at(level: str, what: str, turns: list[_Turn]) -> list[Result]:
    ours, theirs = [turn.ours[level] for turn in turns], [turn.theirs for turn in turns]
    wall = ratio_of([each.spent.wall_s for each in ours], [each.spent.wall_s for each in theirs])
    cpu = ratio_of([each.spent.cpu_s for each in ours], [each.spent.cpu_s for each in theirs])
    return [
        Result(
            f"{what}, level {level}", f"{median([each.spent.wall_s for each in ours]):.1f} s", "tar \\| zstd -3 -T0",
            f"{median([each.spent.wall_s for each in theirs]):.1f} s", wall, f"≤ {GOAL}", wall <= GOAL,
        ),
        Result(
            "processor time of that", f"{median([each.spent.cpu_s for each in ours]):.1f} s", "the same",
            f"{median([each.spent.cpu_s for each in theirs]):.1f} s", cpu, "", None,
        ),
        stored_by(ours, theirs),
    ]  # fmt: skip


def stored_by(ours: list[Taken], theirs: list[Taken]) -> Result:
    """Return the line that tells what both have stored."""
    mine = median([each.stored_bytes for each in ours])
    other = median([each.stored_bytes for each in theirs])
    return Result("stored by that", f"{mine / 1e6:.0f} MB", "the same", f"{other / 1e6:.0f} MB", mine / other, "", None)


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


def _tar(stand: Stand, tree: Tree) -> Taken:
    target = stand.folder / "reference.tar.zst"
    script = 'out=$1; shift; tar -cf - "$@" 2>/dev/null | zstd -3 -T0 -q >"$out"'
    taken = Taken(spent(["bash", "-c", script, "bash", str(target), *_names(tree)]), target.stat().st_size)
    target.unlink()
    return taken


def made_set(home: Home, tree: Tree) -> float:
    """Back the tree up for other benchmarks; return the seconds."""
    begin = time.perf_counter()
    timed(tapefs(home, "backup", "--name", "bench", *tree.sources))
    return time.perf_counter() - begin
