"""`tapefs serve`: what is done around the trio run of the sidecar.

`serve` blocks until the end. Start: own the state folder, bind the listeners, bring to an end what the last sidecar
left behind; then `sidecar.running`. Everything that can be refused is refused before anything moves.
"""

from __future__ import annotations

import grp
import os
import resource
import stat
import time
from contextlib import ExitStack
from pathlib import Path

import structlog
import trio

from catalog.lmdb_ledger import LmdbLedger
from sidecar.access.tls import Tls
from sidecar.drives.movers import MoverCommand, mover_command
from sidecar.http.listeners import bind_tcp, bind_unix, split_listen
from sidecar.ownership import owned
from sidecar.recovery import recover
from sidecar.running import Options, Tcp, Unix, run_sidecar
from tapefs.errors import HomeError, HomeInUse
from tapefs.home import Home
from tapefs.logs import configure_logs

#: Descriptor to which `ready` is written when everything answers, or `in-use` when somebody else owns the state folder.
READY_VARIABLE = "TAPEFS_READY_FD"
READY, IN_USE = b"ready\n", b"in-use\n"
MOST_FILES = 65_536

log = structlog.get_logger(__name__)


def serve(
    home: Home,
    *,
    listen: str | None,
    mount: Path | None = None,
    until_idle: bool = False,
    command: MoverCommand = mover_command,
) -> None:
    """Run the sidecar until it is told to end, or, with `until_idle`, until nothing is left to do.

    `listen` is HOST:PORT for HTTP with the token, None for the Unix socket alone; `mount` a folder to mount at;
    `command` makes the command lines of movers. Raises HomeInUse, HomeError, NotNow (a port that is taken),
    UsageError, and what ledger and changer raise. To be called in the main thread.
    """
    configure_logs(home.settings.taf.log_level)
    ready = _take_ready_descriptor()
    try:
        with ExitStack() as stack:
            lock = stack.enter_context(owned(home, temporary=until_idle))
            _run(home, stack, Options(mount, until_idle, command, (lock,), lambda: _say(ready, READY)), listen)
    except HomeInUse:
        _say(ready, IN_USE)
        raise
    except BaseExceptionGroup as group:
        raise _first(group) from group
    finally:
        if ready is not None:
            os.close(ready)


def _warn_of_taf(home: Home) -> None:
    """Name the settings of TAF's that mean nothing here, in one warning."""
    if home.settings.taf.unknown:
        log.warning("settings of TAF's .env mean nothing here", names=list(home.settings.taf.unknown))


def _run(home: Home, stack: ExitStack, options: Options, listen: str | None) -> None:
    """Do what blocks, then the trio run."""
    _raise_file_limit()
    _warn_of_taf(home)
    owner = home.path.stat()
    tcp = None
    if listen is not None:
        token = read_token(home)
        tls = tls_of(home)
        tcp = Tcp(stack.enter_context(bind_tcp(listen)), split_listen(listen)[0], token, tls)
    gid = group_of(home)
    unix = Unix(stack.enter_context(bind_unix(home.socket, owner, gid)), owner.st_uid, gid)
    stack.callback(home.socket.unlink, missing_ok=True)
    ledger = stack.enter_context(LmdbLedger.open(home.ledger))
    recover(home, ledger, time.time_ns())
    trio.run(run_sidecar, home, ledger, options, unix, tcp)


def tls_of(home: Home) -> Tls | None:
    """Return what TCP is encrypted with, if the settings say so. Raises HomeError."""
    settings = home.settings.http
    if not settings.tls_certificate:
        return None
    return Tls(home.path / settings.tls_certificate, home.path / settings.tls_key)


def group_of(home: Home) -> int | None:
    """Return the group that may use the Unix socket, if the settings name one. Raises HomeError."""
    name = home.settings.http.socket_group
    try:
        return grp.getgrnam(name).gr_gid if name else None
    except KeyError:
        raise HomeError(f"{home.path}/tapefs.toml: there is no group {name!r} for the Unix socket") from None


def read_token(home: Home) -> str:
    """Return the token that HTTP over TCP needs. Raises HomeError when it is missing or others may read it."""
    try:
        with home.token.open() as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            token = file.read().strip()
    except OSError as error:
        raise HomeError(f"cannot read {home.token}: {error.strerror}; `tapefs init` makes it") from error
    if mode != 0o600:
        raise HomeError(f"{home.token} has mode {mode:04o}, others may know it: write a new one and `chmod 600` it")
    if not token or not token.isascii():
        raise HomeError(f"{home.token} holds no token: write one line of random ASCII into it")
    return token


def _take_ready_descriptor() -> int | None:
    """Return the descriptor to report to, which no child must see."""
    text = os.environ.pop(READY_VARIABLE, "")
    if not text.isdecimal():
        return None
    descriptor = int(text)
    try:
        os.set_inheritable(descriptor, False)
    except OSError as error:
        raise HomeError(f"{READY_VARIABLE}={text} is no open descriptor: {error.strerror}") from error
    return descriptor


def _say(descriptor: int | None, word: bytes) -> None:
    """Report to whoever started us; one that has gone does not matter."""
    if descriptor is None:
        return
    try:
        os.write(descriptor, word)
    except BrokenPipeError:
        return


def _raise_file_limit() -> None:
    """A thousand connections and as many staged segments need more than the usual 1,024 descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first error in a group: the one that ended the run."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
