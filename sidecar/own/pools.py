"""Pools under /api/v1/pools: what `tapefs pool` uses."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from catalog.pool_records import Pool
from catalog.records import VolumeState
from sidecar.http.answers import json_answer
from sidecar.http.callers import Role
from sidecar.http.calls import PAGE, Call
from sidecar.http.paging import page_answer
from sidecar.http.requests import body_of
from sidecar.service import Service
from sidecar.tapes.allotting import weigh
from sidecar.tapes.new_pools import changed_pool, check_name
from tapefs.client.pools import PoolFields, PoolView, TapeAnswer
from tapefs.errors import NotNow
from tapefs.retention.allocation import Answer, Choice, Want
from tapefs.retention.pools import SCRATCH, Pools
from tapefs.retention.rules import allocation_text, retention_text
from tapefs.tape.names import tape_called


class NewPool(PoolFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/pools."""

    name: str


class TapesBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/pools/{name}/tapes."""

    tapes: Annotated[list[str], msgspec.Meta(min_length=1, max_length=10_000)]


class Assigned(msgspec.Struct, frozen=True):
    """Labels of the tapes that are in the pool now."""

    tapes: list[str]


class PoolCalls:
    """Pools, as our own programs see them."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call("/api/v1/pools", self.list, needs=Role.VIEWER, answer=list[PoolView], query=PAGE),
            Call(
                "/api/v1/pools",
                self.create,
                methods=["POST"],
                needs=Role.ADMIN,
                body=NewPool,
                answer=PoolView,
                status=201,
            ),
            Call("/api/v1/pools/{name}", self.show, needs=Role.VIEWER, answer=PoolView),
            Call(
                "/api/v1/pools/{name}", self.edit, methods=["PATCH"], needs=Role.ADMIN, body=PoolFields, answer=PoolView
            ),
            Call("/api/v1/pools/{name}", self.delete, methods=["DELETE"], needs=Role.ADMIN, status=204),
            Call(
                "/api/v1/pools/{name}/tapes",
                self.assign,
                methods=["POST"],
                needs=Role.ADMIN,
                body=TapesBody,
                answer=Assigned,
            ),
        ]

    async def list(self, request: Request) -> Response:
        """Show all pools, by name."""
        return page_answer(request, list(self._pools()), self._view, _name_of)

    async def show(self, request: Request) -> Response:
        """Show one pool, with the tape that is written next, and why no other is."""
        pool = self._pools().get(_name(request))
        choice = None if pool.name == SCRATCH else await trio.to_thread.run_sync(self._weigh, pool)
        return json_answer(self._view(pool, choice))

    async def create(self, request: Request) -> Response:
        """Make a pool; 201."""
        body, pools = await body_of(request, NewPool), self._pools()
        name = check_name(body.name)
        if name in pools:
            raise NotNow(f"there is a pool {name} already: change it with `tapefs pool edit`")
        return json_answer(self._view(await self._put(None, Pool(name=name), body)), 201)

    async def edit(self, request: Request) -> Response:
        """Change the rules that the body names."""
        body, pools = await body_of(request, PoolFields), self._pools()
        pool = pools.get(_name(request))
        known = pool if pool.created_at_ns else None  # The one of the settings need not be recorded.
        return json_answer(self._view(await self._put(known, pool, body)))

    async def delete(self, request: Request) -> Response:
        """Forget a pool that nobody uses; 204."""
        pools = self._pools()
        pool = pools.get(_name(request))
        if pool.name == pools.default:
            raise NotNow(f"pool {pool.name} is the one of the settings: another has to be named there first")
        ledger, now_ns = self._service.ledger, self._service.jobs.now_ns()
        await trio.to_thread.run_sync(ledger.delete_pool, pool.name, now_ns)
        return Response(status_code=204)

    async def assign(self, request: Request) -> Response:
        """Put blank tapes into a pool; those before one that is refused are in it then."""
        body, pool = await body_of(request, TapesBody), self._pools().get(_name(request))
        ledger, now_ns = self._service.ledger, self._service.jobs.now_ns()
        volumes = [tape_called(ledger, tape) for tape in body.tapes]
        for volume in volumes:
            await trio.to_thread.run_sync(ledger.assign_volume, volume.volume_id, pool.name, now_ns)
        return json_answer(Assigned([volume.label for volume in volumes]))

    async def _put(self, known: Pool | None, pool: Pool, fields: PoolFields) -> Pool:
        wanted = changed_pool(pool, fields, self._pools())
        ledger, now_ns = self._service.ledger, self._service.jobs.now_ns()
        return await trio.to_thread.run_sync(ledger.put_pool, known, wanted, now_ns)

    def _pools(self) -> Pools:
        return Pools.of(self._service.home, self._service.ledger)

    def _weigh(self, pool: Pool) -> Choice:
        service = self._service
        want = Want(pool=pool, now_ns=service.jobs.now_ns())
        return weigh(service.home, service.ledger, service.library, want, None)

    def _view(self, pool: Pool, choice: Choice | None = None) -> PoolView:
        volumes = [volume for volume in self._service.ledger.volumes() if volume.pool == pool.name]
        states = Counter(volume.state for volume in volumes)
        return PoolView(
            name=pool.name,
            description=pool.description,
            retention=retention_text(pool.retention),
            allocation=allocation_text(pool.allocation),
            copy_pools=list(pool.copy_pools),
            use_scratch=pool.use_scratch,
            reuse=pool.reuse,
            reuse_grace_days=pool.reuse_grace_days,
            vault=pool.vault,
            vault_after_days=pool.vault_after_days,
            is_default=pool.name == self._service.home.settings.backup.pool,
            tapes={state.value: states[state] for state in VolumeState},
            next=choice.taken.volume.label if choice is not None and choice.taken is not None else None,
            answers=[_answer(each) for each in choice.answers] if choice is not None else [],
        )


def _answer(answer: Answer) -> TapeAnswer:
    return TapeAnswer(
        tape=answer.volume.label,
        pool=answer.volume.pool,
        state=answer.volume.state.value,
        source=answer.source.value if answer.source is not None else None,
        reason=answer.reason,
    )


def _name_of(pool: Pool) -> str:
    return pool.name


def _name(request: Request) -> str:
    return str(request.path_params["name"])
