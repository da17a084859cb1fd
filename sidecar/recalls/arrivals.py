"""Fans arrivals out to the mounts: one stream of JSON lines per client.

One trio run; `publish` is synchronous. Every client has a bounded queue. One that does not read is cut off rather
than waited for: it connects again and posts its waiters again, so nothing is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import structlog
import trio

from tapefs.mover.messages import FrameRange

#: Lines that a client may be behind: 64 GiB of arrivals in frames of 4 MiB.
QUEUE_LINES = 16_384
#: A line that says nothing, so that both sides notice a dead connection.
PING_S = 10.0
#: Lines go out together up to this size.
BATCH_BYTES = 64 * 1024

log = structlog.get_logger(__name__)
_encoder = msgspec.json.Encoder()


def _line(value: dict[str, int | str]) -> bytes:
    return _encoder.encode(value) + b"\n"


HELLO = _line({"hello": 1})
PING = _line({"ping": 1})


class Subscription:
    """One client's lines; made by `Arrivals.subscribe`."""

    def __init__(self, on_cut: Callable[[], None], queue_lines: int) -> None:
        self._send, self._receive = trio.open_memory_channel[bytes](queue_lines)
        self._on_cut = on_cut
        self._is_ended = False

    def put(self, line: bytes) -> bool:
        """Queue a line; False when the client is too far behind and was cut off. Behind the end it is too late."""
        if self._is_ended:
            return True
        try:
            self._send.send_nowait(line)
        except trio.WouldBlock:
            self.end()
            self._on_cut()
            return False
        return True

    def end(self) -> None:
        """End the stream after the lines that are queued."""
        self._is_ended = True
        self._send.close()

    async def next_piece(self) -> bytes | None:
        """Wait for the next whole lines: a ping when nothing comes for PING_S, None when the stream is over."""
        with trio.move_on_after(PING_S):
            try:
                return self._with_more(await self._receive.receive())
            except trio.EndOfChannel:
                return None
        return PING

    @property
    def is_ended(self) -> bool:
        """Has the stream been ended? Lines may still be queued."""
        return self._is_ended

    def _with_more(self, piece: bytes) -> bytes:
        parts, size = [piece], len(piece)
        while size < BATCH_BYTES:
            try:
                parts.append(self._receive.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
            size += len(parts[-1])
        return b"".join(parts)


class Arrivals:
    """The hub."""

    def __init__(self, queue_lines: int = QUEUE_LINES) -> None:
        self._queue_lines = queue_lines
        self._clients: set[Subscription] = set()
        self._ended = False

    @contextmanager
    def subscribe(self, on_cut: Callable[[], None]) -> Iterator[Subscription]:
        """Take part; `on_cut` is called when the client is cut off, to break a connection that is stuck in sending."""
        client = Subscription(on_cut, self._queue_lines)
        self._clients.add(client)
        if self._ended:
            client.end()
        try:
            yield client
        finally:
            self._clients.discard(client)
            client.end()

    def arrived(self, frames: FrameRange) -> None:
        """Tell everybody that frames are staged."""
        self._publish(_line({"segment": frames.segment_id, "first": frames.first, "last": frames.last}))

    def failed(self, frames: FrameRange, error: str, message: str) -> None:
        """Tell everybody that frames cannot be had: `error` is a word for programs, `message` a sentence for people."""
        place: dict[str, int | str] = {"segment": frames.segment_id, "first": frames.first, "last": frames.last}
        self._publish(_line({**place, "error": error, "message": message}))

    def refused(self, waiter_id: str, error: str, message: str) -> None:
        """Tell everybody that one reader does not get what it waits for; other readers of the same frames may."""
        self._publish(_line({"waiter": waiter_id, "error": error, "message": message}))

    def end(self) -> None:
        """End all streams and those that come later."""
        self._ended = True
        for client in self._clients:
            client.end()

    def _publish(self, line: bytes) -> None:
        for client in list(self._clients):
            if not client.put(line):
                self._clients.discard(client)
                log.warning("a client of the arrivals did not read and was cut off", queued=self._queue_lines)
