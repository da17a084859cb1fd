"""Who waits for tape and who waited, and what operators say to it: what `tapefs recall` and `tapefs recalls` use."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from sidecar.http.answers import json_answer
from sidecar.http.callers import Role
from sidecar.http.calls import PAGE, Call, Query
from sidecar.http.paging import page_answer
from sidecar.http.requests import Invalid, body_of, number_in_path, text_of
from sidecar.recalls.desk import Choice
from sidecar.recalls.guard import Mode
from sidecar.recalls.readings import Outcome
from sidecar.service import Service
from tapefs.client.api import RecallsMode, RecallView, UserUsage


class ModeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of PUT /api/v1/recalls/mode."""

    mode: Mode


class WordBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/recalls/{number}/grant and deny."""

    #: Of all that this process reads, not of this file only.
    process: bool = False


class Reads(msgspec.Struct, frozen=True):
    """So many reads were waiting."""

    reads: int


#: Which readers are shown.
CHOICE = (
    *PAGE,
    Query("uid", "number of a user", Annotated[int, msgspec.Meta(ge=0, lt=2**32)]),
    Query("command", "name of a program"),
    Query("path", "of a file"),
    Query("outcome", "what became of it", Outcome),
)


class PolicyCalls:
    """The guard of recalls, and its books."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call("/api/v1/recalls", self.waiting, needs=Role.VIEWER, answer=list[RecallView], query=CHOICE),
            Call("/api/v1/recalls/history", self.history, needs=Role.VIEWER, answer=list[RecallView], query=CHOICE),
            Call("/api/v1/recalls/mode", self.mode, needs=Role.VIEWER, answer=RecallsMode),
            Call(
                "/api/v1/recalls/mode",
                self.switch,
                methods=["PUT"],
                needs=Role.ADMIN,
                body=ModeBody,
                answer=RecallsMode,
            ),
            Call(
                "/api/v1/recalls/{number}/grant",
                self.grant,
                methods=["POST"],
                needs=Role.OPERATOR,
                body=WordBody,
                is_body_optional=True,
                answer=Reads,
            ),
            Call(
                "/api/v1/recalls/{number}/deny",
                self.deny,
                methods=["POST"],
                needs=Role.OPERATOR,
                body=WordBody,
                is_body_optional=True,
                answer=Reads,
            ),
        ]

    async def waiting(self, request: Request) -> Response:
        """List who waits now, oldest first."""
        asked = [frames for drive in self._service.drives for frames in drive.asked()]
        found = self._service.recalls.waiting(_choice(request), asked)
        return page_answer(request, found, lambda entry: entry, lambda entry: entry.id)

    async def history(self, request: Request) -> Response:
        """List who waited, newest first."""
        found = self._service.recalls.desk.history(_choice(request))
        return page_answer(request, found, lambda entry: entry)

    async def mode(self, request: Request) -> Response:
        """Tell whether readers may recall, and what each user has had within the hour."""
        return json_answer(self._standing())

    async def switch(self, request: Request) -> Response:
        """Change whether readers may recall."""
        body = await body_of(request, ModeBody)
        await self._service.recalls.switch(body.mode)
        return json_answer(self._standing())

    async def grant(self, request: Request) -> Response:
        """Let a reader have what it asks for."""
        number, body = number_in_path(request, "number"), await _word_of(request)
        return json_answer(Reads(self._service.recalls.grant(number, whole_process=body.process)))

    async def deny(self, request: Request) -> Response:
        """Refuse a reader what it waits for."""
        number, body = number_in_path(request, "number"), await _word_of(request)
        return json_answer(Reads(self._service.recalls.deny(number, whole_process=body.process)))

    def _standing(self) -> RecallsMode:
        desk = self._service.recalls.desk
        limits = desk.allowances.limits
        return RecallsMode(
            mode=desk.guard.mode.value,
            user_hourly_bytes=limits.hourly_bytes,
            user_hourly_tapes=limits.hourly_tapes,
            users=[UserUsage(**asdict(usage)) for usage in desk.allowances.usage(trio.current_time())],
        )


async def _word_of(request: Request) -> WordBody:
    return await body_of(request, WordBody) if await request.body() else WordBody()


def _choice(request: Request) -> Choice:
    uid = text_of(request, "uid")
    if uid is not None and not (uid.isascii() and uid.isdigit() and int(uid) < 2**32):
        raise Invalid("int_parsing", ["query", "uid"], "Input should be the number of a user", uid)
    outcome = text_of(request, "outcome")
    if outcome is not None and outcome not in {each.value for each in Outcome}:
        words = ", ".join(each.value for each in Outcome)
        raise Invalid("enum", ["query", "outcome"], f"Input should be one of {words}", outcome)
    return Choice(
        uid=None if uid is None else int(uid),
        command=text_of(request, "command"),
        path=text_of(request, "path"),
        outcome=outcome,
    )
