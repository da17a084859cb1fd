"""What stands in front of the application: the gate of the Unix socket, and the limits on bodies.

The gate of TCP is `sidecar.access.gate`.
All are plain ASGI layers; trio only. Nothing behind them runs before they have let a request through.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import NoReturn

import trio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sidecar.http.callers import CALLER, Role, local_caller
from sidecar.http.listeners import CONNECTION
from sidecar.http.problems import problem_answer
from sidecar.http.statuses import BodyTooLarge, BodyTooSlow, RequestRefused, challenge_of, status_of

LONGEST_BODY_BYTES = 1024 * 1024
#: A body must be there after this, however it trickles.
BODY_S = 30.0
#: What is left of a body that nobody wanted is thrown away for so long.
DRAIN_S = 2.0


#: Bodies sent here may be of any length and take any time; whoever reads them sees to it that they go on.
STREAMS = "/api/v1/streams/"


def is_stream(scope: Scope) -> bool:
    """Is the body of that request a stream?"""
    return scope["method"] == "POST" and str(scope["path"]).startswith(STREAMS)


_ANNOUNCE = frozenset({b"content-length", b"transfer-encoding"})


class PeerGate:
    """For the Unix socket: the kernel has told who connects, and the listener has admitted him."""

    def __init__(self, app: ASGIApp, owner_uid: int, others: Role) -> None:
        """`others`: what those may do who are neither root nor the owner, but in the group that is admitted."""
        self._app = app
        self._masters = (0, owner_uid)
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write down who calls."""
        peer = scope[CONNECTION].peer
        if peer is not None:
            role = Role.ADMIN if peer.uid in self._masters else self._others
            scope[CALLER] = replace(local_caller(peer.uid), role=role)
        await self._app(scope, receive, send)


def address_in(scope: Scope) -> str:
    """Return the address that a request came from; empty for a Unix socket."""
    client = scope.get("client")
    return str(client[0]) if client else ""


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
        if _has_none(scope):
            await self._serve(scope, receive, send)
            return
        body = _Body(receive, self._longest_bytes, trio.current_time() + self._body_s)
        if is_stream(scope):
            body = _Body(receive, inf, inf)
        try:
            await body.check_announced(Headers(scope=scope).get("content-length", "0"))
            await self._app(scope, body.receive, body.closing(send) if is_stream(scope) else send)
        except RequestRefused as error:
            await refuse(error, scope, receive, send)
        finally:
            await body.drain()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except RequestRefused as error:
            await refuse(error, scope, receive, send)


def _has_none(scope: Scope) -> bool:
    """Has a request no body? In HTTP/1 one is announced; the usual case, without a deadline."""
    return not any(name in _ANNOUNCE for name, _ in scope["headers"])


class _Body:
    """One request's body."""

    def __init__(self, receive: Receive, longest_bytes: float, deadline: float) -> None:
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

    def closing(self, send: Send) -> Send:
        """Return `send`; an answer before the body's end says that it is the last one, and is not held up by the body.

        What comes behind the answer goes into the server's queue for us; when that is full it cannot close either.
        """

        async def noted(message: Message) -> None:
            if self._is_over:
                await send(message)
                return
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Connection"] = "close"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_over)
                await send(message)
                nursery.cancel_scope.cancel()

        return noted

    async def _pass_over(self) -> None:
        while not self._is_over:
            self._note(await self._receive())

    async def drain(self) -> None:
        """Throw the rest away."""
        with trio.move_on_after(DRAIN_S):
            await self._pass_over()

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
    headers = {"Connection": "close"} | challenge_of(error, scope)
    await problem_answer(scope, status_of(error), str(error), headers)(scope, receive, send)
