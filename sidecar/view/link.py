"""How reads over HTTP reach the recalls of their own process: the mount's link without a socket. Trio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import msgspec

from catalog.ids import FrameNo, SegmentId
from sidecar.recalls.arrivals import HELLO, Arrivals
from sidecar.recalls.guard import Reader
from sidecar.recalls.recalling import Recalls, Wish
from tapefs.errors import Unreachable
from tapefs.mount.link import Arrival, Span, WaiterMessage, WalkMessage
from tapefs.mover.messages import FrameRange


class OwnLink:
    """A link as the mount's `Recalls` and `Walks` use it."""

    def __init__(self, recalls: Recalls, arrivals: Arrivals) -> None:
        self._recalls = recalls
        self._arrivals = arrivals
        self._arrival = msgspec.json.Decoder(Arrival)

    async def post_waiters(self, waiters: Sequence[WaiterMessage]) -> None:
        """Register waiting reads."""
        wishes = [
            Wish(
                waiter.id,
                _frames(waiter),
                waiter.deadline_s,
                Reader(waiter.uid, waiter.gids, waiter.pid, waiter.commands, waiter.path, waiter.size_bytes),
            )
            for waiter in waiters
        ]
        await self._recalls.look_around(wish.frames.segment_id for wish in wishes)
        self._recalls.wait_for(wishes)

    async def cancel(self, ids: Sequence[str]) -> None:
        """Say that these no longer wait."""
        self._recalls.cancel(ids)

    async def walk(self, message: WalkMessage) -> int:
        """Tell of a walk; return how many bytes may be named ahead of it."""
        reader = Reader(message.uid, message.gids, message.pid, message.commands)
        to_come = [_frames(span) for span in message.to_come]
        return self._recalls.walk(message.id, reader, to_come, [_frames(span) for span in message.passed])

    async def end_walks(self, ids: Sequence[str]) -> None:
        """Say that these walks are over."""
        self._recalls.end_walks(ids)

    async def arrivals(self) -> AsyncGenerator[Arrival, None]:
        """Yield what arrives until the sidecar ends. To be closed. Raises Unreachable then, or when we are too slow."""
        with self._arrivals.subscribe(lambda: None) as client:
            piece: bytes | None = None if client.is_ended else HELLO
            while piece is not None:
                for line in piece.splitlines():
                    yield self._arrival.decode(line)
                piece = await client.next_piece()
        raise Unreachable("the stream of arrivals is over")


def _frames(span: Span | WaiterMessage) -> FrameRange:
    return FrameRange(SegmentId(span.segment), FrameNo(span.first), FrameNo(span.last))
