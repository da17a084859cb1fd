"""TAF's /api/system/info, version, health, statistics and logs."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import msgspec
import trio
from msgspec import structs
from starlette.requests import Request
from starlette.responses import Response

from catalog.errors import CatalogError
from sidecar.http.answers import json_answer, moment, shown
from sidecar.http.callers import Role
from sidecar.http.calls import Call, Query
from sidecar.http.requests import moment_of, number_of, page_of, text_of
from sidecar.service import Service
from sidecar.taf.statistics import figures
from sidecar.taf.status_models import (
    CompressionInfo,
    DatabaseInfo,
    Figures,
    HealthChecks,
    OperationDetails,
    OperationRow,
    Pagination,
    SystemHealth,
    SystemInfo,
    SystemLogs,
    SystemRow,
    SystemStatistics,
    SystemVersion,
)
from tapefs import __version__
from tapefs.audit import Entry, files_of
from tapefs.log_ring import RING, LogLine

APP_NAME = "tapefs"
#: Of an audit log so many of the newest lines are looked at.
LOOKED_AT = 20_000

_LEVELS = {"done": "INFO", "begun": "INFO", "refused": "WARNING", "failed": "ERROR"}
Row = OperationRow | SystemRow


class SystemCalls:
    """TAF's."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._figures: tuple[int, float, Figures] | None = None

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        filters = tuple(
            Query(name, meaning)
            for name, meaning in (
                ("category", "as the rows have it"),
                ("level", "INFO, WARNING, ERROR, CRITICAL"),
                ("operation_type", "POST, PUT, PATCH or DELETE"),
                ("resource_type", "first word of the path behind /api"),
                ("user_id", "uid of who did it"),
                ("start_time", "since then"),
                ("end_time", "until then"),
                ("limit", "at most"),
                ("offset", "behind so many"),
            )
        )
        return [
            Call("/api/system/info", self.info, needs=Role.VIEWER, answer=SystemInfo),
            Call("/api/system/version", self.version, needs=Role.VIEWER, answer=SystemVersion),
            Call("/api/system/health", self.health, needs=Role.VIEWER, answer=SystemHealth),
            Call("/api/system/statistics", self.statistics, needs=Role.VIEWER, answer=SystemStatistics),
            Call("/api/system/logs", self.logs, needs=Role.ADMIN, query=filters, answer=SystemLogs),
        ]

    async def info(self, request: Request) -> Response:
        """Tell what runs here."""
        home = self._service.home
        return json_answer(
            SystemInfo(
                app_name=APP_NAME,
                version=__version__,
                python_version=platform.python_version(),
                platform=platform.platform(),
                database=DatabaseInfo(type="lmdb", path=shown(os.fsencode(home.ledger))),
                compression=CompressionInfo(method="zstd", threads=home.settings.backup.threads or os.cpu_count() or 1),
            )
        )

    async def version(self, request: Request) -> Response:
        """Tell the version."""
        return json_answer(SystemVersion(version=__version__, app_name=APP_NAME))

    async def health(self, request: Request) -> Response:
        """Tell how the parts are."""
        try:
            await trio.to_thread.run_sync(self._service.ledger.installation)
            database, scheduler = "healthy", await trio.to_thread.run_sync(self._service.scheduler.health)
        except CatalogError:
            database = scheduler = "unhealthy"
        drives = self._service.drives
        broken = [drive.name for drive in drives if drive.health.reason]
        tape = "healthy" if not broken else "degraded" if len(broken) < len(drives) else "unhealthy"
        checks = HealthChecks(database=database, tape_drive=tape, scheduler=scheduler)
        states = (database, tape, scheduler)
        worst = next((state for state in ("unhealthy", "degraded") if state in states), "healthy")
        return json_answer(SystemHealth(worst, checks))

    async def statistics(self, request: Request) -> Response:
        """Tell how much there is, and how it went."""
        found = await trio.to_thread.run_sync(self._counted)
        return json_answer(SystemStatistics(uptime=int(self._service.lag.uptime_s()), **structs.asdict(found)))

    def _counted(self) -> Figures:
        """Count, if the ledger has changed since, or a minute is over. Blocking."""
        service, now_s = self._service, time.monotonic()
        event = service.ledger.newest_event()
        if self._figures is not None and self._figures[0] == event and now_s - self._figures[1] < 60:
            return self._figures[2]
        codes = [each.code for each in service.ledger.volumes() if service.library.place_of(each.code) is not None]
        found = figures(service.home, service.ledger, codes, time.time_ns())
        self._figures = event, now_s, found
        return found

    async def logs(self, request: Request) -> Response:
        """Show what was done (the audit log) and what went wrong (the newest warnings and errors), newest first."""
        page = page_of(request)
        rows = await trio.to_thread.run_sync(self._rows, _filter_of(request))
        cut = list(rows[page.offset : page.offset + page.limit])
        has_more = len(rows) > page.offset + page.limit
        paging = Pagination(page.limit, page.offset, has_more)
        return json_answer(SystemLogs(success=True, total=len(cut), logs=cut, pagination=paging))

    def _rows(self, wanted: _Filter) -> list[Row]:
        """Blocking."""
        operations = (operation_row(entry) for entry in newest_entries(self._service.home.audit))
        system = (system_row(line) for line in RING.newest_first())
        every: Iterator[Row] = chain(operations, system)
        rows = [row for row in every if wanted.fits(row)]
        return sorted(rows, key=lambda row: row.timestamp, reverse=True)


