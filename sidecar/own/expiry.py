"""/api/v1/expire: which sets may go, and letting them go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from catalog.ids import SetId
from sidecar.http.answers import json_answer
from sidecar.http.callers import Role
from sidecar.http.calls import CURSOR, PAGE, Call, Query
from sidecar.http.paging import part_of
from sidecar.http.requests import Invalid, Uuid, body_of, converted, text_of
from sidecar.service import Service
from tapefs.client.api import Expired, SetVerdict
from tapefs.retention.expire import expire, verdicts_of
from tapefs.retention.policy import NOTHING_MORE, Verdict, Wish

#: Verdicts on 10,000 sets take most of a second: whoever goes on to the next page finds those of the first.
KEPT_S = 60.0
_WISH = (
    Query("failed", "`true`: what failed goes at once"),
    Query("sets", "ids of sets that go whatever their age, with commas between them"),
)


class ExpireBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/expire."""

    #: Let go of what failed at once.
    failed: bool = False
    #: Let go of these whatever their age.
    sets: list[Uuid] = []

    def wish(self) -> Wish:
        """Return what it asks for."""
        return Wish(named=frozenset(map(SetId, self.sets)), failed=self.failed)


class Verdicts(msgspec.Struct, frozen=True):
    """What would become of sets, by number."""

    verdicts: list[SetVerdict]


class ExpiryCalls:
    """Retention, as our own programs see it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        #: Two at once would only do the same.
        self._working = trio.Lock()
        self._known: Sequence[Verdict] = ()
        self._known_wish = NOTHING_MORE
        self._known_until = -math.inf

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call("/api/v1/expire", self.show, needs=Role.VIEWER, answer=Verdicts, query=(*_WISH, *PAGE)),
            Call("/api/v1/expire", self.expire, methods=["POST"], needs=Role.ADMIN, body=ExpireBody, answer=Expired),
        ]

    async def show(self, request: Request) -> Response:
        """Tell of every set whether it may go, and why; nothing changes."""
        part = part_of(request, await self._verdicts(request), lambda verdict: verdict.backup_set.number)
        return json_answer(Verdicts([_shown(verdict) for verdict in part.items]), headers=part.headers)

    async def _verdicts(self, request: Request) -> Sequence[Verdict]:
        """Return what would become of every set, by number: for a further page what the first one was cut from."""
        wish = _wish_of(request)
        is_further = CURSOR.name in request.query_params and wish == self._known_wish
        if is_further and trio.current_time() < self._known_until:
            return self._known
        ledger, now_ns = self._service.ledger, self._service.jobs.now_ns()
        verdicts = await trio.to_thread.run_sync(verdicts_of, ledger, now_ns, wish)
        self._known, self._known_wish = verdicts, wish
        self._known_until = trio.current_time() + KEPT_S
        return verdicts

    async def expire(self, request: Request) -> Response:
        """Let go of all sets that may go."""
        wish = (await body_of(request, ExpireBody)).wish()
        service = self._service
        async with self._working:
            work = partial(expire, service.home, service.ledger, service.jobs.now_ns(), wish)
            outcome = await trio.to_thread.run_sync(work)
            self._known_until = -math.inf
        return json_answer(
            Expired(
                verdicts=[_shown(verdict) for verdict in outcome.verdicts],
                expired=list(outcome.expired),
                freed_bytes=outcome.freed_bytes,
            )
        )


def _wish_of(request: Request) -> Wish:
    failed, ids = request.query_params.get("failed", "false"), text_of(request, "sets")
    if failed not in ("true", "false"):
        raise Invalid("bool_parsing", ["query", "failed"], "is true or false", failed)
    named: list[str] = converted(ids.split(","), list[Uuid], ["query", "sets"]) if ids is not None else []
    return Wish(named=frozenset(map(SetId, named)), failed=failed == "true")


def _shown(verdict: Verdict) -> SetVerdict:
    return SetVerdict(
        set_id=verdict.backup_set.set_id,
        name=verdict.backup_set.name,
        goes=verdict.goes,
        why=verdict.why.value,
        reason=verdict.reason,
    )
