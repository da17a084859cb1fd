"""The hub of events: notices, which are numbered and kept, and progress, which is not.

One trio run. `post` returns when the notice is in the ledger; whoever follows reads with `since`, then waits with
`wait_beyond`, so that nothing is missed and nobody polls:

    number = events.newest
    while True:
        for notice in await events.since(number): ...
        await events.wait_beyond(number)

What moves too fast to be kept goes out by `tell_progress` to those who are subscribed at the moment; one that does not
keep up loses the oldest.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
import structlog
import trio

from catalog.ledger import Ledger
from catalog.notice_records import Facts, NewNotice, Notice
from sidecar.bell import Bell
from sidecar.notices.kinds import KINDS, Kind

#: Progress events that a subscriber may be behind.
QUEUE_EVENTS = 256

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProgressEvent:
    """How far something is; forgotten as soon as it was told."""

    #: `job.progress`, `drive.state` …
    kind: str
    subject: str
    facts: Facts
    at_ns: int


class ProgressStream:
    """One subscriber's progress events."""

    def __init__(self, queue_events: int = QUEUE_EVENTS) -> None:
        self._queue: deque[ProgressEvent] = deque(maxlen=queue_events)
        self._bell = Bell()

    def put(self, event: ProgressEvent) -> None:
        """Queue an event; the oldest goes when there are too many."""
        self._queue.append(event)
        self._bell.ring()

    def take_nowait(self) -> list[ProgressEvent]:
        """Return what has come."""
        events = list(self._queue)
        self._queue.clear()
        return events

    async def wait_any(self) -> list[ProgressEvent]:
        """Wait until something has come, and return it."""
        while not self._queue:
            await self._bell.wait_rung()
        return self.take_nowait()


class Events:
    """All events of this sidecar."""

    def __init__(self, ledger: Ledger, now_ns: Callable[[], int] = time.time_ns) -> None:
        """Read the newest number; blocking for a moment."""
        self._ledger = ledger
        self.now_ns = now_ns
        #: Number of the newest notice.
        self.newest = ledger.newest_notice()
        #: Which channels want a kind; set when they are known.
        self.channels_for: Callable[[Kind], tuple[str, ...]] = lambda kind: ()
        self._bell = Bell()
        self._progress: set[ProgressStream] = set()

    def new(
        self, kind: str, subject: str, text: str, facts: Facts | None = None, *, raises: str = "", ends: str = ""
    ) -> NewNotice:
        """Make a notice to be posted, with the time it is now and the channels that want it."""
        return NewNotice(
            at_ns=self.now_ns(),
            kind=kind,
            subject=subject,
            text=text,
            facts=facts or {},
            channels=self.channels_for(KINDS[kind]),
            raises=raises,
            ends=ends,
        )

    async def post(
        self,
        new: Sequence[NewNotice],
        *,
        followed: tuple[int | None, int] | None = None,
        ended: Sequence[str] = (),
    ) -> list[Notice]:
        """Keep notices and wake all who wait; returns those that were news. As `Ledger.post_notices` does it."""

        def work() -> list[Notice]:
            return self._ledger.post_notices(new, followed=followed, ended=ended)

        with trio.CancelScope(shield=True):
            told = await trio.to_thread.run_sync(work)
        for notice in told:
            self.newest = max(self.newest, notice.number)
            log.info("notice", kind=notice.kind, subject=notice.subject, text=notice.text, number=notice.number)
        if told:
            self._bell.ring()
        return told

    async def say(self, kind: str, subject: str, text: str, facts: Facts | None = None) -> Notice:
        """Post one notice."""
        return (await self.post([self.new(kind, subject, text, facts)]))[0]

    async def since(self, number: int, limit: int = 1000) -> list[Notice]:
        """Return the notices with a higher number that are kept, oldest first."""
        return await trio.to_thread.run_sync(self._ledger.notices_since, number, limit)

    async def wait_beyond(self, number: int) -> None:
        """Wait until there is a notice with a higher number."""
        while self.newest <= number:
            await self._bell.wait_rung()

    # -- progress ----------------------------------------------------------------------------------------------------

    def tell_progress(self, kind: str, subject: str, facts: Facts) -> None:
        """Tell those who are subscribed; costs nothing when nobody is."""
        if self._progress:
            event = ProgressEvent(kind, subject, facts, self.now_ns())
            for stream in self._progress:
                stream.put(event)

    @contextmanager
    def progress(self) -> Iterator[ProgressStream]:
        """Subscribe to progress."""
        stream = ProgressStream()
        self._progress.add(stream)
        try:
            yield stream
        finally:
            self._progress.discard(stream)

    @property
    def is_followed(self) -> bool:
        """Is anybody subscribed to progress?"""
        return bool(self._progress)


def facts_of(record: msgspec.Struct, *names: str) -> Facts:
    """Return fields of a record as facts."""
    return {name: getattr(record, name) for name in names}
