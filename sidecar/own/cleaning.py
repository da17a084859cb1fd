"""Cleaning of drives under /api/v1: what `tapefs tape clean` and `tapefs drives` use."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from catalog.life_records import CartridgeLife
from sidecar.drives.cleanings import CleaningTask
from sidecar.http.answers import json_answer, moment
from sidecar.http.callers import Role
from sidecar.http.calls import Call
from sidecar.http.requests import body_of, number_in_path
from sidecar.own.tape_views import place_of
from sidecar.service import Service
from tapefs.condition.cleaning import has_cleanings_left
from tapefs.condition.limits import CLEANINGS
from tapefs.tape.barcodes import is_cleaning


class CleanBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of POST /api/v1/drives/{drive}/clean."""

    #: Barcode of the cartridge; empty: the one that has been used most.
    cartridge: Annotated[str, msgspec.Meta(max_length=32)] = ""


class CleaningAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One cleaning that was asked for."""

    number: int
    drive: str
    #: Empty until one was chosen.
    cartridge: str
    is_automatic: bool
    #: `waiting`, `running`, `done`, `failed`, `cancelled` or `interrupted`.
    state: str
    error_kind: str
    error: str
    asked_at: datetime | None
    began_at: datetime | None
    finished_at: datetime | None


class DriveToClean(msgspec.Struct, frozen=True, kw_only=True):
    """What a drive says of itself."""

    drive: str
    is_wanted: bool
    #: Before it writes anything.
    is_urgent: bool
    #: What an operator is to do; empty: nothing.
    todo: str


class CleaningUse(msgspec.Struct, frozen=True, kw_only=True):
    """One time that a cartridge has cleaned."""

    drive: str
    began_at: datetime | None
    ended_at: datetime | None


class CleaningCartridge(msgspec.Struct, frozen=True, kw_only=True):
    """A cleaning cartridge that is in the library, or was."""

    barcode: str
    #: Where in the library it is; None: not there.
    place: str | None
    cleanings: int
    most_cleanings: int
    is_used_up: bool
    #: The newest first.
    uses: list[CleaningUse]


class CleaningOverview(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about cleaning."""

    #: `auto`, `ask` or `off`, as tapefs.toml has it.
    policy: str
    drives: list[DriveToClean]
    cartridges: list[CleaningCartridge]
    tasks: list[CleaningAnswer]


class CleaningCalls:
    """Cleaning, as our own programs see it."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call("/api/v1/cleaning", self.overview, needs=Role.VIEWER, answer=CleaningOverview),
            Call(
                "/api/v1/drives/{drive}/clean",
                self.clean,
                methods=["POST"],
                needs=Role.OPERATOR,
                body=CleanBody,
                answer=CleaningAnswer,
                status=202,
            ),
            Call("/api/v1/cleanings/{number}", self.show, needs=Role.VIEWER, answer=CleaningAnswer),
            Call(
                "/api/v1/cleanings/{number}/cancel",
                self.cancel,
                methods=["POST"],
                needs=Role.OPERATOR,
                answer=CleaningAnswer,
            ),
        ]

    async def overview(self, request: Request) -> Response:
        """Tell which drives want to be cleaned, with what they can be, and what has been done."""
        return json_answer(await trio.to_thread.run_sync(self._overview))

    async def clean(self, request: Request) -> Response:
        """Have a drive cleaned as soon as it is free; 202 with the cleaning to be asked for."""
        body, name = await body_of(request, CleanBody), str(request.path_params["drive"])
        health, library = self._service.fleet.of(name), self._service.library
        # A human's shelf is known, and he may be busy with another tape for hours.
        await (library.refresh() if library.human is None else library.enter_new())
        task = self._service.cleanings.add(health.name, body.cartridge)
        return json_answer(_answer(task), 202)

    async def show(self, request: Request) -> Response:
        """Show one cleaning."""
        return json_answer(_answer(self._service.cleanings.task(number_in_path(request, "number"))))

    async def cancel(self, request: Request) -> Response:
        """Give up a cleaning that waits."""
        return json_answer(_answer(self._service.cleanings.cancel(number_in_path(request, "number"))))

    def _overview(self) -> CleaningOverview:
        service, cleanings = self._service, self._service.cleanings
        places = {each.barcode: place_of(each) for each in service.library.elements if each.full and each.barcode}
        lives = {life.code: life for life in service.ledger.lives() if is_cleaning(life.code)}
        codes = sorted({*lives, *filter(is_cleaning, places)})
        todo = {drive: cleanings.sentence(drive) for drive in cleanings.asking()}
        return CleaningOverview(
            policy=cleanings.policy,
            drives=[
                DriveToClean(
                    drive=each.name,
                    is_wanted=cleanings.is_wanted(each.name),
                    is_urgent=cleanings.must_be(each.name),
                    todo=todo.get(each.name, ""),
                )
                for each in service.drives
            ],
            cartridges=[self._cartridge(code, lives.get(code), places.get(code)) for code in codes],
            tasks=[_answer(task) for task in cleanings.tasks()],
        )

    def _cartridge(self, code: str, life: CartridgeLife | None, place: str | None) -> CleaningCartridge:
        return CleaningCartridge(
            barcode=code,
            place=place,
            cleanings=life.mountings if life else 0,
            most_cleanings=CLEANINGS,
            is_used_up=life is not None and not has_cleanings_left(life),
            uses=[
                CleaningUse(drive=each.drive, began_at=moment(each.loaded_at_ns), ended_at=moment(each.unloaded_at_ns))
                for each in self._service.ledger.mountings(code)
            ],
        )


def _answer(task: CleaningTask) -> CleaningAnswer:
    return CleaningAnswer(
        number=task.number,
        drive=task.drive,
        cartridge=task.cartridge,
        is_automatic=task.is_automatic,
        state=task.state.value,
        error_kind=task.error_kind,
        error=task.error,
        asked_at=moment(task.asked_at_ns),
        began_at=moment(task.began_at_ns),
        finished_at=moment(task.finished_at_ns),
    )
