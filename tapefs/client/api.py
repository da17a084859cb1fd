"""The blocking client of a sidecar: its calls as methods, with typed answers. For any thread.

Over a Unix socket it loads nothing but the standard library and msgspec.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from tapefs.client.blocking import Caller
from tapefs.client.calling import Ask, decode
from tapefs.client.calls import SPANS, Calls
from tapefs.client.files import FileCalls
from tapefs.client.sets import SetCalls
from tapefs.client.streams import Event, Events, event_target, search_target, whole_lines
from tapefs.client.views import (
    Arrival,
    Expired,
    FrameSpan,
    JobProgress,
    JobView,
    PinView,
    PromptView,
    QueueView,
    RecallsMode,
    RecallView,
    SetVerdict,
    Status,
    Trouble,
    UserUsage,
    VerifyFinding,
    VerifyView,
)
from tapefs.client.waits import WaitCalls

if TYPE_CHECKING:
    from tapefs.client.access import AccessClient
    from tapefs.client.cleaning import CleaningClient
    from tapefs.client.notices import NoticeClient
    from tapefs.client.pools import PoolClient
    from tapefs.client.restores import RestoreClient
    from tapefs.client.schedules import ScheduleClient
    from tapefs.client.tapes import TapeClient
    from tapefs.client.upkeep import UpkeepClient

__all__ = [
    "SPANS", "Arrival", "Client", "Expired", "FrameSpan", "JobProgress", "JobView", "PinView", "PromptView",
    "QueueView", "RecallView", "RecallsMode", "SetVerdict", "Status", "Trouble", "UserUsage", "VerifyFinding",
    "VerifyView", "decode",
]  # fmt: skip

T = TypeVar("T")


class Client(Calls, SetCalls, WaitCalls, FileCalls, Caller):
    """A sidecar behind a socket or an address. Every call may raise Unreachable, and what it refuses with."""

    def call(self, method: str, target: str, body: object, kind: type[T]) -> T:
        """Make a call that has no method here."""
        return self.carry_out(Ask(method, target, body, kind))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def events(self, *, after: str = "", silence_s: float = 60.0, **choice: str) -> Iterator[Iterator[Event]]:
        """Have what happens from now on, or behind the event `after`, inside the block.

        Iterating raises Unreachable when the sidecar goes away; it ends when the sidecar ends the stream.
        """
        headers = {"Last_Event_ID": after} if after else {}
        with self.lines(event_target(choice), silence_s, **headers) as lines:
            parser = Events()
            yield (event for line in lines if (event := parser.feed(line.decode(errors="replace"))) is not None)

    def find(self, *patterns: str, **choice: str) -> list[dict[str, Any]]:
        """Search all sets; `choice` and the keys of what is found are those of GET /api/v1/find.

        Raises TapefsError when the search did not come to its end.
        """
        with self.lines(search_target(patterns, choice.items())) as lines:
            return whole_lines(lines)

    # -- families, loaded when they are asked for --------------------------------------------------------------------

    @cached_property
    def schedules(self) -> ScheduleClient:
        """Schedules and their runs."""
        from tapefs.client.schedules import ScheduleClient

        return ScheduleClient(self)

    @cached_property
    def pools(self) -> PoolClient:
        """Pools, and where tapes lie."""
        from tapefs.client.pools import PoolClient

        return PoolClient(self)

    @cached_property
    def access(self) -> AccessClient:
        """Tokens and users."""
        from tapefs.client.access import AccessClient

        return AccessClient(self)

    @cached_property
    def tapes(self) -> TapeClient:
        """Tapes, and what is done with them."""
        from tapefs.client.tapes import TapeClient

        return TapeClient(self)

    @cached_property
    def cleaning(self) -> CleaningClient:
        """The cleaning of drives."""
        from tapefs.client.cleaning import CleaningClient

        return CleaningClient(self)

    @cached_property
    def restores(self) -> RestoreClient:
        """Restores on the sidecar's host."""
        from tapefs.client.restores import RestoreClient

        return RestoreClient(self)

    @cached_property
    def upkeep(self) -> UpkeepClient:
        """Checks and copies of the catalog."""
        from tapefs.client.upkeep import UpkeepClient

        return UpkeepClient(self)

    @cached_property
    def notices(self) -> NoticeClient:
        """Notices and the channels by which they go out."""
        from tapefs.client.notices import NoticeClient

        return NoticeClient(self)
