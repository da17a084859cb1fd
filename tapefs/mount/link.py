"""What reads that wait, and walks, say to a sidecar and hear from it: the messages, and who carries them. Trio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import msgspec


class WaiterMessage(msgspec.Struct, frozen=True):
    """A waiting read, as it is posted; its id makes posting again harmless."""

    id: str
    segment: str
    #: Frames, both included.
    first: int
    last: int
    uid: int
    #: Process that opened the file; 0 if it is not visible from here.
    pid: int
    deadline_s: float
    gids: tuple[int, ...] = ()
    #: Names of the program: its file, its process, its thread.
    commands: tuple[str, ...] = ()
    #: The file, and its size.
    path: str = ""
    size_bytes: int = 0


class Span(msgspec.Struct, frozen=True):
    """Frames of a segment, both ends included."""

    segment: str
    first: int
    last: int


class WalkMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader that goes through a tree comes to next, and what he has passed; and who he is."""

    id: str
    to_come: list[Span]
    passed: list[Span]
    uid: int
    pid: int
    gids: tuple[int, ...]
    commands: tuple[str, ...]


class Arrival(msgspec.Struct, frozen=True):
    """A line of the stream: frames that arrived, or that cannot be had; with `waiter` that one read is refused. A line
    with neither only shows that it lives.
    """

    segment: str | None = None
    first: int = 0
    last: int = 0
    error: str | None = None
    message: str = ""
    waiter: str | None = None


class Link(Protocol):
    """What reads that wait, and walks, say to a sidecar."""

    async def post_waiters(self, waiters: Sequence[WaiterMessage]) -> None:
        """Register waiting reads. Raises Unreachable (try again later), RecallFailed (the sidecar refuses them)."""
        ...

    async def cancel(self, ids: Sequence[str]) -> None:
        """Say that these no longer wait. Raises as post_waiters."""
        ...

    async def walk(self, message: WalkMessage) -> int:
        """Tell of a walk; return how many bytes may be named ahead of it, 0 for none. Raises as post_waiters."""
        ...

    async def end_walks(self, ids: Sequence[str]) -> None:
        """Say that these walks are over. Raises as post_waiters."""
        ...

    def arrivals(self) -> AsyncGenerator[Arrival, None]:
        """Yield what arrives until it breaks; the first comes at once. To be closed. Raises Unreachable."""
        ...
