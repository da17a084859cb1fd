"""`tapefs tape tasks`: what was asked to be done with tapes, and what became of it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click
import msgspec

from tapefs.cli.output import print_json, print_table, printable
from tapefs.cli.place import Place, sidecar_of
from tapefs.errors import Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tapefs.client.tapes import TapeTaskView

#: So many are shown unless all are wanted.
SHOWN = 20


@click.command("tasks", short_help="Show what was asked to be done with tapes.")
@click.option(
    "--all", "everything", is_flag=True, help=f"All that are kept; else those that are open and {SHOWN} more."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def tasks_command(place: Place, everything: bool, as_json: bool) -> None:
    """Show tasks with tapes, oldest first: those that are open, and the newest that have ended.

    They survive the sidecar: what waited is done by the next one. One that is interrupted says what is known of its
    tape, and what to do.
    """
    from tapefs.client.tapes import TapeClient

    with sidecar_of(place) as client:
        views = TapeClient(client).tasks()
    ended = [view for view in views if not view.is_open]
    left_out = set() if everything else {view.number for view in ended[:-SHOWN]}
    chosen = [view for view in views if view.number not in left_out]
    if as_json:
        print_json([msgspec.to_builtins(view) for view in chosen])
        return
    rows = [(view.number, view.task, view.tape, view.state, printable(view.error) or "-") for view in chosen]
    print_table(("TASK", "WHAT", "TAPE", "STATE", "REMARK"), rows)
    if left_out:
        click.echo(f"{len(left_out):,} older ones: --all", err=True)


@contextmanager
def still_known(view: TapeTaskView) -> Iterator[None]:
    """Say of a sidecar that goes away while somebody waits what becomes of the task. Raises Unreachable."""
    try:
        yield
    except Unreachable as error:
        raise Unreachable(
            f"{error}\ntask {view.number} ({view.task} {view.tape}) is kept: when the sidecar runs again, "
            "`tapefs tape tasks` tells what becomes of it"
        ) from error
