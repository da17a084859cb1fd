"""`tapefs find`."""

from __future__ import annotations

import stat
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tapefs.cli.output import name_for_people, short_time
from tapefs.cli.place import Place, catalog_of, sidecar_of
from tapefs.cli.values import MOST_BYTES, JobName, Since, SizeRange
from tapefs.errors import UsageError
from tapefs.search.query import KINDS, Match, Query
from tapefs.vfs.nodes import KIND_NAMES

if TYPE_CHECKING:
    from tapefs.client.api import Client

_NS_PER_S = 1_000_000_000
#: What was found waits no longer for more of it before it is printed, and no more than so many lines do.
_PATIENCE_S = 0.2
_BATCH_LINES = 1000
_MODES = {name: kind for kind, name in KIND_NAMES.items()}


@click.command("find")
@click.argument("patterns", metavar="PATTERN...", nargs=-1, required=True)
@click.option("--job", "jobs", type=JobName(), multiple=True, help="Only sets of this job; may be repeated.")
@click.option("--set", "set_name", metavar="SET", help="Only what this set shows.")
@click.option("--since", type=Since(), metavar="WHEN", help="Only what sets begun since show; 30d, or a time.")
@click.option("--until", type=Since(), metavar="WHEN", help="Only what sets begun until then show.")
@click.option(
    "--size", "sizes", type=SizeRange(), multiple=True, help="Files of more than +N, less than -N, or just N."
)
@click.option("--type", "kinds", type=click.Choice(list(KINDS)), multiple=True, help="As of find; may be repeated.")
@click.option("--ignore-case", "-i", is_flag=True, help="Upper and lower case are the same.")
@click.option("--path", "whole_path", is_flag=True, help="Patterns are of whole paths, not of last names.")
@click.option("--regex", is_flag=True, help="Patterns are regular expressions, matching any part.")
@click.option("--all", "every", is_flag=True, help="Every version, not only the newest of each path.")
@click.option("--long", "is_long", is_flag=True, help="Also attributes, and how many versions there are.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-0", "--print0", "print0", is_flag=True, help="End paths with a NUL byte, not with a line break.")
@click.pass_obj
def find_command(
    place: Place,
    patterns: tuple[str, ...],
    jobs: tuple[str, ...],
    set_name: str | None,
    since: float | None,
    until: float | None,
    sizes: tuple[tuple[int, int], ...],
    kinds: tuple[str, ...],
    ignore_case: bool,
    whole_path: bool,
    regex: bool,
    every: bool,
    is_long: bool,
    as_json: bool,
    print0: bool,
) -> None:
    """Search the names of all sets; nothing is fetched from tape.

    A PATTERN is compared with whole names as by the shell: report.pdf, *.tex, IMG_20??[0-9]*. What is printed are paths
    below the mount, of each file the newest version.
    """
    from tapefs.search.find import OPEN_INDEXES, find
    from tapefs.search.present import match_json, mount_path
    from tapefs.vfs.archive import Archive

    if print0 and (as_json or is_long):
        raise click.UsageError("-0 prints paths only: it goes with neither --json nor --long")
    query = Query(
        patterns=patterns,
        ignore_case=ignore_case,
        regex=regex,
        whole_path=whole_path,
        jobs=frozenset(jobs),
        set_id=None,
        since_ns=_nanoseconds(since),
        until_ns=_nanoseconds(until),
        min_bytes=max((least for least, _ in sizes), default=None),
        max_bytes=min((most for _, most in sizes), default=None),
        kinds=frozenset(KINDS[kind] for kind in kinds),
        every=every,
        count_versions=is_long and not every,
        attributes=is_long or as_json,
    )
    if not place.is_here:
        with sidecar_of(place) as client:
            _find_there(client, query, set_name, is_long=is_long, as_json=as_json, print0=print0)
        return
    with catalog_of(place) as catalog:
        if set_name is not None:
            query = query.within(catalog.archive.find_set(set_name).set_id)
        archive = Archive(catalog.home, catalog.ledger, open_indexes=OPEN_INDEXES)
        try:
            roster = archive.roster()
            found = find(catalog.home, archive, query)
            if as_json:
                _print(_json_lines(match_json(roster, match) for match in found), b"\n")
            elif is_long:
                _print((_long(match, mount_path(roster, match.backup_set, match.path)) for match in found), b"\n")
            else:
                paths = (mount_path(roster, match.backup_set, match.path) for match in found)
                _print(paths if print0 else map(name_for_people, paths), b"\0" if print0 else b"\n")
        finally:
            archive.close()


