"""`tapefs tape`: what one tape is, its label, its end; and what a human tells of the tapes he moves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

from tapefs.cli.clean import clean_command, show_cartridge
from tapefs.cli.output import print_json, print_table, printable, size
from tapefs.cli.place import Place, sidecar_of
from tapefs.cli.ports import export_command, import_command
from tapefs.cli.progress import reporting
from tapefs.cli.prompts import add_command, inserted_command, missing_command, remove_command
from tapefs.cli.tape_tasks import still_known, tasks_command
from tapefs.cli.vault import move_command
from tapefs.errors import Cancelled, NotNow, TapeError, TapefsError, UsageError
from tapefs.sizes import counted
from tapefs.tape.barcodes import is_cleaning

if TYPE_CHECKING:
    from tapefs.client.tapes import TapeClient, TapeDetails, TapeTaskView

POLL_S = 0.2
#: Errors by the kind that a task tells; any other is a TapefsError.
_ERRORS: dict[str, type[TapefsError]] = {"refused": NotNow, "usage": UsageError, "wrong_tape": TapeError}

_TAPE = click.argument("tape", metavar="TAPE")
_IDENTITY = click.option(
    "--yes-it-is", "identity", default="", metavar="NAME", help="What is on it, as `tapefs tape identify` tells it."
)
_FORCE = click.option("--force", is_flag=True, help="Also if this installation knows nothing of what is on it.")
_NAME = click.option("--name", default="", metavar="NAME", help="Its name from now on; else it keeps the one it has.")
_GENERATE = click.option("--generate", is_flag=True, help="Name it TPYYYYMMNN: year, month, and the next number.")
_POOL = click.option("--pool", default="", metavar="POOL", help="The pool it belongs to from now on.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("tape", no_args_is_help=False, short_help="Identify, label, relabel, erase and forget tapes.")
def tape_command() -> None:
    """Identify, label, relabel, erase and forget tapes. A TAPE is named by its label or its barcode.

    Nothing on a tape is overwritten before it was read and its name repeated, and never while a set lives on it.
    """


@tape_command.command("identify")
@click.argument("tapes", metavar="[TAPE]...", nargs=-1)
@click.option(
    "--all", "everything", is_flag=True, help="All in the library that nobody has looked at, or that are suspect."
)
@_JSON
@click.pass_obj
def identify_command(place: Place, tapes: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Load tapes and tell what they are, whoever wrote them.

    A tape that counted as blank and is not becomes suspect, so that no backup asks for it; one that is blank after all
    counts as blank again.
    """
    if bool(tapes) == everything:
        raise click.UsageError("name tapes, or give --all")
    with _client(place) as client:
        names = _unknown(client) if everything else tapes
        views = [_wait(client, client.begin("identify", tape)) for tape in names]
    if as_json:
        print_json([msgspec.to_builtins(view) for view in views])
    for view in views:
        if not as_json:
            click.echo(f"{printable(view.tape)}: {_identity(view)}")
    if everything and not views:
        click.echo("all tapes in the library are known", err=True)
    failed = [view for view in views if view.found is None]
    if failed:
        raise TapefsError(f"{counted(len(failed), 'tape')} could not be identified")


@tape_command.command("label")
@_TAPE
@_NAME
@_GENERATE
@_POOL
@click.pass_obj
def label_command(place: Place, tape: str, name: str, generate: bool, pool: str) -> None:
    """Label a blank tape now, instead of at its first use."""
    with _client(place) as client:
        view = _done(client, client.begin("label", tape, name=name, generate=generate, pool=pool))
    click.echo(f"{printable(tape)}: labelled {printable(view.tape)}", err=True)


@tape_command.command("relabel")
@_TAPE
@_IDENTITY
@_FORCE
@_NAME
@_GENERATE
@_POOL
@click.pass_obj
def relabel_command(place: Place, tape: str, identity: str, force: bool, name: str, generate: bool, pool: str) -> None:
    """Label a tape over what is on it. Without --yes-it-is it only tells what that is."""
    with _client(place) as client:
        fields: dict[str, str | bool] = {
            "identity": identity,
            "force": force,
            "name": name,
            "generate": generate,
            "pool": pool,
        }
        view = _done(client, client.begin("relabel", tape, **fields))
    click.echo(f"{printable(tape)}: relabelled {printable(view.tape)}; it was {_was(view)}", err=True)


