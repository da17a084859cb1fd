"""TAF's /api/system/file-system/…: what can be chosen as a source. Only folders of `[access] sources` are shown.

They are gone into name by name, following no link, through descriptors: nothing outside of them is ever listed.
"""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Sequence
from datetime import datetime

import trio
from starlette.requests import Request
from starlette.responses import Response

from sidecar.http.answers import json_answer, moment, shown
from sidecar.http.callers import Role
from sidecar.http.calls import Call, Query
from sidecar.http.requests import Invalid, page_of
from sidecar.http.statuses import Forbidden
from sidecar.service import Service
from sidecar.taf.system_models import DriveRow, DriveRows, PathRow, PathRows
from sidecar.taf.tape_work import required
from tapefs.access.places import is_escape, open_target, root_of
from tapefs.errors import NoSuchThing, SourceError

_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}


class HostFileCalls:
    """Folders of this host."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        base = "/api/system/file-system"
        where = (
            Query("path", "an absolute path in a folder of [access] sources", is_required=True),
            Query("limit", "at most", int),
            Query("offset", "behind so many", int),
        )
        return [
            Call(f"{base}/drives", self.drives, needs=Role.OPERATOR, answer=DriveRows),
            Call(f"{base}/list", self.list, needs=Role.OPERATOR, answer=PathRows, query=where),
        ]

    async def drives(self, request: Request) -> Response:
        """Show the folders that may be backed up."""
        return json_answer(DriveRows(await trio.to_thread.run_sync(_roots, self._sources)))

    async def list(self, request: Request) -> Response:
        """Show some of what is in a folder, by name."""
        text, page = required(request, "path"), page_of(request)
        path = os.fsencode(text)
        if not path.startswith(b"/") or b"\0" in path or b".." in path.split(b"/"):
            raise Invalid("value_error", ["query", "path"], "must be an absolute path without `..`", text)
        root = root_of(path, self._sources)
        if root is None:
            raise Forbidden(f"{shown(path)} is in no folder of [access] sources in tapefs.toml: only those are listed")
        rows = await trio.to_thread.run_sync(_list, path, self._sources, page.limit, page.offset)
        plain = b"/" + b"/".join(name for name in path.split(b"/") if name not in (b"", b"."))
        parent = None if plain == root else shown(os.path.dirname(plain))
        return json_answer(PathRows(shown(plain), rows, parent))

    @property
    def _sources(self) -> Sequence[str]:
        return self._service.home.settings.access.sources


def _roots(sources: Sequence[str]) -> list[DriveRow]:
    """Blocking."""
    return [
        DriveRow(each, os.path.basename(each.rstrip("/")) or each, "folder", os.path.isdir(each)) for each in sources
    ]


def _list(path: bytes, sources: Sequence[str], limit: int, offset: int) -> list[PathRow]:
    """Blocking. Raises Forbidden, NoSuchThing, SourceError."""
    try:
        folder = open_target(path, sources)
    except OSError as error:
        if is_escape(error):
            raise Forbidden(f"{shown(path)} leads elsewhere by a symbolic link, or is no folder") from error
        if isinstance(error, FileNotFoundError):
            raise NoSuchThing(f"there is no {shown(path)}") from error
        raise SourceError(f"{shown(path)} cannot be read: {error.strerror}") from error
    try:
        names = heapq.nsmallest(offset + limit, os.listdir(folder))[offset:]
        rows = [_row(folder, path, os.fsencode(name)) for name in names]
    except OSError as error:
        raise SourceError(f"{shown(path)} cannot be read: {error.strerror}") from error
    finally:
        os.close(folder)
    return [row for row in rows if row is not None]


def _row(folder: int, above: bytes, name: bytes) -> PathRow | None:
    """Return a row; None for what has gone meanwhile."""
    try:
        found = os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        return None
    is_link = stat.S_ISLNK(found.st_mode)
    return PathRow(
        name=shown(name),
        path=shown(above.rstrip(b"/") + b"/" + name),
        type=_KINDS.get(stat.S_IFMT(found.st_mode), "other"),
        size=found.st_size,
        modified=_time(found.st_mtime_ns),
        readable=not is_link and os.access(name, os.R_OK, dir_fd=folder, effective_ids=True),
        writable=not is_link and os.access(name, os.W_OK, dir_fd=folder, effective_ids=True),
    )


def _time(at_ns: int) -> datetime | None:
    try:
        return moment(at_ns)
    except (OverflowError, ValueError, OSError):
        return None
