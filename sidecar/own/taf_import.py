"""POST /api/v1/taf/import: what `tapefs taf import` uses while a sidecar has the state folder."""

from __future__ import annotations

from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from sidecar.http.answers import json_answer
from sidecar.http.callers import Role
from sidecar.http.calls import Call
from sidecar.http.requests import Invalid, body_of
from sidecar.own.tape_views import TaskView, task_view
from sidecar.service import Service
from tapefs.audit import has_password
from tapefs.errors import NotNow
from tapefs.mover.messages import ImportTaf
from tapefs.tape.names import tape_called

_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=600)]


class TafImportBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /api/v1/taf/import."""

    #: Name of the volume that is mounted where the library has a drive.
    tape: _Text
    #: TAF's names of sets; none: all.
    sets: list[_Text] = []
    #: TAF's own catalog, as for `tapefs taf import --catalog`; empty: none.
    catalog: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    #: Read archives once more that could not be read to their end.
    again: bool = False


class TafImportCalls:
    """Importing TAF's sets."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        call = Call(
            "/api/v1/taf/import",
            self.import_sets,
            methods=["POST"],
            needs=Role.ADMIN,
            body=TafImportBody,
            answer=TaskView,
            status=202,
        )
        return [call]

    async def import_sets(self, request: Request) -> Response:
        """Take TAF's sets on a mounted volume into the catalog: 202 and a task."""
        body = await body_of(request, TafImportBody)
        if has_password(body.catalog):
            why = "no password here, it would stay with the task: put it into ~/.pgpass of the sidecar's user"
            raise Invalid("value_error", ["body", "catalog"], why)
        service = self._service
        if service.home.settings.library.driver != "ltfs":
            raise NotNow("volumes of TAF are imported while mounted where a drive of the driver ltfs is")
        await service.library.refresh()
        volume = tape_called(service.ledger, body.tape)
        command = ImportTaf(
            id=0, volume_id=volume.volume_id, sets=list(body.sets), catalog=body.catalog, again=body.again
        )
        return json_answer(task_view(service.tape_tasks.add(volume, command)), 202)
