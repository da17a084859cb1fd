"""`tapefs doctor`: what tape devices there are, and what stands in their way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import click
import msgspec

from tapefs.cli.output import print_json, printable
from tapefs.cli.place import Place
from tapefs.errors import DeviceProblems, HomeError, UsageError

if TYPE_CHECKING:
    from tapefs.doctor.findings import Finding
    from tapefs.home import Home

_MARKS = {"good": "ok      ", "note": "note    ", "warning": "WARNING ", "problem": "PROBLEM "}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--speed", "barcode", metavar="BARCODE", help="Measure a drive with this scratch tape, which is written.")
@click.option("--again", metavar="BARCODE", help="The barcode once more; else it is asked for.")
@click.option("--drive", type=click.IntRange(0), metavar="N", help="The drive to measure; else the first that is free.")
@click.option(
    "--seconds", type=click.FloatRange(0.1, 3600), metavar="S", default=10.0, help="Write each size so long; [10]"
)
@click.pass_obj
def doctor_command(
    place: Place, as_json: bool, barcode: str | None, again: str | None, drive: int | None, seconds: float
) -> None:
    """Find tape drives and changers, and say what to fix. It moves no tape and changes nothing.

    Works before `tapefs init`, too. Exit code 1 when something does not work.

    With --speed it writes on a blank tape, in blocks of 256 KiB to 1 MiB, reads that back, compares it, and erases it.
    """
    if barcode is None:
        if again is not None or drive is not None:
            raise UsageError("--again and --drive belong to --speed")
        looked = _findings(_home(place))
    else:
        _repeat(barcode, again)
        looked = _measure(place.home(), barcode, drive, seconds)
    found = list(looked if as_json else _printed(looked))
    if as_json:
        print_json([msgspec.to_builtins(each) for each in found])
    problems = sum(each.grade.value == "problem" for each in found)
    if problems:
        raise DeviceProblems(f"{problems} {'thing does' if problems == 1 else 'things do'} not work, see PROBLEM")


def _repeat(barcode: str, again: str | None) -> None:
    """Raise UsageError unless the barcode was repeated: what is on that tape will be gone."""
    if again is None:
        again = click.prompt(f"{barcode} will be written and erased. Type its barcode again", err=True)
    if again != barcode:
        raise UsageError(f"{again!r} is not {barcode!r}: nothing was done")


def _measure(home: Home, barcode: str, drive: int | None, seconds: float) -> Iterator[Finding]:
    from catalog.lmdb_ledger import LmdbLedger
    from sidecar.ownership import owned
    from tapefs.doctor.scratch import try_speed

    with owned(home, temporary=True, waits=True), closing(LmdbLedger.open(home.ledger, readonly=True)) as ledger:
        yield from try_speed(home, ledger, barcode, drive=drive, seconds=seconds, ask=_ask)


def _ask(text: str) -> None:
    click.prompt(f"{text}, then press Enter", default="", show_default=False, prompt_suffix=" ", err=True)


def _home(place: Place) -> Home | None:
    try:
        return place.home()
    except HomeError:
        if place.path.exists():
            raise
        return None


def _findings(home: Home | None) -> Iterator[Finding]:
    from drivers.st.discovery import System
    from tapefs.doctor.host import Host, look_at_host
    from tapefs.doctor.library import look_at_kernels
    from tapefs.settings.backup import BackupSettings

    block_bytes = (BackupSettings() if home is None else home.settings.backup).block_size
    yield from look_at_host(Host(), block_bytes)
    yield from look_at_kernels(System(), block_bytes)
    if home is not None:
        yield from _of_library(home)


def _of_library(home: Home) -> Iterator[Finding]:
    from sidecar.ownership import owned
    from tapefs.doctor.damage import look_at_damage
    from tapefs.doctor.findings import Finding, Grade
    from tapefs.doctor.generations import look_at_generations
    from tapefs.doctor.library import look_at_library
    from tapefs.errors import HomeInUse

    try:
        with owned(home, temporary=True, waits=True):
            yield from look_at_library(home)
            yield from look_at_generations(home)
    except HomeInUse as error:
        yield Finding(
            grade=Grade.NOTE, about=str(home.path), says=f"its library is in use, so it is not asked ({error})",
            shows="tapefs drives",
        )  # fmt: skip
    yield from look_at_damage(home)


def _printed(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Print each as soon as it is there, and hand it on."""
    about = None
    for each in findings:
        if each.about != about:
            about = each.about
            click.echo(printable(about))
        click.echo(f"  {_MARKS[each.grade.value]} {printable(each.says)}")
        for word, text in (("do: ", each.fix), ("see:", each.shows)):
            if text:
                click.echo(f"            {word} {printable(text)}")
        yield each
