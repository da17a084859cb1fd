"""`tapefs versions`."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import click

from tapefs.cli.output import name_for_people, print_json, print_table, short_time
from tapefs.cli.place import Place, catalog_of
from tapefs.cli.values import JobName
from tapefs.errors import NoSuchThing

if TYPE_CHECKING:
    from tapefs.search.versions import Version
    from tapefs.vfs.roster import Roster

#: Hex digits of a SHA-256 that tell versions apart.
_SHORT = 12
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
    with catalog_of(place) as catalog, residency_of(catalog.home, catalog.ledger) as residency:
        roster = catalog.archive.roster()
        found = list(versions(catalog.archive, raw, residency, frozenset(jobs)))
    if as_json:
        print_json([version_json(roster, each, raw) for each in found])
        return
    if not found:
        shown = name_for_people(raw).decode(errors="replace")
        raise NoSuchThing(f"no set has {shown!r}; give the path where it was, or look for its name with `tapefs find`")
    headers = ("SET", "SETS", "SIZE", "MODIFIED", "CONTENT", "SHA-256", "STATE")
    rows = [_row(roster, each, is_long=is_long) for each in found]
    print_table((*headers, "MODE", "OWNER") if is_long else headers, rows)


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
