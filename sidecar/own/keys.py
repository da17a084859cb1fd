"""Unlocking keys, under /api/v1/keys: `tapefs key` uses them. Secrets come over the Unix socket only."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from sidecar.http.answers import json_answer
from sidecar.http.callers import Role
from sidecar.http.calls import Call
from sidecar.http.listeners import CONNECTION, Connection
from sidecar.http.requests import body_of
from sidecar.service import Service
from tapefs.errors import NoSuchThing, UsageError
from tapefs.keys.identity import Identity


class UnlockBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/keys."""

    #: AGE-SECRET-KEY-1…
    secret: str

    def __repr__(self) -> str:
        return "UnlockBody()"


class Unlocked(msgspec.Struct, frozen=True):
    """Fingerprints of the keys that are unlocked."""

    unlocked: list[str]


class KeyCalls:
    """Which keys are unlocked."""

    def __init__(self, service: Service) -> None:
        self._unlocking = service.unlocking

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call("/api/v1/keys", self.list, needs=Role.VIEWER, answer=Unlocked),
            Call("/api/v1/keys", self.unlock, methods=["POST"], needs=Role.ADMIN, body=UnlockBody, status=204),
            Call("/api/v1/keys/{fingerprint}", self.lock, methods=["DELETE"], needs=Role.ADMIN, status=204),
        ]

    async def list(self, request: Request) -> Response:
        """Show the fingerprints of the keys that are unlocked."""
        return json_answer(Unlocked(self._unlocking.fingerprints()))

    async def unlock(self, request: Request) -> Response:
        """Take a secret into memory; 204. 422 over TCP, where others might listen."""
        connection: Connection = request.scope[CONNECTION]
        if connection.peer is None:
            raise UsageError("keys are unlocked over the Unix socket only: use `tapefs key unlock` on this host")
        body = await body_of(request, UnlockBody)
        await self._unlocking.unlock(Identity.parse(body.secret))
        return Response(status_code=204)

    async def lock(self, request: Request) -> Response:
        """Forget a secret; 204, or 404 when it was not unlocked."""
        fingerprint = str(request.path_params["fingerprint"])
        if not await self._unlocking.lock(fingerprint):
            raise NoSuchThing(f"key {fingerprint} is not unlocked")
        return Response(status_code=204)
