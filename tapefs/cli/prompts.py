"""`tapefs prompts`, and of `tapefs tape` what is for libraries whose robot is a human."""

from __future__ import annotations

import click
import msgspec

from tapefs.cli.output import print_json, print_table
from tapefs.cli.place import Place, sidecar_of
from tapefs.client.api import Client, PromptView
from tapefs.errors import NoSuchThing


@click.command("prompts", short_help="List what you are to do at the drives.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def prompts_command(place: Place, as_json: bool) -> None:
    """List what you are to do at the drives: which tape to take out, which to put in."""
    with sidecar_of(place) as client:
        prompts = client.prompts()
    if as_json:
        print_json([msgspec.to_builtins(prompt) for prompt in prompts])
    elif not prompts:
        click.echo("Nothing is to be done at the drives.")
    else:
        print_table(
            ("NUMBER", "DRIVE", "SINCE", "TO DO"),
            [(str(each.number or "-"), each.drive, f"{each.since:%Y-%m-%d %H:%M}", each.text) for each in prompts],
        )


@click.command("inserted")
@click.argument("drive", metavar="[DRIVE]", required=False)
@click.pass_obj
def inserted_command(place: Place, drive: str | None) -> None:
    """Say that the tape asked for is in the drive.

    Needed only where a drive does not notice by itself.
    """
    _answer(place, drive, "done")


@click.command("missing")
@click.argument("drive", metavar="[DRIVE]", required=False)
@click.pass_obj
def missing_command(place: Place, drive: str | None) -> None:
    """Say that the tape asked for cannot be put in now.

    What waits for it fails, or takes another one.
    """
    _answer(place, drive, "declined")


@click.command("add")
@click.argument("tapes", metavar="BARCODE...", nargs=-1, required=True)
@click.pass_obj
def add_command(place: Place, tapes: tuple[str, ...]) -> None:
    """Say which tapes lie on the shelf.

    Those that the ledger does not know are entered as blank.
    """
    with sidecar_of(place) as client:
        new = client.add_tapes(tapes)
    click.echo(f"{len(new)} new on the shelf, {len(set(tapes)) - len(new)} known already", err=True)


@click.command("remove")
@click.argument("tape", metavar="BARCODE")
@click.pass_obj
def remove_command(place: Place, tape: str) -> None:
    """Say that a tape lies on the shelf no more.

    What the ledger knows of it stays.
    """
    with sidecar_of(place) as client:
        client.remove_tape(tape)


def _answer(place: Place, drive: str | None, answer: str) -> None:
    with sidecar_of(place) as client:
        prompt = _prompt_for(client, drive)
        client.answer_prompt(prompt.number, answer)
    click.echo(f"{prompt.drive}: {prompt.text}: {answer}", err=True)


def _prompt_for(client: Client, drive: str | None) -> PromptView:
    prompts = [each for each in client.prompts() if each.put_in is not None and drive in (None, each.drive)]
    if not prompts:
        raise NoSuchThing(f"no tape is asked for{f' in {drive}' if drive else ''}: see `tapefs prompts`")
    return prompts[0]
