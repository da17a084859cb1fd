"""The handler of one connection."""

from __future__ import annotations

import socket
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from sidecar.http.listeners import _Server


class _Protocol:
    """Notes what it is told."""

    protocol = None

    def __init__(self) -> None:
        self.told: list[Event] = []

    async def handle(self, event: Event) -> None:
        self.told.append(event)


async def test_what_is_sent_while_the_connection_closes() -> None:
    """The close, which another task does, is no error; who sends is told. Trio throws dice which is first."""
    for _ in range(20):
        ours, theirs = socket.socketpair()
        with theirs:
            stream: Any = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
            app: Any = None
            server = _Server(app, Config(), WorkerContext(None), ConnectionState({}), stream)
            protocol: Any = _Protocol()
            server.protocol = protocol
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.protocol_send, RawData(b""))
                nursery.start_soon(stream.send_eof)
            await stream.aclose()
            assert protocol.told == [Closed()]
