"""The application: all routes, and how errors become answers. Serves both kinds of listener."""

from __future__ import annotations

from typing import cast

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, ExceptionHandler

from catalog.errors import CatalogError
from drivers.errors import DriveError
from sidecar.dav.calls import DavCalls
from sidecar.http.calls import Call
from sidecar.http.compression import Compression
from sidecar.http.metrics import MetricsCalls
from sidecar.http.problems import problem_answer
from sidecar.http.requests import Invalid
from sidecar.http.statuses import challenge_of, sentence_of, status_of
from sidecar.own.access import AccessCalls
from sidecar.own.cleaning import CleaningCalls
from sidecar.own.docs import DocsCalls
from sidecar.own.events import EventCalls
from sidecar.own.expiry import ExpiryCalls
from sidecar.own.files import FileCalls
from sidecar.own.frames import FrameCalls
from sidecar.own.jobs import JobCalls
from sidecar.own.keys import KeyCalls
from sidecar.own.notices import NoticeCalls
from sidecar.own.pins import PinCalls
from sidecar.own.places import PlaceCalls
from sidecar.own.policy import PolicyCalls
from sidecar.own.pools import PoolCalls
from sidecar.own.ports import PortCalls
from sidecar.own.prompts import PromptCalls
from sidecar.own.readiness import ReadinessCalls
from sidecar.own.recalls import RecallCalls
from sidecar.own.reclaim import ReclaimCalls
from sidecar.own.reports import ReportCalls
from sidecar.own.restores import OwnRestoreCalls
from sidecar.own.schedules import ScheduleCalls
from sidecar.own.search import SearchCalls
from sidecar.own.session import SessionCalls
from sidecar.own.sets import SetCalls
from sidecar.own.status import StatusCalls
from sidecar.own.streams import StreamCalls
from sidecar.own.taf_import import TafImportCalls
from sidecar.own.tapes import OwnTapeCalls
from sidecar.own.upkeep import UpkeepCalls
from sidecar.own.verify import VerifyCalls
from sidecar.service import Service
from sidecar.taf.backup import BackupCalls
from sidecar.taf.backup_more import BackupMoreCalls
from sidecar.taf.configuration import ConfigurationCalls
from sidecar.taf.database import DatabaseCalls
from sidecar.taf.host_files import HostFileCalls
from sidecar.taf.ibm import IbmCalls
from sidecar.taf.notification import NotificationCalls
from sidecar.taf.recovery import RecoveryCalls
from sidecar.taf.restores import RestoreCalls
from sidecar.taf.scheduler import SchedulerCalls
from sidecar.taf.system import SystemCalls
from sidecar.taf.tape import TapeCalls
from sidecar.taf.tape_work import TapeWorkCalls
from sidecar.taf.user import UserCalls
from sidecar.wlcg.calls import WlcgCalls
from tapefs.errors import TapefsError

#: Errors that belong to requests; any other is a bug.
EXPECTED = (TapefsError, CatalogError, DriveError, OSError)

log = structlog.get_logger(__name__)


def make_app(service: Service) -> ASGIApp:
    """Return the application on top of a running service."""
    handlers: dict[int | type[Exception], ExceptionHandler] = {
        kind: cast(ExceptionHandler, _expected) for kind in EXPECTED
    }
    handlers[HTTPException] = cast(ExceptionHandler, _http)
    handlers[ClientDisconnect] = cast(ExceptionHandler, _gone)
    handlers[Exception] = cast(ExceptionHandler, _unexpected)
    return Compression(Starlette(routes=calls_of(service), exception_handlers=handlers))


def calls_of(service: Service) -> list[Call]:
    """Return all that can be called."""
    families = (
        StatusCalls(service),
        JobCalls(service),
        ExpiryCalls(service),
        RecallCalls(service),
        PolicyCalls(service),
        PinCalls(service),
        FrameCalls(service),
        KeyCalls(service),
        PoolCalls(service),
        PlaceCalls(service),
        PromptCalls(service),
        NoticeCalls(service),
        EventCalls(service),
        MetricsCalls(service),
        ReadinessCalls(service),
        VerifyCalls(service),
        OwnTapeCalls(service),
        CleaningCalls(service),
        PortCalls(service),
        ReclaimCalls(service),
        TafImportCalls(service),
        ReportCalls(service),
        SetCalls(service),
        OwnRestoreCalls(service),
        ScheduleCalls(service),
        StreamCalls(service),
        UpkeepCalls(service),
        SearchCalls(service),
        BackupCalls(service),
        BackupMoreCalls(service),
        RecoveryCalls(service),
        RestoreCalls(service),
        TapeCalls(service),
        TapeWorkCalls(service),
        IbmCalls(service),
        SchedulerCalls(service),
        SystemCalls(service),
        ConfigurationCalls(service),
        HostFileCalls(service),
        NotificationCalls(service),
        DatabaseCalls(service),
        AccessCalls(service),
        SessionCalls(service),
        UserCalls(service),
        FileCalls(service),
        DavCalls(service),
        WlcgCalls(service),
    )
    calls = [call for family in families for call in family.routes()]
    return [*calls, *DocsCalls(service, lambda: calls_of(service)).routes()]


async def _expected(request: Request, error: Exception) -> Response:
    """Answer with the error's status, in the shape that the caller reads."""
    status = status_of(error)
    if status >= 500:
        log.error("request failed", method=request.method, path=request.url.path, error=str(error))
    invalid = error if isinstance(error, Invalid) else None
    return problem_answer(request.scope, status, sentence_of(error), challenge_of(error, request.scope), invalid)


async def _http(request: Request, error: HTTPException) -> Response:
    """Answer for a path that is not there, or not with this method."""
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_methods_at(request)))
    return problem_answer(request.scope, error.status_code, error.detail, headers)


def _methods_at(request: Request) -> set[str]:
    """Return all methods of a path: each of its calls knows only its own."""
    routes = [route for route in request.app.routes if isinstance(route, Route)]
    return {
        method
        for route in routes
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    """Nobody reads the answer; 499 is what others log for it."""
    return Response(status_code=499)


async def _unexpected(request: Request, error: Exception) -> Response:
    """Say only that it failed; the server logs the traceback."""
    return problem_answer(request.scope, 500, "internal error: see the sidecar's log")
