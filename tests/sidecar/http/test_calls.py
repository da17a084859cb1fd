"""A call lets in who may make it; all routes of the application say who that is."""

from __future__ import annotations

from typing import Any, cast

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from sidecar.http.app import calls_of
from sidecar.http.callers import CALLER, NOBODY, Caller, Role, caller_of
from sidecar.http.calls import Call
from sidecar.http.statuses import Forbidden, Unauthorised
from sidecar.service import Service

#: Whoever is not in yet must be able to come in, and to go.
OPEN = {"/api/v1/session", "/api/user/login", "/api/user/logout"}
VIEWER = Caller("vera", Role.VIEWER)
OPERATOR = Caller("otto", Role.OPERATOR)
ADMIN = Caller("anna", Role.ADMIN)
STAGER = Caller("fts", None, scopes=frozenset({"storage.stage:/data"}))


#: They change nothing; what they ask is longer than an address may be. WebDAV refuses all methods that would.
ASKING = {"/wlcg/v1/archiveinfo", "/", "/dav", "/dav/{path:anypath}"}


class Parts:
    """A service whose parts are never used: families of calls only keep them."""

    def __getattr__(self, name: str) -> Parts:
        return self


async def answer(request: Request) -> Response:
    """Tell who calls.

    And nothing else.
    """
    return PlainTextResponse(caller_of(request).name)


async def ask(caller: Caller, method: str = "GET", **options: Any) -> httpx.Response:
    """Make one call as somebody."""
    inner = Starlette(routes=[Call("/x", answer, **options)])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope[CALLER] = caller
        await inner(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        return await client.request(method, "/x")


@pytest.mark.parametrize("caller", [NOBODY, STAGER, VIEWER, OPERATOR, ADMIN])
@pytest.mark.parametrize("needs", [None, *Role])
async def test_roles(caller: Caller, needs: Role | None) -> None:
    if needs is None or (caller.role or 0) >= needs:
        assert (await ask(caller, needs=needs)).text == caller.name
    else:
        with pytest.raises(Unauthorised if caller is NOBODY else Forbidden):
            await ask(caller, needs=needs)


async def test_a_scope_admits_where_the_call_knows_it() -> None:
    assert (await ask(STAGER, needs=Role.OPERATOR, scopes=("storage.stage",))).text == "fts"
    with pytest.raises(Forbidden):
        await ask(STAGER, needs=Role.OPERATOR, scopes=("storage.poll",))


async def test_another_method_is_refused_as_such() -> None:
    assert (await ask(NOBODY, "POST", needs=Role.ADMIN)).status_code == 405


def test_every_call_has_a_summary_and_nothing_unsafe_is_open() -> None:
    calls = calls_of(cast(Service, Parts()))
    assert len(calls) > 70
    for call in calls:
        assert isinstance(call, Call)
        assert call.summary, call.path
        if not set(call.methods or ()) <= {"GET", "HEAD"} and call.path not in OPEN | ASKING:
            assert (call.needs or 0) >= Role.OPERATOR, call.path
