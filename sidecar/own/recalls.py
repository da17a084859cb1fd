"""Recalls, staging and the stream of arrivals: what the mount, `tapefs stage` and `tapefs evict` use."""

from __future__ import annotations

from typing import Annotated

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from catalog.ids import FrameNo, SegmentId
from sidecar.http.answers import json_answer
from sidecar.http.callers import Role
from sidecar.http.calls import LINES, Call
from sidecar.http.listeners import CONNECTION, Connection
from sidecar.http.request_notes import note_endless
from sidecar.http.requests import Invalid, Uuid, body_of
from sidecar.recalls.arrivals import HELLO, Arrivals, Subscription
from sidecar.recalls.guard import Reader
from sidecar.recalls.recalling import Wish
from sidecar.service import Service
from tapefs.mover.messages import FrameRange
from tapefs.staging.area import StagingArea

#: Four times what Linux takes as a path: bytes that are no UTF-8 come as escapes.
LONGEST_PATH = 16_384

_Number = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class WaiterBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A reader that waits; all but id, segment and frames tells who it is, for rules, limits and the log."""

    id: Uuid
    segment: Uuid
    first: _Number
    last: _Number
    uid: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 0
    pid: _Number = 0
    #: Seconds from now; 0 means never.
    deadline_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    gids: list[Annotated[int, msgspec.Meta(ge=0, lt=2**32)]] = []
    #: Names of the program: its file, its process, its thread.
    commands: list[str] = []
    #: The file, and its size.
    path: Annotated[str, msgspec.Meta(max_length=LONGEST_PATH)] = ""
    size_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0

    def reader(self) -> Reader:
        """Return who it is."""
        return Reader(self.uid, tuple(self.gids), self.pid, tuple(self.commands), self.path, self.size_bytes)


class RecallsBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/recalls."""

    waiters: list[WaiterBody]


class CancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/recalls/cancel."""

    ids: list[Uuid]


class SpanBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Frames to stage."""

    segment: Uuid
    first: _Number
    last: _Number


class StageBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/stage."""

    segments: list[SpanBody]
    #: Somebody waits for them: backups give way as to readers.
    awaited: bool = False


class WalkBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/walks: a reader that goes through a tree, and who it is."""

    id: Uuid
    to_come: list[SpanBody] = []
    #: Frames that it has gone past, or will not come to.
    passed: list[SpanBody] = []
    uid: Annotated[int, msgspec.Meta(ge=0, lt=2**32)] = 0
    pid: _Number = 0
    gids: list[Annotated[int, msgspec.Meta(ge=0, lt=2**32)]] = []
    commands: list[str] = []


class EvictBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/evict; null means everything."""

    segments: list[Uuid] | None


class Accepted(msgspec.Struct, frozen=True):
    """How many readers or spans were taken."""

    accepted: int


class Detached(msgspec.Struct, frozen=True):
    """How many readers wait no longer."""

    cancelled: int


class Window(msgspec.Struct, frozen=True):
    """So much may be named ahead of a walk."""

    window_bytes: int


class Ended(msgspec.Struct, frozen=True):
    """How many walks were forgotten."""

    ended: int


class Freed(msgspec.Struct, frozen=True):
    """What the staging area has back, and what of that which was named is staged still: it is open or pinned."""

    freed_bytes: int
    left_bytes: int


class RecallCalls:
    """The way of the data back from tape."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call(
                "/api/v1/recalls",
                self.recall,
                methods=["POST"],
                needs=Role.OPERATOR,
                body=RecallsBody,
                answer=Accepted,
                status=202,
            ),
            Call(
                "/api/v1/recalls/cancel",
                self.cancel,
                methods=["POST"],
                needs=Role.OPERATOR,
                body=CancelBody,
                answer=Detached,
            ),
            Call("/api/v1/arrivals", self.arrivals, needs=Role.OPERATOR, media=LINES),
            Call(
                "/api/v1/stage",
                self.stage,
                methods=["POST"],
                needs=Role.OPERATOR,
                body=StageBody,
                answer=Accepted,
                status=202,
            ),
            Call(
                "/api/v1/walks",
                self.walk,
                methods=["POST"],
                needs=Role.OPERATOR,
                body=WalkBody,
                answer=Window,
                status=202,
            ),
            Call(
                "/api/v1/walks/end",
                self.end_walks,
                methods=["POST"],
                needs=Role.OPERATOR,
                body=CancelBody,
                answer=Ended,
            ),
            Call("/api/v1/evict", self.evict, methods=["POST"], needs=Role.OPERATOR, body=EvictBody, answer=Freed),
        ]

    async def recall(self, request: Request) -> Response:
        """Note waiting readers; what becomes of them comes with the arrivals."""
        body = await body_of(request, RecallsBody)
        wishes = [
            Wish(waiter.id, frames_of(waiter, ["body", "waiters", place]), waiter.deadline_s, waiter.reader())
            for place, waiter in enumerate(body.waiters)
        ]
        await self._service.recalls.look_around(wish.frames.segment_id for wish in wishes)
        self._service.recalls.wait_for(wishes)
        return json_answer(Accepted(len(wishes)), 202)

    async def cancel(self, request: Request) -> Response:
        """Detach readers; a tape that moves for them goes on."""
        body = await body_of(request, CancelBody)
        return json_answer(Detached(self._service.recalls.cancel(body.ids)))

    async def stage(self, request: Request) -> Response:
        """Have frames staged without waiting."""
        body = await body_of(request, StageBody)
        ranges = [frames_of(span, ["body", "segments", place]) for place, span in enumerate(body.segments)]
        await self._service.recalls.look_around(frames.segment_id for frames in ranges)
        self._service.recalls.order(ranges, is_awaited=body.awaited)
        return json_answer(Accepted(len(ranges)), 202)

    async def walk(self, request: Request) -> Response:
        """Note what a walk comes to next; tell how many bytes may be named ahead of it."""
        body = await body_of(request, WalkBody)
        to_come = [frames_of(span, ["body", "to_come", place]) for place, span in enumerate(body.to_come)]
        passed = [frames_of(span, ["body", "passed", place]) for place, span in enumerate(body.passed)]
        reader = Reader(body.uid, tuple(body.gids), body.pid, tuple(body.commands))
        return json_answer(Window(self._service.recalls.walk(body.id, reader, to_come, passed)), 202)

    async def end_walks(self, request: Request) -> Response:
        """Forget walks; what a tape is about to read for them is read."""
        body = await body_of(request, CancelBody)
        return json_answer(Ended(self._service.recalls.end_walks(body.ids)))

    async def evict(self, request: Request) -> Response:
        """Empty the staging area, wholly or in part."""
        body = await body_of(request, EvictBody)
        segments = None if body.segments is None else [SegmentId(segment) for segment in body.segments]
        freed_bytes = await self._service.evictor.evict(segments)
        left = await trio.to_thread.run_sync(StagingArea(self._service.home.staging).census, segments)
        return json_answer(Freed(freed_bytes, left.used_bytes if left.frames else 0))

    async def arrivals(self, request: Request) -> Response:
        """Stream what arrives until the client or the sidecar ends."""
        return ArrivalsResponse(self._service.arrivals)


class ArrivalsResponse(Response):
    """Streams a subscription.

    Where the hub has ended not even the greeting comes, so a client sees that nobody serves.
    """

    media_type = LINES

    def __init__(self, arrivals: Arrivals) -> None:
        super().__init__()
        self._arrivals = arrivals
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client or the hub ends."""
        note_endless(scope)
        connection: Connection = scope[CONNECTION]
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        with self._arrivals.subscribe(connection.cut) as client:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_wait_gone, receive, nursery.cancel_scope)
                await self._send_lines(client, send)
                nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_lines(self, client: Subscription, send: Send) -> None:
        piece: bytes | None = None if client.is_ended else HELLO
        while piece is not None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            piece = await client.next_piece()


async def _wait_gone(receive: Receive, scope: trio.CancelScope) -> None:
    """Cancel `scope` when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def frames_of(body: WaiterBody | SpanBody, place: list[str | int]) -> FrameRange:
    """Return the frames that a body names. Raises Invalid; `place` is where it stands."""
    if body.first > body.last:
        raise Invalid("value_error", [*place, "last"], "must not be less than `first`", body.last)
    return FrameRange(SegmentId(body.segment), FrameNo(body.first), FrameNo(body.last))
