"""The handler of one connection."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState

from sidecar.http.spoken import Idleness, QuietConfig, SpokenConnection


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
            server = SpokenConnection(app, Config(), WorkerContext(None), ConnectionState({}), stream)
            protocol: Any = _Protocol()
            server.protocol = protocol
            async with trio.open_nursery() as nursery:
                nursery.start_soon(server.protocol_send, RawData(b"a"))
                nursery.start_soon(stream.send_eof)
            await stream.aclose()
            assert protocol.told == [Closed()]


async def test_a_connection_ends_when_nothing_is_asked_for_long(autojump_clock: trio.abc.Clock) -> None:
    """One task waits for all requests of a connection; a request may take any time."""
    ended: list[float] = []

    async def end() -> None:
        ended.append(trio.current_time() - began_s)

    began_s = trio.current_time()
    idleness = Idleness(WorkerContext(None), 5.0)
    async with TaskGroup() as tasks:
        await idleness.restart(tasks, end)
        for _ in range(3):
            await trio.sleep(3)
            await idleness.stop()
            await trio.sleep(100)
            await idleness.restart(tasks, end)
        assert not ended
    assert ended == [pytest.approx(314.0)]


@pytest.mark.parametrize("is_busy", [False, True])
async def test_a_connection_ends_with_the_server(is_busy: bool, autojump_clock: trio.abc.Clock) -> None:
    """At once when nothing is asked, else when the answer is there."""
    ended: list[float] = []

    async def end() -> None:
        ended.append(trio.current_time() - began_s)

    began_s, context = trio.current_time(), WorkerContext(None)
    idleness = Idleness(context, 60.0)
    async with TaskGroup() as tasks:
        await idleness.restart(tasks, end)
        await trio.sleep(1)
        if is_busy:
            await idleness.stop()
        await context.terminated.set()
        await trio.sleep(1)
        if is_busy:
            assert not ended
            await idleness.restart(tasks, end)
    assert ended == [pytest.approx(2.0 if is_busy else 1.0)]


async def test_who_hangs_up_leaves_no_task(autojump_clock: trio.abc.Clock) -> None:
    """What Hypercorn has waits until the connection would have been idle for too long."""
    ours, theirs = socket.socketpair()
    theirs.close()
    stream: Any = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    app: Any = None
    began_s = trio.current_time()
    await SpokenConnection(app, QuietConfig(), WorkerContext(None), ConnectionState({}), stream).run()
    assert trio.current_time() - began_s < 1.0


def test_the_date_of_answers_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    config = QuietConfig()
    told = []
    for now_s in (1_000_000_000.2, 1_000_000_000.9, 1_000_000_001.0):
        monkeypatch.setattr("sidecar.http.spoken.time", lambda now_s=now_s: now_s)
        monkeypatch.setattr("hypercorn.config.time", lambda now_s=now_s: now_s)
        told.append(dict(config.response_headers("h11"))[b"date"])
    assert told == [
        b"Sun, 09 Sep 2001 01:46:40 GMT",
        b"Sun, 09 Sep 2001 01:46:40 GMT",
        b"Sun, 09 Sep 2001 01:46:41 GMT",
    ]
