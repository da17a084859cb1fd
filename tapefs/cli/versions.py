"""`tapefs versions`."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tapefs.cli.output import name_for_people, print_json, print_table, short_time
from tapefs.cli.place import Place, catalog_of, sidecar_of
from tapefs.cli.values import JobName
from tapefs.errors import NoSuchThing
from tapefs.vfs.nodes import KIND_NAMES

if TYPE_CHECKING:
    from tapefs.client.api import Client
    from tapefs.search.versions import Version
    from tapefs.vfs.roster import Roster

#: Hex digits of a SHA-256 that tell versions apart.
_SHORT = 12
_MODES = {name: kind for kind, name in KIND_NAMES.items()}
_SAME = {True: "same", False: "changed", None: ""}


@click.command("versions", short_help="List every version of a file or directory, the oldest first.")
@click.argument("path")
@click.option("--job", "jobs", type=JobName(), multiple=True, help="Only sets of this job; may be repeated.")
@click.option("--long", "is_long", is_flag=True, help="Whole SHA-256, owner and mode.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def versions_command(place: Place, path: str, jobs: tuple[str, ...], is_long: bool, as_json: bool) -> None:
    """List every version of a file or directory, the oldest first; nothing is fetched from tape.

    PATH is where it was when it was backed up. A set that shows it as the set before did is not listed; SETS says how
    many show it so.
    """
    from tapefs.search.present import version_json
    from tapefs.search.versions import residency_of, versions

    raw = os.fsencode(path)
    if not place.is_here:
        with sidecar_of(place) as client:
            told = _told_by(client, raw, jobs)
        if as_json:
            print_json(told)
        else:
            _print(raw, [_row_of(each, is_long=is_long) for each in told], is_long=is_long)
        return
    with catalog_of(place) as catalog, residency_of(catalog.home, catalog.ledger) as residency:
        roster = catalog.archive.roster()
        found = list(versions(catalog.archive, raw, residency, frozenset(jobs)))
    if as_json:
        print_json([version_json(roster, each, raw) for each in found])
        return
    _print(raw, [_row(roster, each, is_long=is_long) for each in found], is_long=is_long)


def _print(raw: bytes, rows: list[tuple[str | int, ...]], *, is_long: bool) -> None:
    if not rows:
        shown = name_for_people(raw).decode(errors="replace")
        raise NoSuchThing(f"no set has {shown!r}; give the path where it was, or look for its name with `tapefs find`")
    headers = ("SET", "SETS", "SIZE", "MODIFIED", "CONTENT", "SHA-256", "STATE")
    print_table((*headers, "MODE", "OWNER") if is_long else headers, rows)


def _told_by(client: Client, raw: bytes, jobs: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the versions that a sidecar elsewhere knows, as GET /api/v1/versions tells them."""
    from base64 import b64encode
    from urllib.parse import urlencode

    from tapefs.client.streams import VERSIONS, whole_lines

    query = urlencode([("path_b64", b64encode(raw).decode()), *(("job", each) for each in jobs)])
    with client.lines(f"{VERSIONS}?{query}") as lines:
        return whole_lines(lines)


def _row_of(told: dict[str, Any], *, is_long: bool) -> tuple[str | int, ...]:
    """Return what `_row` does, of an answer."""
    begun = datetime.fromisoformat(told["started_at"]).astimezone(UTC)
    name = f"{told['job']}/{begun:%Y-%m-%dT%H%M%SZ}"
    if told["gone"]:
        return (name, told["sets"], "-", "-", "gone since", *("-",) * (4 if is_long else 2))
    kind, sha256 = _MODES.get(told["type"], stat.S_IFREG), told["sha256"] or "-"
    row = (
        name,
        told["sets"],
        0 if stat.S_ISDIR(kind) else told["size"],
        short_time(told["mtime_ns"]),
        _SAME[told["same_content"]] if stat.S_ISREG(kind) else "",
        sha256 if is_long else sha256[:_SHORT],
        told["state"] or "-",
    )
    mode = stat.filemode(kind | int(told["mode"], 8))
    return (*row, mode, f"{told['uid']}:{told['gid']}") if is_long else row


def _row(roster: Roster, version: Version, *, is_long: bool) -> tuple[str | int, ...]:
    name = f"{version.backup_set.name}/{roster.time_name(version.backup_set.set_id)}"
    entry = version.entry
    if entry is None:
        return (name, version.sets, "-", "-", "gone since", *("-",) * (4 if is_long else 2))
    sha256 = version.sha256.hex() or "-"
    row = (
        name,
        version.sets,
        0 if stat.S_ISDIR(entry.mode) else entry.size,
        short_time(entry.mtime_ns),
        _SAME[version.same_content] if stat.S_ISREG(entry.mode) else "",
        sha256 if is_long else sha256[:_SHORT],
        "-" if version.state is None else version.state.value,
    )
    return (*row, stat.filemode(entry.mode), f"{entry.uid}:{entry.gid}") if is_long else row
