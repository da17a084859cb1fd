"""What a call is, apart from how it travels: each is written once, a blocking or a trio client carries it out. Pure.

A call is a function that returns an `Ask`, or, where one request is not enough, a generator of steps that returns the
answer. `@call` makes a method of it: of a `Blocking` client it returns the answer, of a `Waiting` one an awaitable.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload
from urllib.parse import quote

import msgspec

from tapefs.errors import TapefsError, UsageError

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")

#: Asking twice does what asking once does. Not DELETE: the second one would find nothing, and say so.
_SAFE = ("GET", "HEAD", "PUT")
#: Entries of a list that are asked for at a time: the most that there are in an answer.
PAGE = 1000
_NEXT = re.compile(r'<(/(?!/)[^>]*)>; rel="next"')


@dataclass(frozen=True)
class Ask(Generic[T]):
    """One request: `target` is path and query, `body` goes as JSON unless None, the answer is a `kind`."""

    method: str
    target: str
    body: object
    #: NoneType: whatever comes is not looked at.
    kind: type[T]
    then: Callable[[Any], T] | None = None

    def giving(self, then: Callable[[T], U]) -> Ask[U]:
        """Return the same, whose answer is what `then` makes of this one's."""
        first, kind = self.then, cast(type[U], self.kind)
        both: Callable[[Any], U] = then if first is None else lambda told: then(first(told))
        return Ask(self.method, self.target, self.body, kind, both)

    @property
    def is_safe(self) -> bool:
        """May it be sent again when nobody knows whether it has arrived?"""
        return self.method in _SAFE

    def answer(self, head: Head) -> T:
        """Return what an answer stands for. Raises TapefsError when it is none of ours."""
        told: Any = None if self.kind is type(None) else decode(head.data or b"null", self.kind)
        return cast(T, told) if self.then is None else self.then(told)


def in_path(name: str) -> str:
    """Return a name as one step of a path. Raises UsageError for one that can name nothing."""
    if not name:
        raise UsageError("an empty name names nothing")
    return quote(name, safe="")


@dataclass(frozen=True)
class Page(Generic[T]):
    """A part of a list."""

    items: list[T]
    #: Path and query of the next one; empty: this is the last.
    next: str


@dataclass(frozen=True, kw_only=True)
class AskPage(Ask[Page[T]]):
    """One request for a part of a list of `each`; its answer is a Page."""

    each: type[T]
    #: Name under which the answer has the list; empty: it is the answer.
    inside: str = ""

    def answer(self, head: Head) -> Page[T]:
        """Return the part. Raises TapefsError when it is none of ours."""
        kind = list[self.each]  # type: ignore[name-defined]
        found: list[T] = decode(head.data, dict[str, kind])[self.inside] if self.inside else decode(head.data, kind)
        link = _NEXT.search(head.headers.get("link", ""))
        return Page(found, link[1] if link else "")


def every(target: str, each: type[T], most: int | None = None, *, inside: str = "") -> Steps[list[T]]:
    """Ask for a list, page after page to its end or so many entries; `target` may have a query, but no limit.

    `inside` is the name under which answers have the list; empty: it is all of the answer.
    """
    found: list[T] = []
    limit = PAGE if most is None else min(most, PAGE)
    target += f"{'&' if '?' in target else '?'}limit={limit}"
    while target:
        page: Page[T] = yield AskPage("GET", target, None, Page, each=each, inside=inside)
        found += page.items
        target = "" if most is not None and len(found) >= most else page.next
    return found[:most]


@dataclass(frozen=True)
class Head:
    """Status and headers of an answer, the names in small letters; `data` is its body where nobody took that."""

    status: int
    headers: Mapping[str, str]
    data: bytes = b""


class Taker(Protocol):
    """Takes the bytes of a successful answer, in one thread at a time."""

    def begin(self, head: Head) -> bool:
        """Look at an answer; False: its body is not for us."""

    def take(self, data: bytes) -> None:
        """Take the next bytes."""


@dataclass(frozen=True)
class Fetch:
    """One GET whose bytes go to `taker`; the answer is a `Head`. What is refused is raised."""

    target: str
    taker: Taker
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pause:
    """Nothing for so long."""

    seconds: float


@dataclass(frozen=True)
class Work:
    """Something that blocks, for a thread where there is an event loop; the answer is what it returns."""

    do: Callable[[], object]


Step = Ask[Any] | Fetch | Pause | Work
Steps = Generator[Step, Any, T]


class Blocking:
    """Carries calls out at once."""

    def carry_out(self, what: Ask[T] | Steps[T]) -> T:
        """Carry out a call, return its answer."""
        raise NotImplementedError


class Waiting:
    """Carries calls out in trio."""

    async def carry_out(self, what: Ask[T] | Steps[T]) -> T:
        """Carry out a call, return its answer."""
        raise NotImplementedError


class call(Generic[P, T]):
    """Makes a method of a static method that returns an Ask or Steps."""

    def __init__(self, make: Callable[P, Ask[T] | Steps[T]]) -> None:
        self._make = make
        self.__doc__ = make.__doc__

    @overload
    def __get__(self, owner: Blocking, kind: type) -> Callable[P, T]: ...

    @overload
    def __get__(self, owner: Waiting, kind: type) -> Callable[P, Awaitable[T]]: ...

    def __get__(self, owner: Any, kind: type) -> Any:
        """Return the call, bound to a client."""
        if owner is None:
            return self

        def bound(*args: P.args, **kwargs: P.kwargs) -> Any:
            return owner.carry_out(self._make(*args, **kwargs))

        bound.__doc__ = self.__doc__
        return bound


class Family(Blocking):
    """Calls of a kind, by a blocking client."""

    def __init__(self, client: Blocking) -> None:
        self._client = client

    def carry_out(self, what: Ask[T] | Steps[T]) -> T:
        """Have the client carry it out."""
        return self._client.carry_out(what)


class WaitingFamily(Waiting):
    """Calls of a kind, by a trio client."""

    def __init__(self, client: Waiting) -> None:
        self._client = client

    async def carry_out(self, what: Ask[T] | Steps[T]) -> T:
        """Have the client carry it out."""
        return await self._client.carry_out(what)


def decode(data: bytes, kind: type[T]) -> T:
    """Decode an answer. Raises TapefsError when it is none of ours."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as error:
        raise TapefsError(f"the sidecar's answer makes no sense, is it of another version? ({error})") from error
