"""What the HTTP handlers work with: all parts of the running sidecar together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catalog.ledger import Ledger
from sidecar.arrivals import Arrivals
from sidecar.drive import DriveTask
from sidecar.evictor import Evictor
from sidecar.jobs import Jobs
from sidecar.library import Library
from sidecar.pins import Pins
from sidecar.recalling import Recalls
from sidecar.verifying import Verifications
from tapefs.home import Home


@dataclass(frozen=True, slots=True)
class Service:
    """The parts; one trio run."""

    home: Home
    ledger: Ledger
    library: Library
    jobs: Jobs
    recalls: Recalls
    verifications: Verifications
    arrivals: Arrivals
    evictor: Evictor
    pins: Pins
    drives: Sequence[DriveTask]

    def is_idle(self) -> bool:
        """Is there nothing to do for a drive, and does none do anything?"""
        parts_are_idle = self.jobs.is_idle() and self.recalls.queue.is_idle() and self.verifications.is_idle()
        return parts_are_idle and all(drive.is_idle for drive in self.drives)

    async def drive_failed(self, reason: str) -> None:
        """A mover has died. When no drive works at all, nobody is left waiting for one."""
        if all(drive.failures >= HOPELESS for drive in self.drives):
            await self.jobs.fail_queued(f"no drive works: {reason}")
            for volume_id in self.recalls.queue.tapes():
                self.recalls.tape_failed(volume_id, f"no drive works: {reason}")
            self.verifications.fail_all(f"no drive works: {reason}")


#: Starts in a row that fail before a drive counts as not working.
HOPELESS = 3
