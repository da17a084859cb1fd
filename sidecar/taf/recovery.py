"""TAF's /api/recovery/sets, also spelled /api/recovery/backup-sets."""

from __future__ import annotations

import re
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from catalog.records import BackupSet, SetState
from sidecar.answers import json_answer, moment
from sidecar.callers import Role
from sidecar.calls import Call
from sidecar.requests import Invalid, moment_of, page_of, text_of
from sidecar.service import Service


class RecoveryCalls:
    """What can be restored: complete sets only."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call("/api/recovery/sets", self.sets, needs=Role.VIEWER),
            Call("/api/recovery/backup-sets", self.sets, needs=Role.VIEWER),
        ]

    async def sets(self, request: Request) -> Response:
        """Show complete sets, newest first, filtered by month, tape and time."""
        group, tape = _group(request), text_of(request, "tape_id")
        start, end = moment_of(request, "date_from"), moment_of(request, "date_to", is_end=True)
        rows = [
            _row(backup_set)
            for backup_set in reversed(self._service.ledger.backup_sets())
            if backup_set.state is SetState.COMPLETE
            and (group is None or _group_of(backup_set) == group)
            and (tape is None or tape in backup_set.tapes)
            and _is_between(moment(backup_set.started_at_ns), start, end)
        ]
        if "limit" in request.query_params or "offset" in request.query_params:
            rows = list(page_of(request).cut(rows))
        return json_answer({"backup_sets": rows})


def _group(request: Request) -> str | None:
    group = text_of(request, "backup_group")
    if group is not None and not re.fullmatch(r"[0-9]{4}-(0[1-9]|1[0-2])", group):
        raise Invalid("value_error", ["query", "backup_group"], "must be a month, as 2026-11", group)
    return group


def _group_of(backup_set: BackupSet) -> str | None:
    started = moment(backup_set.started_at_ns)
    return started.strftime("%Y-%m") if started else None


def _is_between(at: datetime | None, start: datetime | None, end: datetime | None) -> bool:
    if at is None:
        return start is None and end is None
    return (start is None or at >= start) and (end is None or at <= end)


def _row(backup_set: BackupSet) -> dict[str, object]:
    stored, plain = backup_set.stored_bytes, backup_set.bytes
    return {
        "id": backup_set.number,
        "set_id": backup_set.set_id,
        "set_name": backup_set.name,
        "backup_group": _group_of(backup_set),
        "backup_type": backup_set.type,
        "backup_time": moment(backup_set.started_at_ns),
        "total_files": backup_set.files,
        "total_bytes": plain,
        "compressed_bytes": stored,
        "compression_ratio": round(stored / plain, 4) if plain else None,
        "tape_id": backup_set.tapes[0] if backup_set.tapes else None,
        "status": "active",
        "created_at": moment(backup_set.finished_at_ns),
    }
