"""A bell that wakes everybody who waits.

One trio run; `ring` is synchronous, so nothing slips between a check and a wait.

while not something_to_do():
    await bell.wait_rung()
"""

from __future__ import annotations

import trio


class Bell:
    """Wakes all who wait at the moment of ringing; nothing is remembered."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def ring(self) -> None:
        """Wake all who wait now."""
        event, self._event = self._event, trio.Event()
        event.set()

    async def wait_rung(self) -> None:
        """Wait for the next ring."""
        await self._event.wait()
