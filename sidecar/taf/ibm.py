"""TAF's /api/tape/ibm/…, and what else it does to a drive by hand.

A drive belongs to its mover, which reads its log pages when a tape is threaded and before it leaves, and never while it
streams. What is kept of that is told here. Commands that would go past the mover (log sense of any page, mode sense,
rewinding, self-tests) would move the tape beneath a backup: they answer 501, with a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import partial

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from catalog.life_records import Mounting
from sidecar.drives.drive import DriveTask
from sidecar.http.answers import json_answer, moment
from sidecar.http.callers import Role
from sidecar.http.calls import Call, Query
from sidecar.http.requests import text_of
from sidecar.service import Service
from sidecar.taf.tape_facts import DriveFile, TapeKnowledge, drive_file
from tapefs.condition.known import LOOKED_BACK_NS
from tapefs.errors import NoSuchThing

_OWNED = "the drive belongs to its mover, and a command past it would disturb what it does"
#: What is not offered, and where it is instead.
REFUSED = {
    ("POST", "ibm/self-test"): f"{_OWNED}; `tapefs doctor` tests drive and tape",
    ("POST", "ibm/encryption/enable"): "keys are made with `tapefs key`; which tapes get one says [encryption]",
    ("POST", "ibm/encryption/disable"): "which tapes are encrypted says [encryption] in tapefs.toml",
    ("POST", "ibm/worm/enable"): "whether a cartridge can be written only once is a matter of the cartridge",
    ("POST", "ibm/worm/disable"): "whether a cartridge can be written only once is a matter of the cartridge",
    ("GET", "ibm/position"): f"{_OWNED}: where the tape stands changes with every read",
    ("GET", "ibm/sense"): f"{_OWNED}; what it said of failures is in GET /api/tape/ibm/alerts and the log",
    ("POST", "ibm/log-sense"): f"{_OWNED}; what its log pages said is in GET /api/tape/ibm/usage and alerts",
    ("POST", "ibm/mode-sense"): _OWNED,
    ("POST", "ibm/inquiry-vpd"): f"{_OWNED}; GET /api/tape/ibm/serial tells who it is",
    ("POST", "operations/rewind"): f"{_OWNED}: it goes where a backup or a restore needs it",
    ("POST", "operations/space"): f"{_OWNED}: it goes where a backup or a restore needs it",
}


class Refusal(msgspec.Struct, frozen=True):
    """TAF's answer to what is not there."""

    detail: str


class Alert(msgspec.Struct, frozen=True):
    """A TapeAlert flag that was set, and when the tape was loaded with which that was."""

    flag: int
    tape: str
    at: datetime | None


class Alerts(msgspec.Struct, frozen=True):
    """The flags of a drive in the last months, the newest first."""

    success: bool
    drive: str
    alerts: list[Alert]


class Performance(msgspec.Struct, frozen=True):
    """What a drive has counted since it was started."""

    success: bool
    drive: str
    performance: dict[str, int | float]


class DriveUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What was done with a drive in the last months."""

    mountings: int
    written_bytes: int
    read_bytes: int
    write_failures: int
    read_failures: int
    corrected_writes: int | None
    corrected_reads: int | None


class UsageAnswer(msgspec.Struct, frozen=True):
    """The same with its drive."""

    success: bool
    drive: str
    usage: DriveUsage


class Temperature(msgspec.Struct, frozen=True):
    """The highest that a drive told the last time a tape was in it; null: it tells none."""

    success: bool
    drive: str
    temperature: int | None


class Serial(msgspec.Struct, frozen=True):
    """Who a drive is."""

    success: bool
    drive: str
    serial: str
    identity: str


class Firmware(msgspec.Struct, frozen=True):
    """Null: no drive is asked for it."""

    success: bool
    drive: str
    firmware: str | None
    message: str


class IbmCalls:
    """The drive, as TAF's calls see it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._knows = TapeKnowledge(service)

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        base, which = "/api/tape", (Query("drive", "its name; else the only one, or the first"),)
        get = partial(Call, needs=Role.VIEWER, query=which)
        found = [
            get(f"{base}/ibm/alerts", self.alerts, answer=Alerts),
            get(f"{base}/ibm/performance", self.performance, answer=Performance),
            get(f"{base}/ibm/usage", self.usage, answer=UsageAnswer),
            get(f"{base}/ibm/temperature", self.temperature, answer=Temperature),
            get(f"{base}/ibm/serial", self.serial, answer=Serial),
            get(f"{base}/ibm/firmware", self.firmware, answer=Firmware),
        ]
        for method, path in REFUSED:
            role = Role.VIEWER if method == "GET" else Role.ADMIN
            found.append(Call(f"{base}/{path}", self.refuse, methods=[method], needs=role, answer=Refusal, status=501))
        return found

    async def refuse(self, request: Request) -> Response:
        """Say why this is not done."""
        why = REFUSED[request.method, request.url.path.removeprefix("/api/tape/")]
        return json_answer(Refusal(f"{request.url.path} is not offered: {why}"), 501)

    async def alerts(self, request: Request) -> Response:
        """Tell what a drive has complained of."""
        drive, mountings = await self._mountings(request)
        alerts = [
            Alert(flag, each.code, moment(each.loaded_at_ns)) for each in reversed(mountings) for flag in each.alerts
        ]
        return json_answer(Alerts(True, drive.name, alerts))

    async def performance(self, request: Request) -> Response:
        """Tell what a drive has counted."""
        drive = self._drive(request)
        return json_answer(Performance(True, drive.name, (await self._file(drive)).counters))

    async def usage(self, request: Request) -> Response:
        """Tell what was done with a drive."""
        drive, mountings = await self._mountings(request)
        usage = DriveUsage(
            mountings=len(mountings),
            written_bytes=sum(each.written_bytes for each in mountings),
            read_bytes=sum(each.read_bytes for each in mountings),
            write_failures=sum(each.write_failures for each in mountings),
            read_failures=sum(each.read_failures for each in mountings),
            corrected_writes=_sum(each.corrected_writes for each in mountings),
            corrected_reads=_sum(each.corrected_reads for each in mountings),
        )
        return json_answer(UsageAnswer(True, drive.name, usage))

    async def temperature(self, request: Request) -> Response:
        """Tell how warm a drive was."""
        drive, mountings = await self._mountings(request)
        told = [each.temperature_c for each in mountings if each.temperature_c is not None]
        return json_answer(Temperature(True, drive.name, told[-1] if told else None))

    async def serial(self, request: Request) -> Response:
        """Tell who a drive is."""
        drive = self._drive(request)
        device = await trio.to_thread.run_sync(self._knows.device, drive)
        return json_answer(Serial(True, drive.name, device.serial, (await self._file(drive)).identity))

    async def firmware(self, request: Request) -> Response:
        """Say that no drive is asked for it."""
        drive = self._drive(request)
        message = f"{drive.name} was not asked for its firmware; `sg_inq` tells it while nothing uses the drive"
        return json_answer(Firmware(False, drive.name, None, message))

    def _drive(self, request: Request) -> DriveTask:
        name = text_of(request, "drive")
        for drive in self._service.drives:
            if name in (None, drive.name):
                return drive
        raise NoSuchThing(f"there is no drive {name}: see `tapefs drives`")

    async def _file(self, drive: DriveTask) -> DriveFile:
        found = await trio.to_thread.run_sync(drive_file, self._service.home.drives, drive.name)
        return found or DriveFile()

    async def _mountings(self, request: Request) -> tuple[DriveTask, list[Mounting]]:
        """Return those of the last months, oldest first."""
        drive, since_ns = self._drive(request), self._service.jobs.now_ns() - LOOKED_BACK_NS
        found = await trio.to_thread.run_sync(self._service.ledger.mountings_since, since_ns)
        mine = [each for each in found if each.drive == drive.name]
        return drive, sorted(mine, key=lambda each: each.loaded_at_ns)


def _sum(counts: Iterable[int | None]) -> int | None:
    told = [each for each in counts if each is not None]
    return sum(told) if told else None
