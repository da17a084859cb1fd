"""Files of the archive under /api/v1/files: what is there, its bytes, and folders as archives. Trio.

| path | answers |
|---|---|
| /api/v1/files/PATH | what is there, and a page of what is in it |
| /api/v1/content/PATH | its bytes |
| /api/v1/download/PATH?format= | a folder with all that is in it, as one archive |
| /api/v1/stagings/{id} | how far the staging is that a 202 has named |
"""

from __future__ import annotations

import stat
from datetime import datetime
from functools import partial
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from catalog.stage_records import StageFile
from sidecar.http.answers import json_answer, moment, shown
from sidecar.http.callers import Caller, Role, caller_of
from sidecar.http.calls import Call, Query
from sidecar.http.requests import LONGEST_PAGE, Invalid, number_of, page_of
from sidecar.http.statuses import Forbidden
from sidecar.http.turns import in_turns
from sidecar.service import Service
from sidecar.view.access import covers
from sidecar.view.bundle import FORMATS, Bundle
from sidecar.view.content import FileAnswer, attachment
from sidecar.view.files import Item
from sidecar.view.paths import ANY, path_in, url_of
from sidecar.wlcg.models import MOST_FILES, Progress, progress_of
from tapefs.errors import NoSuchThing, UsageError
from tapefs.vfs.nodes import KIND_NAMES
from tapefs.vfs.residency import State

LIST, CONTENT, DOWNLOAD = "/api/v1/files", "/api/v1/content", "/api/v1/download"
STAGINGS = "/api/v1/stagings"
PATH = f"/{{path:{ANY}}}"
READ = "storage.read"
NOT_FETCHED = "it is on tape, and this token may read what is on disk: fetching it takes the scope storage.stage"
#: A client that is told to come again does so after this.
RETRY_AFTER_S = 5
#: What was staged for a client stays so long.
LIFETIME_S = 3600


