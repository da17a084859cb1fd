"""The hub of notices, which are numbered and kept. (What moves too fast for that: `sidecar.live`.)

One trio run. `post` returns when the notice is in the ledger; whoever follows reads with `since`, then waits with
`wait_beyond`, so that nothing is missed and nobody polls:

    number = events.newest
    while True:
        for notice in await events.since(number): ...
        await events.wait_beyond(number)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog
import trio

from catalog.ledger import Ledger
from catalog.notice_records import Facts, NewNotice, Notice
from sidecar.bell import Bell
from tapefs.notice_kinds import KINDS, Kind

log = structlog.get_logger(__name__)


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
