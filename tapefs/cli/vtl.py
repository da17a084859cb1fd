"""`tapefs vtl`: the virtual library as an iSCSI target, for other programs and for tests of drivers."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tapefs.cli.place import Place
from tapefs.cli.values import Address
from tapefs.errors import NotNow, UsageError

if TYPE_CHECKING:
    from drivers.vtl.portal.chap import Credentials
    from drivers.vtl.serving import LibraryTarget

#: RFC 7143 wants 96 bits at least.
_LEAST_PASSWORD_BYTES = 12
_MOST_PASSWORD_BYTES = 255
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("vtl", short_help="Serve the virtual library as an iSCSI target.")
@click.option("--listen", type=Address(), metavar="HOST:PORT", default="127.0.0.1:3260", help="Where; [127.0.0.1:3260]")
@click.option("--target", metavar="NAME", help="Name of the target; else one with the library's serial number.")
@click.option("--chap-user", metavar="USER", help="Only this initiator may log in.")
@click.option("--chap-password-file", type=_FILE, metavar="FILE", help="Its password, one line.")
@click.option("--own-user", metavar="USER", help="For mutual CHAP: who the target is.")
@click.option("--own-password-file", type=_FILE, metavar="FILE", help="The target's password, one line.")
@click.pass_obj
def vtl_command(
    place: Place,
    listen: str,
    target: str | None,
    chap_user: str | None,
    chap_password_file: Path | None,
    own_user: str | None,
    own_password_file: Path | None,
) -> None:
    """Serve the virtual library as an iSCSI target: changer and drives. Ends at SIGTERM and Ctrl-C.

    No sidecar can use the state folder meanwhile.
    """
    from drivers.vtl.serving import LibraryTarget, default_name
    from sidecar.ownership import owned
    from tapefs.logs import configure_logs

    home = place.home()
    if home.settings.library.driver != "virtual":
        raise UsageError(
            f"{home.path} uses the driver {home.settings.library.driver}: only a virtual library is served"
        )
    credentials = _credentials(chap_user, chap_password_file, own_user, own_password_file)
    configure_logs()
    # Before any thread begins: they inherit it, and the signals come here.
    with _ending_signals() as wanted, owned(home, temporary=False, target=True):
        name = target or default_name(home.library)
        try:
            with LibraryTarget(home.library, home.settings.library.motion, name, credentials) as served:
                host, port = _start(served, listen)
                _explain(served, host, port, chap_user)
                signal.sigwait(wanted)
        except ValueError as error:
            raise UsageError(str(error)) from error


def _start(served: LibraryTarget, listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    try:
        return served.start(host.strip("[]"), int(port))
    except OSError as error:
        raise NotNow(f"cannot listen on {listen}: {error.strerror or error}") from error


@contextmanager
def _ending_signals() -> Iterator[set[signal.Signals]]:
    """Hold back the signals that end the command, for `sigwait`."""
    wanted = {signal.SIGTERM, signal.SIGINT}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, wanted)
    try:
        yield wanted
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# -- passwords -----------------------------------------------------------------------------------------------------


def _credentials(
    user: str | None, file: Path | None, own_user: str | None, own_file: Path | None
) -> Credentials | None:
    from drivers.vtl.portal.chap import Credentials

    if (user is None) != (file is None):
        raise UsageError("--chap-user and --chap-password-file belong together")
    if (own_user is None) != (own_file is None):
        raise UsageError("--own-user and --own-password-file belong together")
    if user is None or file is None:
        if own_user is not None:
            raise UsageError("mutual CHAP needs --chap-user and --chap-password-file, too")
        return None
    if own_user is None or own_file is None:
        return Credentials(user, _password(file))
    credentials = Credentials(user, _password(file), own_user, _password(own_file))
    if credentials.password == credentials.own_password:
        raise UsageError("mutual CHAP needs two different passwords")
    return credentials


def _password(path: Path) -> bytes:
    """Read a password that nobody else can read."""
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        password = file.read(_MOST_PASSWORD_BYTES + 2).rstrip(b"\r\n")
    if mode & 0o077:
        raise UsageError(f"{path} has mode {mode:04o}, others may read it: `chmod 600` it")
    if not _LEAST_PASSWORD_BYTES <= len(password) <= _MOST_PASSWORD_BYTES or b"\n" in password:
        raise UsageError(f"{path}: a password for CHAP is one line of {_LEAST_PASSWORD_BYTES} bytes at least")
    return password


# -- what to do with it --------------------------------------------------------------------------------------------


def _explain(served: LibraryTarget, host: str, port: int, user: str | None) -> None:
    """Say what is served, and how to attach it."""
    portal = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    node = f"iscsiadm -m node -T {served.name} -p {portal}"
    lines = [f"serving {served.name} at {portal}", "  LUN 0  changer"]
    lines += [f"  LUN {lun}  drive{lun - 1}, {each.identity.serial}" for lun, each in enumerate(served.tapes, 1)]
    lines += ["", "attach it to this or another Linux, as root:"]
    if user is not None:
        lines += [f"  (set discovery.sendtargets.auth.* in /etc/iscsi/iscsid.conf to CHAP, {user} and the password)"]
    lines += [f"  iscsiadm -m discovery -t sendtargets -p {portal}"]
    if user is not None:
        for key, value in (("authmethod", "CHAP"), ("username", user), ("password", "PASSWORD")):
            lines.append(f"  {node} -o update -n node.session.auth.{key} -v {value}")
    lines += [
        f"  {node} --login",
        "then, with the nodes that `lsscsi -g` shows:",
        "  mtx -f /dev/sgN status",
        "  mtx -f /dev/sgN load 1 0",
        "  mt -f /dev/nst0 status",
        "or use it without the kernel, through libiscsi:",
        f"  iscsi-ls -s iscsi://{f'{user}%PASSWORD@' if user else ''}{portal}",
        f"  iscsi://{f'{user}%PASSWORD@' if user else ''}{portal}/{served.name}/1",
    ]
    click.echo("\n".join(lines))
