"""Answers that come line by line: searches as JSON lines, events as server-sent events. Pure.

Server-sent events are those of the HTML standard: an empty line ends one, a colon begins a comment.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlencode

from tapefs.errors import TapefsError, Unreachable

EVENTS, FIND, VERSIONS = "/api/v1/events", "/api/v1/find", "/api/v1/versions"


class Event(NamedTuple):
    """Something that has happened."""

    #: For `after`: what came behind it; empty: none was sent yet.
    id: str
    kind: str
    data: str

    def json(self) -> Any:
        """Return what the data says. Raises TapefsError when it is no JSON."""
        try:
            return json.loads(self.data)
        except ValueError as error:
            raise TapefsError(f"an event of the sidecar makes no sense ({error})") from error


class Events:
    """Puts events together from lines."""

    def __init__(self) -> None:
        self._id = ""
        self._kind = ""
        self._data: list[str] = []

    def feed(self, line: str) -> Event | None:
        """Take a line, with or without its end; return the event that it ends."""
        line = line.rstrip("\r\n")
        if not line:
            return self._ended()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._kind = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _ended(self) -> Event | None:
        event = Event(self._id, self._kind or "message", "\n".join(self._data)) if self._data else None
        self._kind, self._data = "", []
        return event


def event_target(choice: Mapping[str, str]) -> str:
    """Return what to ask for events."""
    return f"{EVENTS}?{urlencode(choice)}" if choice else EVENTS


def search_target(patterns: Sequence[str], choice: Iterable[tuple[str, str]]) -> str:
    """Return what to ask for a search."""
    return f"{FIND}?{urlencode([*(('pattern', each) for each in patterns), *choice])}"


def whole_lines(lines: Iterable[bytes]) -> list[dict[str, Any]]:
    """Return what JSON lines say, without the last one. Raises TapefsError for an answer that broke off."""
    found: list[dict[str, Any]] = []
    for line in lines:
        if not line.strip():
            continue
        try:
            told = json.loads(line)
        except ValueError as error:
            raise TapefsError(f"the sidecar's answer makes no sense ({error})") from error
        if told.get("end"):
            return found
        if set(told) == {"error"}:
            raise TapefsError(f"the search could not go on: {told['error']}")
        found.append(told)
    raise Unreachable("the sidecar broke off in the middle of a search")
