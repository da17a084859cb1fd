"""Answers made small, with zstd or gzip, for callers over TCP who take it. Plain ASGI; trio only.

Only whole answers of JSON and text are: streams go out as they come, contents of files as they are (their ranges and
ETags mean the bytes of the file), and what must not be stored anywhere may have secrets in it, whose length would tell
something of them (BREACH).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import trio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sidecar.http.listeners import CONNECTION, Connection

#: Shorter ones fit into a packet anyway.
LEAST_BYTES = 1024
#: Longer ones are compressed in a thread: gzip takes some 20 ms for a megabyte, zstd 4.
INLINE_BYTES = 32 * 1024
_ZSTD_LEVEL, _GZIP_LEVEL = 3, 5
_KINDS = ("application/json", "application/problem+json", "text/")
_NEVER = ("content-encoding", "accept-ranges", "set-cookie")


class Compression:
    """Around the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        coding = _coding(Headers(scope=scope).get("accept-encoding", "")) if scope["type"] == "http" else ""
        connection: Connection | None = scope.get(CONNECTION)
        if connection is not None and connection.peer is not None:
            await self._app(scope, receive, send)  # A Unix socket: its bytes cost less than their compression.
            return
        await self._app(scope, receive, _Answer(send, coding).send)


class _Answer:
    """Holds the beginning back until it is known whether the body is all there."""

    def __init__(self, send: Send, coding: str) -> None:
        self._send = send
        self._coding = coding
        self._start: Message | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_meant(message):
            self._start = message
            return
        if self._start is not None:
            start, self._start = self._start, None
            body = message.get("body", b"")
            if message["type"] == "http.response.body" and not message.get("more_body") and len(body) >= LEAST_BYTES:
                message = {**message, "body": await self._shrunk(start, body)}
            await self._send(start)
        await self._send(message)

    async def _shrunk(self, start: Message, body: bytes) -> bytes:
        headers = MutableHeaders(scope=start)
        headers.add_vary_header("Accept-Encoding")
        if not self._coding:
            return body
        shrink = CODINGS[self._coding]
        small = await trio.to_thread.run_sync(shrink, body) if len(body) > INLINE_BYTES else shrink(body)
        headers["content-encoding"] = self._coding
        headers["content-length"] = str(len(small))
        etag = headers.get("etag", "")
        if etag.startswith('"'):
            headers["etag"] = f"W/{etag}"
        return small


def _is_meant(start: Message) -> bool:
    headers = Headers(raw=list(start["headers"]))
    if start["status"] == 206 or any(name in headers for name in _NEVER):
        return False
    return headers.get("content-type", "").startswith(_KINDS) and "no-store" not in headers.get("cache-control", "")


def _coding(accepted: str) -> str:
    """Return the best coding that an Accept-Encoding header takes; empty for none."""
    weights: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, _, parameter = part.partition(";")
        weights[name.strip()] = _weight(parameter)
    other = weights.get("*", 0.0)
    best = max(CODINGS, key=lambda name: weights.get(name, other))
    return best if weights.get(best, other) > 0 else ""


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def _zstd(body: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(body)


def _gzip(body: bytes) -> bytes:
    compressor = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return compressor.compress(body) + compressor.flush()


#: The better first: `max` takes the first of equals.
CODINGS: dict[str, Callable[[bytes], bytes]] = {"zstd": _zstd, "gzip": _gzip}