class FileView(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a name."""

    path: str
    #: For URLs: every byte of the path, escaped where it has to be.
    url_path: str
    name: str
    type: Annotated[str, msgspec.Meta(description="file, directory, symlink, fifo, socket or a device")]
    size: int
    #: As `chmod` takes it.
    mode: str
    uid: int
    gid: int
    modified: datetime | None
    etag: str
    #: Of a file: online, nearline, staging, offline or locked.
    state: str | None = None
    target: str | None = None
    sha256: str | None = None
    #: Labels of the tapes that hold it, one behind a comma.
    tapes: str | None = None


class FolderView(FileView, frozen=True, kw_only=True):
    """A folder, with a page of what is in it."""

    entries: list[FileView]
    #: What to send as `start` for the next page; null: this was the last.
    next: int | None


class ColdView(msgspec.Struct, frozen=True, kw_only=True):
    """The answer 202: it comes from tape first."""

    detail: str
    #: To be polled; its files are COMPLETED when they can be read.
    staging: str
    url: str


class FileCalls:
    """The archive for programs that have no mount."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        page = (
            Query("limit", "so many entries, at most 1,000", int),
            Query("start", "where the page begins: `next` of the one before", int),
        )
        wait = Query("wait", "`true`: answer when the bytes have come from tape, however long that takes")
        return [
            Call(LIST, self.show, needs=Role.VIEWER, scopes=(READ,), answer=FolderView, query=page),
            Call(
                LIST + PATH, self.show, needs=Role.VIEWER, scopes=(READ,), answer=FileView | FolderView,
                query=page,
            ),
            Call(CONTENT + PATH, self.content, needs=Role.VIEWER, scopes=(READ,), query=(wait,), media="*/*"),
            Call(
                DOWNLOAD + PATH, self.download, needs=Role.VIEWER, scopes=(READ,), media="*/*",
                query=(wait, Query("format", f"one of {', '.join(FORMATS)}")),
            ),
            Call(STAGINGS + "/{id}", self.staging, needs=Role.VIEWER, scopes=(READ,), answer=Progress),
        ]  # fmt: skip

    async def show(self, request: Request) -> Response:
        """Tell what is at a path, and of a folder a page of what is in it."""
        caller, files = caller_of(request), self._service.files
        await files.refresh()
        item = files.find(path_in(request.scope, LIST), caller)
        if not item.is_directory:
            return json_answer(self._view(item, in_full=True))
        start, limit = number_of(request, "start") or 0, min(page_of(request).limit, LONGEST_PAGE)
        found = await files.page(item, caller, start, limit + 1)
        entries = await in_turns(partial(self._view, in_full=False), [child for _, child in found[:limit]])
        following = found[limit - 1][0] if len(found) > limit else None
        fields = msgspec.structs.asdict(self._view(item, in_full=True))
        return json_answer(FolderView(**fields, entries=entries, next=following))

    async def content(self, request: Request) -> Response:
        """Send a file's bytes: ranges, conditions; 202 while it is on tape, unless `wait=true`."""
        caller = caller_of(request)
        await self._service.files.refresh()
        item, may_wait = self._service.files.find(path_in(request.scope, CONTENT), caller), _may_wait(request)
        answer = FileAnswer(
            self._service.files, item, caller, request.headers,
            more={"Content-Disposition": attachment(item.name)},
        )  # fmt: skip
        if answer.has_bytes and request.method == "GET" and (not may_wait or caller.role is None):
            cold = self._cold([item])
            if cold and not (may_wait and may_fetch(caller, item)):
                answer.close()
                return await self._come_again(cold, caller)
        return answer

    async def download(self, request: Request) -> Response:
        """Send a folder, or a file, as one archive; 202 while any of it is on tape, unless `wait=true`."""
        caller, files = caller_of(request), self._service.files
        kind = request.query_params.get("format", FORMATS[0])
        if kind not in FORMATS:
            raise Invalid("value_error", ["query", "format"], f"is one of {', '.join(FORMATS)}", kind)
        await files.refresh()
        top = files.find(path_in(request.scope, DOWNLOAD), caller)
        files.require_readable(top, caller)
        bundle = Bundle(files, top, caller, kind)
        inside = await bundle.look()
        may_wait = _may_wait(request)
        if request.method == "GET" and (not may_wait or caller.role is None):
            cold = self._cold(inside)
            if may_wait and all(may_fetch(caller, item) for item in cold):
                return bundle.answer()
            if len(cold) > MOST_FILES:
                raise UsageError(f"{len(cold):,} files are on tape: stage them first, or ask with `wait=true`")
            if cold:
                return await self._come_again(cold, caller)
        return bundle.answer()

    async def staging(self, request: Request) -> Response:
        """Tell how far a staging is that an answer 202 has named."""
        caller = caller_of(request)
        found = self._service.bulk.request(str(request.path_params["id"]))
        if found.owner != caller.name and caller.role is not Role.ADMIN:
            raise NoSuchThing(f"there is no staging {found.request_id}")
        return json_answer(progress_of(found))

    # -- inside ------------------------------------------------------------------------------------------------------

    def _view(self, item: Item, *, in_full: bool) -> FileView:
        """Return what is told; places and checksums only where somebody asks about this one."""
        files, is_ours = self._service.files, in_full and item.is_file and bool(item.set_id)
        return FileView(
            path="/" + shown(item.path),
            url_path=url_of(item.path),
            name=shown(item.name),
            type=KIND_NAMES.get(stat.S_IFMT(item.mode), "file"),
            size=item.size_bytes,
            mode=f"{stat.S_IMODE(item.mode):04o}",
            uid=item.uid,
            gid=item.gid,
            modified=moment(item.mtime_ns),
            etag=item.tag,
            state=files.state(item).value if item.is_file else None,
            target=shown(item.target) if item.target else None,
            sha256=files.attribute(item, "user.tapefs.sha256") if is_ours else None,
            tapes=files.attribute(item, "user.tapefs.tape") if is_ours else None,
        )

    def _cold(self, items: list[Item]) -> list[Item]:
        return [item for item in items if self._service.files.state(item) is not State.ONLINE]

    async def _come_again(self, items: list[Item], caller: Caller) -> Response:
        """Have files staged and say where to ask how far that is. Raises Forbidden."""
        if not all(may_fetch(caller, item) for item in items):
            raise Forbidden(NOT_FETCHED)
        wanted = [to_stage(item) for item in items]
        request = await self._service.bulk.add_once(wanted, caller)
        url = f"{STAGINGS}/{request.request_id}"
        detail = f"it is on tape, and is being fetched: ask {url} until it is complete, then ask again"
        answer = json_answer(ColdView(detail=detail, staging=request.request_id, url=url), 202)
        answer.headers.update({"Location": url, "Retry-After": str(RETRY_AFTER_S)})
        return answer


def may_fetch(caller: Caller, item: Item) -> bool:
    """May a tape move for it? Of who has no role the scopes tell: `storage.read` is for what is on disk."""
    return caller.role is not None or covers(caller, "storage.stage", item.path)


def to_stage(item: Item) -> StageFile:
    """Return what has a file staged for a client that comes again."""
    try:
        return StageFile(path="/" + item.path.decode(), lifetime_s=LIFETIME_S)
    except UnicodeDecodeError:
        return StageFile(path="/" + shown(item.path), raw=item.path, lifetime_s=LIFETIME_S)


def _may_wait(request: Request) -> bool:
    text = request.query_params.get("wait", "false")
    if text not in ("true", "false"):
        raise Invalid("bool_parsing", ["query", "wait"], "is true or false", text)
    return text == "true"