@tape_command.command("erase")
@_TAPE
@_IDENTITY
@_FORCE
@click.option("--long", "is_long", is_flag=True, help="Write over every metre: takes hours, up to a day.")
@click.pass_obj
def erase_command(place: Place, tape: str, identity: str, force: bool, is_long: bool) -> None:
    """Erase a tape; it is blank then. Without --yes-it-is it only tells what is on it.

    Nothing can be read by ordinary means afterwards; only with --long is it gone from the medium, too. That tells how
    far it is where the drive does, and cannot be stopped once it has begun.
    """
    with _client(place) as client:
        view = client.begin("erase", tape, identity=identity, force=force, long=is_long)
        view = _ended(_told(client, view) if is_long else _wait(client, view))
    click.echo(f"{printable(tape)}: erased; it was {_was(view)}", err=True)


@tape_command.command("forget")
@_TAPE
@click.option(
    "--yes-it-is", "identity", default="", metavar="NAME", help="Its label or id; needed while sets live on it."
)
@click.pass_obj
def forget_command(place: Place, tape: str, identity: str) -> None:
    """Forget a tape that is gone for ever. Without --yes-it-is it tells what would be lost."""
    with _client(place) as client:
        lost = client.forget(tape, identity)
    click.echo(f"{printable(tape)}: forgotten", err=True)
    for each in lost:
        what = "has expired" if each.state == "expired" else "has lost what lay there"
        click.echo(f"set {printable(each.name)} ({each.set_id}) {what}")


@tape_command.command("show")
@_TAPE
@_JSON
@click.pass_obj
def show_command(place: Place, tape: str, as_json: bool) -> None:
    """Tell all that is known of a tape, and which sets keep it. Loads nothing."""
    if is_cleaning(tape):
        show_cartridge(place, tape, as_json=as_json)
        return
    with _client(place) as client:
        details = client.show(tape)
    if as_json:
        print_json(msgspec.to_builtins(details))
        return
    for key, value in _rows(details):
        click.echo(f"{key:<11}{printable(value)}")
    for reason in details.condition.reasons:
        click.echo(f"{'':<11}-{reason.points}: {printable(reason.sentence)}")
    if details.condition.warning:
        click.echo(f"{'Warning':<11}{printable(details.condition.warning)}")
    for each in details.sets:
        alone = "; only here" if each.is_only_here else ""
        fate = "may go" if each.goes else "stays"
        click.echo(
            f"{'Set':<11}{printable(each.name)} of {_time(each.started_at)} ({each.set_id[:8]}) {fate}: "
            f"{printable(each.reason)}{alone}"
        )
    _print_mountings(details)


def _print_mountings(details: TapeDetails) -> None:
    rows = [
        (
            _time(each.loaded_at),
            "-" if each.unloaded_at is None else _time(each.unloaded_at),
            each.drive,
            ", ".join(each.purposes) or "-",
            size(each.written_bytes),
            size(each.read_bytes),
            str(each.write_failures + each.read_failures),
            " ".join(map(str, each.alerts)) or "-",
        )
        for each in details.mountings
    ]
    if rows:
        click.echo()
        print_table(("LOADED", "UNLOADED", "DRIVE", "FOR", "WRITTEN", "READ", "ERRORS", "ALERTS"), rows)


for _command in (
    clean_command,
    export_command,
    import_command,
    inserted_command,
    missing_command,
    add_command,
    remove_command,
    move_command,
    tasks_command,
):
    tape_command.add_command(_command)


# -- the sidecar -----------------------------------------------------------------------------------------------------


