"""The command `scripts/compare`: folders there and back, and a table of what differs. Blocking."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import click

from tests.compare.there_and_back import (
    WAYS,
    Archived,
    Outcome,
    archive,
    bring_back,
    changed_meanwhile,
    kinds,
    without,
)
from tests.test_end_to_end import Installation

_HOURS_S = 6 * 3600.0
_SHOWN = 20
_KINDS = {
    "-": "files",
    "d": "directories",
    "l": "symbolic links",
    "p": "fifos",
    "c": "character devices",
    "b": "block devices",
    "s": "sockets (not backed up)",
}
#: What is compared, and how a reader calls it.
_ROWS = {
    "missing": "names missing",
    "not expected": "names not expected",
    "kind": "kind",
    "mode": "mode",
    "owner": "owner",
    "mtime_ns": "time, ns",
    "size": "size",
    "sha256": "content",
    "data": "holes",
    "rdev": "device number",
    "target": "target of links",
    "xattrs": "xattrs, ACLs, capabilities",
    "names": "hardlinks",
}


@click.command()
@click.argument(
    "directories",
    metavar="[DIRECTORY]...",
    nargs=-1,
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
)
@click.option("--segment-bytes", type=int, default=0, help="Plain bytes of a segment; 0: as tapefs chooses.")
def main(directories: tuple[Path, ...], segment_bytes: int) -> None:
    """Back DIRECTORY up (default: /usr), bring it back by `tapefs restore`, by the mount and by GNU tar, and compare.

    Needs root and, in TMPDIR, three times the room that DIRECTORY takes. The exit code is 1 if anything differs.
    """
    sources = directories or (Path("/usr"),)
    _check(sources)
    with tempfile.TemporaryDirectory(prefix="tapefs-compare.") as name:
        folder = Path(name)
        installation = Installation(folder, command_s=_HOURS_S)
        try:
            outcomes = _run(installation, sources, segment_bytes)
        finally:
            installation.close()
    sys.exit(any(each.wrong for each in outcomes))


def _check(sources: Sequence[Path]) -> None:
    if os.geteuid() != 0:
        raise click.ClickException("only root can read and restore everything: become root")
    scratch = Path(tempfile.gettempdir()).resolve()
    for source in sources:
        if scratch.is_relative_to(source):
            raise click.ClickException(f"{scratch} lies in {source}: set TMPDIR to a folder elsewhere")
        if any(source != other and source.is_relative_to(other) for other in sources) or sources.count(source) > 1:
            raise click.ClickException(f"{source} is named twice")


def _run(installation: Installation, sources: Sequence[Path], segment_bytes: int) -> list[Outcome]:
    begin_s = time.monotonic()
    archived = archive(installation, sources, segment_bytes)
    _tell_source(archived, time.monotonic() - begin_s)
    outcomes = bring_back(archived, installation.folder, WAYS)
    changed = changed_meanwhile(archived)
    outcomes = without(outcomes, changed)
    _print_table(outcomes)
    for path in sorted(changed)[:_SHOWN]:
        print(f"changed meanwhile, not compared: {os.fsdecode(path)!r}")
    return outcomes


def _tell_source(archived: Archived, seconds: float) -> None:
    counts = kinds(archived.before.values())
    what = ", ".join(f"{counts[kind]:,} {word}" for kind, word in _KINDS.items() if counts[kind])
    total = sum(seen.size for tree in archived.before.values() for seen in tree.values())
    print(f"{' '.join(map(str, archived.sources))}: {what}; {total / 1e9:.2f} GB")
    print(f"backed up in {len(archived.payloads)} segments, {seconds:.0f} s with looking at the source\n", flush=True)


def _print_table(outcomes: Sequence[Outcome]) -> None:
    """Print it as Markdown, which also reads well on a terminal; a number is how many names differ."""
    lines = [["differences in", *(each.way for each in outcomes)], ["---"] * (len(outcomes) + 1)]
    lines += [[word, *(str(each.count(what)) for each in outcomes)] for what, word in _ROWS.items()]
    lines.append(["names compared", *(f"{each.names:,}" for each in outcomes)])
    lines.append(["explained by docs/format.md", *(str(len(each.explained)) for each in outcomes)])
    lines.append(["seconds", *(f"{each.seconds:.0f}" for each in outcomes)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("| " + " | ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)) + " |")
    print()
    for each in outcomes:
        for one in each.wrong[:_SHOWN]:
            print(f"{each.way}: {one}")
        if len(each.wrong) > _SHOWN:
            print(f"{each.way}: and {len(each.wrong) - _SHOWN} more")


if __name__ == "__main__":
    main()
