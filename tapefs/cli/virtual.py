"""`tapefs library`: the hand that changes the virtual library itself: its cartridges, their tabs, its ports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from tapefs.cli.place import Place
from tapefs.cli.values import GENERATIONS, Size
from tapefs.errors import UsageError

_LEAST_TAPE_BYTES = 16 * 1024**2


@click.group("library", no_args_is_help=False, short_help="Change the virtual library: cartridges, tabs, ports.")
def library_command() -> None:
    """Change the virtual library: add cartridges, also odd ones, set their tabs, let them come and go.

    No sidecar and no `tapefs vtl` may use it meanwhile; one that a command has started for itself is waited for. The
    next start of the sidecar finds new tapes.
    """


@contextmanager
def _library(place: Place) -> Iterator[Path]:
    """Yield the folder of the virtual library, which nobody else uses. Raises UsageError, HomeInUse."""
    from sidecar.ownership import owned

    home = place.home()
    if home.settings.library.driver != "virtual":
        raise UsageError(f"{home.path} uses the driver {home.settings.library.driver}: its library is no virtual one")
    with owned(home, temporary=True, waits=True):
        try:
            yield home.library
        except ValueError as error:
            raise UsageError(str(error)) from error


@library_command.command("add")
@click.option("--tape-size", type=Size(_LEAST_TAPE_BYTES), default="2GiB", show_default=True, help="Size of the tape.")
@click.option(
    "--generation", type=click.Choice(GENERATIONS, case_sensitive=False), help="Else that of the first drive."
)
@click.option("--barcode", metavar="BARCODE", help="Else the next free one.")
@click.option("--worm", is_flag=True, help="What is written on it can never be overwritten.")
@click.option(
    "--first-load", type=click.FloatRange(0, 86400), metavar="SECONDS", default=0.0,
    help="Its first load takes so long, as a new LTO-9 tape's does: up to 7200.",
)  # fmt: skip
@click.option("--write-protected", is_flag=True, help="Its tab is set.")
@click.pass_obj
def add_command(
    place: Place,
    tape_size: int,
    generation: str | None,
    barcode: str | None,
    worm: bool,
    first_load: float,
    write_protected: bool,
) -> None:
    """Put a blank cartridge into a slot.

    It goes into the first free slot, or into a new one. Its barcode is printed.
    """
    from drivers.virtual.library import add_blank, set_write_protected

    number = None if generation is None else int(generation.lower().removeprefix("lto"))
    with _library(place) as folder:
        name = add_blank(
            folder, tape_bytes=tape_size, generation=number, barcode=barcode, worm=worm, first_load_s=first_load
        )
        if write_protected:
            set_write_protected(folder, name, True)
    click.echo(name)


@library_command.command("protect")
@click.argument("barcode")
@click.option("--off", is_flag=True, help="Clear the tab.")
@click.pass_obj
def protect_command(place: Place, barcode: str, off: bool) -> None:
    """Set the write-protect tab of a cartridge that lies in a slot."""
    from drivers.virtual.library import set_write_protected

    with _library(place) as folder:
        set_write_protected(folder, barcode, not off)


@library_command.command("ports")
@click.argument("ports", type=click.IntRange(0, 96), metavar="COUNT")
@click.pass_obj
def ports_command(place: Place, ports: int) -> None:
    """Give the library so many import/export ports, behind its slots."""
    from drivers.virtual.library import set_ports

    with _library(place) as folder:
        set_ports(folder, ports)


@library_command.command("export")
@click.argument("barcode")
@click.argument("folder", type=click.Path(path_type=Path))
@click.pass_obj
def export_command(place: Place, barcode: str, folder: Path) -> None:
    """Take a cartridge out of the library.

    It leaves its slot or port and becomes FOLDER, which must not exist.
    """
    from drivers.virtual.library import take_out

    with _library(place) as library:
        take_out(library, barcode, folder)


@library_command.command("import")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.pass_obj
def import_command(place: Place, folder: Path) -> None:
    """Put a copy of an exported cartridge in.

    It goes into a free port, else into a slot. Its barcode is printed.
    """
    from drivers.virtual.library import add_from

    with _library(place) as library:
        click.echo(add_from(library, folder))
