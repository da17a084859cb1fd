"""The command `scripts/compare-mount`. Blocking."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import click

from tests.posix.differential import Effort, Report, compare, make_source
from tests.test_end_to_end import Installation

_HOURS_S = 6 * 3600.0
_SHOWN = 20


@click.command()
@click.argument(
    "directory",
    required=False,
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
)
@click.option("--reads", type=click.IntRange(1), default=100_000, show_default=True, help="Random reads.")
@click.option("--cookies", type=click.IntRange(1), default=60, show_default=True, help="Places in each listing.")
@click.option("--names", type=click.IntRange(1), default=1_000_000, show_default=True, help="Names asked everything.")
@click.option("--seed", type=int, default=1, show_default=True)
def main(directory: Path | None, reads: int, cookies: int, names: int, seed: int) -> None:
    """Back DIRECTORY up, mount it, and ask mount and source the same.

    Without DIRECTORY a tree is made with every kind of file. Needs root; DIRECTORY must lie still. The exit code is 1
    if any answer differs.
    """
    if os.geteuid() != 0:
        raise click.ClickException("only root may read everything: become root")
    with tempfile.TemporaryDirectory(prefix="tapefs-compare-mount.") as name:
        folder = Path(name)
        source = directory or make_source(folder / "source")
        installation = Installation(folder, command_s=_HOURS_S)
        try:
            installation.run("init", "--tapes", "4", "--tape-size", "64GiB")
            installation.backup(source, "--name", "posix")
            installation.serve()
            installation.run("evict", "--all")
            root = installation.mount_point / "jobs/posix/latest" / source.relative_to("/")
            report = compare(installation, source, root, Effort(reads, cookies, names, seed))
        finally:
            installation.close()
    _print(report)
    sys.exit(report.count > 0)


def _print(report: Report) -> None:
    """Print it as Markdown, which also reads well on a terminal."""
    print("| compared | differences | seconds |\n|---|---|---|")
    for word, found in report.differences.items():
        print(f"| {word} | {len(found)} | {report.seconds[word]:.1f} |")
    print(f"\n{report.names:,} names; {report.reads.reads.total():,} random reads, {report.reads.bytes / 1e9:.2f} GB:")
    print(", ".join(f"{count:,} {way}" for way, count in report.reads.reads.most_common()))
    for word, found in report.differences.items():
        for line in found[:_SHOWN]:
            print(f"{word}: {line}")


if __name__ == "__main__":
    main()
