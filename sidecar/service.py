"""What the HTTP handlers work with: all parts of the running sidecar together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from catalog.ledger import Ledger
from sidecar.access.access import Access
from sidecar.drives.cleanings import Cleanings
from sidecar.drives.drive import DriveTask
from sidecar.drives.health import Fleet
from sidecar.drives.movers import DRIVE_FAILED
from sidecar.http.accounting import HttpFigures
from sidecar.jobs.checking import Checks
from sidecar.jobs.hooks import JobHooks
from sidecar.jobs.queue import Jobs
from sidecar.jobs.streams import Streams
from sidecar.keeping import Keeping
from sidecar.lag import Lag
from sidecar.live.hub import Live
from sidecar.notices.desk import Notices
from sidecar.recalls.arrivals import Arrivals
from sidecar.recalls.evictor import Evictor
from sidecar.recalls.pins import Pins
from sidecar.recalls.recalling import Recalls
from sidecar.recalls.unlocking import Unlocking
from sidecar.records import Records
from sidecar.restores.restoring import Restorations
from sidecar.schedules.scheduling import Scheduler
from sidecar.tapes.library import Library
from sidecar.tapes.tasks import TapeTasks
from sidecar.upkeep.tasks import Upkeep
from sidecar.verifications.queue import Verifications
from sidecar.view.files import Files
from sidecar.wlcg.bulk import BulkStaging
from tapefs.audit import AuditLog
from tapefs.home import Home
from tapefs.tape.barcodes import is_cleaning


@dataclass(frozen=True, slots=True)
class Service:
    """The parts; one trio run."""

    home: Home
    ledger: Ledger
    library: Library
    jobs: Jobs
    streams: Streams
    checks: Checks
    recalls: Recalls
    verifications: Verifications
    tape_tasks: TapeTasks
    cleanings: Cleanings
    arrivals: Arrivals
    evictor: Evictor
    pins: Pins
    drives: Sequence[DriveTask]
    fleet: Fleet
    unlocking: Unlocking
    files: Files
    access: Access
    notices: Notices
    live: Live
    scheduler: Scheduler
    job_hooks: JobHooks
    bulk: BulkStaging
    restorations: Restorations
    upkeep: Upkeep
    audit: AuditLog
    figures: HttpFigures
    lag: Lag
    keeping: Keeping
    records: Records
    #: A command has started this sidecar for its own work, and somebody waits for the answer.
    ends_by_itself: bool

    def is_idle(self) -> bool:
        """Is there nothing to do for a drive, and does none do anything?"""
        queues = (
            self.jobs,
            self.job_hooks,
            self.checks,
            self.recalls.queue,
            self.verifications,
            self.tape_tasks,
            self.cleanings,
            self.notices,
            self.restorations,
            self.upkeep,
        )
        return all(queue.is_idle() for queue in queues) and all(drive.is_idle for drive in self.drives)

    def troubles(self) -> dict[str, str]:
        """Return what has failed lately that nobody expected to fail, by its name, and why."""
        return {**self.records.troubles(), **self.scheduler.broken, **self.keeping.troubles()}

    async def drive_failed(self, reason: str) -> None:
        """A drive has failed, or its mover has died. When no drive works at all, nobody is left waiting for one.

        A run that one has failed in the middle waits all the same, where the sidecar stays.
        """
        hopeless = {drive.name for drive in self.drives if drive.health.is_hopeless}
        self.cleanings.fail_all(hopeless, f"the drive does not work: {reason}")
        if all(drive.health.is_hopeless for drive in self.drives):
            for stream in self.streams.live():
                self.streams.failed(stream.job, DRIVE_FAILED)
            await self.jobs.fail_queued(f"no drive works: {reason}", spares_moved=not self.ends_by_itself)
            for volume_id in self.recalls.queue.tapes():
                self.recalls.tape_failed(volume_id, f"no drive works: {reason}")
            self.verifications.fail_all(f"no drive works: {reason}")
            self.tape_tasks.fail_all(f"no drive works: {reason}")
            return
        for drive in self.drives:
            if drive.health.is_hopeless and drive.tape is not None and not is_cleaning(drive.tape):
                self._leave_stuck(drive)

    def _leave_stuck(self, drive: DriveTask) -> None:
        """Nobody waits for a tape that does not come out of a drive that has failed: other copies are read, if any."""
        tape = self.ledger.volume_by_label(drive.tape or "")
        message = f"tape {tape.label} is stuck in {drive.name}, which does not work: {drive.health.sentence()}"
        if tape.volume_id in self.recalls.queue.tapes():
            self.recalls.tape_failed(tape.volume_id, message)
        self.verifications.tape_failed(tape.volume_id, message)
        for task in self.tape_tasks.to_put_back():
            if task.volume_id == tape.volume_id:
                self.tape_tasks.fail(task, "drive", message)
