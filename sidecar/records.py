"""Records of the ledger that cannot be read: looked for at the start and every hour, told by log, /health and lists.

Nothing is done about them: they stay as they are, for whoever can repair them. The others are worked with; what a
record that is missing might forbid is not done (docs/ledger.md). One trio run.
"""

from __future__ import annotations

import structlog
import trio

from catalog.ledger import Ledger

#: To look takes 0.5 s of a thread with 100,000 jobs.
PAUSE_S = 3600.0
#: Sentences that are told at once; the log has all.
_TOLD = 3

log = structlog.get_logger(__name__)


class Records:
    """What is known of them."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._found: list[tuple[str, str]] = []

    def troubles(self) -> dict[str, str]:
        """Return what people are told, by what it is about."""
        if not self._found:
            return {}
        told = "; ".join(sentence for _, sentence in self._found[:_TOLD])
        more = f"; and {len(self._found) - _TOLD} more" if len(self._found) > _TOLD else ""
        return {"records of the ledger": f"{told}{more}; see `tapefs check`"}

    def count(self, *databases: str) -> int:
        """Return how many of these databases' records cannot be read."""
        return sum(database in databases for database, _ in self._found)

    async def look(self) -> None:
        """Look once. Raises CatalogError."""
        found = await trio.to_thread.run_sync(self._ledger.unreadable_records)
        for database, sentence in found:
            if (database, sentence) not in self._found:
                log.error("a record cannot be read, the others are worked with", database=database, error=sentence)
        self._found = found

    async def run(self) -> None:
        """Look now and then, for ever."""
        while True:
            await self.look()
            await trio.sleep(PAUSE_S)
