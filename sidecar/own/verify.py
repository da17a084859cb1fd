"""Verifications under /api/v1/verify: what `tapefs verify` uses."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
import trio
from msgspec import structs
from starlette.requests import Request
from starlette.responses import Response

from catalog.ids import SetId
from sidecar.http.answers import json_answer, moment
from sidecar.http.callers import Role
from sidecar.http.calls import PAGE, Call
from sidecar.http.paging import missing, page_answer
from sidecar.http.requests import Invalid, Uuid, body_of, number_in_path
from sidecar.service import Service
from sidecar.verifications.bases import with_bases
from sidecar.verifications.outcome import Outcome
from sidecar.verifications.queue import VerifyRun

_MOST = 10_000


class VerifyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/verify."""

    #: What they build on is read back with them.
    sets: Annotated[list[Uuid], msgspec.Meta(max_length=_MOST)] = []
    #: Only these sets, not what they build on.
    alone: bool = False
    #: Labels.
    tapes: Annotated[list[str], msgspec.Meta(max_length=_MOST)] = []
    all: bool = False
    #: What was read back since then is not again; null: everything is. Without a zone it is local time.
    since: datetime | None = None
    #: Of each tape only so many copies, those read back the longest ago; 0: all.
    sample: Annotated[int, msgspec.Meta(ge=0, le=_MOST)] = 0


class VerificationView(Outcome, frozen=True, kw_only=True):
    """A verification."""

    number: int
    #: `running`, `completed`, `failed` or `cancelled`.
    state: str
    #: What has ended it before its end; empty: nothing.
    error: str
    started_at: datetime | None
    finished_at: datetime | None


class VerifyCalls:
    """Reading back what lies on tape."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call("/api/v1/verify", self.list, needs=Role.VIEWER, answer=list[VerificationView], query=PAGE),
            Call(
                "/api/v1/verify",
                self.start,
                methods=["POST"],
                needs=Role.OPERATOR,
                body=VerifyBody,
                answer=VerificationView,
                status=202,
            ),
            Call("/api/v1/verify/{number}", self.show, needs=Role.VIEWER, answer=VerificationView),
            Call(
                "/api/v1/verify/{number}/cancel",
                self.cancel,
                methods=["POST"],
                needs=Role.OPERATOR,
                answer=VerificationView,
            ),
        ]

    async def start(self, request: Request) -> Response:
        """Have copies read back; 202 with the verification to be asked for."""
        body = await body_of(request, VerifyBody)
        if body.all == bool(body.sets or body.tapes):
            raise Invalid("value_error", ["body"], "name sets or tapes, or ask for all")
        sets = [SetId(each) for each in body.sets]
        if not body.alone:
            sets = await trio.to_thread.run_sync(with_bases, self._service.ledger, sets)
        run = await self._service.verifications.start(
            sets,
            body.tapes,
            everything=body.all,
            since_ns=_nanoseconds(body.since),
            sample=body.sample,
        )
        return json_answer(view_of(run), 202)

    async def list(self, request: Request) -> Response:
        """Show open verifications and the newest others, oldest first."""
        runs = self._service.verifications.runs()
        answer = page_answer(request, runs, view_of, lambda run: run.number)
        return missing(answer, self._service.records.count("tasks"))

    async def show(self, request: Request) -> Response:
        """Show one verification, with what it has found."""
        return json_answer(view_of(self._service.verifications.run(number_in_path(request, "number"))))

    async def cancel(self, request: Request) -> Response:
        """Stop a verification; what was read back by then stays known."""
        return json_answer(view_of(self._service.verifications.cancel(number_in_path(request, "number"))))


def _nanoseconds(since: datetime | None) -> int | None:
    if since is None:
        return None
    try:
        return int(since.timestamp() * 1_000_000) * 1000
    except (ValueError, OverflowError):
        raise Invalid("value_error", ["body", "since"], "is a time that this clock does not know") from None


def view_of(run: VerifyRun) -> VerificationView:
    """Return a verification as JSON shows it."""
    return VerificationView(
        number=run.number,
        state=run.state,
        error=run.error,
        **structs.asdict(run.outcome),
        started_at=moment(run.started_at_ns),
        finished_at=moment(run.finished_at_ns),
    )
