"""The mount's end of the sidecar's HTTP interface over the Unix socket: registering waiters, and the stream of
arrivals. Trio.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
import msgspec

from tapefs.errors import RecallFailed, Unreachable
from tapefs.mount.link import Arrival, WaiterMessage, WalkMessage
from tapefs.socket_name import socket_name

_CONNECT_S = 5.0
_ANSWER_S = 30.0
#: The sidecar sends something every 10 s.
_SILENCE_S = 30.0

_BASE = "http://sidecar/api/v1"


class _Window(msgspec.Struct, frozen=True):
    window_bytes: int


class _Posted(msgspec.Struct, frozen=True):
    waiters: list[WaiterMessage]


class _Cancelled(msgspec.Struct, frozen=True):
    ids: list[str]


class SidecarLink:
    """Connections to the sidecar, made on demand. Use it as an async context manager."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._open = ExitStack()
        self._client: httpx.AsyncClient
        self._arrival = msgspec.json.Decoder(Arrival)

    async def __aenter__(self) -> SidecarLink:
        name = self._open.enter_context(socket_name(self._socket))
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=name),
            timeout=httpx.Timeout(_ANSWER_S, connect=_CONNECT_S),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        with self._open:
            await self._client.aclose()

    async def post_waiters(self, waiters: Sequence[WaiterMessage]) -> None:
        """Register waiting reads. Raises Unreachable (try again later), RecallFailed (the sidecar refuses them)."""
        await self._post("/recalls", _Posted(list(waiters)))

    async def cancel(self, ids: Sequence[str]) -> None:
        """Say that these no longer wait. Raises as post_waiters."""
        await self._post("/recalls/cancel", _Cancelled(list(ids)))

    async def walk(self, message: WalkMessage) -> int:
        """Tell of a walk; return how many bytes may be named ahead of it, 0 for none. Raises as post_waiters."""
        answer = await self._post("/walks", message)
        try:
            return msgspec.json.decode(answer, type=_Window).window_bytes
        except msgspec.DecodeError as error:
            raise Unreachable(f"the sidecar sends what is no answer: {error}") from error

    async def end_walks(self, ids: Sequence[str]) -> None:
        """Say that these walks are over. Raises as post_waiters."""
        await self._post("/walks/end", _Cancelled(list(ids)))

    async def _post(self, path: str, body: msgspec.Struct) -> bytes:
        headers = {"content-type": "application/json"}
        try:
            answer = await self._client.post(_BASE + path, content=msgspec.json.encode(body), headers=headers)
        except httpx.HTTPError as error:
            raise Unreachable(f"the sidecar does not answer: {error}") from error
        if answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise Unreachable(f"the sidecar failed with status {answer.status_code}")
        if answer.status_code >= httpx.codes.BAD_REQUEST:
            raise RecallFailed(f"the sidecar refuses the recall (status {answer.status_code}): {answer.text[:200]}")
        return answer.content

    async def arrivals(self) -> AsyncGenerator[Arrival, None]:
        """Yield what the stream says until it breaks; the first line comes as soon as it is connected. To be closed.

        Raises Unreachable when it cannot be opened, breaks or falls silent.
        """
        timeout = httpx.Timeout(_SILENCE_S, connect=_CONNECT_S)
        try:
            async with self._client.stream("GET", _BASE + "/arrivals", timeout=timeout) as answer:
                if answer.status_code != httpx.codes.OK:
                    raise Unreachable(f"the sidecar answers with status {answer.status_code}")
                async for line in answer.aiter_lines():
                    if line:
                        yield self._arrival.decode(line)
        except httpx.HTTPError as error:
            raise Unreachable(f"the sidecar does not answer: {error}") from error
        except msgspec.DecodeError as error:
            raise Unreachable(f"the sidecar sends what is no arrival: {error}") from error
        raise Unreachable("the sidecar has ended the stream of arrivals")
