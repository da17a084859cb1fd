"""Restore of many real files against `zstd -dc | tar -x`. Blocking."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from tapefs.bench.stand import Result, Stand, out_of, ratio_of, tapefs, timed
from tapefs.bench.trees import Tree
from tapefs.bench.usage import Spent, Staff, spent
from tapefs.client.presence import connected
from tapefs.home import Home

_PACK = 'out=$1; shift; tar -cf - "$@" 2>/dev/null | zstd -3 -T0 -q >"$out"'
#: With all of it on disk at the end, as ours has it.
_UNPACK = 'mkdir "$2" && zstd -dcq "$1" | tar -C "$2" -xpf - && sync -f "$2"'


def run(stand: Stand, tree: Tree, runs: int) -> list[Result]:
    """Measure both in turns: nothing staged, the other's archive in the page cache, the sidecar running."""
    print(f"restore: {tree}")
    archive = stand.folder / "reference.tar.zst"
    timed(["bash", "-c", _PACK, "bash", str(archive), *map(str, tree.sources)])
    home = stand.new_home("restore")
    theirs, ours = [], []
    with connected(home), Staff(home) as staff:
        set_id = out_of(tapefs(home, "backup", "--name", "bench", *tree.sources))
        for number in range(runs):
            theirs.append(_theirs(archive, stand.folder / f"theirs{number}"))
            ours.append(_ours(home, set_id, stand.folder / f"ours{number}", staff.cpu_s))
            print(f"  zstd | tar {theirs[-1]}, tapefs {ours[-1]}")
    archive.unlink()
    return _results(f"restore of {tree.files:,} files, {tree.bytes / 1e9:.1f} GB", ours, theirs)


def _theirs(archive: Path, target: Path) -> Spent:
    result = spent(["bash", "-o", "pipefail", "-c", _UNPACK, "bash", str(archive), str(target)])
    shutil.rmtree(target)
    return result


def _ours(home: Home, set_id: str, target: Path, others: Callable[[], float]) -> Spent:
    timed(tapefs(home, "evict", "--all"))
    result = spent(tapefs(home, "restore", set_id, "--to", target), others)
    shutil.rmtree(target)
    return result


def _results(what: str, ours: Sequence[Spent], theirs: Sequence[Spent]) -> list[Result]:
    wall = ratio_of([each.wall_s for each in ours], [each.wall_s for each in theirs])
    cpu = ratio_of([each.cpu_s for each in ours], [each.cpu_s for each in theirs])
    return [
        Result(
            what, f"{median([each.wall_s for each in ours]):.1f} s", "zstd -dc \\| tar -xp; sync",
            f"{median([each.wall_s for each in theirs]):.1f} s", wall, "", None,
        ),
        Result(
            "processor time of that", f"{median([each.cpu_s for each in ours]):.1f} s", "the same",
            f"{median([each.cpu_s for each in theirs]):.1f} s", cpu, "", None,
        ),
    ]  # fmt: skip
