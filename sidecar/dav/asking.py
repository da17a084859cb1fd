"""What a PROPFIND asks for: its depth and the properties in its body. Pure functions.

The body is read by expat without building anything from it. A DOCTYPE is refused, and with it every entity, and so is
more nesting and more names than any client sends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple
from xml.parsers import expat

from starlette.datastructures import Headers

from sidecar.http.statuses import BadRequest

DAV = "DAV:"
MOST_NAMES = 200
MOST_DEPTH = 20


class Depth(Enum):
    """How far down."""

    ITSELF = "0"
    CHILDREN = "1"
    ALL = "infinity"


class Kind(Enum):
    """Which of the three things that a PROPFIND may want."""

    ALL = "allprop"
    NAMES = "propname"
    SOME = "prop"


class Name(NamedTuple):
    """Name of a property."""

    namespace: str
    local: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for."""

    kind: Kind
    #: With SOME all of them; with ALL those that are wanted beside the usual ones.
    names: tuple[Name, ...] = ()


def depth_of(headers: Headers) -> Depth:
    """Return how far down; to the end where nothing is said (RFC 4918 §9.1). Raises BadRequest."""
    try:
        return Depth(headers.get("depth", Depth.ALL.value).strip().lower())
    except ValueError:
        raise BadRequest("the header Depth is 0, 1 or infinity") from None


def wanted_of(body: bytes) -> Wanted:
    """Return what a body asks for; an empty one asks for all. Raises BadRequest."""
    if not body.strip():
        return Wanted(Kind.ALL)
    reading = _Reading()
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = reading.doctype
    parser.StartElementHandler = reading.start
    parser.EndElementHandler = reading.end
    try:
        parser.Parse(body, True)
    except (expat.ExpatError, LookupError, ValueError) as error:  # The last two: encodings that there are not.
        raise BadRequest(f"the body is no XML: {error}") from error
    return reading.wanted()


@dataclass(slots=True)
class _Reading:
    """Takes what expat finds."""

    _way: list[Name] = field(default_factory=list)
    _kind: Kind | None = None
    _names: list[Name] = field(default_factory=list)

    def doctype(self, *_: object) -> None:
        raise BadRequest("the body has a DOCTYPE: such XML is not read")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        namespace, _, local = name.rpartition(" ")
        here = Name(namespace, local)
        depth = len(self._way)
        if depth == 0 and here != Name(DAV, "propfind"):
            raise BadRequest("the body is no propfind of DAV:")
        if depth == 1 and namespace == DAV:
            self._choose(local)
        if depth == 2 and self._way[1] in (Name(DAV, "prop"), Name(DAV, "include")):
            self._names.append(here)
        if depth >= MOST_DEPTH or len(self._names) > MOST_NAMES:
            raise BadRequest(f"the body asks for more than {MOST_NAMES} properties, or is nested too deeply")
        self._way.append(here)

    def end(self, name: str) -> None:
        self._way.pop()

    def _choose(self, local: str) -> None:
        kind = next((kind for kind in Kind if kind.value == local), None)
        if kind is not None and self._kind is not None:
            raise BadRequest("the body asks for two things: prop, allprop and propname exclude each other")
        self._kind = kind or self._kind

    def wanted(self) -> Wanted:
        if self._kind is None:
            raise BadRequest("the body asks for nothing: prop, allprop or propname is missing")
        return Wanted(self._kind, tuple(dict.fromkeys(self._names)))
