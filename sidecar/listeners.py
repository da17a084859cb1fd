"""Hypercorn on the Unix socket and on TCP, in one nursery of a trio run.

Hypercorn's own `serve` cannot tell who is at the other end of a Unix socket and leaves open what does not end by
itself. So its connection handler is used, and the listeners, the count of connections and the end are ours.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp, Receive, Scope, Send

from tapefs.errors import NotNow, UsageError
from tapefs.socket_name import socket_name

#: Connections at one time and listener; more are closed at once.
MOST_CONNECTIONS = 1000
#: How long requests may go on when the end has come.
GRACE_S = 1.0
#: Key of the connection in the ASGI scope.
CONNECTION = "tapefs.connection"

_BACKLOG = 128
_UCRED = struct.Struct("3i")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a Unix socket."""

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """An open connection, as handlers find it in the scope under CONNECTION."""

    stream: trio.SocketStream
    #: None for TCP.
    peer: Peer | None

    def cut(self) -> None:
        """Break the connection, whatever waits in it; harmless twice."""
        self.stream.socket.close()


class Connections:
    """All open connections, and since when there is none."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self._quiet_since_s = trio.current_time()
        #: Has there ever been one?
        self.had_any = False

    @contextmanager
    def counted(self, connection: Connection) -> Iterator[None]:
        """Count a connection inside the block."""
        self._open.add(connection)
        self.had_any = True
        try:
            yield
        finally:
            self._open.discard(connection)
            self._quiet_since_s = trio.current_time()

    def count(self) -> int:
        """Return how many are open."""
        return len(self._open)

    def quiet_s(self) -> float:
        """Return for how long there has been none; 0 while there is one."""
        return 0.0 if self._open else trio.current_time() - self._quiet_since_s

    def cut_all(self) -> None:
        """Break all connections."""
        for connection in list(self._open):
            connection.cut()


class HttpServer:
    """Serves applications until `end`."""

    def __init__(self) -> None:
        self.connections = Connections()
        self._config = _config()
        self._context = WorkerContext(None)
        self._accepting = trio.CancelScope()

    async def serve(self, listeners: list[tuple[socket.socket, ASGIApp, int | None]]) -> None:
        """Serve until `end` is called and the connections are gone.

        Of each listener: its bound socket, its application, and for Unix sockets the uid that is admitted beside root.
        """
        async with trio.open_nursery() as handlers:
            try:
                with self._accepting:
                    async with trio.open_nursery() as acceptors:
                        for bound, app, owner_uid in listeners:
                            acceptors.start_soon(self._accept, bound, partial(self._handle, app, owner_uid), handlers)
                await self._context.terminated.set()
                with trio.move_on_after(GRACE_S):
                    while self.connections.count():
                        await trio.sleep(0.01)
            finally:
                # A task that sends to a client that does not read is shielded from cancels: closing its socket ends it.
                # One that waits to read on behind a pipelined request notices no closing: a cancel ends it.
                self.connections.cut_all()
                handlers.cancel_scope.cancel()

    async def _accept(
        self, bound: socket.socket, handler: Callable[[trio.SocketStream], Awaitable[None]], handlers: trio.Nursery
    ) -> None:
        bound.listen(_BACKLOG)
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(bound))
        await trio.serve_listeners(handler, [listener], handler_nursery=handlers)

    def end(self) -> None:
        """Accept nothing more; requests get a moment to end, then their connections are cut."""
        self._accepting.cancel()

    async def _handle(self, app: ASGIApp, owner_uid: int | None, stream: trio.SocketStream) -> None:
        peer = None if owner_uid is None else _peer_of(stream)
        if peer is not None and peer.uid not in (0, owner_uid):
            log.warning("connection refused", pid=peer.pid, uid=peer.uid)
            await _turn_away(stream)
            return
        if self.connections.count() >= MOST_CONNECTIONS:
            await trio.aclose_forcefully(stream)
            return
        connection = Connection(stream, peer)
        wrapped = ASGIWrapper(_with_connection(app, connection))  # type: ignore[arg-type]
        with self.connections.counted(connection):
            state = ConnectionState({})
            await TCPServer(wrapped, self._config, self._context, state, stream).run()  # type: ignore[arg-type]


def _config() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    return config


def _with_connection(app: ASGIApp, connection: Connection) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        scope[CONNECTION] = connection
        await app(scope, receive, send)

    return call


def _peer_of(stream: trio.SocketStream) -> Peer:
    raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return Peer(*_UCRED.unpack(raw))


async def _turn_away(stream: trio.SocketStream) -> None:
    """Say 403 and close without looking at a byte; what comes is thrown away, so that the peer gets to read it."""
    body = b'{"detail":"only root and the owner of the state folder may use this socket"}'
    head = f"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with trio.move_on_after(1), suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        await stream.send_all(head.encode() + b"Connection: close\r\n\r\n" + body)
        await stream.send_eof()
        while await stream.receive_some(65536):
            pass
    await trio.aclose_forcefully(stream)


# -- binding -----------------------------------------------------------------------------------------------------------


def bind_unix(path: Path, owner: os.stat_result) -> socket.socket:
    """Bind the Unix socket for its owner alone. A stale file is removed: the caller owns the state folder.

    Raises NotNow.
    """
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            with socket_name(path) as name:
                bound.bind(name)
        finally:
            os.umask(before)
        if os.geteuid() == 0:
            os.chown(path, owner.st_uid, owner.st_gid)
    except OSError as error:
        bound.close()
        raise NotNow(f"cannot make the socket {path}: {error.strerror or error}") from error
    return bound


def split_listen(listen: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`; IPv6 addresses stand in brackets. Raises UsageError."""
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535 or (":" in host and not host.startswith("[")):
        raise UsageError(f"{listen!r} is no place to listen: write HOST:PORT, for instance 127.0.0.1:8080")
    return host.strip("[]"), int(port)


def bind_tcp(listen: str) -> socket.socket:
    """Bind `HOST:PORT`. Raises UsageError, NotNow when it is taken or not ours to have."""
    host, port = split_listen(listen)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"cannot listen on {listen}: {error.strerror or error}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        # Without this a second program that binds with SO_REUSEADDR is noticed only when it listens.
        bound.listen(_BACKLOG)
    except OSError as error:
        bound.close()
        raise NotNow(_refusal(listen, error)) from error
    return bound


def _refusal(listen: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{listen} is in use by another program: stop that, or choose another port with --listen HOST:PORT"
    return f"cannot listen on {listen}: {error.strerror}; choose another place with --listen HOST:PORT"
