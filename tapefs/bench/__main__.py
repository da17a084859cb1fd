"""The command `scripts/bench`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from tapefs.bench import (
    backup,
    codecs,
    copies,
    drives,
    encryption,
    eviction,
    http_calls,
    incremental,
    large,
    listing,
    memory,
    mounts,
    read,
    recall,
    restore,
    spool,
    walk,
    walks,
)
from tapefs.bench.stand import Result, print_results, stand
from tapefs.bench.trees import Tree, join, measure, real_tree

NAMES = (
    "backup",
    "small",
    "large",
    "incremental",
    "restore",
    "walk",
    "walks",
    "mounts",
    "read",
    "listing",
    "index",
    "find",
    "codecs",
    "spool",
    "memory",
    "recall",
    "eviction",
    "drives",
    "rebuild",
    "encryption",
    "copies",
    "http",
)

#: Those that bring what they measure with, and those that want a tree and a number of runs.
ALONE = {
    "spool": spool.run,
    "memory": memory.run,
    "listing": listing.run,
    "walks": walks.run,
    "drives": drives.run,
    "copies": copies.run,
    "http": http_calls.run,
}
WITH_TREE = {
    "backup": backup.run,
    "large": large.run,
    "incremental": incremental.run,
    "restore": restore.run,
    "walk": walk.run,
    "mounts": mounts.run,
    "encryption": encryption.run,
}


@click.command()
@click.argument(
    "names",
    metavar=f"[{'|'.join(NAMES)}|all]...",
    nargs=-1,
)
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Take the median of so many.")
@click.option(
    "--tree",
    "sources",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    multiple=True,
    help="Measure with this folder; else with folders of this machine, 130,000 files or more. May be repeated.",
)
@click.option(
    "--plots",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    help="Draw what recall measures to SVG files in this folder.",
)
def main(names: tuple[str, ...], runs: int, sources: tuple[Path, ...], plots: Path | None) -> None:
    """Measure tapefs beside well-known programs and print ratios. Takes minutes; TMPDIR needs some 20 GB."""
    unknown = set(names) - {*NAMES, "all"}
    if unknown:
        raise click.UsageError(f"there is no benchmark {', '.join(sorted(unknown))}")
    wanted = NAMES if not names or "all" in names else [name for name in NAMES if name in names]
    results: list[Result] = []
    for name in wanted:
        results += recall.run(plots) if name == "recall" else _run(name, runs, sources)
    if results:
        print_results(results)


def _run(name: str, runs: int, sources: tuple[Path, ...]) -> list[Result]:
    if name == "eviction":
        eviction.run()
        return []
    if name in ("index", "find", "rebuild"):
        # They print lines of their own, and a process of its own keeps others' objects out of its times.
        subprocess.run([sys.executable, "-m", f"tapefs.bench.{name}"], check=True)
        return []
    if name == "codecs":
        codecs.run(_tree(sources), runs)
        return []
    with stand() as place:
        if name in ALONE:
            return ALONE[name](place)
        if name == "small":
            return backup.run_small(place, runs)
        if name == "read":
            return read.run(place, runs)
        return WITH_TREE[name](place, _tree(sources), runs)


def _tree(sources: tuple[Path, ...]) -> Tree:
    return join([measure(source) for source in sources]) if sources else real_tree()


if __name__ == "__main__":
    main()
