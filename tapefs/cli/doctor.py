"""`tapefs doctor`: what tape devices there are, and what stands in their way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click
import msgspec

from tapefs.cli.output import print_json, printable
from tapefs.cli.place import Place
from tapefs.errors import DeviceProblems, HomeError

if TYPE_CHECKING:
    from tapefs.doctor.findings import Finding
    from tapefs.home import Home

_MARKS = {"good": "ok      ", "note": "note    ", "warning": "WARNING ", "problem": "PROBLEM "}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def doctor_command(place: Place, as_json: bool) -> None:
    """Find tape drives and changers, and say what to fix. It moves no tape and changes nothing.

    Works before `tapefs init`, too. Exit code 1 when something does not work.
    """
    found = list(_findings(_home(place)))
    if as_json:
        print_json([msgspec.to_builtins(each) for each in found])
    else:
        _print(found)
    problems = sum(each.grade.value == "problem" for each in found)
    if problems:
        raise DeviceProblems(f"{problems} {'thing does' if problems == 1 else 'things do'} not work, see PROBLEM")


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
    from tapefs.home import BackupSettings

    block_bytes = (BackupSettings() if home is None else home.settings.backup).block_size
    yield from look_at_host(Host(), block_bytes)
    yield from look_at_kernels(System(), block_bytes)
    if home is not None:
        yield from _of_library(home)


def _of_library(home: Home) -> Iterator[Finding]:
    from sidecar.ownership import owned
    from tapefs.doctor.findings import Finding, Grade
    from tapefs.doctor.library import look_at_library
    from tapefs.errors import HomeInUse

    try:
        with owned(home, temporary=True):
            yield from look_at_library(home)
    except HomeInUse as error:
        yield Finding(
            grade=Grade.NOTE, about=str(home.path), says=f"its library is in use, so it is not asked ({error})",
            shows="tapefs drives",
        )  # fmt: skip


def _print(findings: Iterable[Finding]) -> None:
    about = None
    for each in findings:
        if each.about != about:
            about = each.about
            click.echo(printable(about))
        click.echo(f"  {_MARKS[each.grade.value]} {printable(each.says)}")
        for word, text in (("do: ", each.fix), ("see:", each.shows)):
            if text:
                click.echo(f"            {word} {printable(text)}")
