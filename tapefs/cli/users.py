"""`tapefs user`: people with a name and a password for HTTP over TCP."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from tapefs.cli.asking import secret
from tapefs.cli.output import print_json, print_table
from tapefs.cli.place import Place, sidecar_of
from tapefs.client.access import AccessClient, NewUser, UserBody
from tapefs.errors import UsageError

_ROLES = click.Choice(("viewer", "operator", "admin"))
_password_file = click.option(
    "--password-file",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="Read the password from a file (mode 0600), or from stdin with `-`, instead of asking.",
)


@click.group("user", no_args_is_help=False, short_help="People with a password for HTTP.")
def user_command() -> None:
    """People who log in with a password over HTTP: roles, and whose files they may read."""


@user_command.command("create")
@click.argument("name")
@click.option("--role", type=_ROLES, default="viewer", show_default=True)
@click.option("--uid", metavar="USER", help="Whose files: a user of this system, by name or number.")
@_password_file
@click.pass_obj
def create_command(place: Place, name: str, role: str, uid: str | None, password_file: Path | None) -> None:
    """Make a user."""
    password = _new_password(password_file)
    with _calls(place) as calls:
        user = calls.create_user(NewUser(name=name, role=role, uid=uid, password=password))
    click.echo(f"user {user.name} made, {user.role}", err=True)


@user_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_command(place: Place, as_json: bool) -> None:
    """List the users."""
    with _calls(place) as calls:
        users = calls.users()
    if as_json:
        print_json([msgspec.to_builtins(user) for user in users])
    elif not users:
        click.echo("There are no users: `tapefs user create NAME` makes one.")
    else:
        print_table(
            ("NAME", "ROLE", "UID", "MADE", "OPEN"),
            [
                (
                    user.name,
                    user.role,
                    "-" if user.uid is None else str(user.uid),
                    f"{user.created_at:%Y-%m-%d}" if user.created_at else "-",
                    user.open,
                )
                for user in users
            ],
        )


@user_command.command("password")
@click.argument("name")
@_password_file
@click.pass_obj
def password_command(place: Place, name: str, password_file: Path | None) -> None:
    """Give a user another password. What is logged in under the old one ends."""
    password = _new_password(password_file)
    with _calls(place) as calls:
        calls.change_user(name, UserBody(password=password))
    click.echo(f"user {name} has a new password", err=True)


@user_command.command("role")
@click.argument("name")
@click.argument("role", type=_ROLES)
@click.pass_obj
def role_command(place: Place, name: str, role: str) -> None:
    """Give a user another role. What is logged in ends."""
    with _calls(place) as calls:
        calls.change_user(name, UserBody(role=role))
    click.echo(f"user {name} is {role} now", err=True)


@user_command.command("uid")
@click.argument("name")
@click.argument("uid", metavar="USER|-")
@click.pass_obj
def uid_command(place: Place, name: str, uid: str) -> None:
    """Say whose files a user may read.

    USER is one of this system, by name or number; `-`: nobody's.
    """
    with _calls(place) as calls:
        calls.change_user(name, UserBody(uid=None if uid == "-" else uid))


@user_command.command("delete")
@click.argument("name")
@click.pass_obj
def delete_command(place: Place, name: str) -> None:
    """Forget a user. What is logged in ends."""
    with _calls(place) as calls:
        calls.delete_user(name)
    click.echo(f"user {name} is gone", err=True)


def _new_password(file: Path | None) -> str:
    if file is None:
        return secret("New password", "give --password-file FILE, or - for stdin", is_new=True)
    from tapefs.keys.opening import read_passphrase

    data = sys.stdin.buffer.readline().rstrip(b"\r\n") if str(file) == "-" else read_passphrase(file)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError("the password is no text in UTF-8") from None


@contextmanager
def _calls(place: Place) -> Iterator[AccessClient]:
    with sidecar_of(place) as client:
        yield AccessClient(client)
