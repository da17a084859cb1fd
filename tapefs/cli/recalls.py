"""`tapefs recall`, the switch for readers, and `tapefs recalls`, the list of those who wait, and an operator's word."""

from __future__ import annotations

from datetime import datetime

import click
import msgspec

from tapefs.cli.output import Json, print_json, print_table, size
from tapefs.cli.place import Place, sidecar_of
from tapefs.client.api import RecallsMode, RecallView

#: Of a history, without a `--limit`.
_NEWEST = 50


@click.command("recall", short_help="Tell or switch whether reads in the mount may move tapes.")
@click.argument("mode", type=click.Choice(["on", "off", "ask"]), required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def recall_command(place: Place, mode: str | None, as_json: bool) -> None:
    """Tell or switch whether reads in the mount may fetch from tape: on, off, or ask an operator first.

    It stays so until it is switched again. Reads of what is staged, `tapefs stage` and `tapefs restore` always work.
    """
    with sidecar_of(place) as client:
        standing = client.recall_mode() if mode is None else client.switch_recalls(mode)
    if as_json:
        print_json(msgspec.to_builtins(standing))
    else:
        _print_standing(standing)


def _print_standing(standing: RecallsMode) -> None:
    click.echo(f"recalls are {'asked for' if standing.mode == 'ask' else standing.mode}")
    if not standing.users:
        return
    print_table(
        ("UID", "FETCHED IN THE LAST HOUR", "COMING", "TAPES"),
        [(str(user.uid), size(user.bytes), size(user.pending_bytes), user.tapes) for user in standing.users],
    )
    if standing.user_hourly_bytes:
        click.echo(f"a user may have {size(standing.user_hourly_bytes)} fetched in an hour")
    if standing.user_hourly_tapes:
        click.echo(f"a user may have {standing.user_hourly_tapes} tapes read in an hour")


@click.group("recalls", invoke_without_command=True, short_help="List the readers that wait for tape; grant and deny.")
@click.option("--history", is_flag=True, help="Those who waited, newest first, and what became of it.")
@click.option("--uid", type=click.IntRange(min=0), help="Only of this user.")
@click.option("--command", "program", metavar="TEXT", help="Only of programs with this in their name.")
@click.option("--path", metavar="TEXT", help="Only of files with this in their path.")
@click.option(
    "--outcome",
    type=click.Choice(["fetched", "refused", "deferred", "failed", "late", "left"]),
    help="Only where this has become of a read.",
)
@click.option("--limit", type=click.IntRange(1, 1000), default=_NEWEST, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def recalls_command(
    ctx: click.Context,
    history: bool,
    uid: int | None,
    program: str | None,
    path: str | None,
    outcome: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List the readers that wait for tape, or for an operator's word; give that word with `grant` and `deny`."""
    if ctx.invoked_subcommand is not None:
        return
    place: Place = ctx.obj
    with sidecar_of(place) as client:
        found = client.recalls(history=history, uid=uid, command=program, path=path, outcome=outcome, limit=limit)
    if as_json:
        print_json([_json(each) for each in found])
    elif history:
        _print_history(found)
    else:
        _print_waiting(found)


def _json(view: RecallView) -> Json:
    fields: Json = msgspec.to_builtins(view)
    return fields


def _print_waiting(views: list[RecallView]) -> None:
    if not views:
        click.echo("Nobody waits for tape. `tapefs recalls --history` tells who did.")
        return
    print_table(
        ("ID", "STATE", "SINCE", "WAITED", "UID", "PID", "COMMAND", "BYTES", "TAPE", "AHEAD", "ETA", "PATH"),
        [
            (
                str(each.id),
                each.state,
                _time(each.began_at),
                _seconds(each.waited_s),
                str(each.uid),
                str(each.pid or "-"),
                each.command or "-",
                size(each.bytes),
                each.tape or "-",
                "-" if each.ahead is None else str(each.ahead),
                "-" if each.eta_s is None else _seconds(each.eta_s),
                each.path or "-",
            )
            for each in views
        ],
    )


def _print_history(views: list[RecallView]) -> None:
    if not views:
        click.echo("No such reader has waited for tape.")
        return
    print_table(
        ("ID", "LAST", "WAITED", "UID", "PID", "COMMAND", "BYTES", "OUTCOME", "PATH", "REASON"),
        [
            (
                str(each.id),
                _time(each.last_at),
                _seconds(each.waited_s),
                str(each.uid),
                str(each.pid or "-"),
                each.command or "-",
                size(each.bytes),
                ", ".join(f"{count} {outcome}" for outcome, count in each.outcomes.items()) or "-",
                each.path or "-",
                each.reason or "",
            )
            for each in views
        ],
    )


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%SZ}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"


@recalls_command.command("grant")
@click.argument("number", metavar="ID", type=click.IntRange(min=1))
@click.option("--process", is_flag=True, help="All that this process reads, now and later.")
@click.pass_obj
def grant_command(place: Place, number: int, process: bool) -> None:
    """Let a reader have what it asks for.

    And what else of that file it reads.
    """
    _say(place, number, "grant", process)


@recalls_command.command("deny")
@click.argument("number", metavar="ID", type=click.IntRange(min=1))
@click.option("--process", is_flag=True, help="All that this process reads, now and later.")
@click.pass_obj
def deny_command(place: Place, number: int, process: bool) -> None:
    """Refuse a reader what it waits for.

    Asked for or granted; it gets EPERM.
    """
    _say(place, number, "deny", process)


def _say(place: Place, number: int, word: str, process: bool) -> None:
    with sidecar_of(place) as client:
        reads = client.say_of_recall(number, word, process=process)
    click.echo(f"{word}: {reads} waiting reads", err=True)
