"""The outermost layer: gives each request an id, measures it, and writes into the audit log what changes anything.

Plain ASGI; trio only. The id goes into every line of the log that is written while the request is served, and back to
the client as X-Request-Id; one that the client sends is taken if it is harmless. Calls that destroy something are in
the audit log, on disk, before they begin: without that they are refused. What the mount posts all the time (readers
that wait, walks) has a log of its own and is left out.
"""

from __future__ import annotations

import os
import re
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate

import msgspec
import structlog
import trio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sidecar.http.callers import caller_in
from sidecar.http.gates import is_stream
from sidecar.http.request_notes import NOTES, Notes, notes_in
from sidecar.http.statuses import NotAudited
from tapefs.audit import NULL, AuditLog, Entry, without_secrets, without_tokens
from tapefs.errors import HomeError

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND"})
#: Machine talk that the mount and other clients make without anybody having decided anything, and questions by POST.
_CHATTER = re.compile(r"/api/v1/(recalls(/cancel)?|walks(/end)?)|/wlcg/v1/archiveinfo")
#: Calls behind which something is gone, or may be written over; DELETE is one, too …
_DESTROYS = re.compile(
    r"/api/v1/(expire|reclaim|restores|keys|tapes/(label|relabel|erase|forget))"
    r"|/api/tape/(format|erase|create|write-label|update/[^/]+|operations/(format|erase))"
    r"|/api/recovery/(restore|tasks)"
)
#: … but for these, which only let go of what can be asked for again.
_LETS_GO = re.compile(r"/api/v1/(pins/[^/]+|session|shelf/[^/]+)|/wlcg/v1/.*")
#: Whoever mistypes may have given his password for his name: what was refused here is not written down.
_LOGINS = frozenset({"/api/v1/session", "/api/user/login"})
#: Ids of requests that clients may choose.
_HARMLESS = re.compile(r"[A-Za-z0-9._-]{1,64}")
#: No browser is to take an answer for a page or a script by what is in it.
_AS_IT_SAYS = (b"x-content-type-options", b"nosniff")
#: Of a body so much is kept for the audit log.
LONGEST_BODY_BYTES = 16 * 1024
#: Upper bounds of the histogram of durations, in seconds.
BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Latencies:
    """Durations of requests of one method and status class."""

    count: int = 0
    sum_s: float = 0.0
    #: How many belong to each of BOUNDS_S and no lower one, and to none.
    _each: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))

    @property
    def within(self) -> list[int]:
        """How many were not longer than each of BOUNDS_S."""
        return list(accumulate(self._each))[:-1]

    def add(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self.sum_s += seconds
        self._each[bisect_left(BOUNDS_S, seconds)] += 1


@dataclass(slots=True)
class HttpFigures:
    """What was asked so far."""

    #: By method and first digit of the status.
    requests: dict[tuple[str, str], Latencies] = field(default_factory=dict)
    in_flight: int = 0

    def note(self, method: str, status: int, seconds: float) -> None:
        """Count a request."""
        key = method if method in _METHODS else "other", f"{status // 100}xx"
        self.requests.setdefault(key, Latencies()).add(seconds)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"})


class Accounting:
    """Around everything else."""

    def __init__(self, app: ASGIApp, audit: AuditLog, figures: HttpFigures) -> None:
        self._app = app
        self._audit = audit
        self._figures = figures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        notes = Notes(_id_of(scope), time.monotonic())
        scope[NOTES] = notes

        async def note_receive() -> Message:
            message = await receive()
            if message["type"] == "http.request" and len(notes.body) <= LONGEST_BODY_BYTES:
                notes.body += message.get("body", b"")
            return message

        async def note_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                notes.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", notes.request.encode()), _AS_IT_SAYS]
            await send(message)

        is_noted = is_audited(scope["method"], scope["path"])
        if is_noted and _is_destroying(scope):
            notes.begin = self._write_begin
        self._figures.in_flight += 1
        with structlog.contextvars.bound_contextvars(request=notes.request):
            try:
                await self._app(scope, note_receive if is_noted and not is_stream(scope) else receive, note_send)
            finally:
                self._figures.in_flight -= 1
                spent_s = 0.0 if notes.is_endless else time.monotonic() - notes.began_s
                self._figures.note(scope["method"], notes.status or 499, spent_s)
                if is_noted and notes.status != 429:
                    with trio.CancelScope(shield=True):
                        await self._write_end(scope, notes)

    async def _write_begin(self, scope: Scope) -> None:
        """Have it on disk that this is about to be done. Raises NotAudited."""
        notes = notes_in(scope)
        if notes is not None:
            await self._write(scope, notes, "begun")

    async def _write_end(self, scope: Scope, notes: Notes) -> None:
        try:
            await self._write(scope, notes, _outcome(notes.status))
        except NotAudited as error:
            log.error("the audit log lacks a call", path=scope["path"], error=str(error))

    async def _write(self, scope: Scope, notes: Notes, outcome: str) -> None:
        """Write a line. Raises NotAudited."""
        caller = caller_in(scope)
        is_begun = outcome == "begun"
        is_hidden = scope["path"] in _LOGINS and notes.status != 200
        body = None if is_hidden else notes.new if notes.new is not None else _body(notes)
        entry = Entry(
            at=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            who=caller.name,
            uid=caller.uid,
            address=caller.address or _address(scope),
            operation=f"{scope['method']} {notes.template or _shown(scope['path'])}",
            resource=_shown(scope["path"]),
            outcome=outcome,
            status=notes.status,
            request=notes.request,
            duration_ms=0.0 if is_begun else round((time.monotonic() - notes.began_s) * 1000, 3),
            old=NULL if is_begun else _raw(notes.old),
            new=NULL if is_begun else _raw(body),
        )
        is_durable = is_begun or _is_destroying(scope)
        try:
            await trio.to_thread.run_sync(partial(self._audit.append, entry, is_durable=is_durable))
        except HomeError as error:
            raise NotAudited(str(error)) from error


def _is_destroying(scope: Scope) -> bool:
    return destroys(scope["method"], scope["path"])


def destroys(method: str, path: str) -> bool:
    """Is something gone behind such a call?"""
    if method == "DELETE":
        return _LETS_GO.fullmatch(path) is None
    return _DESTROYS.fullmatch(path) is not None


def is_audited(method: str, path: str) -> bool:
    """Does such a call stand in the audit log?"""
    return method not in SAFE and _CHATTER.fullmatch(path) is None


def _outcome(status: int) -> str:
    if not status or status >= 500:
        return "failed"
    return "refused" if status >= 400 else "done"


def _id_of(scope: Scope) -> str:
    given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
    return given if given and _HARMLESS.fullmatch(given) else os.urandom(8).hex()


def _shown(path: str) -> str:
    return without_tokens(path)[:500].encode("utf-8", "backslashreplace").decode()


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client and client[0] else ""


def _body(notes: Notes) -> object:
    if not notes.body or len(notes.body) > LONGEST_BODY_BYTES:
        return None if not notes.body else "too long for the audit log"
    try:
        return msgspec.json.decode(bytes(notes.body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "not JSON"


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(without_secrets(msgspec.to_builtins(value))))
