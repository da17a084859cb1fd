"""`tapefs key`: keys of encrypted tapes. They are files of the state folder; only unlocking needs the sidecar."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING
from uuid import UUID

import click

from tapefs.cli.asking import secret
from tapefs.cli.output import print_json, print_table
from tapefs.cli.place import Place
from tapefs.errors import KeyUnfit, NotNow, Unreachable, UsageError
from tapefs.home import Home

if TYPE_CHECKING:
    # With `cryptography` behind them, which would slow every command's help down.
    from catalog.records import Volume
    from tapefs.keys.store import Key, KeyStore

_OTHERWISE = "give --passphrase-file FILE, or - for stdin"
_passphrase_file = click.option(
    "--passphrase-file",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="FILE",
    help="Read the passphrase from a file (mode 0600), or from stdin with `-`, instead of asking.",
)


@click.group("key", no_args_is_help=False, short_help="Make, keep and unlock the keys of encrypted tapes.")
def key_command() -> None:
    """Make, keep and unlock the keys of encrypted tapes.

    NAME is that of a key; NAME.2 is its second, after a rotation; a fingerprint will do as well.
    """


@key_command.command("create")
@click.argument("name")
@_passphrase_file
@click.pass_obj
def create_command(place: Place, name: str, passphrase_file: Path | None) -> None:
    """Make a key. Its secret is kept encrypted with a passphrase."""
    from tapefs.keys.identity import Identity

    home, store = _store(place)
    key = store.add(name, Identity.new(), _new_passphrase(passphrase_file))
    click.echo(f"key {key.title} made, fingerprint {key.fingerprint}", err=True)
    if home.settings.encryption.key != name and name not in home.settings.encryption.pools.values():
        click.echo(f"To encrypt new tapes with it, write into {home.path}/tapefs.toml:\n", err=True)
        click.echo(f'[encryption]\nkey = "{name}"\n', err=True)
    click.echo(f"Print it now (`tapefs key export {name} --page`): who loses the key loses the backups.", err=True)


@key_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_command(place: Place, as_json: bool) -> None:
    """List the keys, and the tapes they are of."""
    home, store = _store(place)
    unlocked, volumes = _unlocked(home), _volumes(home)
    views = [_view(home, store, key, unlocked, volumes) for key in store.all_keys()]
    if as_json:
        print_json(views)
    elif not views:
        click.echo("There are no keys: `tapefs key create NAME` makes one.")
    else:
        print_table(
            ("KEY", "FINGERPRINT", "MADE", "TAPES", "NEW TAPES", "STATE"),
            [
                (
                    str(view["key"]),
                    str(view["fingerprint"]),
                    str(view["made"])[:10],
                    str(view["tape_count"]),
                    "yes" if view["for_new_tapes"] else "",
                    str(view["state"]),
                )
                for view in views
            ],
        )


@key_command.command("show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show_command(place: Place, name: str, as_json: bool) -> None:
    """Show what is public of a key."""
    home, store = _store(place)
    view = _view(home, store, store.find(name), _unlocked(home), _volumes(home))
    if as_json:
        print_json(view)
        return
    for field, value in view.items():
        text = " ".join(value) if isinstance(value, list) else "yes" if value is True else value or "no"
        click.echo(f"{field.replace('_', ' '):14} {text}")


@key_command.command("export")
@click.argument("name", required=False)
@click.option("--page", "as_page", is_flag=True, help="Print a page for paper: rows with checks, a code for a camera.")
@click.option(
    "--drive", "tape", metavar="TAPE", help="Print the key that a drive needs for that tape, as `stenc -k` wants it."
)
@_passphrase_file
@click.pass_obj
def export_command(
    place: Place, name: str | None, as_page: bool, tape: str | None, passphrase_file: Path | None
) -> None:
    """Print the secret, as `age -d -i` wants it. Who has it reads all tapes of the key.

    With --drive the key of one tape that the drive has encrypted: TAPE is its label, or with NAME its UUID. That key
    opens no other tape.
    """
    from tapefs.keys.page import page
    from tapefs.keys.store import identity_text

    home, store = _store(place)
    if tape is not None:
        if as_page:
            raise UsageError("--page is for the key itself, of which those of tapes are made: leave out --drive")
        _export_for_drive(home, store, name, tape, passphrase_file)
        return
    if name is None:
        raise UsageError("which key? `tapefs key list` names them")
    key = store.find(name)
    identity = store.identity(key, _passphrase(key, passphrase_file))
    click.echo(page(key, identity) if as_page else identity_text(key, identity), nl=False)


def _export_for_drive(home: Home, store: KeyStore, name: str | None, tape: str, passphrase_file: Path | None) -> None:
    """Print the key of a tape and its name. Raises UsageError, KeyUnfit when the tape has none, NotFound."""
    volume_id = tape
    if name is None or not _is_uuid(tape):
        volume = _volume_called(home, tape)
        if not volume.by_drive:
            how = f"encrypted with key {volume.key_fingerprint} by tapefs" if volume.key_fingerprint else "plain"
            raise KeyUnfit(f"tape {volume.label} is not encrypted by the drive: it is {how}")
        if name is not None and store.find(name).fingerprint != volume.key_fingerprint:
            raise KeyUnfit(f"tape {volume.label} has another key, {volume.key_fingerprint}")
        volume_id, name = volume.volume_id, volume.key_fingerprint
    key = store.find(name)
    identity = store.identity(key, _passphrase(key, passphrase_file))
    click.echo(f"{identity.drive_key(volume_id).hex()}\n{key.fingerprint}")


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _volume_called(home: Home, name: str) -> Volume:
    from catalog.lmdb_ledger import LmdbLedger
    from tapefs.tape.names import tape_called

    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        return tape_called(ledger, name)


@key_command.command("import")
@click.argument("name")
@click.argument("file", type=click.File("rb"), required=False)
@click.option("--public", metavar="age1…", help="Its public half alone: for a host that writes and must not read.")
@_passphrase_file
@click.pass_obj
def import_command(
    place: Place, name: str, file: IO[bytes] | None, public: str | None, passphrase_file: Path | None
) -> None:
    """Take a key from a file or a typed page.

    FILE (`-`: stdin) is as `age-keygen` or `tapefs key export` print it, or the page. A key whose public half is
    here gets its secret; a name that is taken goes on with this key as its newest.
    """
    from tapefs.keys.identity import Recipient
    from tapefs.keys.store import identity_in

    _, store = _store(place)
    if (file is None) == (public is None):
        raise UsageError("give a FILE with the secret, or its public half with --public")
    taken = any(key.name == name for key in store.all_keys())
    if file is None:
        key = store.add(name, Recipient.parse(public or ""), b"", rotates=taken)
    else:
        identity = identity_in(file.read())
        known = store.of_fingerprint(identity.fingerprint)
        if known is not None and store.can_read(known):
            raise NotNow(f"this key is here already, as {known.title}")
        passphrase = _new_passphrase(passphrase_file)
        if known is not None:
            store.complete(known, identity, passphrase)
        key = known or store.add(name, identity, passphrase, rotates=taken)
    click.echo(f"key {key.title} is here, fingerprint {key.fingerprint}", err=True)


@key_command.command("rotate")
@click.argument("name")
@_passphrase_file
@click.pass_obj
def rotate_command(place: Place, name: str, passphrase_file: Path | None) -> None:
    """Make a new key under the same name, for new tapes. The old one stays for the tapes that have it."""
    from tapefs.keys.identity import Identity

    _, store = _store(place)
    store.find(name)
    key = store.add(name, Identity.new(), _new_passphrase(passphrase_file), rotates=True)
    click.echo(f"key {key.title} made, fingerprint {key.fingerprint}: new tapes get it", err=True)
    click.echo(f"Print it now (`tapefs key export {name} --page`): who loses the key loses the backups.", err=True)


@key_command.command("unlock")
@click.argument("name")
@_passphrase_file
@click.pass_obj
def unlock_command(place: Place, name: str, passphrase_file: Path | None) -> None:
    """Give the running sidecar the secret.

    In memory only, so that tapes of the key can be read.
    """
    from tapefs.client.api import Client

    home, store = _store(place)
    key = store.find(name)
    client = Client(home.socket)
    try:
        client.unlocked_keys()  # Before somebody types a passphrase for nothing.
    except Unreachable as error:
        raise Unreachable(
            f"{error}; for a single command name a file with the passphrase in TAPEFS_PASSPHRASE_FILE"
        ) from error
    client.unlock_key(store.identity(key, _passphrase(key, passphrase_file)).text)
    click.echo(f"key {key.title} is unlocked", err=True)


@key_command.command("lock")
@click.argument("name")
@click.pass_obj
def lock_command(place: Place, name: str) -> None:
    """Have the running sidecar forget the secret again. What is staged on the disk stays readable."""
    from tapefs.client.api import Client

    home, store = _store(place)
    key = store.find(name)
    Client(home.socket).lock_key(key.fingerprint)
    click.echo(f"key {key.title} is locked", err=True)


@key_command.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def delete_command(place: Place, name: str, yes: bool) -> None:
    """Forget a key that no tape needs."""
    home, store = _store(place)
    key = store.find(name)
    tapes = [volume.label for volume in _volumes(home) if volume.key_fingerprint == key.fingerprint]
    if tapes:
        raise KeyUnfit(f"key {key.title} is that of tape {', '.join(tapes)}: without it nobody reads them")
    if _is_for_new(home, store, key):
        raise KeyUnfit(f"key {key.title} is named in {home.path}/tapefs.toml for new tapes: take it out there first")
    if not yes:
        click.confirm(f"Forget key {key.title}, fingerprint {key.fingerprint}, for ever?", abort=True, err=True)
    store.remove(key)
    click.echo(f"key {key.title} is forgotten", err=True)


def _store(place: Place) -> tuple[Home, KeyStore]:
    from tapefs.keys.store import KeyStore

    home = place.home()
    return home, KeyStore(home.keys)


def _view(
    home: Home, store: KeyStore, key: Key, unlocked: list[str] | None, volumes: list[Volume]
) -> dict[str, str | int | bool | list[str]]:
    tapes = [volume.label for volume in volumes if volume.key_fingerprint == key.fingerprint]
    state = "locked" if unlocked is None or key.fingerprint not in unlocked else "unlocked"
    return {
        "key": key.title,
        "fingerprint": key.fingerprint,
        "public_key": key.recipient,
        "made": datetime.fromtimestamp(key.created_ns // 10**9, UTC).isoformat(),
        "state": state if store.can_read(key) or state == "unlocked" else "public half only",
        "for_new_tapes": _is_for_new(home, store, key),
        "tape_count": len(tapes),
        "tapes": tapes,
    }


def _is_for_new(home: Home, store: KeyStore, key: Key) -> bool:
    settings = home.settings.encryption
    named = {name for name in (settings.key, *settings.pools.values()) if name}
    return key.title in named or (key.name in named and store.find(key.name) == key)


def _volumes(home: Home) -> list[Volume]:
    from catalog.lmdb_ledger import LmdbLedger

    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        return ledger.volumes()


def _unlocked(home: Home) -> list[str] | None:
    """Return the keys that a running sidecar has; None when none runs."""
    from tapefs.client.api import Client

    try:
        return Client(home.socket).unlocked_keys()
    except Unreachable:
        return None


def _passphrase(key: Key, file: Path | None) -> bytes:
    if file is not None:
        return _from_file(file)
    return secret(f"Passphrase of key {key.title}", _OTHERWISE).encode()


def _new_passphrase(file: Path | None) -> bytes:
    if file is not None:
        return _from_file(file)
    return secret("New passphrase", _OTHERWISE, is_new=True).encode()


def _from_file(file: Path) -> bytes:
    from tapefs.keys.opening import read_passphrase

    if str(file) == "-":
        return sys.stdin.buffer.readline().removesuffix(b"\n").removesuffix(b"\r")
    return read_passphrase(file)
