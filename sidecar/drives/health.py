"""How the drives are: which can be worked with, which has failed and why, and when it is tried again.

One trio run. A *strike* is a failure of the drive while it worked, as its mover tells it; that a mover died says
nothing of the drive, and a drive that cannot be opened is simply tried again, at most a minute apart. Behind a strike
the drive rests, longer each time; behind the last one it is set aside until an operator says otherwise. Work that was
done to its end takes all strikes away.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

import trio

from catalog.ids import VolumeId
from tapefs.errors import NoSuchThing, NotNow, TapefsError

#: Starts in a row that fail before a drive counts as not working.
HOPELESS = 3
#: Strikes in a row behind which a drive is set aside.
MOST_STRIKES = 3
#: Rest behind the first strike, and what it grows by with each further one.
FIRST_REST_S, REST_GROWTH = 10.0, 6.0
#: A run waits so long for a drive that has not failed it, while there is one that works.
OTHER_DRIVE_S = 300.0


class DriveFailed(TapefsError):
    """The drive has failed while it worked: its mover is ended, and what it did is for another drive."""


class Health:
    """One drive's."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: Is its mover ready for work?
        self.is_up = False
        #: Why it failed; empty while it works.
        self.reason = ""
        self.failed_at_ns = 0
        #: Label of the tape that does not come out of it; empty: none is known to be stuck.
        self.stuck = ""
        self.strikes = 0
        #: Sessions in a row in which the mover did not even become ready.
        self.failures = 0
        self._retried = trio.Event()

    @property
    def is_set_aside(self) -> bool:
        """Does it wait for an operator?"""
        return self.strikes >= MOST_STRIKES

    @property
    def is_hopeless(self) -> bool:
        """Is nobody to wait for this drive?"""
        return self.failures >= HOPELESS or self.is_set_aside

    def opened(self) -> None:
        """Its mover is ready for work."""
        self.failures = 0
        self.is_up, self.reason, self.stuck = True, "", ""

    def failed(self, reason: str, *, is_strike: bool) -> None:
        """It cannot be worked with."""
        self.is_up, self.reason, self.failed_at_ns = False, reason, time.time_ns()
        self.failures += 1
        self.strikes += is_strike
        self._retried = trio.Event()

    def worked(self) -> None:
        """It has done something to its end."""
        self.strikes = 0

    def retry(self) -> None:
        """An operator says that it works again. Raises NotNow when it does."""
        if self.is_up or not self.reason:
            raise NotNow(f"{self.name} has not failed: there is nothing to try again")
        self.strikes = 0
        self._retried.set()

    async def rest(self, pause_s: float, *, is_strike: bool) -> bool:
        """Wait until the drive is to be tried again; return whether an operator has said so."""
        if is_strike:
            pause_s = max(pause_s, FIRST_REST_S * REST_GROWTH ** (self.strikes - 1))
        with trio.move_on_after(float("inf") if self.is_set_aside else pause_s):
            await self._retried.wait()
        return self._retried.is_set()

    def sentence(self) -> str:
        """Say for people why it does not work, and what becomes of that; empty while it does."""
        if not self.reason:
            return ""
        stuck = f"; tape {self.stuck} is stuck in it" if self.stuck else ""
        if self.is_set_aside:
            rest = f"it is set aside: `tapefs drives --retry {self.name}` when it was seen to"
        else:
            rest = "it is tried again by itself"
        return f"{self.reason}{stuck}; {rest}"


class Fleet:
    """All drives'."""

    def __init__(self, names: Iterable[str]) -> None:
        self._by_name = {name: Health(name) for name in names}
        #: How many drives have failed when they loaded a tape, since one has last done so.
        self.failed_loads: dict[VolumeId, int] = {}

    def of(self, name: str) -> Health:
        """Return one drive's. Raises NoSuchThing."""
        try:
            return self._by_name[name]
        except KeyError:
            known = ", ".join(self._by_name)
            raise NoSuchThing(f"there is no drive {name}: the library has {known}") from None

    def up(self) -> set[str]:
        """Return the names of the drives that can be worked with."""
        return {name for name, health in self._by_name.items() if health.is_up}

    def failed(self) -> list[Health]:
        """Return those that have failed."""
        return [health for health in self._by_name.values() if health.reason]
