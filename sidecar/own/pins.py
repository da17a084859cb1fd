"""Pins under /api/v1/pins, and how the staging area stands: what `tapefs stage --pin`, `pins` and `unpin` use."""

from __future__ import annotations

import pwd
from datetime import datetime
from typing import Annotated

import msgspec
import trio
from msgspec import structs
from starlette.requests import Request
from starlette.responses import Response

from catalog.ids import FrameNo
from catalog.records import StagePin
from sidecar.http.answers import json_answer, moment
from sidecar.http.callers import Role
from sidecar.http.calls import PAGE, Call
from sidecar.http.listeners import CONNECTION, Connection
from sidecar.http.paging import part_of
from sidecar.http.requests import Uuid, body_of
from sidecar.own.recalls import SpanBody, frames_of
from sidecar.service import Service
from tapefs.client.api import FrameSpan
from tapefs.staging.area import StagingArea

_HUNDRED_YEARS_S = 100 * 366 * 86_400.0


class PinBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/pins."""

    segments: list[SpanBody]
    lifetime_s: Annotated[float, msgspec.Meta(gt=0, le=_HUNDRED_YEARS_S)]
    #: Of a pin that there is already, which shall hold these frames, too; or of a new one.
    id: Uuid | None = None
    reason: Annotated[str, msgspec.Meta(max_length=1000)] = ""


class PinLine(msgspec.Struct, frozen=True, kw_only=True):
    """A pin."""

    id: str
    owner: str
    reason: str
    created_at: datetime | None
    expires_at: datetime | None
    frames: int
    missing_frames: int
    #: About, by the mean length of frames.
    bytes: int


class PinDetail(PinLine, frozen=True, kw_only=True):
    """A pin with its frames."""

    segments: list[FrameSpan]


class StagingView(msgspec.Struct, frozen=True, kw_only=True):
    """How full the staging area is."""

    limit_bytes: int
    used_bytes: int
    pinned_bytes: int
    pinned_limit_bytes: int
    pins: int
    #: Since the sidecar's start.
    fetched_frames: int
    dropped_bytes: int
    segments: int
    frames: int
    #: Left by the machine's last run, not compared yet.
    doubtful_frames: int


class PinCalls:
    """Keeping frames staged."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call("/api/v1/pins", self.list, needs=Role.VIEWER, answer=list[PinLine], query=PAGE),
            Call(
                "/api/v1/pins",
                self.add,
                methods=["POST"],
                needs=Role.OPERATOR,
                body=PinBody,
                answer=PinLine,
                status=201,
            ),
            Call("/api/v1/pins/{id}", self.show, needs=Role.VIEWER, answer=PinDetail),
            Call("/api/v1/pins/{id}", self.drop, methods=["DELETE"], needs=Role.OPERATOR, status=204),
            Call("/api/v1/staging", self.staging, needs=Role.VIEWER, answer=StagingView),
        ]

    async def add(self, request: Request) -> Response:
        """Pin frames, and order those that are not staged; 201 with the pin. The same id again extends it."""
        body = await body_of(request, PinBody)
        ranges = [frames_of(span, ["body", "segments", place]) for place, span in enumerate(body.segments)]
        pin = await self._service.pins.add(
            ranges, owner=_who(request), reason=body.reason, lifetime_s=body.lifetime_s, pin_id=body.id
        )
        await self._service.evictor.settle()
        self._service.recalls.order(ranges)
        return json_answer(await self._view(pin), 201)

    async def list(self, request: Request) -> Response:
        """Show the pins, oldest first."""
        part = part_of(request, self._service.pins.all(), lambda pin: (pin.created_at_ns, pin.pin_id))
        return json_answer([await self._view(pin) for pin in part.items], headers=part.headers)

    async def show(self, request: Request) -> Response:
        """Show one pin, with its frames."""
        pin = self._service.pins.pin(str(request.path_params["id"]))
        spans = [
            FrameSpan(segment=segment_id, first=FrameNo(first), last=FrameNo(last))
            for segment_id, runs in pin.frames
            for first, last in runs
        ]
        return json_answer(PinDetail(**structs.asdict(await self._view(pin)), segments=spans))

    async def drop(self, request: Request) -> Response:
        """End a pin; 204. What it held stays staged until the room is needed."""
        await self._service.pins.drop(str(request.path_params["id"]))
        return Response(status_code=204)

    async def staging(self, request: Request) -> Response:
        """Show how full the staging area is."""
        service = self._service
        census = await trio.to_thread.run_sync(service.evictor.census)
        return json_answer(
            StagingView(
                limit_bytes=service.evictor.limit_bytes,
                used_bytes=census.used_bytes,
                pinned_bytes=service.pins.used_bytes(),
                pinned_limit_bytes=service.pins.limit_bytes,
                pins=len(service.pins.all()),
                fetched_frames=service.recalls.fetched_frames,
                dropped_bytes=service.evictor.dropped_bytes,
                **census.counts(),
            )
        )

    async def _view(self, pin: StagePin) -> PinLine:
        area = StagingArea(self._service.home.staging)
        missing = await trio.to_thread.run_sync(area.missing, {frames.segment_id: frames.runs for frames in pin.frames})
        return PinLine(
            id=pin.pin_id,
            owner=pin.owner,
            reason=pin.reason,
            created_at=moment(pin.created_at_ns),
            expires_at=moment(pin.expires_at_ns),
            frames=sum(last - first + 1 for frames in pin.frames for first, last in frames.runs),
            missing_frames=missing,
            bytes=self._service.pins.bytes_of(pin),
        )


def _who(request: Request) -> str:
    """Return who asks, for people: a user of this machine, or whoever has the token."""
    connection: Connection = request.scope[CONNECTION]
    if connection.peer is None:
        return "token"
    try:
        return pwd.getpwuid(connection.peer.uid).pw_name
    except KeyError:
        return str(connection.peer.uid)
