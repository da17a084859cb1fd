"""Sessions of browsers under /api/v1/session, and who one is."""

from __future__ import annotations

from datetime import datetime

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from catalog.access_records import CredentialKind
from sidecar.access.cookies import cookie
from sidecar.access.digests import csrf_token_of
from sidecar.access.gate import ORIGIN, PROOF
from sidecar.access.logins import let_in
from sidecar.access.registry import Proof
from sidecar.http.answers import json_answer, moment
from sidecar.http.callers import caller_of
from sidecar.http.calls import Call
from sidecar.http.requests import body_of
from sidecar.http.statuses import Unauthorised
from sidecar.service import Service
from tapefs.errors import UsageError


class LoginBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/session."""

    name: str
    password: str

    def __repr__(self) -> str:
        return "LoginBody()"


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """Who one is."""

    name: str
    #: Empty: only what the scopes say.
    role: str
    uid: int | None
    scopes: list[str]
    #: Of a session or a token that runs out.
    expires_at: datetime | None = None
    #: Of a session: what has to come in X-CSRF-Token with everything that changes something.
    csrf_token: str | None = None


class SessionCalls:
    """Coming, going, and who is there."""

    def __init__(self, service: Service) -> None:
        self._access = service.access

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        path = "/api/v1/session"
        return [
            Call(path, self.show, needs=None, answer=SessionView, errors=(401,)),
            Call(path, self.begin, methods=["POST"], needs=None, body=LoginBody, answer=SessionView, errors=(401, 403)),
            Call(path, self.end, methods=["DELETE"], needs=None, status=204, errors=(401, 403)),
        ]

    async def show(self, request: Request) -> Response:
        """Tell who calls."""
        caller = caller_of(request)
        if caller.role is None and not caller.scopes:
            raise Unauthorised("nobody has said who he is: POST a name and a password, or send a token")
        proof: Proof | None = request.scope.get(PROOF)
        credential = proof.credential if proof is not None else None
        is_session = credential is not None and credential.kind is CredentialKind.SESSION
        view = SessionView(
            name=caller.name,
            role=caller.role.name.lower() if caller.role is not None else "",
            uid=caller.uid,
            scopes=sorted(caller.scopes),
            expires_at=moment(credential.expires_at_ns) if credential is not None else None,
            csrf_token=csrf_token_of(proof.secret) if proof is not None and is_session else None,
        )
        return _private(json_answer(view))

    async def begin(self, request: Request) -> Response:
        """Begin a session: the answer sets its cookie."""
        origin = request.scope.get(ORIGIN)
        if origin is None:
            raise UsageError("sessions are for TCP: the Unix socket knows who calls")
        body, access = await body_of(request, LoginBody), self._access
        user, credential, secret = await let_in(
            access, body.name, body.password, caller_of(request), CredentialKind.SESSION
        )
        await self._end_old(request)
        view = SessionView(
            name=user.name,
            role=user.role.value,
            uid=user.uid,
            scopes=[],
            expires_at=moment(credential.expires_at_ns),
            csrf_token=csrf_token_of(secret),
        )
        longest_s = access.sessions.longest_hours * 3600
        answer = _private(json_answer(view))
        answer.headers["set-cookie"] = cookie(secret, is_encrypted=origin.is_encrypted, longest_s=longest_s)
        return answer

    async def end(self, request: Request) -> Response:
        """End the session or login that the request came with; harmless when there is none."""
        await self._end_old(request)
        answer = Response(status_code=204)
        origin = request.scope.get(ORIGIN)
        if origin is not None:
            answer.headers["set-cookie"] = cookie("", is_encrypted=origin.is_encrypted, longest_s=0)
        return answer

    async def _end_old(self, request: Request) -> None:
        proof: Proof | None = request.scope.get(PROOF)
        if proof is not None and proof.credential.kind is not CredentialKind.TOKEN:
            await self._access.registry.revoke([proof.credential.credential_id])


def _private(answer: Response) -> Response:
    answer.headers["cache-control"] = "no-store"
    return answer
