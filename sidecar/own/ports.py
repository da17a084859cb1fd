"""Tapes through the ports of a library, under /api/v1: what `tapefs tape export` and `import` use."""

from __future__ import annotations

from typing import Annotated

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from sidecar.http.answers import json_answer
from sidecar.http.callers import Role
from sidecar.http.calls import Call
from sidecar.http.requests import body_of
from sidecar.own.tape_views import place_of
from sidecar.service import Service
from sidecar.tapes.ports import send_out, take_in
from tapefs.tape.names import tape_called


class ExportBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /api/v1/ports/export."""

    #: Its label or barcode.
    tape: Annotated[str, msgspec.Meta(min_length=1, max_length=600)]


class MovedTape(msgspec.Struct, frozen=True, kw_only=True):
    """A tape, and where it lies now."""

    barcode: str
    place: str


class PortCalls:
    """The ports of the library."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        role = Role.OPERATOR
        return [
            Call("/api/v1/ports/export", self.export, methods=["POST"], needs=role, body=ExportBody, answer=MovedTape),
            Call(
                "/api/v1/ports/import",
                self.take_in,
                methods=["POST"],
                needs=role,
                answer=list[MovedTape],
                errors=(422,),
            ),
        ]

    async def export(self, request: Request) -> Response:
        """Bring a tape to a free port, where somebody can take it out."""
        body, service = await body_of(request, ExportBody), self._service
        volume = await trio.to_thread.run_sync(tape_called, service.ledger, body.tape)
        port = await send_out(service.library, service.tape_tasks.look_again, volume)
        return json_answer(MovedTape(barcode=volume.code, place=place_of(port)))

    async def take_in(self, request: Request) -> Response:
        """Bring all that lies in the ports to free slots; tapes that are not known are entered as blank."""
        taken = await take_in(self._service.library)
        return json_answer([MovedTape(barcode=each.barcode or "", place=place_of(each)) for each in taken])
