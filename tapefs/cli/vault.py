"""`tapefs vault` and `tapefs tape move`."""

from __future__ import annotations

import click
import msgspec

from tapefs.cli.output import print_json, print_table
from tapefs.cli.place import Place, sidecar_of
from tapefs.client.pools import PoolClient


@click.group("vault", no_args_is_help=False, short_help="Which tapes lie elsewhere, and which should.")
def vault_command() -> None:
    """Tapes that lie in vaults, off site; `tapefs tape move` says where one is."""


@vault_command.command("list")
@click.option("--due", "only_due", is_flag=True, help="Only those that somebody should move.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_command(place: Place, only_due: bool, as_json: bool) -> None:
    """List tapes that lie elsewhere, or should.

    The rules of their pools say so.
    """
    with sidecar_of(place) as client:
        found = [each for each in PoolClient(client).vault() if each.is_due or not only_due]
    if as_json:
        print_json([msgspec.to_builtins(each) for each in found])
    elif not found:
        click.echo("No tape is to be moved." if only_due else "No tape lies elsewhere, and none should.")
    else:
        print_table(
            ("TAPE", "POOL", "LIES IN", "SHOULD BE IN", "BECAUSE"),
            [
                (
                    each.tape,
                    each.pool,
                    each.location or "library",
                    (each.should or "library") if each.is_due else "-",
                    each.reason,
                )
                for each in found
            ],
        )


@click.command("move")
@click.argument("tape", metavar="TAPE")
@click.argument("location", metavar="LOCATION")
@click.pass_obj
def move_command(place: Place, tape: str, location: str) -> None:
    """Say where a tape lies now: the name of a vault, or `library`.

    Nothing is written to one that lies elsewhere. A drive that has it brings it to a slot as soon as nothing uses it.
    """
    from tapefs.client.tapes import TapeClient

    with sidecar_of(place) as client:
        PoolClient(client).move(tape, "" if location == "library" else location)
        details = TapeClient(client).show(tape) if location != "library" else None
    if details is not None and details.place is not None:
        in_drive = ", and comes to a slot as soon as nothing uses it" if details.place.startswith("drive") else ""
        click.echo(f"{tape} is still in {details.place}{in_drive}: take it out of the library", err=True)
