"""`find -printf %s` over a mounted set against the same walk of the local tree. Blocking."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tapefs.bench.backup import made_set
from tapefs.bench.stand import Result, Stand, mounted, ratio_of, tapefs, timed
from tapefs.bench.trees import Tree
from tapefs.home import Home

GOAL = 5.0


def run(stand: Stand, tree: Tree, runs: int) -> list[Result]:
    """Measure both in turns: each time a new mount, of which the kernel knows nothing, and the local tree, warm."""
    print(f"walk: {tree}")
    home = stand.new_home("walk")
    made_set(home, tree)
    local, cold, warm = [], [], []
    _find(tree.sources)
    for _ in range(runs):
        local.append(_find(tree.sources))
        first, second = _mounted_walks(stand, home, tree)
        cold.append(first)
        warm.append(second)
        print(f"  local {local[-1]:.2f} s, fresh mount {first:.2f} s, again {second:.2f} s")
    names = _count(tree.sources)
    return [
        _result(f"find -printf %s of {names:,} names, fresh mount", cold, local),
        _result("the same again", warm, local),
    ]


def _result(what: str, ours_s: Sequence[float], theirs_s: Sequence[float]) -> Result:
    ratio = ratio_of(ours_s, theirs_s)
    ours, theirs = f"{median(ours_s):.2f} s", f"{median(theirs_s):.2f} s"
    return Result(what, ours, "local tree, warm", theirs, ratio, f"≤ {GOAL}", ratio <= GOAL)


def _mounted_walks(stand: Stand, home: Home, tree: Tree) -> tuple[float, float]:
    folder = stand.folder / "mnt"
    with mounted(tapefs(home, "mount", folder), folder):
        root = folder / "jobs/bench/latest"
        copies = [root / source.relative_to("/") for source in tree.sources]
        if _count(copies) != _count(tree.sources):
            raise RuntimeError("the mounted set has not the names of the local tree")
    with mounted(tapefs(home, "mount", folder), folder):
        return _find(copies), _find(copies)


def _command(sources: Sequence[Path]) -> list[str]:
    return ["find", *map(str, sources), "-xdev", "-printf", "%s\\n"]


def _find(sources: Sequence[Path]) -> float:
    return timed(_command(sources))


def _count(sources: Sequence[Path]) -> int:
    return subprocess.run(_command(sources), stdout=subprocess.PIPE, check=True).stdout.count(b"\n")
