"""`tapefs token`: tokens for HTTP over TCP."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import click
import msgspec

from tapefs.cli.output import print_json, print_table
from tapefs.cli.place import Place, sidecar_of
from tapefs.client.access import AccessClient, TokenBody, TokenView
from tapefs.errors import UsageError

_DAYS = {"h": 1 / 24, "d": 1.0, "w": 7.0, "m": 30.0, "y": 365.0}


@click.group("token", no_args_is_help=False, short_help="Make, list and revoke tokens for HTTP.")
def token_command() -> None:
    """Tokens for HTTP over TCP. The content of HOME/token is one of an admin, too."""


@token_command.command("create")
@click.option("--role", type=click.Choice(("viewer", "operator", "admin")), help="What it may do.")
@click.option(
    "--scope",
    "scopes",
    metavar="SCOPE",
    multiple=True,
    help="Instead of a role: storage.read:PATH, storage.stage:PATH or storage.poll:PATH; repeatable.",
)
@click.option("--name", default="", metavar="TEXT", help="For people: what it is for.")
@click.option("--uid", metavar="USER", help="Whose files it may read: a user of this system, by name or number.")
@click.option("--expires", default="90d", metavar="AGE", help="Such as 12h, 30d, 2w, 1y; `never`.  [default: 90d]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def create_command(
    place: Place, role: str | None, scopes: tuple[str, ...], name: str, uid: str | None, expires: str, as_json: bool
) -> None:
    """Make a token and print it, once: nobody can show it again.

    With neither --role nor --scope nothing is made: say what it may do.
    """
    if role is None and not scopes:
        raise UsageError("say what the token may do: --role viewer, operator or admin, or --scope storage.…:PATH")
    body = TokenBody(role=role or "", scopes=scopes, name=name, uid=uid, days=_days(expires))
    with _calls(place) as calls:
        token = calls.create_token(body)
    if as_json:
        print_json(msgspec.to_builtins(token))
        return
    until = f"until {token.expires_at:%Y-%m-%d %H:%M}" if token.expires_at else "for ever"
    may = " ".join(filter(None, [token.role, *token.scopes]))
    click.echo(f"token {token.id[:8]} made: {may}, {until}. It is shown this once:", err=True)
    click.echo(token.secret)


@token_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_command(place: Place, as_json: bool) -> None:
    """List the tokens that were made."""
    with _calls(place) as calls:
        tokens = calls.tokens()
    if as_json:
        print_json([msgspec.to_builtins(token) for token in tokens])
    elif not tokens:
        click.echo("There are no tokens but that of HOME/token: `tapefs token create --role viewer` makes one.")
    else:
        print_table(("ID", "NAME", "MAY", "UID", "EXPIRES", "LAST USED"), [_row(token) for token in tokens])


def _row(token: TokenView) -> tuple[str, ...]:
    return (
        token.id[:8],
        token.name or "-",
        " ".join(filter(None, [token.role, *token.scopes])),
        "-" if token.uid is None else str(token.uid),
        "never" if token.expires_at is None else _time(token.expires_at) + (" (over)" if token.is_over else ""),
        _time(token.used_at),
    )


@token_command.command("revoke")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.pass_obj
def revoke_command(place: Place, ids: tuple[str, ...]) -> None:
    """End tokens, by their ids or beginnings of them.

    The next call with one is refused.
    """
    with _calls(place) as calls:
        for each in ids:
            calls.revoke_token(each)
            click.echo(f"token {each} is revoked", err=True)


def _days(text: str) -> float:
    """Return an age in days; 0 for never. Raises UsageError."""
    if text == "never":
        return 0.0
    found = re.fullmatch(r"([0-9]{1,5})([hdwmy])", text)
    if found is None or not int(found[1]):
        raise UsageError(f"{text!r} is no age: write 12h, 30d, 2w, 6m, 1y or never")
    return int(found[1]) * _DAYS[found[2]]


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment is not None else "-"


@contextmanager
def _calls(place: Place) -> Iterator[AccessClient]:
    with sidecar_of(place) as client:
        yield AccessClient(client)
