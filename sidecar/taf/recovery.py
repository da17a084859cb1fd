"""TAF's /api/recovery/sets and what is in them, also spelled /api/recovery/backup-sets."""

from __future__ import annotations

import re
from datetime import datetime
from functools import partial

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from catalog.records import BackupSet, SetState
from sidecar.http.answers import json_answer, moment
from sidecar.http.callers import Role, caller_of
from sidecar.http.calls import Call, Query
from sidecar.http.requests import LONGEST_PAGE, Invalid, Page, moment_of, page_of, text_of
from sidecar.service import Service
from sidecar.taf.browsing import FileRow, ItemRow, files, items, path_of, set_called

#: Of months so many are shown, the newest.
MONTHS = 12
_PAGE = (Query("limit", f"at most; {LONGEST_PAGE} is the most", int), Query("offset", "behind so many", int))


class SetRow(msgspec.Struct, frozen=True, kw_only=True):
    """A set that can be restored."""

    id: int
    set_id: str
    set_name: str
    backup_group: str | None
    backup_type: str
    backup_time: datetime | None
    total_files: int
    total_bytes: int
    compressed_bytes: int
    compression_ratio: float | None
    tape_id: str | None
    status: str
    created_at: datetime | None


class Sets(msgspec.Struct, frozen=True):
    """Sets, the newest first."""

    backup_sets: list[SetRow]


class FilePage(msgspec.Struct, frozen=True, kw_only=True):
    """Some files of a set. TAF sends all at once; what is behind `files` tells where to go on."""

    files: list[FileRow]
    total: int
    limit: int
    offset: int
    has_more: bool


class Items(msgspec.Struct, frozen=True):
    """What is in a folder."""

    items: list[ItemRow]


class Groups(msgspec.Struct, frozen=True):
    """Months with sets, the newest first."""

    backup_groups: list[str]


class RecoveryCalls:
    """What can be restored: complete sets only."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        get = partial(Call, needs=Role.VIEWER)
        filters = (
            Query("backup_group", "a month: 2026-11"),
            Query("tape_id", "label of a tape that they lie on"),
            Query("date_from", "since then"),
            Query("date_to", "until then; a date means its whole day"),
        )
        where = (Query("path", "the folder, as the listing of the one above has it; empty for the top"), *_PAGE)
        found = []
        for base in ("/api/recovery/sets", "/api/recovery/backup-sets"):
            one = f"{base}/{{backup_set_id}}"
            found += [
                get(base, self.sets, answer=Sets, query=(*filters, *_PAGE)),
                get(f"{one}/files", self.files, answer=FilePage, query=_PAGE),
                get(f"{one}/top-level", self.top_level, answer=Items, query=_PAGE),
                get(f"{one}/directory", self.directory, answer=Items, query=where),
                get(f"{one}/groups", self.groups_of_set, answer=Groups),
            ]
        return [*found, get("/api/recovery/backup-groups", self.groups, answer=Groups)]

    async def sets(self, request: Request) -> Response:
        """Show complete sets, newest first, filtered by month, tape and time."""
        group, tape = group_in(request), text_of(request, "tape_id")
        start, end = moment_of(request, "date_from"), moment_of(request, "date_to", is_end=True)
        is_paged = "limit" in request.query_params or "offset" in request.query_params
        page = page_of(request)

        def read() -> Response:
            """All of it in a thread: 10,000 sets take 0.2 s."""
            found = [
                backup_set
                for backup_set in reversed(self._service.ledger.backup_sets())
                if backup_set.state is SetState.COMPLETE
                and (group is None or group_of(backup_set) == group)
                and (tape is None or tape in backup_set.tapes)
                and _is_between(moment(backup_set.started_at_ns), start, end)
            ]
            return json_answer(Sets([_row(each) for each in (page.cut(found) if is_paged else found)]))

        return await trio.to_thread.run_sync(read)

    async def files(self, request: Request) -> Response:
        """Show a page of the files of a set."""
        page, backup_set = _page(request), await self._set(request)
        work = partial(files, self._service.home, backup_set, caller_of(request), page.limit, page.offset)
        found = await trio.to_thread.run_sync(work)
        answer = FilePage(
            files=found.rows, total=backup_set.files, limit=page.limit, offset=page.offset, has_more=found.has_more
        )
        return json_answer(answer)

    async def top_level(self, request: Request) -> Response:
        """Show what is at the top of a set."""
        return await self._items(request, b"")

    async def directory(self, request: Request) -> Response:
        """Show what is in a folder of a set."""
        return await self._items(request, path_of(request.query_params.get("path", "")))

    async def _items(self, request: Request, path: bytes) -> Response:
        page, backup_set = _page(request), await self._set(request)
        work = partial(items, self._service.home, backup_set, caller_of(request), path, page.limit, page.offset)
        return json_answer(Items(await trio.to_thread.run_sync(work)))

    async def groups(self, request: Request) -> Response:
        """Show the newest months with sets."""
        months = await trio.to_thread.run_sync(self._months)
        return json_answer(Groups(sorted((each for each in months if each), reverse=True)[:MONTHS]))

    async def groups_of_set(self, request: Request) -> Response:
        """Show the newest months with sets, as `backup-groups` does; 404 when there is no such set."""
        await self._set(request)
        return await self.groups(request)

    def _months(self) -> set[str | None]:
        return {group_of(each) for each in self._service.ledger.backup_sets() if each.state is SetState.COMPLETE}

    async def _set(self, request: Request) -> BackupSet:
        name = str(request.path_params["backup_set_id"])
        return await trio.to_thread.run_sync(set_called, self._service.ledger, name)


def group_of(backup_set: BackupSet) -> str | None:
    """Return the month of a set, by local time."""
    started = moment(backup_set.started_at_ns)
    return started.strftime("%Y-%m") if started else None


def group_in(request: Request) -> str | None:
    """Return the month that a request names. Raises Invalid."""
    group = text_of(request, "backup_group")
    if group is not None and not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", group):
        raise Invalid("value_error", ["query", "backup_group"], "must be a month, as 2026-11", group)
    return group


def _page(request: Request) -> Page:
    """Return which part is wanted: of TAF's lists that are not paged as much as goes."""
    page = page_of(request)
    return page if "limit" in request.query_params else Page(LONGEST_PAGE, page.offset)


def _is_between(at: datetime | None, start: datetime | None, end: datetime | None) -> bool:
    if at is None:
        return start is None and end is None
    return (start is None or at >= start) and (end is None or at <= end)


def _row(backup_set: BackupSet) -> SetRow:
    stored, plain = backup_set.stored_bytes, backup_set.bytes
    return SetRow(
        id=backup_set.number,
        set_id=backup_set.set_id,
        set_name=backup_set.name,
        backup_group=group_of(backup_set),
        backup_type=backup_set.type,
        backup_time=moment(backup_set.started_at_ns),
        total_files=backup_set.files,
        total_bytes=plain,
        compressed_bytes=stored,
        compression_ratio=round(stored / plain, 4) if plain else None,
        tape_id=backup_set.tapes[0] if backup_set.tapes else None,
        status="active",
        created_at=moment(backup_set.finished_at_ns),
    )
