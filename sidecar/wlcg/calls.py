"""The calls of the WLCG Tape REST API. Trio.

A token of the grid has no role but scopes: `storage.stage:/path` lets it have files below the path staged,
`storage.poll:/path` lets it ask where they are, and how far its requests are.
"""

from __future__ import annotations

import socket
from typing import TypeVar

import trio
from starlette.requests import Request
from starlette.responses import Response

from catalog.errors import CatalogError
from catalog.stage_records import StageFile, StageRequest, StageState
from sidecar.http.answers import json_answer
from sidecar.http.callers import Caller, Role, caller_of
from sidecar.http.calls import Call
from sidecar.http.requests import Invalid, body_of
from sidecar.http.statuses import BadRequest, Forbidden
from sidecar.service import Service
from sidecar.view.access import covers
from sidecar.view.files import Item, names_of
from sidecar.wlcg.bulk import is_of
from sidecar.wlcg.models import (
    Accepted,
    ArchiveInfo,
    Discovery,
    Endpoint,
    PathsBody,
    Progress,
    StageBody,
    lifetime_s_of,
    progress_of,
)
from tapefs.errors import NoSuchThing, TapefsError
from tapefs.vfs.residency import State

ROOT = "/wlcg/v1"
STAGE, POLL = "storage.stage", "storage.poll"
#: Paths looked up between two looks at what else there is to do.
_PATHS = 50

T = TypeVar("T")


