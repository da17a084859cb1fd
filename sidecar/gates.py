"""Who may ask: the checks in front of the application, one for each kind of listener, and the limits on bodies.

All are plain ASGI layers; trio only. Nothing behind them runs before they have let a request through.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection
from dataclasses import replace
from hmac import compare_digest
from typing import NoReturn

import trio
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sidecar.callers import CALLER, NOBODY, Caller, Role, local_caller
from sidecar.listeners import CONNECTION
from sidecar.statuses import (
    BodyTooLarge,
    BodyTooSlow,
    RequestRefused,
    Unauthorised,
    WrongHost,
    challenge_of,
    status_of,
)

LONGEST_BODY_BYTES = 1024 * 1024
#: A body must be there after this, however it trickles.
BODY_S = 30.0
#: What is left of a body that nobody wanted is thrown away for so long.
DRAIN_S = 2.0

LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})
_WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound to


class PeerGate:
    """For the Unix socket: the kernel has told who connects, and the listener has admitted him."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write down who calls."""
        peer = scope[CONNECTION].peer
        if peer is not None:
            scope[CALLER] = local_caller(peer.uid)
        await self._app(scope, receive, send)


class TokenGate:
    """For TCP: the right token, and a Host header that means us (against names that were made to point here).

    Without any token the caller is nobody: calls that need no role answer.
    """

    def __init__(self, app: ASGIApp, token: str, listen_host: str) -> None:
        self._app = app
        self._token = token.encode()
        self._names = _names_of(listen_host)
        self._is_wildcard = listen_host in _WILDCARDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request."""
        headers = Headers(scope=scope)
        try:
            self._check_host(headers.get("host", ""))
            scope[CALLER] = self._caller(headers.get("authorization"), address_in(scope))
        except RequestRefused as error:
            await refuse(error, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _caller(self, header: str | None, address: str) -> Caller:
        if header is None:
            return replace(NOBODY, address=address)
        scheme, _, given = header.partition(" ")
        # Compared even when the scheme is wrong, and as bytes: compare_digest takes no other text than ASCII.
        is_right = compare_digest(given.strip().encode(), self._token)
        if not is_right or scheme.lower() != "bearer":
            raise Unauthorised("the token is wrong: send `Authorization: Bearer` and what HOME/token holds")
        return Caller("token", Role.ADMIN, address=address)

    def _check_host(self, header: str) -> None:
        name = _host_of(header)
        if name in self._names or _is_loopback(name) or (self._is_wildcard and _is_address(name)):
            return
        raise WrongHost("the Host header names another host: use the address that the sidecar listens on")


def address_in(scope: Scope) -> str:
    """Return the address that a request came from; empty for a Unix socket."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _names_of(listen_host: str) -> Collection[str]:
    names = {*LOOPBACK_NAMES, listen_host.lower()}
    return names | {socket.gethostname().lower()} if listen_host in _WILDCARDS else names


def _host_of(header: str) -> str:
    """Return the name in a Host header without port and brackets, in lower case."""
    found = re.fullmatch(r"\[([^\]]*)\](?::\d*)?|([^:]*)(?::\d*)?", header.strip())
    return ((found[1] or found[2] or "") if found else "").lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return _is_address(name) and ipaddress.ip_address(name).is_loopback


class BodyLimits:
    """The outermost layer: counts a body while it comes and gives it a deadline, and throws away what nobody reads.

    Without that the server's task that reads the connection would wait for ever for somebody to take the body.
    """

    def __init__(self, app: ASGIApp, *, longest_bytes: int = LONGEST_BODY_BYTES, body_s: float = BODY_S) -> None:
        self._app = app
        self._longest_bytes = longest_bytes
        self._body_s = body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        body = _Body(receive, self._longest_bytes, trio.current_time() + self._body_s)
        try:
            await body.check_announced(Headers(scope=scope).get("content-length", "0"))
            await self._app(scope, body.receive, send)
        except RequestRefused as error:
            await refuse(error, scope, receive, send)
        finally:
            await body.drain()


class _Body:
    """One request's body."""

    def __init__(self, receive: Receive, longest_bytes: int, deadline: float) -> None:
        self._receive = receive
        self._longest_bytes = longest_bytes
        self._deadline = deadline
        self._got_bytes = 0
        self._is_over = False

    async def check_announced(self, length: str) -> None:
        if length.isdigit() and int(length) > self._longest_bytes:
            await self._refuse_length()

    async def receive(self) -> Message:
        """Give the next piece to the application. Raises BodyTooLarge, BodyTooSlow."""
        message = await self._next()
        if message["type"] == "http.request":
            self._got_bytes += len(message.get("body", b""))
            if self._got_bytes > self._longest_bytes:
                await self._refuse_length()
        return message

    async def drain(self) -> None:
        """Throw the rest away."""
        with trio.move_on_after(DRAIN_S):
            while not self._is_over:
                self._note(await self._receive())

    async def _next(self) -> Message:
        if self._is_over:  # What comes now is the end of the connection, which has no deadline.
            return await self._receive()
        with trio.move_on_at(self._deadline):
            return self._note(await self._receive())
        raise BodyTooSlow(f"the request's body did not come within {BODY_S:.0f} s")

    def _note(self, message: Message) -> Message:
        self._is_over = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def _refuse_length(self) -> NoReturn:
        # Most clients read no answer before they have sent everything: without this they would see a broken pipe.
        await self.drain()
        raise BodyTooLarge(f"the request's body is longer than {self._longest_bytes} bytes")


async def refuse(error: RequestRefused, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the error's status and close the connection."""
    headers = {"Connection": "close"} | challenge_of(error)
    await JSONResponse({"detail": str(error)}, status_of(error), headers)(scope, receive, send)
