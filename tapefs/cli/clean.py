"""`tapefs tape clean`, and what `tapefs tape show` tells of cleaning cartridges."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from tapefs.cli.output import print_json, print_table
from tapefs.cli.place import Place, sidecar_of
from tapefs.cli.progress import reporting
from tapefs.errors import Cancelled, NoSuchThing, NoTape, NotNow, TapefsError

if TYPE_CHECKING:
    from tapefs.client.cleaning import CartridgeView, CleaningClient, CleaningView

POLL_S = 0.2
#: Errors by the kind that a cleaning tells; any other is a TapefsError.
_ERRORS: dict[str, type[TapefsError]] = {"refused": NotNow, "no_volume": NoTape, "used_up": NoTape}


@click.command("clean")
@click.argument("drive", metavar="DRIVE")
@click.option(
    "--with", "cartridge", default="", metavar="BARCODE", help="Use this cleaning cartridge, and no other one."
)
@click.option("--no-wait", is_flag=True, help="Do not wait until it is done.")
@click.pass_obj
def clean_command(place: Place, drive: str, cartridge: str, no_wait: bool) -> None:
    """Have a drive cleaned by a cleaning cartridge of the library.

    It is done as soon as the drive is free, and takes some minutes. Interrupting it (Ctrl-C) gives up one that has not
    begun; one that has goes on to its end.
    """
    from tapefs.client.cleaning import CleaningClient

    with sidecar_of(place) as found:
        client = CleaningClient(found)
        view = client.clean(drive, cartridge)
        if no_wait:
            click.echo(f"{drive} will be cleaned as soon as it is free: see `tapefs drives`", err=True)
            return
        view = _wait(client, view)
        done = next((each for each in client.overview().cartridges if each.barcode == view.cartridge), None)
    if view.state != "done":
        raise _ERRORS.get(view.error_kind, TapefsError)(view.error or f"cleaning {view.number} was cancelled")
    uses = "" if done is None else f", which has cleaned {done.cleanings} of {done.most_cleanings} times now"
    click.echo(f"{drive}: cleaned with {view.cartridge}{uses}", err=True)


def _wait(client: CleaningClient, view: CleaningView) -> CleaningView:
    """Wait for the end; when interrupted, give up one that waits. Raises Cancelled."""
    try:
        with reporting(f"clean {view.drive}") as reporter:
            while view.is_open:
                text = "the drive is not free yet" if view.state == "waiting" else f"with {view.cartridge}"
                reporter.update(0, None, text)
                time.sleep(POLL_S)
                view = client.cleaning(view.number)
    except KeyboardInterrupt:
        raise _given_up(client, view) from None
    return view


def _given_up(client: CleaningClient, view: CleaningView) -> Cancelled:
    try:
        client.cancel(view.number)
    except NotNow:
        return Cancelled(f"{view.drive} is being cleaned, and that goes on to its end: see `tapefs drives`")
    return Cancelled(f"{view.drive} is not cleaned")


def show_cartridge(place: Place, barcode: str, *, as_json: bool) -> None:
    """Tell all that is known of a cleaning cartridge. Raises NoSuchThing."""
    from tapefs.client.cleaning import CleaningClient

    with sidecar_of(place) as client:
        known = CleaningClient(client).overview().cartridges
    view = next((each for each in known if each.barcode == barcode), None)
    if view is None:
        raise NoSuchThing(f"no cleaning cartridge {barcode} is known: see `tapefs inventory`")
    if as_json:
        print_json(msgspec.to_builtins(view))
    else:
        _print_cartridge(view)


def _print_cartridge(view: CartridgeView) -> None:
    used_up = ": it cleans no more, throw it away" if view.is_used_up else ""
    for key, value in (
        ("Tape", f"{view.barcode}, a cleaning cartridge"),
        ("Place", view.place or "not in the library"),
        ("Cleanings", f"{view.cleanings} of {view.most_cleanings}{used_up}"),
    ):
        click.echo(f"{key:<11}{value}")
    if view.uses:
        click.echo()
        rows = [(_time(use.began_at), "-" if use.ended_at is None else _time(use.ended_at), use.drive)
                for use in view.uses]  # fmt: skip
        print_table(("CLEANED", "UNTIL", "DRIVE"), rows)


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
