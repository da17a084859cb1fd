"""GET /api/v1/find and /api/v1/versions: what `tapefs find` and `tapefs versions` show, as JSON lines.

A search runs in a thread of its own, at most two at a time; the others wait for their turn. It goes on as its client
reads, and ends when the client does.
"""

from __future__ import annotations

import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Annotated

import msgspec
import structlog
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from catalog.errors import CatalogError
from sidecar.http.callers import Role
from sidecar.http.calls import LINES, Call
from sidecar.http.calls import Query as Asked
from sidecar.http.listeners import CONNECTION, Connection
from sidecar.http.requests import Invalid, moment_of, number_of, text_of
from sidecar.service import Service
from tapefs.errors import TapefsError
from tapefs.search.find import OPEN_INDEXES, find
from tapefs.search.present import Json, match_json, version_json
from tapefs.search.query import KINDS, Query
from tapefs.search.versions import residency_of, versions
from tapefs.vfs.archive import Archive

SEARCHES = 2
MOST_PATTERNS = 100
#: A client that takes nothing for so long is cut off: it holds a thread.
PATIENCE_S = 60.0
#: What was found is sent when there is so much of it, or so long after the last.
_PIECE_BYTES = 32 * 1024
_PIECE_S = 0.2

_Strings = Annotated[list[str], msgspec.Meta(max_length=MOST_PATTERNS)]
_Size = Annotated[int, msgspec.Meta(ge=0)]
FIND = (
    Asked("pattern", "of names; may come several times", Annotated[list[str], msgspec.Meta(min_length=1)], True),
    Asked("job", "name of a job; may come several times", _Strings),
    Asked("set", "whatever names a set"),
    Asked("since", "ISO 8601: files changed then or later"),
    Asked("until", "ISO 8601: files changed then or before"),
    Asked("min_bytes", "size", _Size),
    Asked("max_bytes", "size", _Size),
    Asked("type", f"one of {', '.join(KINDS)}; may come several times", _Strings),
    Asked("ignore_case", "of patterns", bool),
    Asked("path", "patterns are of whole paths", bool),
    Asked("all", "every version, not the newest only", bool),
    Asked("long", "with attributes and the number of versions", bool),
)
VERSIONS = (
    Asked("path", "as it was backed up; this or `path_b64`"),
    Asked("path_b64", "a path that is not UTF-8"),
    Asked("job", "name of a job; may come several times", _Strings),
)

_encoder = msgspec.json.Encoder()
log = structlog.get_logger(__name__)

#: Yields the values of a search; called in its thread, with what raises when it shall end.
Search = Callable[[Archive, Callable[[], None]], Iterator[Json]]


class SearchCalls:
    """Searches over all sets."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._limiter = trio.CapacityLimiter(SEARCHES)

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call("/api/v1/find", self.find, needs=Role.VIEWER, media=LINES, query=FIND, errors=(404, 409)),
            Call("/api/v1/versions", self.versions, needs=Role.VIEWER, media=LINES, query=VERSIONS, errors=(404, 409)),
        ]

    async def find(self, request: Request) -> Response:
        """Stream what fits."""
        _refuse_unknown(request, FIND)
        query, set_name = _query(request), text_of(request, "set")
        home = self._service.home

        def search(archive: Archive, look_around: Callable[[], None]) -> Iterator[Json]:
            wanted = query
            if set_name is not None:
                wanted = query.within(archive.find_set(set_name).set_id)
            roster = archive.roster()
            return (match_json(roster, match) for match in find(home, archive, wanted, look_around))

        return LinesResponse(self._service, self._limiter, search)

    async def versions(self, request: Request) -> Response:
        """Stream the versions of a path."""
        _refuse_unknown(request, VERSIONS)
        path, jobs = _path(request), frozenset(request.query_params.getlist("job"))

        def search(archive: Archive, look_around: Callable[[], None]) -> Iterator[Json]:
            roster = archive.roster()
            with residency_of(self._service.home, self._service.ledger) as residency:
                for each in versions(archive, path, residency, jobs, look_around):
                    yield version_json(roster, each, path)

        return LinesResponse(self._service, self._limiter, search)


class LinesResponse(Response):
    """Streams what a search yields, then a line with `end`, or with `error` when it could not go on.

    What is refused before anything was found has a status of its own.
    """

    media_type = LINES

    def __init__(self, service: Service, limiter: trio.CapacityLimiter, search: Search) -> None:
        super().__init__()
        self._service = service
        self._limiter = limiter
        self._search = search
        self._failure: TapefsError | CatalogError | OSError | None = None
        self._found = 0
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Search, and send until the search or the client ends."""
        connection: Connection = scope[CONNECTION]
        # No room: the search goes on when what it has found was sent.
        inlet, outlet = trio.open_memory_channel[bytes](0)
        is_begun = False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_wait_gone, receive, nursery.cancel_scope)
            nursery.start_soon(self._run, inlet)
            async for piece in outlet:
                if not is_begun:
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    is_begun = True
                await _send_soon(send, connection, piece)
            if is_begun or self._failure is None:
                if not is_begun:
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await _send_soon(send, connection, self._last_line(), is_end=True)
                is_begun = True
            nursery.cancel_scope.cancel()
        if self._failure is not None and not is_begun:
            raise self._failure

    def _last_line(self) -> bytes:
        if self._failure is None:
            return _encoder.encode({"end": True, "found": self._found}) + b"\n"
        log.error("a search failed", error=str(self._failure))
        return _encoder.encode({"error": str(self._failure)}) + b"\n"

    async def _run(self, inlet: trio.MemorySendChannel[bytes]) -> None:
        async with inlet:
            await trio.to_thread.run_sync(self._work, inlet, limiter=self._limiter)

    def _work(self, inlet: trio.MemorySendChannel[bytes]) -> None:
        """Search, in a thread; trio.Cancelled is raised here when the client has gone."""
        service = self._service
        try:
            with closing(Archive(service.home, service.ledger, open_indexes=OPEN_INDEXES)) as archive:
                lines: list[bytes] = []
                size_bytes, sent_s = 0, time.monotonic()
                for value in self._search(archive, trio.from_thread.check_cancelled):
                    lines.append(_encoder.encode(value) + b"\n")
                    self._found += 1
                    size_bytes += len(lines[-1])
                    if size_bytes >= _PIECE_BYTES or time.monotonic() > sent_s + _PIECE_S:
                        trio.from_thread.run(inlet.send, b"".join(lines))
                        lines, size_bytes, sent_s = [], 0, time.monotonic()
                if lines:
                    trio.from_thread.run(inlet.send, b"".join(lines))
        except (TapefsError, CatalogError, OSError) as error:
            self._failure = error


