"""Restores on this host under /api/v1/restores."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from catalog.ids import SetId
from catalog.recovery_records import NotRestored, Recovery, RecoveryState
from sidecar.http.answers import json_answer, moment, shown
from sidecar.http.callers import Role, caller_of
from sidecar.http.calls import PAGE, Call
from sidecar.http.paging import missing, page_answer
from sidecar.http.requests import Invalid, Uuid, body_of
from sidecar.restores.new import new_restore
from sidecar.service import Service

_Path = Annotated[str, Meta(min_length=1, max_length=16_384)]
#: Of the paths of a restore so many are shown.
_SHOWN = 1000


class RestoreBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/restores: paths as they are in the set; none at all for everything."""

    set_id: Uuid
    #: An absolute path on the host of the sidecar; each file comes there with its whole path.
    target: Annotated[str, Meta(min_length=1, max_length=4096)]
    paths: Annotated[list[_Path], Meta(max_length=10_000)] = []
    #: Paths that are not UTF-8.
    paths_b64: Annotated[list[_Path], Meta(max_length=10_000)] = []
    #: Replace files that are there; else they are left alone, and the restore says so.
    overwrite: bool = False


class RestoreAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """How far a restore is."""

    id: str
    set_id: str
    state: RecoveryState
    #: The first thousand; `paths_b64` has the bytes. None: everything.
    paths: list[str]
    paths_b64: list[str]
    target: str
    overwrite: bool
    files: int
    files_total: int
    bytes: int
    bytes_total: int
    #: Files that are not there as recorded, by what can be done about it; known at the end.
    not_restored: NotRestored
    error: str | None
    created_by: str
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


class OwnRestoreCalls:
    """Restores on this host."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        all_of_them, one = "/api/v1/restores", "/api/v1/restores/{id}"
        post = ["POST"]
        return [
            Call(all_of_them, self.list, needs=Role.VIEWER, answer=list[RestoreAnswer], query=PAGE),
            Call(
                all_of_them,
                self.begin,
                methods=post,
                needs=Role.OPERATOR,
                body=RestoreBody,
                answer=RestoreAnswer,
                status=202,
            ),
            Call(one, self.show, needs=Role.VIEWER, answer=RestoreAnswer),
            Call(f"{one}/cancel", self.cancel, methods=post, needs=Role.OPERATOR, answer=RestoreAnswer, status=202),
        ]

    async def list(self, request: Request) -> Response:
        """List restores, newest first."""
        found = sorted(self._service.restorations.all(), key=_age_of, reverse=True)
        answer = page_answer(request, found, _answer, _age_of, falls=True)
        return missing(answer, self._service.records.count("recoveries"))

    async def begin(self, request: Request) -> Response:
        """Have files of a set restored beneath a folder of this host; 202 with the id to ask for."""
        body, service = await body_of(request, RestoreBody), self._service
        target, paths = _path(body.target, "target"), _paths(body)
        if not target.startswith(b"/"):
            raise Invalid("value_error", ["body", "target"], "must be an absolute path", body.target)
        backup_set = service.ledger.backup_set(SetId(body.set_id))
        recovery = await new_restore(service, caller_of(request), backup_set, paths, target, over=body.overwrite)
        return json_answer(_answer(recovery), 202)

    async def show(self, request: Request) -> Response:
        """Show one restore, as far as it is."""
        return json_answer(_answer(self._service.restorations.find(str(request.path_params["id"]))))

    async def cancel(self, request: Request) -> Response:
        """Give a restore up; what it has written stays."""
        recovery_id = str(request.path_params["id"])
        await self._service.restorations.cancel(recovery_id)
        return json_answer(_answer(self._service.restorations.find(recovery_id)), 202)


def _paths(body: RestoreBody) -> tuple[bytes, ...]:
    """Return the paths, each once. Raises Invalid."""
    found = [_path(each, "paths") for each in body.paths]
    for text in body.paths_b64:
        try:
            found.append(_checked(b64decode(text, validate=True), "paths_b64", text))
        except binascii.Error as error:
            raise Invalid("value_error", ["body", "paths_b64"], f"is no base64: {error}", text) from error
    return tuple(dict.fromkeys(b"/" + each.strip(b"/") for each in found)) or (b"/",)


def _path(text: str, name: str) -> bytes:
    try:
        return _checked(text.encode(), name, text)
    except UnicodeEncodeError:
        raise Invalid("value_error", ["body", name], "is no UTF-8") from None


def _checked(path: bytes, name: str, text: str) -> bytes:
    if b"\0" in path or b".." in path.split(b"/"):
        raise Invalid("value_error", ["body", name], "must be a path without `..`", text)
    return path


def _age_of(recovery: Recovery) -> tuple[int, str]:
    return recovery.created_at_ns, recovery.recovery_id


def _answer(recovery: Recovery) -> RestoreAnswer:
    paths = recovery.paths[:_SHOWN]
    return RestoreAnswer(
        id=recovery.recovery_id,
        set_id=recovery.set_id,
        state=recovery.state,
        paths=[shown(path) for path in paths],
        paths_b64=[b64encode(path).decode() for path in paths],
        target=shown(recovery.target),
        overwrite=recovery.overwrites,
        files=recovery.files,
        files_total=recovery.files_total,
        bytes=recovery.bytes,
        bytes_total=recovery.bytes_total,
        not_restored=recovery.not_restored,
        error=recovery.error or None,
        created_by=recovery.created_by,
        created_at=moment(recovery.created_at_ns),
        started_at=moment(recovery.started_at_ns),
        finished_at=moment(recovery.finished_at_ns),
    )