@contextmanager
def _client(place: Place) -> Iterator[TapeClient]:
    """Find or start a sidecar, for its calls about tapes."""
    from tapefs.client.tapes import TapeClient

    with sidecar_of(place) as client:
        yield TapeClient(client)


def _wait(client: TapeClient, view: TapeTaskView) -> TapeTaskView:
    """Wait for the end of a task; when interrupted, give up one that waits. Raises Cancelled."""
    try:
        with still_known(view):
            while view.is_open:
                time.sleep(POLL_S)
                view = client.task(view.number)
    except KeyboardInterrupt:
        raise _given_up(client, view) from None
    return view


def _told(client: TapeClient, view: TapeTaskView) -> TapeTaskView:
    """The same, and tell what the drive says meanwhile."""
    try:
        with still_known(view), reporting(f"erase {view.tape}") as reporter:
            while view.is_open:
                waiting = "no drive is free yet" if view.state == "waiting" else "the drive does not tell how far it is"
                reporter.update(0, None, client.drive_note(view.tape) or waiting)
                time.sleep(POLL_S)
                view = client.task(view.number)
    except KeyboardInterrupt:
        raise _given_up(client, view) from None
    return view


def _given_up(client: TapeClient, view: TapeTaskView) -> Cancelled:
    try:
        client.cancel(view.number)
    except NotNow as error:
        if view.task == "erase":
            return Cancelled(f"{error}; see `tapefs drives`")
        return Cancelled(f"tape {view.tape} is being worked on, and that goes on: see `tapefs drives`")
    return Cancelled(f"tape {view.tape} was not touched")


def _done(client: TapeClient, view: TapeTaskView) -> TapeTaskView:
    """Wait for the end of a task. Raises what it failed with."""
    return _ended(_wait(client, view))


def _ended(view: TapeTaskView) -> TapeTaskView:
    """Return a task that was done. Raises what it failed with."""
    if view.state == "done":
        return view
    raise _ERRORS.get(view.error_kind, TapefsError)(view.error or f"task {view.number} was cancelled")


def _unknown(client: TapeClient) -> list[str]:
    inventory = client.inventory()
    tapes = [place.tape for place in inventory.places if place.tape is not None]
    return [tape.label for tape in tapes if tape.is_unknown or tape.state == "suspect"]


# -- words -----------------------------------------------------------------------------------------------------------


def _identity(view: TapeTaskView) -> str:
    found = view.found
    if found is None:
        return f"{view.state}: {printable(view.error)}"
    words = [printable(found.sentence)]
    if not found.is_expected:
        words.append("NOT what the catalog expects")
    if found.generation is not None:
        words.append(f"LTO-{found.generation}{' WORM' if found.is_worm else ''}")
    if found.loads is not None:
        words.append(f"loaded {counted(found.loads, 'time')}")
    if found.is_write_protected:
        words.append("write-protected")
    return "; ".join(words)


def _was(view: TapeTaskView) -> str:
    return printable(view.found.sentence) if view.found is not None else "blank"


def _rows(details: TapeDetails) -> Iterator[tuple[str, str]]:
    yield "Tape", details.label
    if details.barcode != details.label:
        yield "Barcode", details.barcode
    yield "State", f"{details.state}: {details.reason}" if details.reason else details.state
    if details.is_given_up:
        yield "", "what is on it was given up; its label will be written over that"
    elif details.is_unknown:
        yield "", "nobody has looked at what is on it: `tapefs tape identify`"
    yield "Pool", details.pool
    yield "Place", details.place or details.location or "not in the library"
    yield "Medium", f"LTO-{details.generation}{', WORM' if details.is_worm else ''}, {size(details.capacity_bytes)}"
    yield "Used", f"{size(details.used_bytes)}, {counted(details.segments, 'segment')}, up to file {details.end_file}"
    yield "Volume", details.volume_id
    yield "Health", f"{details.condition.score} of 100"
    for key, moment in (
        ("Known", details.known_since),
        ("Looked at", details.identified_at),
        ("Labelled", details.labelled_at),
        ("Written", details.written_at),
    ):
        if moment is not None:
            yield key, _time(moment)


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