class _Filter:
    """What of the logs is wanted."""

    def __init__(self, texts: dict[str, str], user_id: int | None, since: datetime | None, until: datetime | None):
        self._texts, self._user_id, self._since, self._until = texts, user_id, since, until

    def fits(self, row: Row) -> bool:
        """Is this row wanted?"""
        if any(str(getattr(row, name, "")).lower() != text.lower() for name, text in self._texts.items()):
            return False
        if self._user_id is not None and row.user_id != self._user_id:
            return False
        at = datetime.fromisoformat(row.timestamp)
        return (self._since is None or at >= self._since) and (self._until is None or at <= self._until)


def _filter_of(request: Request) -> _Filter:
    names = ("category", "level", "operation_type", "resource_type")
    texts = {name: text for name in names if (text := text_of(request, name)) is not None}
    since, until = moment_of(request, "start_time"), moment_of(request, "end_time", is_end=True)
    return _Filter(texts, number_of(request, "user_id"), since, until)


def newest_entries(folder: Path) -> Iterator[Entry]:
    """Yield the newest entries of the audit log, newest first, LOOKED_AT at most. Blocking."""
    left = LOOKED_AT
    for path in reversed(files_of(folder)):
        for line in reversed(path.read_bytes().splitlines()):
            if not left:
                return
            left -= 1
            try:
                yield msgspec.json.decode(line, type=Entry)
            except msgspec.DecodeError:
                continue  # `tapefs audit verify` tells of it.


def operation_row(entry: Entry) -> OperationRow:
    """Return a row of TAF's operation log."""
    method, _, path = entry.operation.partition(" ")
    words = [word for word in path.split("/") if word and word not in ("api", "v1")]
    is_good = entry.outcome in ("done", "begun")
    return OperationRow(
        id=entry.number,
        timestamp=_local(entry.at),
        level=_LEVELS.get(entry.outcome, "INFO"),
        category=words[0] if words else "system",
        operation_type=method,
        resource_type=words[0] if words else "",
        resource_id=entry.resource.rpartition("/")[2],
        resource_name=entry.resource,
        user_id=entry.uid,
        username=entry.who,
        operation_name=entry.operation,
        operation_description=f"{entry.who}: {entry.operation}",
        success=is_good,
        result_message=entry.outcome,
        error_message=entry.error or (None if is_good else f"status {entry.status}"),
        ip_address=entry.address or None,
        duration_ms=entry.duration_ms,
        details=OperationDetails(
            request_method=method,
            request_url=entry.resource,
            response_status=entry.status,
            request_id=entry.request,
            old_values=entry.old,
            new_values=entry.new,
        ),
    )


def system_row(line: LogLine) -> SystemRow:
    """Return a row of TAF's system log."""
    return SystemRow(
        id=line.number,
        timestamp=at.isoformat() if (at := moment(line.at_ns)) else "",
        level=line.level,
        category=line.logger.partition(".")[0],
        message=line.text,
        module=line.module,
        function=line.function,
        file_path=line.path,
        line_number=line.line,
        task_id=line.facts.get("job"),
        details=line.facts,
        exception_type=line.exception or None,
        stack_trace=line.trace or None,
    )


def _local(at: str) -> str:
    return datetime.fromisoformat(at.replace("Z", "+00:00")).astimezone(UTC).astimezone().isoformat()
