"""GET /api/v1/status, GET /health and POST /api/v1/drives/{drive}/retry."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from sidecar.answers import json_answer, moment
from sidecar.callers import Role
from sidecar.calls import Call
from sidecar.health import Health
from sidecar.service import Service
from tapefs import __version__


class StatusCalls:
    """Who answers, and how the drives are."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call("/health", self.health, needs=Role.VIEWER),
            Call("/api/v1/status", self.status, needs=Role.VIEWER),
            Call("/api/v1/drives/{drive}/retry", self.retry, methods=["POST"], needs=Role.OPERATOR),
        ]

    async def health(self, request: Request) -> Response:
        """Tell that HTTP works, and whether every drive does."""
        states = {drive.name: drive.state for drive in self._service.drives}
        return json_answer({"status": "degraded" if "failed" in states.values() else "ok", "drives": states})

    async def status(self, request: Request) -> Response:
        """Tell everything about this sidecar and its drives."""
        service = self._service
        files = await trio.to_thread.run_sync(_files, service.home.drives, [d.name for d in service.drives])
        drives = [
            {
                "name": drive.name,
                "state": drive.state,
                "tape": drive.tape,
                "failure": _failure(drive.health),
                "note": drive.note or None,
                **files[drive.name],
            }
            for drive in service.drives
        ]
        return json_answer(
            {
                "version": __version__,
                "home": os.fsencode(service.home.path).decode("utf-8", "backslashreplace"),
                "pid": os.getpid(),
                "installation_id": service.ledger.installation().installation_id,
                "drives": drives,
                "warnings": service.access.warnings(),
            }
        )

    async def retry(self, request: Request) -> Response:
        """An operator says that a drive that has failed works again: it is tried at once. 202."""
        health = self._service.fleet.of(str(request.path_params["drive"]))
        health.retry()
        return json_answer({"name": health.name}, 202)


def _failure(health: Health) -> dict[str, object] | None:
    if not health.reason:
        return None
    return {
        "reason": health.reason,
        "since": moment(health.failed_at_ns),
        "stuck_tape": health.stuck or None,
        "set_aside": health.is_set_aside,
        "sentence": health.sentence(),
    }


def _files(folder: Path, names: list[str]) -> dict[str, dict[str, object]]:
    """Return by drive what its mover has left about it in HOME/drives; nothing before it has. Blocking."""
    found = {name: _read(folder / f"{name}.json") for name in names}
    return {
        name: {"compresses": file.get("compresses"), "counters": file.get("counters", {})}
        for name, file in found.items()
    }


def _read(path: Path) -> dict[str, object]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    except FileNotFoundError:
        return {}
