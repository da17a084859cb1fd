"""`tapefs reclaim`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click
import msgspec

from tapefs.cli.output import print_json, print_table, printable, size
from tapefs.cli.place import Place, sidecar_of
from tapefs.errors import Cancelled, NotNow, TapefsError, UsageError
from tapefs.sizes import counted

if TYPE_CHECKING:
    from tapefs.client.tapes import Reclaimable, TapeClient, TapeTaskView

_POLL_S = 0.5
_BELOW = 20.0


def _percent(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return 20, 20% or 12.5% as a number."""
    if value is None:
        return None
    try:
        found = float(value.removesuffix("%"))
    except ValueError:
        found = 0.0
    if not 0 < found <= 100:
        raise click.BadParameter(f"{value!r} is no share: write for example 20%")
    return found


@click.command("reclaim", short_help="Copy what still lives off almost empty tapes.")
@click.argument("tapes", metavar="[TAPE]...", nargs=-1)
@click.option("--pool", default="", metavar="POOL", help="All tapes of a pool of which little lives.")
@click.option(
    "--below",
    metavar="PERCENT",
    callback=_percent,
    help="With --pool: of which less than that lives, of what was written to them; 20% unless given.",
)
@click.option("--apply", is_flag=True, help="Do it; without it nothing changes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def reclaim_command(
    place: Place, tapes: tuple[str, ...], pool: str, below: float | None, apply: bool, as_json: bool
) -> None:
    """Tell what still lives on tapes and what copying it to others of their pool would take; --apply does it.

    Copies are read back from the new tape before the old ones are forgotten. Backups and recalls go first. A tape of
    which nothing lives any more is begun anew as its pool says (`tapefs explain TAPE`), or when you relabel it.
    """
    from tapefs.client.tapes import TapeClient

    if bool(tapes) == bool(pool):
        raise click.UsageError("name tapes, or give --pool")
    if below is not None and not pool:
        raise UsageError("--below chooses among the tapes of a pool: give --pool, too")
    with sidecar_of(place) as sidecar:
        client = TapeClient(sidecar)
        found = client.reclaim(tapes, pool, _BELOW if below is None else below, apply=apply)
        if not as_json:
            _print(found)
        ended = _wait_all(client, [each.task for each in found if each.task is not None])
    if as_json:
        print_json([msgspec.to_builtins(each) for each in (ended if apply else found)])
    _tell(found, ended, apply=apply)


def _print(found: list[Reclaimable]) -> None:
    if not found:
        click.echo("No such tape of which so little lives.")
        return
    print_table(
        ("TAPE", "POOL", "WRITTEN", "LIVES", "SHARE", "SETS", "ONTO", "REMARK"),
        [
            (
                printable(each.tape),
                printable(each.pool),
                size(each.used_bytes),
                size(each.payload_bytes),
                f"{each.percent:.1f}%",
                str(len(each.sets)),
                printable(each.onto or "-"),
                printable(_remark(each)),
            )
            for each in found
        ],
    )


def _remark(each: Reclaimable) -> str:
    if each.obstacle:
        return each.obstacle
    if each.onto is None:
        return f"no tape with room is left in pool {each.pool}"
    remark = f"{each.onto}: {each.onto_reason}; about {counted(each.tape_changes, 'tape change')}"
    return f"{remark}; stays: {each.staying}" if each.staying else remark


def _tell(found: list[Reclaimable], ended: list[TapeTaskView], *, apply: bool) -> None:
    if not apply:
        movable = [each for each in found if not each.obstacle]
        data = size(sum(each.payload_bytes for each in movable))
        what = f"reclaim: {data} of {counted(len(movable), 'tape')} would be read, written and read back"
        click.echo(f"{what}; --apply does it" if movable else "reclaim: nothing to do", err=True)
        return
    for view in ended:
        click.echo(f"{printable(view.tape)}: {_outcome(view)}", err=True)
    failed = [view for view in ended if view.state != "done"]
    if any(view.error_kind == "refused" for view in failed):
        raise NotNow(f"{counted(len(failed), 'tape')} could not be reclaimed wholly; nothing that lives was lost")
    if failed:
        raise TapefsError(f"{counted(len(failed), 'tape')} could not be reclaimed; what was moved stays moved")


def _outcome(view: TapeTaskView) -> str:
    if view.reclaimed is not None:
        moved = view.reclaimed
        return f"{counted(moved.sets, 'set')}, {size(moved.payload_bytes)} moved and read back; nothing lives on it"
    return f"{view.state}: {printable(view.error)}" if view.error else view.state


def _wait_all(client: TapeClient, views: list[TapeTaskView]) -> list[TapeTaskView]:
    """Wait for the end of tasks; when interrupted, have them stop. Raises Cancelled."""
    try:
        return [_wait(client, view) for view in views]
    except KeyboardInterrupt:
        for view in views:
            if client.task(view.number).is_open:
                client.cancel(view.number)
        raise Cancelled("it ends at the next good place; what was moved stays moved") from None


def _wait(client: TapeClient, view: TapeTaskView) -> TapeTaskView:
    is_shown, told = sys.stderr.isatty(), ""
    try:
        while view.is_open:
            time.sleep(_POLL_S)
            view = client.task(view.number)
            told = _progress(view)
            if is_shown:
                click.echo(f"\r\x1b[K{told}", nl=False, err=True)
    finally:
        if is_shown and told:
            click.echo("\r\x1b[K", nl=False, err=True)
    return view


def _progress(view: TapeTaskView) -> str:
    if view.progress is None:
        return f"{printable(view.tape)}: {view.state}"
    at = view.progress
    return f"{printable(view.tape)}: {at.stage} {size(at.bytes)}, tape {printable(at.tape)}"
