"""The cleaning of one drive: a cartridge is brought, cleans, and goes back to its slot.

Belongs to the drive's task, in its trio run. Nothing interrupts it, and it happens between two tapes only: a running
backup keeps its drive.
"""

from __future__ import annotations

from functools import partial

import structlog

from drivers.errors import DriveError
from sidecar.drives.asking import Step
from sidecar.drives.bay import Bay
from sidecar.drives.cleanings import CleaningTask
from sidecar.drives.health import DriveFailed
from sidecar.drives.movers import DRIVE_FAILED, CommandFailed, Mover
from sidecar.drives.shared import Shared
from tapefs.errors import NoTape
from tapefs.mover.messages import Clean
from tapefs.tape.barcodes import is_cleaning

#: Kinds of failures after which another cartridge may do: it was used up, or none for this drive.
_OF_THE_CARTRIDGE = ("used_up", "drive")

log = structlog.get_logger(__name__)


class Cleaner:
    """One drive's."""

    def __init__(self, bay: Bay, shared: Shared) -> None:
        self._bay = bay
        self._shared = shared
        self._task: CleaningTask | None = None
        #: A cartridge that an earlier sidecar has left in the drive could not be put away.
        self._is_stuck = False

    def step(self, mover: Mover) -> Step | None:
        """Return what is to be done before anything else gets the drive."""
        task = self._shared.cleanings.next_for(self._bay.name)
        if task is not None:
            return partial(self.run, mover, task)
        code = self._shared.library.in_drive(self._bay.number)
        return self._put_away if code is not None and is_cleaning(code) and not self._is_stuck else None

    async def run(self, mover: Mover, task: CleaningTask) -> None:
        """Clean, and tell how that went. Raises MoverDied, DriveFailed; `mover_died` must follow then."""
        cleanings, self._task = self._shared.cleanings, task
        cleanings.begin(task)
        try:
            await self._clean(mover, task)
        except CommandFailed as error:
            if error.kind == DRIVE_FAILED:
                raise DriveFailed(str(error)) from error
            cleanings.fail(task, error.kind, str(error))
        except (NoTape, DriveError) as error:
            cleanings.fail(task, "no_volume", str(error))
        else:
            cleanings.done(task)
            log.info("drive cleaned", drive=self._bay.name, cartridge=task.cartridge)
        self._task = None
        await self._put_away()

    def mover_died(self, reason: str, *, is_the_end: bool = False) -> None:
        """The mover is gone: nobody knows whether the drive was cleaned. At its end the sidecar leaves that open."""
        if self._task is not None and not is_the_end:
            task, self._task = self._task, None
            self._shared.cleanings.fail(task, "drive", reason)

    async def _clean(self, mover: Mover, task: CleaningTask) -> None:
        """Try one cartridge after the other; only the one that was named, if any was."""
        cleanings, wanted = self._shared.cleanings, task.cartridge
        await self._bay.eject(mover)
        self._shared.library.let_go(self._bay.number)
        while True:
            # From here on no other drive chooses it.
            task.cartridge = cleanings.choose(task.drive, wanted)
            await self._shared.library.put_in_cleaning(task.cartridge, self._bay.number)
            try:
                await mover.call(lambda number: Clean(id=number, code=task.cartridge))
            except CommandFailed as error:
                if error.kind not in _OF_THE_CARTRIDGE:
                    raise
                log.warning("a cartridge has not cleaned", drive=task.drive, cartridge=task.cartridge, error=str(error))
                cleanings.refused(task)
                await self._shared.library.put_away(self._bay.number)
                if wanted:
                    raise
            else:
                return

    async def _put_away(self) -> None:
        """Bring the cartridge back. What becomes of that is no matter of the cleaning: the next tape tries again."""
        code = self._shared.library.in_drive(self._bay.number)
        if code is None or not is_cleaning(code):
            return
        try:
            await self._shared.library.put_away(self._bay.number)
        except (NoTape, DriveError) as error:
            self._is_stuck = True
            log.warning("a cleaning cartridge stays in its drive", drive=self._bay.name, tape=code, error=str(error))
        self._shared.bell.ring()
