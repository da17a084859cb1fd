"""GET /api/v1/status, GET /health, and the drives."""

from __future__ import annotations

import os
from datetime import datetime
from functools import cached_property
from pathlib import Path

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from drivers.interface import Counters
from sidecar.drives.health import Health
from sidecar.http.answers import json_answer, moment
from sidecar.http.callers import Role
from sidecar.http.calls import PAGE, Call
from sidecar.http.paging import page_answer
from sidecar.service import Service
from tapefs import __version__

#: What movers have left about their drives is read so seldom.
FILES_S = 1.0


class HealthAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """`ok`, or `degraded` when a drive has failed; and what each drive does."""

    status: str
    drives: dict[str, str]
    #: Parts of the sidecar, and schedules, that have failed lately, and why; they are tried again by themselves.
    troubles: dict[str, str] = {}


class FailureAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Why a drive is not used."""

    reason: str
    since: datetime | None
    #: A tape that it does not give back.
    stuck_tape: str | None
    #: Nobody tries it before an operator says so.
    set_aside: bool
    sentence: str


class _DriveFile(msgspec.Struct, frozen=True):
    """What of a drive's file is shown; the rest is ignored."""

    compresses: bool | None = None
    counters: Counters | None = None


class DriveAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A drive."""

    name: str
    state: str
    tape: str | None
    failure: FailureAnswer | None
    note: str | None
    #: Null: its mover has not told yet.
    compresses: bool | None
    #: What the drive has counted, as its mover has left it; null: it has not told yet.
    counters: Counters | None


class StatusAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers, and how the drives are."""

    version: str
    home: str
    pid: int
    installation_id: str
    drives: list[DriveAnswer]
    #: What an operator is to be reminded of.
    warnings: list[str]


class Tried(msgspec.Struct, frozen=True):
    """The drive that is tried."""

    name: str


class StatusCalls:
    """Who answers, and how the drives are."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._files: dict[str, _DriveFile] | None = None
        self._files_at = 0.0

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call("/health", self.health, needs=Role.VIEWER, answer=HealthAnswer),
            Call("/api/v1/status", self.status, needs=Role.VIEWER, answer=StatusAnswer),
            Call("/api/v1/drives", self.drives, needs=Role.VIEWER, answer=list[DriveAnswer], query=PAGE),
            Call("/api/v1/drives/{drive}", self.drive, needs=Role.VIEWER, answer=DriveAnswer),
            Call(
                "/api/v1/drives/{drive}/retry",
                self.retry,
                methods=["POST"],
                needs=Role.OPERATOR,
                answer=Tried,
                status=202,
            ),
        ]

    async def health(self, request: Request) -> Response:
        """Tell that HTTP works, and whether every drive does."""
        states = {drive.name: drive.state for drive in self._service.drives}
        troubles = self._service.troubles()
        is_degraded = bool(troubles) or "failed" in states.values()
        return json_answer(HealthAnswer("degraded" if is_degraded else "ok", states, troubles))

    @cached_property
    def _installation_id(self) -> str:
        """Asked once: it never changes while a ledger is open."""
        return self._service.ledger.installation().installation_id

    async def status(self, request: Request) -> Response:
        """Tell everything about this sidecar and its drives."""
        service = self._service
        return json_answer(
            StatusAnswer(
                version=__version__,
                home=os.fsencode(service.home.path).decode("utf-8", "backslashreplace"),
                pid=os.getpid(),
                installation_id=self._installation_id,
                drives=await self._drives(),
                warnings=[
                    *service.access.warnings(),
                    *(f"{name}: failed lately, and is tried again: {why}" for name, why in service.troubles().items()),
                ],
            )
        )

    async def drives(self, request: Request) -> Response:
        """List the drives."""
        return page_answer(request, await self._drives(), lambda drive: drive)

    async def drive(self, request: Request) -> Response:
        """Show one drive."""
        name = self._service.fleet.of(str(request.path_params["drive"])).name
        return json_answer(next(each for each in await self._drives() if each.name == name))

    async def _drives(self) -> list[DriveAnswer]:
        files = await self._read_files()
        return [
            DriveAnswer(
                name=drive.name,
                state=drive.state,
                tape=drive.tape,
                failure=_failure(drive.health),
                note=drive.note or None,
                compresses=files[drive.name].compresses,
                counters=files[drive.name].counters,
            )
            for drive in self._service.drives
        ]

    async def _read_files(self) -> dict[str, _DriveFile]:
        """Return what movers have left about the drives, at most FILES_S old: a thread costs more than the rest."""
        if self._files is None or trio.current_time() >= self._files_at + FILES_S:
            names = [drive.name for drive in self._service.drives]
            self._files_at = trio.current_time()
            self._files = await trio.to_thread.run_sync(_files, self._service.home.drives, names)
        return self._files

    async def retry(self, request: Request) -> Response:
        """An operator says that a drive that has failed works again: it is tried at once. 202."""
        health = self._service.fleet.of(str(request.path_params["drive"]))
        health.retry()
        return json_answer(Tried(health.name), 202)


def _failure(health: Health) -> FailureAnswer | None:
    if not health.reason:
        return None
    return FailureAnswer(
        reason=health.reason,
        since=moment(health.failed_at_ns),
        stuck_tape=health.stuck or None,
        set_aside=health.is_set_aside,
        sentence=health.sentence(),
    )


def _files(folder: Path, names: list[str]) -> dict[str, _DriveFile]:
    """Return by drive what its mover has left about it in HOME/drives; nothing before it has. Blocking."""
    return {name: _read(folder / f"{name}.json") for name in names}


def _read(path: Path) -> _DriveFile:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_DriveFile)
    except (FileNotFoundError, msgspec.DecodeError):  # It is not synced: a power cut may leave it empty.
        return _DriveFile()
