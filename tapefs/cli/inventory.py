"""`tapefs inventory`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from tapefs.cli.output import print_json, print_table, printable
from tapefs.cli.place import Place, sidecar_of
from tapefs.sizes import counted

if TYPE_CHECKING:
    from tapefs.client.tapes import KnownTape, LibraryPlace


@click.command("inventory", short_help="Ask the library what lies where.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def inventory_command(place: Place, as_json: bool) -> None:
    """Ask the library what lies where, by barcodes; loads no tape.

    Tapes that are new are entered as blank. What is really on them `tapefs tape identify --all` tells.
    """
    from tapefs.client.tapes import TapeClient

    with sidecar_of(place) as client:
        inventory = TapeClient(client).inventory()
    if as_json:
        print_json(msgspec.to_builtins(inventory))
        return
    rows = [_row(each) for each in inventory.places if each.full or each.kind == "drive"]
    rows += [(each.location or "elsewhere", *_tape(each.barcode, each)) for each in inventory.elsewhere]
    print_table(("PLACE", "BARCODE", "TAPE", "POOL", "LTO", "STATE"), rows)
    free = sum(not each.full for each in inventory.places if each.kind == "slot")
    click.echo(f"{counted(free, 'slot')} free", err=True)


def _row(place: LibraryPlace) -> tuple[str, ...]:
    if not place.full:
        return (place.place, "-", "-", "-", "-", "empty")
    if place.tape is not None:
        return (place.place, *_tape(place.barcode or "-", place.tape))
    state = "a cleaning cartridge" if place.is_cleaning else "without a barcode: nobody can tell what it is"
    return (place.place, printable(place.barcode or "-"), "-", "-", "-", state)


def _tape(barcode: str, tape: KnownTape) -> tuple[str, ...]:
    state = f"{tape.state}: {tape.reason}" if tape.reason else tape.state
    state = f"{state}, by its barcode only" if tape.is_unknown else state
    return (printable(barcode), printable(tape.label), printable(tape.pool), str(tape.generation), printable(state))
