"""`tapefs explain`."""

from __future__ import annotations

import click

from tapefs.cli.output import print_json, printable
from tapefs.cli.place import Place, sidecar_of
from tapefs.client.pools import PoolClient


@click.command("explain", short_help="Say why a tape or a set stays, goes, is or is not overwritten.")
@click.argument("what", metavar="TAPE|SET")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def explain_command(place: Place, what: str, as_json: bool) -> None:
    """Say all there is to say of a tape or a set: what keeps it and until when, what builds on it, what comes next."""
    with sidecar_of(place) as client:
        sentences = PoolClient(client).explain(what)
    if as_json:
        print_json(list(sentences))
        return
    for sentence in sentences:
        click.echo(printable(sentence))
