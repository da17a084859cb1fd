"""Checks and copies of the catalog, under /api/v1/check, /api/v1/catalog/copies and /api/v1/upkeep."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec
import trio
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from catalog.task_records import TaskState
from sidecar.http.answers import json_answer, moment
from sidecar.http.callers import Role, caller_of
from sidecar.http.calls import PAGE, Call
from sidecar.http.paging import page_answer
from sidecar.http.requests import Invalid, body_of, number_in_path
from sidecar.http.statuses import Forbidden
from sidecar.service import Service
from sidecar.upkeep.copying import CatalogCopy, copies
from sidecar.upkeep.tasks import CheckOrder, CopyOrder, UpkeepTask
from tapefs.check.process import Found

_Check = Literal["ledger", "sets", "tapes", "trailers", "indexes", "names", "staging", "leftovers"]


class CheckBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/check."""

    #: Empty: all.
    checks: Annotated[list[_Check], Meta(max_length=20)] = []
    #: Put right what can be made again from what is there; an admin's.
    repair: bool = False


class CopyBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/catalog/copies."""

    #: Of the sidecar's host, and there already; empty: to tape.
    folder: Annotated[str, Meta(max_length=4096, pattern=r"\A(/[^\0]*)?\Z")] = ""
    #: So many copies stay in the folder; to tape: for how many days. 0: all, for ever.
    keep: Annotated[int, Meta(ge=0, le=36_525)] = 0


class CheckView(msgspec.Struct, frozen=True, kw_only=True):
    """What a check has found so far."""

    #: Empty: all.
    checks: list[str]
    repair: bool
    #: How many things are not as they should be, and how many of them were put right.
    findings_total: int
    repaired: int
    #: The first thousand; only of a check that is shown alone.
    findings: list[Found]


class CopyView(msgspec.Struct, frozen=True, kw_only=True):
    """A copy that is made."""

    folder: str
    keep: int
    #: `tape`, or its path; null until it is whole.
    where: str | None


class UpkeepView(msgspec.Struct, frozen=True, kw_only=True):
    """A check or a copy that was asked for: one of the two is null."""

    number: int
    state: TaskState
    #: What it is at, for people.
    progress: str
    error: str | None
    asked_at: datetime | None
    began_at: datetime | None
    finished_at: datetime | None
    check: CheckView | None
    copy: CopyView | None


class UpkeepCalls:
    """Looking after the catalog."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._upkeep = service.upkeep

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        all_of_them, copying = "/api/v1/upkeep", "/api/v1/catalog/copies"
        one, post, viewer = f"{all_of_them}/{{number}}", ["POST"], Role.VIEWER
        return [
            Call(
                "/api/v1/check", self.check, methods=post, needs=Role.OPERATOR, body=CheckBody, is_body_optional=True,
                answer=UpkeepView, status=202,
            ),
            Call(copying, self.copies, needs=viewer, answer=list[CatalogCopy], query=PAGE),
            Call(copying, self.copy, methods=post, needs=Role.ADMIN, body=CopyBody, answer=UpkeepView, status=202),
            Call(all_of_them, self.list, needs=viewer, answer=list[UpkeepView], query=PAGE),
            Call(one, self.show, needs=viewer, answer=UpkeepView),
            Call(f"{one}/cancel", self.cancel, methods=post, needs=Role.OPERATOR, answer=UpkeepView),
        ]  # fmt: skip

    async def check(self, request: Request) -> Response:
        """Have the catalog checked, as `tapefs check` does; 202 with what to ask for. A repair is an admin's."""
        body = await body_of(request, CheckBody) if await request.body() else CheckBody()
        if body.repair and not caller_of(request).may(Role.ADMIN):
            raise Forbidden(f"{caller_of(request).name} may not do that: a repair takes the role admin")
        return json_answer(_view(self._upkeep.add(CheckOrder(checks=list(body.checks), repair=body.repair))), 202)

    async def copies(self, request: Request) -> Response:
        """List the copies of the catalog that are known of, the newest first: on tape, and in folders of this host."""
        asked = [task.order.folder for task in self._upkeep.tasks() if isinstance(task.order, CopyOrder)]
        found = await trio.to_thread.run_sync(copies, self._service.ledger, asked)
        return page_answer(request, found, lambda copy: copy, lambda copy: copy.key, falls=True)

    async def copy(self, request: Request) -> Response:
        """Have the catalog copied to a folder of this host, or to tape; 202 with what is to be asked for."""
        body = await body_of(request, CopyBody)
        if body.folder and not await trio.Path(body.folder).is_dir():
            raise Invalid("value_error", ["body", "folder"], "is no folder of the sidecar's host", body.folder)
        return json_answer(_view(self._upkeep.add(CopyOrder(folder=body.folder, keep=body.keep))), 202)

    async def list(self, request: Request) -> Response:
        """Show open checks and copies and the newest others, oldest first, without what was found."""
        return page_answer(request, self._upkeep.tasks(), _view, lambda task: task.number)

    async def show(self, request: Request) -> Response:
        """Show one check or copy, with what was found."""
        return json_answer(_view(self._upkeep.task(number_in_path(request, "number")), in_full=True))

    async def cancel(self, request: Request) -> Response:
        """Give a check or copy up; what was put right by then stays."""
        return json_answer(_view(self._upkeep.cancel(number_in_path(request, "number"))))


def _view(task: UpkeepTask, *, in_full: bool = False) -> UpkeepView:
    order, result = task.order, task.result
    check = copy = None
    if isinstance(order, CheckOrder):
        check = CheckView(
            checks=order.checks,
            repair=order.repair,
            findings_total=result.found_total,
            repaired=result.repaired,
            findings=result.found if in_full else [],
        )
    else:
        copy = CopyView(folder=order.folder, keep=order.keep, where=result.where or None)
    return UpkeepView(
        number=task.number,
        state=task.state,
        progress=task.progress,
        error=task.error or None,
        asked_at=moment(task.added_at_ns),
        began_at=moment(task.began_at_ns),
        finished_at=moment(task.finished_at_ns),
        check=check,
        copy=copy,
    )
