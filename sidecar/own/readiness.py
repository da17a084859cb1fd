"""GET /health/live and /health/ready: for supervisors and load balancers; they tell nothing else, and need no login."""

from __future__ import annotations

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from catalog.errors import CatalogError
from sidecar.http.answers import json_answer
from sidecar.http.calls import Call
from sidecar.service import Service

#: The ledger answers within microseconds; one that takes longer does not answer.
LEDGER_S = 5.0


class Readiness(msgspec.Struct, frozen=True):
    """Is work taken?"""

    status: str
    #: What is looked at, and whether it is well.
    checks: dict[str, bool]


class ReadinessCalls:
    """Alive, and ready."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call("/health/live", self.live, needs=None, answer=dict[str, str]),
            Call("/health/ready", self.ready, needs=None, answer=Readiness),
        ]

    async def live(self, request: Request) -> Response:
        """Say that the event loop turns."""
        return json_answer({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Say whether work is taken: 200, else 503."""
        drives = self._service.drives
        checks = {
            "ledger": await self._has_ledger(),
            "drives": any(not drive.health.is_hopeless for drive in drives),
            "started": all(drive.tried.is_set() for drive in drives),
        }
        is_ready = all(checks.values())
        return json_answer(Readiness("ready" if is_ready else "not ready", checks), 200 if is_ready else 503)

    async def _has_ledger(self) -> bool:
        with trio.move_on_after(LEDGER_S):
            try:
                await trio.to_thread.run_sync(self._service.ledger.installation, abandon_on_cancel=True)
            except CatalogError:
                return False
            return True
        return False
