"""Verifications under /api/v1/verify: what `tapefs verify` uses."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from catalog.ids import SetId
from sidecar.answers import json_answer, moment, shown
from sidecar.callers import Role
from sidecar.calls import Call
from sidecar.requests import Invalid, Uuid, body_of, number_in_path, page_of
from sidecar.service import Service
from sidecar.verifying import CopyTask, TaskState, VerifyRun
from tapefs.format.records import as_text

_MOST = 10_000


class VerifyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/verify."""

    sets: Annotated[list[Uuid], msgspec.Meta(max_length=_MOST)] = []
    #: Labels.
    tapes: Annotated[list[str], msgspec.Meta(max_length=_MOST)] = []
    all: bool = False
    #: What was read back since then is not again; null: everything is. Without a zone it is local time.
    since: datetime | None = None
    #: Of each tape only so many copies, those read back the longest ago; 0: all.
    sample: Annotated[int, msgspec.Meta(ge=0, le=_MOST)] = 0


class VerifyCalls:
    """Reading back what lies on tape."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call("/api/v1/verify", self.list, needs=Role.VIEWER),
            Call("/api/v1/verify", self.start, methods=["POST"], needs=Role.OPERATOR),
            Call("/api/v1/verify/{number}", self.show, needs=Role.VIEWER),
            Call("/api/v1/verify/{number}/cancel", self.cancel, methods=["POST"], needs=Role.OPERATOR),
        ]

    async def start(self, request: Request) -> Response:
        """Have copies read back; 202 with the verification to be asked for."""
        body = await body_of(request, VerifyBody)
        if body.all == bool(body.sets or body.tapes):
            raise Invalid("value_error", ["body"], "name sets or tapes, or ask for all")
        run = await self._service.verifications.start(
            [SetId(each) for each in body.sets],
            body.tapes,
            everything=body.all,
            since_ns=_nanoseconds(body.since),
            sample=body.sample,
        )
        return json_answer(view_of(run), 202)

    async def list(self, request: Request) -> Response:
        """Show the verifications since the sidecar's start, oldest first; `limit` and `offset`."""
        runs = self._service.verifications.runs()
        return json_answer([view_of(run) for run in page_of(request).cut(runs)])

    async def show(self, request: Request) -> Response:
        """Show one."""
        return json_answer(view_of(self._service.verifications.run(number_in_path(request, "number"))))

    async def cancel(self, request: Request) -> Response:
        """Stop one; what was read back by then stays known."""
        return json_answer(view_of(self._service.verifications.cancel(number_in_path(request, "number"))))


def _nanoseconds(since: datetime | None) -> int | None:
    if since is None:
        return None
    try:
        return int(since.timestamp() * 1_000_000) * 1000
    except (ValueError, OverflowError):
        raise Invalid("value_error", ["body", "since"], "is a time that this clock does not know") from None


def view_of(run: VerifyRun) -> dict[str, object]:
    """Return a verification as JSON shows it."""
    tasks = run.tasks
    at_hand = next((task for task in tasks if task.state is TaskState.RUNNING), None)
    return {
        "number": run.number,
        "state": run.state,
        "copies": len(tasks),
        **{state.value: sum(task.state is state for task in tasks) for state in TaskState},
        "passed_over": sum(task.is_old for task in tasks),
        "bytes": sum(task.payload_bytes for task in tasks),
        "done_bytes": sum(task.done_bytes for task in tasks),
        "tape": at_hand.tape if at_hand is not None else "",
        "lost_files": sum(task.files for task in tasks),
        "lost": [{**_place(task), **_path(path)} for task, path in run.lost],
        "findings": [_finding(task) for task in tasks if task.state in (TaskState.DAMAGED, TaskState.UNREAD)],
        "started_at": moment(run.started_at_ns),
        "finished_at": moment(run.finished_at_ns),
    }


def _finding(task: CopyTask) -> dict[str, object]:
    return {
        **_place(task),
        "volume_id": task.volume_id,
        "state": task.state,
        "problems": task.problems,
        "files": task.files,
        "is_old": task.is_old,
    }


def _place(task: CopyTask) -> dict[str, object]:
    return {"segment_id": task.segment_id, "set_id": task.set_id, "tape": task.tape}


def _path(path: bytes) -> dict[str, object]:
    text, raw = as_text(path)
    return {"path": shown(path), "path_b64": raw} if raw else {"path": text}
