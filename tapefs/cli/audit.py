"""`tapefs audit`: who has done what. Reads the files itself; no sidecar is needed."""

from __future__ import annotations

import click
import msgspec

from tapefs.cli.output import print_json, print_table
from tapefs.cli.place import Place
from tapefs.errors import CatalogInDoubt


@click.group("audit", no_args_is_help=False, short_help="Who has done what, and whether that record is whole.")
def audit_command() -> None:
    """Look at the audit log: all that was changed over the sidecar, by whom, and how it went."""


@audit_command.command("show")
@click.option("--who", help="Only what this caller did.")
@click.option("--last", type=click.IntRange(1), default=50, show_default=True, help="So many of the newest.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show_command(place: Place, who: str | None, last: int, as_json: bool) -> None:
    """Show the newest entries, oldest first."""
    from collections import deque

    from tapefs.audit import entries_of

    found = deque((each for each in entries_of(place.home().audit) if who in (None, each.who)), maxlen=last)
    if as_json:
        print_json([msgspec.json.decode(msgspec.json.encode(each)) for each in found])
        return
    print_table(
        ("NUMBER", "WHEN", "WHO", "WHAT", "TO WHAT", "OUTCOME"),
        [
            (
                str(each.number),
                each.at[:19].replace("T", " ") + "Z",
                each.who,
                each.operation,
                each.resource,
                f"{each.outcome} ({each.status})" if each.status else each.outcome,
            )
            for each in found
        ],
    )


@audit_command.command("verify")
@click.pass_obj
def verify_command(place: Place) -> None:
    """Look whether entries were changed, taken out or cut off."""
    from tapefs.audit import check_log

    checked = check_log(place.home().audit)
    for problem in checked.problems:
        click.echo(problem)
    if checked.problems:
        raise CatalogInDoubt(f"the audit log is not as it was written: {len(checked.problems)} problems")
    click.echo(f"{checked.entries} entries, all as they were written; the newest has the hash {checked.sha256}")
