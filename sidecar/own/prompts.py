"""Prompts and tapes of a library whose robot is a human, under /api/v1: `tapefs prompts` and `tapefs tape` use them."""

from __future__ import annotations

import builtins
from datetime import datetime
from typing import Annotated, Literal

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from drivers.human.changer import HumanChanger
from drivers.human.desk import Answer
from drivers.registry import drive_name
from sidecar.http.answers import json_answer, moment
from sidecar.http.callers import Role
from sidecar.http.calls import PAGE, Call
from sidecar.http.paging import page_answer
from sidecar.http.requests import body_of, number_in_path
from sidecar.service import Service
from tapefs.errors import UsageError

_Barcode = Annotated[str, msgspec.Meta(min_length=1, max_length=32)]


class AnswerBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/prompts/{number}."""

    answer: Literal["done", "declined"]


class ShelfBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/shelf."""

    tapes: Annotated[list[_Barcode], msgspec.Meta(min_length=1, max_length=10_000)]


class PromptView(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody is to do at a drive."""

    #: 0: it is answered by doing it.
    number: int
    drive: str
    text: str
    take_out: str | None
    put_in: str | None
    since: datetime | None


class NewTapes(msgspec.Struct, frozen=True):
    """Barcodes that were not known."""

    new: list[str]


class PromptCalls:
    """What a human is to do, and what he says."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call("/api/v1/prompts", self.list, needs=Role.VIEWER, answer=list[PromptView], query=PAGE),
            Call(
                "/api/v1/prompts/{number}",
                self.answer,
                methods=["POST"],
                needs=Role.OPERATOR,
                body=AnswerBody,
                status=204,
            ),
            Call(
                "/api/v1/shelf",
                self.add,
                methods=["POST"],
                needs=Role.OPERATOR,
                body=ShelfBody,
                answer=NewTapes,
                status=201,
            ),
            Call("/api/v1/shelf/{tape}", self.remove, methods=["DELETE"], needs=Role.OPERATOR, status=204),
        ]

    async def list(self, request: Request) -> Response:
        """Show what is to be done, oldest first; where a robot moves the tapes only that a drive is to be cleaned."""
        human = self._service.library.human
        prompts = [] if human is None else human.desk.open()
        views = [
            PromptView(
                number=prompt.number,
                drive=drive_name(prompt.drive),
                text=prompt.text + self._service.library.whence(prompt.put_in),
                take_out=prompt.take_out,
                put_in=prompt.put_in,
                since=moment(prompt.since_ns),
            )
            for prompt in prompts
        ]
        return page_answer(request, [*views, *self._cleanings()], lambda view: view)

    def _cleanings(self) -> builtins.list[PromptView]:
        """Return the drives that somebody is to have cleaned; that is answered by doing it, and has no number."""
        cleanings = self._service.cleanings
        return [
            PromptView(
                number=0,
                drive=drive,
                text=cleanings.sentence(drive),
                take_out=None,
                put_in=None,
                since=moment(cleanings.since_ns(drive)),
            )
            for drive in cleanings.asking()
        ]

    async def answer(self, request: Request) -> Response:
        """Take the human's word; 204."""
        body = await body_of(request, AnswerBody)
        self._human().desk.answer(number_in_path(request, "number"), Answer(body.answer))
        return Response(status_code=204)

    async def add(self, request: Request) -> Response:
        """Note tapes that lie on the shelf now; 201 with those that were not known."""
        body, human = await body_of(request, ShelfBody), self._human()
        new = await trio.to_thread.run_sync(human.add, body.tapes)
        await self._service.library.enter_new()
        return json_answer(NewTapes(new), 201)

    async def remove(self, request: Request) -> Response:
        """Forget that a tape lies on the shelf; 204. What the ledger knows of it stays."""
        human, tape = self._human(), str(request.path_params["tape"])
        await trio.to_thread.run_sync(human.remove, tape)
        await self._service.library.enter_new()
        return Response(status_code=204)

    def _human(self) -> HumanChanger:
        human = self._service.library.human
        if human is None:
            raise UsageError("a robot moves the tapes of this library, nobody is asked: see `changer` in tapefs.toml")
        return human
