"""The further copy that one drive writes while another drive's backup runs.

Belongs to the drive's task, in its trio run.
Nobody waits for it: a reader whose tape this drive could fetch ends it at once, a job that waits after a while, and the
backup makes later, from tape, what is missing. When the drive is free again it goes on with the segments that are then
still to come.
"""

from __future__ import annotations

import structlog
import trio

from catalog.errors import CatalogError
from catalog.ids import JobNumber
from drivers.errors import DriveError
from sidecar.drives.alongside import Companionship
from sidecar.drives.bay import Bay
from sidecar.drives.giving_way import LOOK_S
from sidecar.drives.health import DriveFailed
from sidecar.drives.movers import DRIVE_FAILED, CommandFailed, Mover, MoverDied
from sidecar.drives.shared import Shared
from sidecar.tapes.for_writing import Tapes
from sidecar.verifications.reading_back import YIELD_S
from tapefs.errors import TapefsError
from tapefs.mover.messages import Cancel, CopyAlong, NeedVolume, NoVolume

#: So long a job waits while a drive that could run it writes a further copy of another: one of a higher priority, and
#: any other. The copies that are then missing are made from tape, which takes two drives or a change of tapes.
URGENT_JOB_S, JOB_S = 30.0, 600.0

log = structlog.get_logger(__name__)


class CopyingAlong:
    """One drive's."""

    def __init__(self, bay: Bay, shared: Shared) -> None:
        self._bay = bay
        self._shared = shared
        self._tapes = Tapes(bay, shared)
        self._companionship: Companionship | None = None
        self._needs_in, self._needs_out = trio.open_memory_channel[NeedVolume](16)
        self._gave_way = False

    @property
    def is_at_it(self) -> bool:
        """Does this drive write a copy?"""
        return self._companionship is not None

    def note(self, need: NeedVolume) -> None:
        """Take what the mover says of tapes."""
        self._needs_in.send_nowait(need)

    def mover_died(self) -> None:
        """The mover is gone, and with it what it wrote."""
        if self._companionship is not None:
            self._over(self._companionship, is_to_do=False)

    async def run(self, mover: Mover) -> None:
        """Write a copy until its backup is over, or others want the drive. Raises MoverDied, DriveFailed."""
        bay, companionship = self._bay, self._shared.alongside.take(self._bay.number)
        self._companionship, self._gave_way = companionship, False
        self._needs_in, self._needs_out = trio.open_memory_channel[NeedVolume](16)
        bay.leave_to_another()
        bay.last_was_backup = True
        log.info("a further copy is written at once", drive=bay.name, job=companionship.job)
        error = await self._work(mover, companionship)
        if error is None:
            self._shared.fleet.of(bay.name).worked()
        elif error.kind == DRIVE_FAILED:
            raise DriveFailed(str(error)) from error
        elif not self._gave_way:
            log.warning("a further copy is made later", drive=bay.name, job=companionship.job, error=str(error))
        bay.written()
        self._over(companionship, is_to_do=self._gave_way)

    async def _work(self, mover: Mover, companionship: Companionship) -> CommandFailed | None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._provide_tapes, mover, companionship.job)
            call = await mover.start_call(
                lambda number: CopyAlong(id=number, job=companionship.job, task=companionship.task)
            )
            nursery.start_soon(self._give_way, mover, call.number)
            error = None
            try:
                await call.wait_done()
            except CommandFailed as failed:
                error = failed
            nursery.cancel_scope.cancel()
        return error

    def _over(self, companionship: Companionship, *, is_to_do: bool) -> None:
        self._companionship = None
        self._shared.alongside.left(companionship, is_to_do=is_to_do)
        self._shared.bell.ring()

    async def _give_way(self, mover: Mover, number: int) -> None:
        """End it when somebody waits to read what this drive could fetch, or a job waits too long for a drive."""
        while not self._is_wanted() and not self._is_wanted_by_job():
            await trio.sleep(LOOK_S)
        self._gave_way = True
        log.info("a further copy gives way", drive=self._bay.name)
        await mover.tell(Cancel(target=number))

    def _is_wanted(self) -> bool:
        waited = self._shared.recalls.queue.waited_s(trio.current_time())
        return any(seconds >= YIELD_S and self._bay.is_usable(volume_id) for volume_id, seconds in waited.items())

    def _is_wanted_by_job(self) -> bool:
        """A more urgent job takes the drive soon, another one when it has waited for long."""
        waits = self._shared.jobs.longest_wait(self._bay.name, self._shared.fleet.up())
        if waits is None or self._companionship is None:
            return False
        priority, waited_s = waits
        is_urgent = priority > self._shared.ledger.job(self._companionship.job).priority
        return waited_s > (URGENT_JOB_S if is_urgent else JOB_S)

    async def _provide_tapes(self, mover: Mover, job: JobNumber) -> None:
        """Answer the mover's NeedVolume until cancelled."""
        while True:
            need = await self._needs_out.receive()
            try:
                ready = await self._tapes.provide(mover, need, job)
            except (DriveFailed, MoverDied):
                raise
            except (CommandFailed, TapefsError, DriveError, CatalogError) as error:
                await mover.tell(NoVolume(reason=str(error)))
            else:
                await mover.tell(ready)
