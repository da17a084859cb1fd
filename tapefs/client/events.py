"""The stream of events, as the sidecar sends it. Blocking; for one thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode

import msgspec

from tapefs.client.address import Address
from tapefs.client.api import decode
from tapefs.client.notices import NoticeView
from tapefs.client.transport import LineStream

#: The sidecar gives a sign of life every fifteen seconds.
SILENCE_S = 60.0


class ProgressView(msgspec.Struct, frozen=True, kw_only=True):
    """How far something is; the next of the same kind and subject takes its place."""

    at: datetime | None
    kind: str
    subject: str
    facts: dict[str, str | int | float | bool | None]
    #: Nothing more is told of it.
    is_over: bool = False


class GapView(msgspec.Struct, frozen=True, kw_only=True):
    """Notices that were asked for and are not kept any more."""

    first: int
    last: int


EventView = NoticeView | ProgressView | GapView
_KINDS: dict[str, type[EventView]] = {"notice": NoticeView, "progress": ProgressView, "gap": GapView}


def follow(where: Path | Address, *, since: int | None = None, kinds: Sequence[str] = ()) -> Iterator[EventView]:
    """Yield events until the sidecar ends the stream: first the notices behind `since`, without it those to come.

    Raises as `tapefs.client.transport.LineStream`; Unreachable when the sidecar goes away.
    """
    query = {} if since is None else {"since": str(since)}
    if kinds:
        query["kinds"] = ",".join(kinds)
    with closing(LineStream(where, f"/api/v1/events?{urlencode(query)}", SILENCE_S)) as stream:
        yield from events_in(stream)


def events_in(lines: Iterator[bytes] | LineStream) -> Iterator[EventView]:
    """Yield the events of lines as the sidecar sends them; those of kinds that are not known are left out."""
    name, data = "", b""
    for line in lines:
        field, _, value = line.rstrip(b"\r\n").partition(b": ")
        if field == b"event":
            name = value.decode()
        elif field == b"data":
            data = value
        elif not field and not value:  # The empty line at the end of an event; a comment has no field, but a value.
            if data and name in _KINDS:
                yield decode(data, _KINDS[name])
            name, data = "", b""