def _find_there(
    client: Client, query: Query, set_name: str | None, *, is_long: bool, as_json: bool, print0: bool
) -> None:
    """Print what a sidecar elsewhere finds. Raises UsageError for what it does not search for others."""
    from base64 import b64decode

    from tapefs.client.streams import search_target, whole_lines

    def path_of(found: dict[str, Any]) -> bytes:
        exact = found.get("mount_path_b64")
        return b64decode(exact) if exact else str(found["mount_path"]).encode()

    def line_of(found: dict[str, Any]) -> bytes:
        versions = f"{found['versions']:>4} " if "versions" in found else ""
        mode = stat.filemode(_MODES.get(found["type"], stat.S_IFREG) | int(found["mode"], 8))
        owner = f"{found['uid']:>5}:{found['gid']:<5}"
        facts = f"{mode} {owner} {found['size']:>16,} {short_time(found['mtime_ns'])} {versions}"
        return facts.encode() + name_for_people(path_of(found))

    with client.lines(search_target(query.patterns, _choice(query, set_name))) as lines:
        found = whole_lines(lines)
    if as_json:
        _print(_json_lines(found), b"\n")
    elif is_long:
        _print(map(line_of, found), b"\n")
    else:
        paths = map(path_of, found)
        _print(paths if print0 else map(name_for_people, paths), b"\0" if print0 else b"\n")


def _choice(query: Query, set_name: str | None) -> list[tuple[str, str]]:
    """Return a query as the parameters of GET /api/v1/find."""
    if query.regex:
        raise UsageError("--regex works beside the state folder only: one can be written that never comes to an end")
    single = {
        "set": set_name,
        "since": _moment(query.since_ns),
        "until": _moment(query.until_ns),
        "min_bytes": query.min_bytes or None,
        "max_bytes": None if query.max_bytes == MOST_BYTES else query.max_bytes,
    }
    flags = {
        "ignore_case": query.ignore_case,
        "path": query.whole_path,
        "all": query.every,
        "long": query.attributes,
    }
    return [
        *(("job", each) for each in query.jobs),
        *(("type", letter) for letter, kind in KINDS.items() if kind in query.kinds),
        *((key, str(value)) for key, value in single.items() if value is not None),
        *((key, "true") for key, is_on in flags.items() if is_on),
    ]


def _moment(at_ns: int | None) -> str | None:
    return None if at_ns is None else datetime.fromtimestamp(at_ns / _NS_PER_S, UTC).isoformat()


def _nanoseconds(at_s: float | None) -> int | None:
    return None if at_s is None else int(at_s * 1_000_000) * 1000


def _long(match: Match, path: bytes) -> bytes:
    entry = match.entry
    if entry is None:
        raise AssertionError("attributes were asked for")
    versions = "" if match.versions is None else f"{match.versions:>4} "
    size = 0 if stat.S_ISDIR(entry.mode) else entry.size
    facts = f"{stat.filemode(entry.mode)} {entry.uid:>5}:{entry.gid:<5} {size:>16,} {short_time(entry.mtime_ns)} "
    return (facts + versions).encode() + name_for_people(path)


def _json_lines(values: Iterable[dict[str, object]]) -> Iterator[bytes]:
    """Yield one JSON list, a line for each value."""
    import json

    before = b"["
    for value in values:
        yield before + json.dumps(value).encode()
        before = b","
    yield b"[]" if before == b"[" else b"]"


def _print(lines: Iterable[bytes], end: bytes) -> None:
    """Print many lines at a time, but soon; on a terminal say that there is none."""
    batch: list[bytes] = []
    printed_s = time.monotonic()
    is_any = False
    try:
        for line in lines:
            is_any = True
            batch.append(line)
            now_s = time.monotonic()
            if len(batch) >= _BATCH_LINES or now_s > printed_s + _PATIENCE_S:
                ready, batch, printed_s = batch, [], now_s
                click.echo(end.join(ready) + end, nl=False)
    finally:
        if batch:
            click.echo(end.join(batch) + end, nl=False)
    if not is_any and sys.stdout.isatty():
        click.echo("find: nothing has such a name; a pattern is of whole names, '*PART*' of parts of them", err=True)
