"""One connection as Hypercorn speaks HTTP over it, with some flaws less, and with less work for a short call.

Trio only. What Hypercorn does for each request beside the protocol (a task that waits for the next one, a lock, calls
of the system that send nothing) took a third of the time of a short one.
"""

from __future__ import annotations

from collections.abc import Callable
from time import time

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState

from sidecar.http.http1 import keep_to_http1


class QuietConfig(Config):
    """Hypercorn's settings; the date that stands in every answer is put into words once a second."""

    _date_s = 0
    _headers: tuple[tuple[bytes, bytes], ...] = ()

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        """Return what every answer has."""
        now_s = int(time())
        if now_s != self._date_s:
            self._date_s, self._headers = now_s, tuple(super().response_headers(protocol))
        return list(self._headers)


class Idleness:
    """Ends a connection over which nothing is asked any more: one task for all of its requests.

    It has the face of Hypercorn's own, which begins and cancels a task with each request.
    """

    def __init__(self, context: WorkerContext, longest_s: float) -> None:
        self._context = context
        self._longest_s = longest_s
        self._since_s = trio.current_time()
        self._busy: trio.Event | None = None
        self._scope = trio.CancelScope()
        self._has_begun = False

    async def restart(self, task_group: TaskGroup, action: Callable[..., object]) -> None:
        """Nothing is asked from now on. The first time the task begins, which does `action` in the end."""
        self._since_s = trio.current_time()
        if self._busy is not None:
            self._busy.set()
            self._busy = None
        if not self._has_begun:
            self._has_begun = True
            task_group.spawn(self._wait, action)

    async def stop(self) -> None:
        """Something is asked, however long that takes."""
        if self._busy is None:
            self._busy = trio.Event()

    def end(self) -> None:
        """The connection has ended: there is nothing to wait for."""
        self._scope.cancel()

    async def _wait(self, action: Callable[[], object]) -> None:
        """Wait until nothing was asked for too long, or the end has come and nothing is asked."""
        with self._scope:
            while True:
                if self._busy is not None:
                    await self._busy.wait()
                    continue
                left_s = self._since_s + self._longest_s - trio.current_time()
                if self._context.terminated.is_set() or left_s <= 0:
                    break
                with trio.move_on_after(left_s):
                    await self._context.terminated.wait()
        if not self._scope.cancelled_caught:
            await action()  # type: ignore[misc]


class SpokenConnection(TCPServer):
    """Hypercorn's handler of one connection, for HTTP/1 alone.

    The head of an answer goes out with the first piece of its body, as ASGI has it: two small packets took a fifth of
    the time of a short answer.

    When an answer says that it is the last one, and more has come behind the request, the task that reads takes that
    for an error and closes at once, while the answer is being sent: the client gets none, and the log a traceback.

    A client that hangs up as soon as it has the answer may have the connection closed a moment before the end of the
    answer, often no byte, is sent: trio calls that a conflict, and the log would get a traceback for it.

    When a client that may ask again hangs up, the connection ends with it, and not when it has been idle for long.
    """

    _awaits_head = False
    _head = b""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        state: ConnectionState,
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream],
    ) -> None:
        super().__init__(app, config, context, state, stream)  # type: ignore[arg-type]
        self._idleness = Idleness(context, config.keep_alive_timeout)
        self.idle_task = self._idleness  # type: ignore[assignment]

    async def protocol_send(self, event: Event) -> None:
        """Send, or close; but close no connection of HTTP/1 in the middle of an answer, whose end closes it anyway."""
        if isinstance(event, Closed) and self._is_answering():
            return
        if isinstance(event, RawData):
            if self._awaits_head and self._is_answering():
                self._awaits_head, self._head = False, event.data
                return
            if self._head:
                event, self._head = RawData(self._head + event.data, event.address), b""
            if not event.data:
                return  # The end of an answer whose length was told.
        elif self._head:
            head, self._head = self._head, b""
            await self._pass_on(RawData(head))
        if isinstance(event, Updated):
            self._awaits_head = not event.idle  # A request has come.
        await self._pass_on(event)

    async def _pass_on(self, event: Event) -> None:
        try:
            await super().protocol_send(event)
        except trio.BusyResourceError:  # Sends wait for each other: it is the close that is under way.
            await self.protocol.handle(Closed())

    def _is_answering(self) -> bool:
        http = self.protocol.protocol
        return isinstance(http, H11Protocol) and http.stream is not None and http.connection.our_state is h11.SEND_BODY

    async def _idle_timeout(self) -> None:
        """Close. Hypercorn's would wait as long again first, and not notice a request that comes meanwhile."""
        with trio.CancelScope(shield=True):
            await self._initiate_server_close()

    async def _read_data(self) -> None:
        keep_to_http1(self.protocol)
        try:
            await super()._read_data()
        finally:
            self._idleness.end()
