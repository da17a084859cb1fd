"""All of the notices together: what happens is found out, told, and delivered. One trio run."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from catalog.ledger import Ledger
from sidecar.bell import Bell
from sidecar.drives.cleanings import Cleanings
from sidecar.drives.drive import DriveTask
from sidecar.notices.delivering import Delivering
from sidecar.notices.events import Events
from sidecar.notices.following import Following
from sidecar.notices.watching import Watching
from sidecar.tapes.library import Library
from sidecar.verifications.queue import Verifications
from tapefs import __version__
from tapefs.home import Home

#: The last notice may be on its way so long when the end has come; what is not delivered then is after the next start.
FAREWELL_S = 2.0


class Notices:
    """The parts."""

    def __init__(
        self,
        home: Home,
        ledger: Ledger,
        library: Library,
        drives: Sequence[DriveTask],
        verifications: Verifications,
        cleanings: Cleanings,
        bell: Bell,
        *,
        is_short: bool,
    ) -> None:
        """Read what is known; blocking. `is_short`: the sidecar ends by itself, and its start and end are no news."""
        self.events = Events(ledger)
        self.delivering = Delivering(home, ledger, self.events)
        self._following = Following(ledger, self.events, bell)
        self._watching = Watching(home, ledger, library, drives, verifications, cleanings, self.events)
        self._is_short = is_short

    def is_idle(self) -> bool:
        """Is all told that has happened, and was its delivery tried?"""
        return self._following.is_idle() and self.delivering.is_idle()

    async def run(self) -> None:
        """Work for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._following.run)
            nursery.start_soon(self._watching.run)
            nursery.start_soon(self.delivering.run)

    async def say_ready(self) -> None:
        """The sidecar answers from now on."""
        if not self._is_short:
            await self.events.say("system.started", "", f"tapefs {__version__} has started.", {"version": __version__})

    async def say_farewell(self) -> None:
        """The sidecar ends; what the delivery of that takes is bounded."""
        if self._is_short:
            return
        await self._following.catch_up()
        await self.events.say("system.stopping", "", "tapefs is ending.")
        with trio.move_on_after(FAREWELL_S):
            while not self.delivering.is_idle():
                await trio.sleep(0.02)
