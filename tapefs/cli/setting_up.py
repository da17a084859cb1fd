"""`tapefs init` and `tapefs version`."""

from __future__ import annotations

import shlex
import time

import click

from tapefs import __version__
from tapefs.cli.output import size
from tapefs.cli.place import Place
from tapefs.cli.values import GENERATIONS, Motion, Size
from tapefs.home import default_home

#: A tape has to hold labels and at least a few segments.
LEAST_TAPE_BYTES = 4 * 1024**2


@click.command("init")
@click.option("--tapes", type=click.IntRange(1, 9999), default=8, show_default=True, help="Blank tapes in the library.")
@click.option("--tape-size", type=Size(LEAST_TAPE_BYTES), default="2GiB", show_default=True, help="Size of each tape.")
@click.option("--drives", type=click.IntRange(1, 64), default=1, show_default=True, help="Drives in the library.")
@click.option("--generation", type=click.Choice(GENERATIONS, case_sensitive=False), default="lto9", show_default=True)
@click.option(
    "--motion",
    type=Motion(),
    default="account",
    show_default=True,
    metavar="account|real|scaled:N",
    help="The time that a real drive would take: only counted, waited for, or waited for N times faster.",
)
@click.pass_obj
def init_command(place: Place, tapes: int, tape_size: int, drives: int, generation: str, motion: str) -> None:
    """Make a state folder with a virtual tape library."""
    from tapefs.setup_home import NewHome, create_home

    wanted = NewHome(
        path=place.path,
        tapes=tapes,
        tape_bytes=tape_size,
        drives=drives,
        generation=int(generation.removeprefix("lto")),
        motion=motion,
    )
    home = create_home(wanted, time.time_ns())
    click.echo(
        f"{home.path}: made, with {tapes} blank tape{'s' * (tapes > 1)} of {size(tape_size)}"
        f" and {drives} {generation.upper()} drive{'s' * (drives > 1)}."
    )
    command = "tapefs" if home.path == default_home() else f"tapefs --home {shlex.quote(str(home.path))}"
    click.echo(f"Next: {command} backup DIR")


@click.command("version")
def version_command() -> None:
    """Print the version."""
    click.echo(f"tapefs {__version__}")
