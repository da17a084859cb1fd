"""GET /api/v1/events: what happens, while it happens, as server-sent events. `tapefs events --follow` uses it."""

from __future__ import annotations

import re
from collections.abc import Callable

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from sidecar.access.gate import PROOF
from sidecar.access.registry import Proof
from sidecar.http.callers import Role
from sidecar.http.calls import Call, Query
from sidecar.http.listeners import CONNECTION, Connection
from sidecar.http.request_notes import note_endless
from sidecar.http.requests import Invalid, number_of, text_of
from sidecar.http.statuses import TooMany
from sidecar.live.hub import Listener, Live
from sidecar.service import Service

#: A stream ends after so long and its client comes again, so that nobody listens on what he may not any more.
LONGEST_S = 3600.0
#: Streams at one time: half of the connections that one address may have.
MOST_STREAMS = 1500
#: Patterns in `kinds`.
MOST_KINDS = 50

_NUMBER = re.compile(r"[0-9]{1,18}")


class EventCalls:
    """What happens, while it happens."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        query = (
            Query("since", "number of a notice: those with a higher one first; without it from now on", int),
            Query("kinds", "patterns of kinds, with commas between them: `backup.*,job.progress`"),
        )
        media = EventsResponse.media_type
        return [Call("/api/v1/events", self.events, needs=Role.VIEWER, query=query, media=media)]

    async def events(self, request: Request) -> Response:
        """Stream notices and progress as server-sent events, until the client or the sidecar ends.

        The header Last-Event-ID goes before `since`: a browser that connects again asks with the same URL.
        """
        live = self._service.live
        kinds = [each.strip() for each in (text_of(request, "kinds") or "").split(",") if each.strip()]
        if len(kinds) > MOST_KINDS:
            raise Invalid("too_long", ["query", "kinds"], f"at most {MOST_KINDS} patterns")
        behind = _last_id(request)
        if behind is None:
            behind = number_of(request, "since")
        if live.listeners >= MOST_STREAMS:
            raise TooMany(f"{MOST_STREAMS} streams of events are open already", 10)
        proof = request.scope.get(PROOF)
        return EventsResponse(live, Listener(live, kinds, behind), lambda: self._is_open(proof))

    def _is_open(self, proof: Proof | None) -> bool:
        return proof is None or self._service.access.registry.is_open(proof)


def _last_id(request: Request) -> int | None:
    text = request.headers.get("last-event-id")
    if not text:
        return None
    if not _NUMBER.fullmatch(text):
        raise Invalid("int_parsing", ["header", "last-event-id"], "Input should be a whole number", text)
    return int(text)


class EventsResponse(Response):
    """Streams what a listener is given."""

    media_type = "text/event-stream"

    def __init__(self, live: Live, listener: Listener, is_open: Callable[[], bool]) -> None:
        # X-Accel-Buffering: nginx would keep events back otherwise.
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._live = live
        self._listener = listener
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client or the hub ends. One that takes nothing for a minute is cut off by the listener."""
        note_endless(scope)
        connection: Connection = scope[CONNECTION]
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        self._live.come()
        try:
            with connection.following(), trio.move_on_after(LONGEST_S):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_wait_gone, receive, nursery.cancel_scope)
                    await self._send_all(send)
                    nursery.cancel_scope.cancel()
        finally:
            self._live.go()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send) -> None:
        while True:
            piece = await self._listener.next_piece()
            if piece is None or not self._is_open():
                return
            with trio.CancelScope(shield=True):  # A piece is sent as a whole, or its connection is cut.
                await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _wait_gone(receive: Receive, scope: trio.CancelScope) -> None:
    """Cancel `scope` when the client has closed its connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
