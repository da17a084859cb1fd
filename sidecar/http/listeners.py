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
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sidecar.access.tls import Tls
from sidecar.http.spoken import QuietConfig, SpokenConnection
from tapefs.errors import NotNow, UsageError
from tapefs.socket_name import socket_name

#: Connections at one time and listener, so that TCP cannot keep the Unix socket from answering; and of one address.
#: More are closed at once.
MOST_CONNECTIONS = 4000
MOST_OF_ADDRESS = 2000
#: A client that takes nothing for so long is cut off.
SEND_S = 60.0
_WATCH_S = 5.0
#: How long requests may go on when the end has come.
GRACE_S = 1.0
#: Key of the connection in the ASGI scope.
CONNECTION = "tapefs.connection"

_BACKLOG = 1024
_UCRED = struct.Struct("3i")
#: SO_PEERGROUPS: the groups of who connected, beside that in SO_PEERCRED.
_SO_PEERGROUPS = 59
#: Python asks for no more than that: 256 groups.
_GROUPS_BYTES = 1024

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a Unix socket."""

    pid: int
    uid: int
    gid: int
    groups: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, eq=False)
class Connection:
    """An open connection, as handlers find it in the scope under CONNECTION."""

    stream: trio.SocketStream
    #: None for TCP.
    peer: Peer | None
    #: Of TCP.
    address: str = ""
    #: All that are open.
    all: Connections | None = None

    def following(self) -> AbstractContextManager[None]:
        """Note that its client only follows what happens, inside the block."""
        return nullcontext() if self.all is None else self.all.following(self)

    def cut(self) -> None:
        """Break the connection, whatever waits in it; harmless twice."""
        self.stream.socket.close()


class Connections:
    """All open connections, and since when there is none."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()
        #: Of these, those over which somebody only follows what happens.
        self._following: set[Connection] = set()
        #: What is being sent, by a number of its own, and since when.
        self._sending: dict[int, tuple[Connection, float]] = {}
        self._sends = count()
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

    @contextmanager
    def following(self, connection: Connection) -> Iterator[None]:
        """Inside the block the connection is one of those for whose sake a sidecar does not stay."""
        self._following.add(connection)
        if len(self._following) == len(self._open):
            self._quiet_since_s = trio.current_time()
        try:
            yield
        finally:
            self._following.discard(connection)
            self._quiet_since_s = trio.current_time()

    def count(self) -> int:
        """Return how many are open."""
        return len(self._open)

    def of_listener(self, *, is_unix: bool) -> int:
        """Return how many of them came over the Unix socket, or over TCP."""
        return sum((each.peer is not None) == is_unix for each in self._open)

    def of_address(self, address: str) -> int:
        """Return how many of them came from an address."""
        return sum(each.address == address for each in self._open)

    def watched(self, connection: Connection, send: Send) -> Send:
        """Return `send` with a note of how long it takes."""

        async def noted(message: Message) -> None:
            number = next(self._sends)
            self._sending[number] = (connection, trio.current_time())
            try:
                await send(message)
            finally:
                del self._sending[number]

        return noted

    async def watch(self) -> None:
        """Cut off clients that take nothing of what is sent to them; until cancelled."""
        while True:
            await trio.sleep(_WATCH_S)
            late = trio.current_time() - SEND_S
            for connection in {each for each, since_s in self._sending.values() if since_s <= late}:
                log.info("a client takes nothing: cut off", address=connection.address)
                connection.cut()

    def quiet_s(self) -> float:
        """Return for how long nobody has wanted anything; 0 while somebody may."""
        is_quiet = len(self._open) == len(self._following)
        return trio.current_time() - self._quiet_since_s if is_quiet else 0.0

    def cut_all(self) -> None:
        """Break all connections."""
        for connection in list(self._open):
            connection.cut()


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket, and what is served there."""

    bound: socket.socket
    app: ASGIApp
    #: Of Unix sockets: the uid that is admitted beside root, and the group.
    owner_uid: int | None = None
    gid: int | None = None
    tls: Tls | None = None

    def admits(self, peer: Peer | None) -> bool:
        """May he connect?"""
        if peer is None:
            return True
        return peer.uid in (0, self.owner_uid) or (self.gid is not None and self.gid in {peer.gid, *peer.groups})


class HttpServer:
    """Serves applications until `end`."""

    def __init__(self) -> None:
        self.connections = Connections()
        self._config = _config()
        self._context = WorkerContext(None)
        self._accepting = trio.CancelScope()

    async def serve(self, listeners: Sequence[Listener]) -> None:
        """Serve until `end` is called and the connections are gone."""
        async with trio.open_nursery() as handlers:
            handlers.start_soon(self.connections.watch)
            try:
                with self._accepting:
                    async with trio.open_nursery() as acceptors:
                        for each in listeners:
                            acceptors.start_soon(self._accept, each.bound, partial(self._handle, each), handlers)
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

    async def _handle(self, listener: Listener, stream: trio.SocketStream) -> None:
        peer = None if listener.owner_uid is None else _peer_of(stream)
        if peer is not None and not listener.admits(peer):
            log.warning("connection refused", pid=peer.pid, uid=peer.uid)
            await _turn_away(stream)
            return
        connection = Connection(stream, peer, "" if peer is not None else _address_of(stream), self.connections)
        if self._is_full(connection):
            await trio.aclose_forcefully(stream)
            return
        wrapped = ASGIWrapper(self._with_connection(listener.app, connection))  # type: ignore[arg-type]
        with self.connections.counted(connection):
            state, spoken = ConnectionState({}), _encrypted(stream, listener.tls)
            await SpokenConnection(wrapped, self._config, self._context, state, spoken).run()

    def _is_full(self, connection: Connection) -> bool:
        if self.connections.count() < MOST_OF_ADDRESS:  # The usual case, without looking at each.
            return False
        is_unix = connection.peer is not None
        if self.connections.of_listener(is_unix=is_unix) >= MOST_CONNECTIONS:
            return True
        return not is_unix and self.connections.of_address(connection.address) >= MOST_OF_ADDRESS

    def _with_connection(
        self, app: ASGIApp, connection: Connection
    ) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
        async def call(scope: Scope, receive: Receive, send: Send) -> None:
            scope[CONNECTION] = connection
            await app(scope, receive, self.connections.watched(connection, send))

        return call


def _config() -> Config:
    config = QuietConfig()
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    config.include_server_header = False
    return config


def _peer_of(stream: trio.SocketStream) -> Peer:
    raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, gid = _UCRED.unpack(raw)
    return Peer(pid, uid, gid, _groups_of(stream))


def _groups_of(stream: trio.SocketStream) -> frozenset[int]:
    """Return the groups of a peer; none where the kernel cannot tell, or not in that room."""
    try:
        raw = stream.socket.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _GROUPS_BYTES)
    except OSError:
        return frozenset()
    return frozenset(gid for (gid,) in struct.iter_unpack("I", raw))


def _address_of(stream: trio.SocketStream) -> str:
    try:
        return str(stream.socket.getpeername()[0])
    except OSError:  # It has gone already.
        return ""


def _encrypted(stream: trio.SocketStream, tls: Tls | None) -> trio.SocketStream | trio.SSLStream[trio.SocketStream]:
    if tls is None:
        return stream
    tls.renew()
    return trio.SSLStream(stream, tls.context, server_side=True, https_compatible=True)


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


def bind_unix(path: Path, owner: os.stat_result, gid: int | None = None) -> socket.socket:
    """Bind the Unix socket for its owner alone, or for a group as well.

    A stale file is removed: the caller owns the state folder. Raises NotNow.
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
            os.chown(path, owner.st_uid, owner.st_gid if gid is None else gid)
        elif gid is not None:
            os.chown(path, -1, gid)
        if gid is not None:
            path.chmod(0o660)
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
