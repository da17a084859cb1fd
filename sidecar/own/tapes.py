"""Tapes under /api/v1: what `tapefs tape` and `tapefs inventory` use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from catalog.records import Volume
from sidecar.http.answers import json_answer
from sidecar.http.callers import Role
from sidecar.http.calls import PAGE, Call, Query
from sidecar.http.paging import page_answer
from sidecar.http.requests import Invalid, body_of, number_in_path, text_of
from sidecar.own.tape_views import InventoryView, TapeView, TaskView, inventory_view, tape_view, task_view
from sidecar.service import Service
from sidecar.tapes.orders import Command
from tapefs.client.tapes import LostSet
from tapefs.errors import NotNow
from tapefs.mover.messages import Identify, Tend
from tapefs.retention.living import require_nothing_live
from tapefs.retention.pools import Pools
from tapefs.tape.forgetting import forget_tape
from tapefs.tape.names import check_name, tape_called
from tapefs.tape.tending import Task

_Tape = Annotated[str, msgspec.Meta(min_length=1, max_length=600)]
_Name = Annotated[str, msgspec.Meta(max_length=600)]


class _TapeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all calls about one tape have."""

    #: Its label or barcode.
    tape: _Tape


class NewNameBody(_TapeBody, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /api/v1/tapes/label."""

    #: Its name from now on; empty: as it is.
    name: _Name = ""
    #: Instead: the next counted name.
    generate: bool = False
    pool: _Name = ""

    def command(self, volume: Volume) -> Tend:
        """Return what the mover is told. Raises UsageError, Invalid."""
        return self._tend(volume, Task.LABEL)

    def _tend(self, volume: Volume, task: Task) -> Tend:
        if self.name and self.generate:
            raise Invalid("value_error", ["body"], "give a name, or have one generated")
        if self.name and self.name != volume.label:
            check_name(self.name)
        return Tend(
            id=0,
            volume_id=volume.volume_id,
            task=task.value,
            name=self.name,
            is_counted=self.generate,
            pool=self.pool,
        )


class RelabelBody(NewNameBody, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /api/v1/tapes/relabel."""

    #: What is on it now, as identify tells it.
    identity: _Name = ""
    #: What is on it is none of ours, and may go all the same.
    force: bool = False

    def command(self, volume: Volume) -> Tend:
        """Return what the mover is told. Raises UsageError, Invalid."""
        tend = self._tend(volume, Task.RELABEL)
        return msgspec.structs.replace(tend, identity=self.identity, is_forced=self.force)


class EraseBody(_TapeBody, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /api/v1/tapes/erase."""

    identity: _Name = ""
    force: bool = False
    #: Write over every metre.
    long: bool = False

    def command(self, volume: Volume) -> Tend:
        """Return what the mover is told."""
        return Tend(
            id=0,
            volume_id=volume.volume_id,
            task=Task.ERASE.value,
            identity=self.identity,
            is_forced=self.force,
            is_long=self.long,
        )


class IdentifyBody(_TapeBody, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /api/v1/tapes/identify."""

    def command(self, volume: Volume) -> Identify:
        """Return what the mover is told."""
        return Identify(id=0, volume_id=volume.volume_id)


class ForgetBody(_TapeBody, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /api/v1/tapes/forget."""

    #: Its label or id; needed when anything lives on it.
    identity: _Name = ""


class Forgotten(msgspec.Struct, frozen=True):
    """The sets that have lost something."""

    lost: list[LostSet]


class OwnTapeCalls:
    """Tapes, as our own programs see them."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call(
                "/api/v1/tapes/identify",
                self.identify,
                methods=["POST"],
                needs=Role.OPERATOR,
                body=IdentifyBody,
                answer=TaskView,
                status=202,
            ),
            Call(
                "/api/v1/tapes/label",
                self.label,
                methods=["POST"],
                needs=Role.ADMIN,
                body=NewNameBody,
                answer=TaskView,
                status=202,
            ),
            Call(
                "/api/v1/tapes/relabel",
                self.relabel,
                methods=["POST"],
                needs=Role.ADMIN,
                body=RelabelBody,
                answer=TaskView,
                status=202,
            ),
            Call(
                "/api/v1/tapes/erase",
                self.erase,
                methods=["POST"],
                needs=Role.ADMIN,
                body=EraseBody,
                answer=TaskView,
                status=202,
            ),
            Call(
                "/api/v1/tapes/forget",
                self.forget,
                methods=["POST"],
                needs=Role.ADMIN,
                body=ForgetBody,
                answer=Forgotten,
            ),
            Call(
                "/api/v1/tapes/show",
                self.show,
                needs=Role.VIEWER,
                answer=TapeView,
                query=(Query("tape", "label or barcode", is_required=True),),
                errors=(404,),
            ),
            Call("/api/v1/inventory", self.inventory, methods=["POST"], needs=Role.OPERATOR, answer=InventoryView),
            Call("/api/v1/tape-tasks", self.tasks, needs=Role.VIEWER, answer=list[TaskView], query=PAGE),
            Call("/api/v1/tape-tasks/{number}", self.task, needs=Role.VIEWER, answer=TaskView),
            Call(
                "/api/v1/tape-tasks/{number}/cancel",
                self.cancel,
                methods=["POST"],
                needs=Role.OPERATOR,
                answer=TaskView,
            ),
        ]

    # -- tasks -------------------------------------------------------------------------------------------------------

    async def identify(self, request: Request) -> Response:
        """Have a tape loaded and told what it is; 202 with the task to be asked for."""
        body = await body_of(request, IdentifyBody)
        return await self._begin(body.tape, body.command)

    async def label(self, request: Request) -> Response:
        """Have a blank tape labelled; 202."""
        body = await body_of(request, NewNameBody)
        return await self._begin(body.tape, body.command)

    async def relabel(self, request: Request) -> Response:
        """Have a tape labelled over what is on it; 202."""
        body = await body_of(request, RelabelBody)
        return await self._begin(body.tape, body.command)

    async def erase(self, request: Request) -> Response:
        """Have a tape erased; 202."""
        body = await body_of(request, EraseBody)
        return await self._begin(body.tape, body.command)

    async def tasks(self, request: Request) -> Response:
        """Show open tasks and the newest others, oldest first."""
        return page_answer(request, self._service.tape_tasks.tasks(), task_view, lambda task: task.number)

    async def task(self, request: Request) -> Response:
        """Show one task."""
        return json_answer(task_view(self._service.tape_tasks.task(number_in_path(request, "number"))))

    async def cancel(self, request: Request) -> Response:
        """Give up a task that waits, or have a reclaim stop."""
        return json_answer(task_view(await self._service.tape_tasks.cancel(number_in_path(request, "number"))))

    async def _begin(self, tape: str, command: Callable[[Volume], Command]) -> Response:
        volume, told = await trio.to_thread.run_sync(self._prepare, tape, command)
        task = self._service.tape_tasks.add(volume, told)
        return json_answer(task_view(task), 202)

    # -- at once -----------------------------------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        """Tell all that is known of one tape, `tape`, a label or barcode."""
        name = text_of(request, "tape")
        if not name:
            raise Invalid("missing", ["query", "tape"], "name a tape")
        return json_answer(await trio.to_thread.run_sync(self._show, name))

    async def inventory(self, request: Request) -> Response:
        """Ask the robot what lies where, and tell it with what is known of each tape; loads none."""
        await self._service.library.refresh()
        return json_answer(await trio.to_thread.run_sync(self._inventory))

    async def forget(self, request: Request) -> Response:
        """Forget a tape that is gone; tells which sets have lost something."""
        body = await body_of(request, ForgetBody)
        service = self._service
        volume = await trio.to_thread.run_sync(tape_called, service.ledger, body.tape)
        await service.library.refresh()
        if service.library.place_of(volume.code) is not None or service.library.holder_of(volume.volume_id) is not None:
            raise NotNow(f"tape {volume.label} is in the library: take it out of it first, if it is gone for ever")
        work = partial(forget_tape, service.ledger, volume, body.identity, service.jobs.now_ns())
        lost = await trio.to_thread.run_sync(work)
        service.recalls.tape_failed(volume.volume_id, f"tape {volume.label} is gone for ever")
        service.verifications.tape_failed(volume.volume_id, f"tape {volume.label} is gone for ever")
        return json_answer(
            Forgotten([LostSet(set_id=each.set_id, name=each.name, state=each.state.value) for each in lost])
        )

    # -- inside: in threads ------------------------------------------------------------------------------------------

    def _prepare(self, tape: str, command: Callable[[Volume], Command]) -> tuple[Volume, Command]:
        """Refuse at once what would be refused when the tape is loaded."""
        service = self._service
        volume = tape_called(service.ledger, tape)
        told = command(volume)
        if isinstance(told, Tend):
            if told.pool:
                Pools.of(service.home, service.ledger).get(told.pool)
            require_nothing_live(service.ledger, volume.volume_id, volume.label, service.jobs.now_ns())
        return volume, told

    def _show(self, tape: str) -> TapeView:
        volume = tape_called(self._service.ledger, tape)
        place = self._service.library.place_of(volume.code)
        return tape_view(self._service.ledger, volume, place, self._service.jobs.now_ns())

    def _inventory(self) -> InventoryView:
        return inventory_view(self._service.library.elements, self._service.ledger.volumes())