async def _send_soon(send: Send, connection: Connection, piece: bytes, *, is_end: bool = False) -> None:
    with trio.move_on_after(PATIENCE_S) as scope:
        await send({"type": "http.response.body", "body": piece, "more_body": not is_end})
    if scope.cancelled_caught:
        connection.cut()


async def _wait_gone(receive: Receive, scope: trio.CancelScope) -> None:
    """Cancel `scope` when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


# -- what was asked --------------------------------------------------------------------------------------------------


def _query(request: Request) -> Query:
    """Return what is searched for; patterns are looked at by the search. Raises Invalid."""
    values = request.query_params
    patterns = tuple(values.getlist("pattern"))
    if not 0 < len(patterns) <= MOST_PATTERNS:
        raise Invalid("value_error", ["query", "pattern"], f"name 1 to {MOST_PATTERNS} patterns")
    kinds = values.getlist("type")
    if not set(kinds) <= set(KINDS):
        raise Invalid("value_error", ["query", "type"], f"is one of {', '.join(KINDS)}", kinds)
    every, is_long = _is_set(request, "all"), _is_set(request, "long")
    return Query(
        patterns=patterns,
        ignore_case=_is_set(request, "ignore_case"),
        whole_path=_is_set(request, "path"),
        jobs=frozenset(values.getlist("job")),
        since_ns=_nanoseconds(request, "since"),
        until_ns=_nanoseconds(request, "until", is_end=True),
        min_bytes=number_of(request, "min_bytes"),
        max_bytes=number_of(request, "max_bytes"),
        kinds=frozenset(KINDS[kind] for kind in kinds),
        every=every,
        count_versions=is_long and not every,
        attributes=is_long,
    )


def _refuse_unknown(request: Request, known: Sequence[Asked]) -> None:
    unknown = set(request.query_params) - {each.name for each in known}
    if unknown:
        raise Invalid("extra_forbidden", ["query", min(unknown)], "there is no such parameter")


def _is_set(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "false")
    if text not in ("true", "false"):
        raise Invalid("bool_parsing", ["query", name], "is true or false", text)
    return text == "true"


def _nanoseconds(request: Request, name: str, *, is_end: bool = False) -> int | None:
    moment = moment_of(request, name, is_end=is_end)
    return None if moment is None else int(moment.timestamp() * 1_000_000) * 1000


def _path(request: Request) -> bytes:
    text, encoded = text_of(request, "path"), text_of(request, "path_b64")
    if (text is None) == (encoded is None):
        raise Invalid("value_error", ["query", "path"], "give either path or path_b64")
    if text is not None:
        return text.encode("utf-8", "surrogateescape")
    try:
        return b64decode(encoded or "", validate=True)
    except ValueError as error:  # Base64Error is one; letters that are not ASCII raise its base.
        raise Invalid("value_error", ["query", "path_b64"], f"is no base64: {error}", encoded) from error
