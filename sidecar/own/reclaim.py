"""POST /api/v1/reclaim: what `tapefs reclaim` uses. Tells what would be copied off which tapes, and has it done."""

from __future__ import annotations

from typing import Annotated

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from catalog.records import Volume, VolumeState
from drivers.interface import Element
from sidecar.http.answers import json_answer
from sidecar.http.callers import Role
from sidecar.http.calls import Call
from sidecar.http.requests import Invalid, body_of
from sidecar.own.tape_views import TaskView, task_view
from sidecar.service import Service
from sidecar.tapes.allotting import weigh
from tapefs.backup.payloads_on_disk import free_bytes
from tapefs.client.tapes import ReclaimableSet
from tapefs.errors import NotNow
from tapefs.mover.messages import Reclaim
from tapefs.reclaim.candidates import Living, almost_empty, living_on, named, not_onto, require_movable
from tapefs.retention.allocation import Answer, Want
from tapefs.retention.pools import Pools
from tapefs.tape.names import tape_called

_Tape = Annotated[str, msgspec.Meta(min_length=1, max_length=600)]


class ReclaimBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /api/v1/reclaim: tapes by label or barcode, or a pool."""

    tapes: list[_Tape] = []
    pool: str = ""
    #: Of the pool's tapes those of which less than that lives.
    below_percent: Annotated[float, msgspec.Meta(gt=0, le=100)] = 20.0
    #: Have it done.
    apply: bool = False


class ReclaimableView(msgspec.Struct, frozen=True, kw_only=True):
    """What still lives on a tape, and where that would go."""

    tape: str
    pool: str
    state: VolumeState
    used_bytes: int
    sets: list[ReclaimableSet]
    #: Sets that cannot be moved; empty: none.
    staying: str
    segments: int
    payload_bytes: int
    #: Of what was written to the tape.
    percent: float
    #: Why nothing is moved; empty: something can be.
    obstacle: str
    #: Label of the tape that would be written next; null: there is none.
    onto: str | None
    onto_reason: str
    tape_changes: int
    #: What has been begun.
    task: TaskView | None = None


class Reclaimables(msgspec.Struct, frozen=True):
    """The tapes that were named, or those of the pool."""

    tapes: list[ReclaimableView]


class ReclaimCalls:
    """Reclaiming of tapes."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call(
                "/api/v1/reclaim",
                self.reclaim,
                methods=["POST"],
                needs=Role.ADMIN,
                body=ReclaimBody,
                answer=Reclaimables,
                also=(202,),
            )
        ]

    async def reclaim(self, request: Request) -> Response:
        """Tell what would be moved; with `apply` 202, and a task for each tape."""
        body = await body_of(request, ReclaimBody)
        if bool(body.tapes) == bool(body.pool):
            raise Invalid("value_error", ["body"], "name tapes, or a pool")
        service = self._service
        await service.library.refresh()
        chosen = await trio.to_thread.run_sync(self._chosen, body)
        views = await trio.to_thread.run_sync(lambda: [self._view(each) for each in chosen])
        absent = [f"tape {view.tape} is not reclaimed: {view.obstacle}" for view in views if view.obstacle]
        if body.apply and body.tapes and absent:
            raise NotNow("; ".join(absent))
        if body.apply:
            views = [self._begun(each, view) for each, view in zip(chosen, views, strict=True)]
        return json_answer(Reclaimables(views), 202 if body.apply else 200)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _chosen(self, body: ReclaimBody) -> list[Living]:
        """In a thread. Raises NoSuchThing, and NotNow when something is asked for that cannot be done."""
        ledger = self._service.ledger
        if body.pool:
            pool = Pools.of(self._service.home, ledger).get(body.pool)
            return almost_empty(ledger, ledger.volumes(), pool.name, body.below_percent)
        volumes = list({each.volume_id: each for each in (tape_called(ledger, tape) for tape in body.tapes)}.values())
        return [require_movable(ledger, each) if body.apply else living_on(ledger, each) for each in volumes]

    def _begun(self, living: Living, view: ReclaimableView) -> ReclaimableView:
        """Have it done, if it can be."""
        if view.obstacle:
            return view
        command = Reclaim(id=0, volume_id=living.volume.volume_id)
        return msgspec.structs.replace(view, task=task_view(self._service.tape_tasks.add(living.volume, command)))

    def _view(self, living: Living) -> ReclaimableView:
        """In a thread: all sets say which tape is written next. Of the library only what it knows is read."""
        volume = living.volume
        place = self._service.library.place_of(volume.code)
        onto = None if living.obstacle else self._onto(volume)
        return ReclaimableView(
            tape=volume.label,
            pool=volume.pool,
            state=volume.state,
            used_bytes=volume.used_bytes,
            sets=[ReclaimableSet(set_id=each.set_id, name=each.name) for each in living.sets],
            staying=named(living.staying),
            segments=living.segments,
            payload_bytes=living.payload_bytes,
            percent=round(living.percent, 2),
            obstacle=living.obstacle or self._absence(volume, place),
            onto=None if onto is None else onto.volume.label,
            onto_reason="" if onto is None else onto.reason,
            tape_changes=self._changes(living),
        )

    def _absence(self, volume: Volume, place: Element | None) -> str:
        return "" if place is not None else self._service.library.missing(volume)

    def _onto(self, volume: Volume) -> Answer | None:
        """Return the tape that would be written next."""
        service = self._service
        pool = Pools.of(service.home, service.ledger).get(volume.pool)
        exclude = {volume.volume_id, *not_onto(service.ledger, pool, volume)}
        want = Want(pool=pool, now_ns=service.jobs.now_ns(), exclude=exclude)
        return weigh(service.home, service.ledger, service.library, want, None).taken

    def _changes(self, living: Living) -> int:
        """Return how often a drive gets another tape: three times for each filling of the disk."""
        room = max(1, free_bytes(self._service.home))
        return 3 * -(-living.payload_bytes // room) if living.sets else 0