class WlcgCalls:
    """Staging for clients of the grid."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        one = f"{ROOT}/stage/{{id}}"
        return [
            Call("/.well-known/wlcg-tape-rest-api", self.discover, needs=None, answer=Discovery),
            Call(
                f"{ROOT}/stage", self.stage, methods=["POST"], needs=Role.OPERATOR, scopes=(STAGE,),
                body=StageBody, answer=Accepted, status=201,
            ),
            Call(one, self.show, needs=Role.VIEWER, scopes=(STAGE, POLL), answer=Progress),
            Call(one, self.delete, methods=["DELETE"], needs=Role.OPERATOR, scopes=(STAGE,)),
            Call(
                f"{one}/cancel", self.cancel, methods=["POST"], needs=Role.OPERATOR, scopes=(STAGE,), body=PathsBody
            ),
            Call(
                f"{ROOT}/release/{{id}}", self.release, methods=["POST"], needs=Role.OPERATOR, scopes=(STAGE,),
                body=PathsBody,
            ),
            Call(
                f"{ROOT}/archiveinfo", self.locate, methods=["POST"], needs=Role.VIEWER, scopes=(STAGE, POLL),
                body=PathsBody, answer=list[ArchiveInfo],
            ),
        ]  # fmt: skip

    async def discover(self, request: Request) -> Response:
        """Tell where the API is."""
        settings = self._service.home.settings.wlcg
        base = settings.uri.rstrip("/") or f"{request.url.scheme}://{request.url.netloc}"
        site = settings.sitename or socket.gethostname()
        return json_answer(Discovery(site, (Endpoint(base + ROOT, "v1"),), settings.description))

    async def stage(self, request: Request) -> Response:
        """Have files staged, and kept for their lifetime; 201 and the request's id."""
        caller, body = caller_of(request), await _body(request, StageBody)
        usual_s = self._service.home.settings.wlcg.lifetime_s
        files = []
        for number, wanted in enumerate(body.files):
            place: list[str | int] = ["body", "files", number, "diskLifetime"]
            try:
                lifetime_s = lifetime_s_of(wanted.disk_lifetime, place, usual_s)
            except Invalid as error:
                raise BadRequest(str(error)) from error
            files.append(self._checked(StageFile(path=wanted.path, lifetime_s=lifetime_s), caller))
            if number % _PATHS == 0:
                await trio.lowlevel.checkpoint()
        made = await self._service.bulk.add(files, caller)
        answer = json_answer(Accepted(made.request_id), 201)
        answer.headers["Location"] = str(request.url.replace(path=f"{ROOT}/stage/{made.request_id}", query=""))
        return answer

    def _checked(self, file: StageFile, caller: Caller) -> StageFile:
        """Return the file, as failed when its client may not have it. What else is wrong with it comes out later."""
        try:
            self._find(file.path, caller, STAGE)
        except Forbidden as error:
            return StageFile(
                path=file.path, lifetime_s=file.lifetime_s, state=StageState.FAILED, error=str(error),
                is_forbidden=True,
            )  # fmt: skip
        except (TapefsError, CatalogError):
            return file
        return file

    async def show(self, request: Request) -> Response:
        """Tell how far a request is."""
        caller = caller_of(request)
        found = self._service.bulk.request(str(request.path_params["id"]))
        if not _owns(caller, found) and not _sees_all(caller, found):
            raise _unknown(found)
        return json_answer(progress_of(found))

    async def delete(self, request: Request) -> Response:
        """Forget a request, and give up what of it is not staged yet."""
        await self._service.bulk.delete(self._mine(request).request_id)
        return Response(status_code=200)

    async def cancel(self, request: Request) -> Response:
        """Give up files of a request that are not staged yet."""
        mine = self._mine(request)
        body = await _body(request, PathsBody)
        _require_paths(mine, body.paths)
        await self._service.bulk.cancel(mine.request_id, body.paths)
        return Response(status_code=200)

    async def release(self, request: Request) -> Response:
        """Let files of a request go."""
        mine = self._mine(request)
        body = await _body(request, PathsBody)
        _require_paths(mine, body.paths)
        await self._service.bulk.release(mine.request_id, body.paths)
        return Response(status_code=200)

    async def locate(self, request: Request) -> Response:
        """Tell where files are: on disk, on tape, on both."""
        caller, body = caller_of(request), await _body(request, PathsBody)
        found = []
        await self._service.files.refresh()
        for number, path in enumerate(body.paths):
            found.append(self._info(path, caller))
            if number % _PATHS == 0:
                await trio.lowlevel.checkpoint()
        return json_answer(found)

    def _info(self, path: str, caller: Caller) -> ArchiveInfo:
        try:
            item = self._find(path, caller, POLL, STAGE)
            if not item.is_file:
                return ArchiveInfo(path, error="it is no regular file")
            return ArchiveInfo(path, locality=self._locality(item))
        except (TapefsError, CatalogError) as error:
            return ArchiveInfo(path, error=str(error))

    def _locality(self, item: Item) -> str:
        if not item.size_bytes:
            return "NONE"
        files, on_tape = self._service.files, self._service.files.is_on_tape(item)
        if files.state(item) is State.ONLINE:
            return "DISK_AND_TAPE" if on_tape else "DISK"
        if not on_tape:
            return "LOST"
        whereabouts = self._service.recalls.whereabouts
        is_away = any(whereabouts.is_away(frames.segment_id) for frames in files.frames(item))
        return "UNAVAILABLE" if is_away else "TAPE"

    def _find(self, path: str, caller: Caller, *scopes: str) -> Item:
        """Return what is at a path, if the caller has a role, or a scope that covers it. Raises Forbidden."""
        raw = path.encode("utf-8", "surrogateescape")
        names_of(raw)
        if caller.role is None:
            if not any(covers(caller, scope, raw) for scope in scopes):
                raise Forbidden(f"no scope of this token covers {path}")
            caller = Caller(caller.name, Role.ADMIN)
        return self._service.files.find(raw, caller)

    def _mine(self, request: Request) -> StageRequest:
        """Return the request in the path. Raises NoSuchThing; to others with nothing but scopes it is unknown, too."""
        found = self._service.bulk.request(str(request.path_params["id"]))
        if not _owns(caller_of(request), found):
            raise _unknown(found)
        return found


def _owns(caller: Caller, request: StageRequest) -> bool:
    """May he change it? His own, and with a role any."""
    return caller.role is not None or is_of(request, caller)


def _sees_all(caller: Caller, request: StageRequest) -> bool:
    """Do his scopes cover each file of it? Clients stage with one token, and ask with another."""
    paths = [file.path.encode("utf-8", "surrogateescape") for file in request.files]
    return all(any(covers(caller, scope, path) for scope in (POLL, STAGE)) for path in paths)


def _unknown(request: StageRequest) -> NoSuchThing:
    return NoSuchThing(f"there is no request {request.request_id}")


async def _body(request: Request, kind: type[T]) -> T:
    try:
        return await body_of(request, kind)
    except Invalid as error:
        raise BadRequest(str(error)) from error


def _require_paths(request: StageRequest, paths: list[str]) -> None:
    unknown = set(paths) - {file.path for file in request.files}
    if unknown:
        raise BadRequest(f"request {request.request_id} has no file {min(unknown)!r}")
