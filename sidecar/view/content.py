"""A file of the archive as the answer to GET and HEAD: whole or a range, from the disk or as it comes from tape. Trio.

A reader holds no drive: what is asked of one is staged, however slowly the client takes it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from urllib.parse import quote

import structlog
import trio
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from catalog.errors import CatalogError
from sidecar.http.callers import Caller
from sidecar.http.listeners import CONNECTION, Connection
from sidecar.view.files import Files, Item
from sidecar.view.ranges import Span, Unsatisfiable, http_date, is_other, is_unchanged, span_of
from tapefs.errors import TapefsError
from tapefs.mount.content import OpenFile

#: Read and sent at once: a quarter of a usual frame.
CHUNK_BYTES = 1024 * 1024
#: A client that takes nothing for so long is cut off.
PATIENCE_S = 60.0

log = structlog.get_logger(__name__)


class FileAnswer(Response):
    """The content of a regular file; conditions and a range of the request's headers hold."""

    def __init__(
        self, files: Files, item: Item, caller: Caller, headers: Headers, *, more: Mapping[str, str] | None = None
    ) -> None:
        """Check what can be checked before a byte is read. Raises Forbidden, UsageError."""
        super().__init__(media_type="application/octet-stream")
        del self.headers["content-length"]
        self._item = item
        self._span: Span | None = None
        self._file: OpenFile = files.open(item, caller)
        self.headers.update({"ETag": f'"{item.tag}"', "Accept-Ranges": "bytes", **(more or {})})
        self.headers["Last-Modified"] = http_date(item.mtime_ns)
        self._choose(headers)

    def _choose(self, headers: Headers) -> None:
        """Decide on the status, and which bytes are sent."""
        item = self._item
        size_bytes = item.size_bytes
        if is_other(headers, item.tag):
            self.status_code = 412
        elif is_unchanged(headers, item.tag, item.mtime_ns):
            self.status_code = 304
        else:
            try:
                wanted = span_of(headers, size_bytes, item.tag, item.mtime_ns)
            except Unsatisfiable:
                self.status_code = 416
                self.headers["Content-Range"] = f"bytes */{size_bytes}"
            else:
                self._span = wanted or Span(0, size_bytes)
                self.headers["Content-Length"] = str(self._span.end - self._span.start)
                if wanted is not None:
                    self.status_code = 206
                    self.headers["Content-Range"] = f"bytes {wanted.start}-{wanted.end - 1}/{size_bytes}"

    @property
    def has_bytes(self) -> bool:
        """Is any of the content asked for?"""
        return self._span is not None and self._span.end > self._span.start

    def close(self) -> None:
        """Let go of the file, where the answer is not sent."""
        self._file.release()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it. What goes wrong before the first byte raises; later it breaks the connection."""
        try:
            await self._send(scope, send, self._pieces(is_empty=scope["method"] == "HEAD"))
        finally:
            self._file.release()

    async def _send(self, scope: Scope, send: Send, pieces: AsyncIterator[bytes]) -> None:
        connection: Connection = scope[CONNECTION]
        first = await anext(pieces, b"")
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(start)
        try:
            await send_soon(send, connection, first)
            async for piece in pieces:
                await send_soon(send, connection, piece)
        except (TapefsError, CatalogError, OSError) as error:
            # The length was promised: a connection that breaks is the only way to say that it does not come.
            log.warning("a file could not be sent whole", path=shown(self._item.path), error=str(error))
            connection.cut()
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pieces(self, *, is_empty: bool) -> AsyncIterator[bytes]:
        if self._span is None or is_empty:
            return
        at, end = self._span
        while at < end:
            piece = await self._file.read(at, min(CHUNK_BYTES, end - at))
            at += len(piece)
            yield piece
            await trio.lowlevel.checkpoint()


async def send_soon(send: Send, connection: Connection, piece: bytes) -> None:
    """Send a piece of a body; cut off a client that does not take it."""
    with trio.move_on_after(PATIENCE_S) as scope:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    if scope.cancelled_caught:
        connection.cut()


async def until_gone(receive: Receive, scope: trio.CancelScope) -> None:
    """Cancel a scope when the client has gone; the request's body must have been read, or have none."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def attachment(name: bytes) -> str:
    """Return the header Content-Disposition that has a file saved by this name, whatever bytes it has (RFC 6266)."""
    plain = name.decode("ascii", "replace").replace("\ufffd", "_")
    simple = "".join("_" if ord(letter) < 32 or letter in '"\\\x7f' else letter for letter in plain)
    return f"attachment; filename=\"{simple}\"; filename*=UTF-8''{quote(name, safe='')}"


def shown(path: bytes) -> str:
    """Return a path for people."""
    return path.decode("utf-8", "backslashreplace")
