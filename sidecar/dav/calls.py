"""WebDAV under /dav, class 1, read-only: OPTIONS, PROPFIND, GET, HEAD; all other methods are refused. Trio."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from sidecar.dav.asking import DAV, Depth, depth_of, wanted_of
from sidecar.dav.listing import MEDIA_TYPE, Listing
from sidecar.dav.places import Place, Places
from sidecar.dav.properties import CONTENT_TYPE
from sidecar.http.answers import json_answer
from sidecar.http.callers import Role, caller_of
from sidecar.http.calls import Call
from sidecar.http.statuses import Forbidden
from sidecar.own.files import NOT_FETCHED, READ, RETRY_AFTER_S, may_fetch, to_stage
from sidecar.service import Service
from sidecar.view.content import FileAnswer, attachment
from sidecar.view.files import names_of
from sidecar.view.paths import ANY, path_in
from tapefs.errors import NoSuchThing
from tapefs.vfs.residency import State

ROOT = "/dav"
SERVED = "OPTIONS, PROPFIND, GET, HEAD"
#: Methods of WebDAV that would write. 403 and not 405: to 405 rclone, for one, takes a folder for made.
WRITING = ("PUT", "DELETE", "MKCOL", "COPY", "MOVE", "PROPPATCH")
#: What there is none of here: locks are class 2.
OTHERS = ("LOCK", "UNLOCK", "POST", "PATCH")
_HEADERS = {"DAV": "1", "MS-Author-Via": "DAV", "Allow": SERVED}
_ERROR = f'<?xml version="1.0" encoding="utf-8"?>\n<D:error xmlns:D="{DAV}"><D:propfind-finite-depth/></D:error>\n'


class DavCalls:
    """The archive for file managers, rclone and davfs2."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        # Windows asks the server's root before it asks for the folder that it was told.
        calls = [Call("/", self.options, needs=None, methods=["OPTIONS"])]
        for path in (ROOT, f"{ROOT}/{{path:{ANY}}}"):
            calls += [
                Call(path, self.options, needs=None, methods=["OPTIONS"]),
                Call(path, self.propfind, needs=Role.VIEWER, scopes=(READ,), methods=["PROPFIND"], status=207),
                Call(
                    path, self.content, needs=Role.VIEWER, scopes=(READ,), media=CONTENT_TYPE,
                    also=(206, 304, 405, 412, 416, 503),
                ),
                Call(path, self.refuse_writing, needs=Role.VIEWER, scopes=(READ,), methods=WRITING, status=403),
                Call(path, self.refuse, needs=Role.VIEWER, scopes=(READ,), methods=OTHERS, status=405),
            ]  # fmt: skip
        return calls

    async def options(self, request: Request) -> Response:
        """Tell WebDAV's clients what there is: class 1, without locks."""
        return Response(headers=_HEADERS)

    async def propfind(self, request: Request) -> Response:
        """Tell the properties of a file or a folder, and of what is in it."""
        places, path, place = await self._find(request)
        depth = depth_of(request.headers)
        wanted = wanted_of(await request.body())
        if depth is Depth.ALL and place.item.is_directory:
            return Response(_ERROR, 403, media_type=MEDIA_TYPE)
        listing = Listing(self._service.files, places, place, path, ROOT, wanted)
        answer = listing.answer(with_children=depth is Depth.CHILDREN)
        answer.headers.update({"DAV": "1", "Content-Location": listing.href})
        return answer

    async def content(self, request: Request) -> Response:
        """Send a file's bytes: ranges, conditions; what is on tape by the setting `[dav] cold`."""
        _, path, place = await self._find(request)
        if place.item.is_directory:
            return json_answer({"detail": "a folder of WebDAV has no content: open it with a client"}, 405, _HEADERS)
        files, item, caller = self._service.files, place.item, caller_of(request)
        more = {"Content-Disposition": attachment(path.rpartition(b"/")[2])}
        answer = FileAnswer(files, item, caller, request.headers, more=more)
        if request.method != "GET" or not answer.has_bytes or files.state(item) is State.ONLINE:
            return answer
        is_free = may_fetch(caller, item)
        if is_free and self._service.home.settings.dav.cold == "wait":
            return answer
        answer.close()
        if not is_free:
            raise Forbidden(NOT_FETCHED)
        await self._service.bulk.add_once([to_stage(item)], caller)
        # Not 202: clients of WebDAV take the body of any success for the file.
        detail = "it is on tape, and is being fetched: ask again"
        return json_answer({"detail": detail}, 503, {"Retry-After": str(RETRY_AFTER_S)})

    async def refuse_writing(self, request: Request) -> Response:
        """Refuse to change anything."""
        raise Forbidden("the archive can only be read")

    async def refuse(self, request: Request) -> Response:
        """Refuse what is not part of WebDAV's class 1, locks above all."""
        return json_answer({"detail": f"there is no {request.method} here: {SERVED}"}, 405, _HEADERS)

    async def _find(self, request: Request) -> tuple[Places, bytes, Place]:
        await self._service.files.refresh()
        places = Places(self._service.files, caller_of(request))
        raw = path_in(request.scope, ROOT)
        place = places.find(raw)
        if not place.item.is_directory and request.url.path.endswith("/"):
            raise NoSuchThing(f"{raw.decode(errors='replace')!r} is a file, not a folder")
        return places, b"/".join(names_of(raw)), place
