"""Stands between a running backup and its watcher, and writes down what the run leaves for people. Intake thread.

A report is for people: when it cannot be written, the log says so, and the backup goes on.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from operator import sub

import msgspec
import structlog

from catalog.errors import CatalogError
from catalog.ids import VolumeId
from catalog.ledger import Ledger
from catalog.records import BackupSet, Job
from drivers.errors import DriveError
from drivers.interface import Counters, Drive, Seconds
from tapefs.along.companions import CopyOffer
from tapefs.backup.frames import Pool, Workers
from tapefs.backup.tally import Tally
from tapefs.backup.watcher import BackupProgress, Watcher
from tapefs.home import Home
from tapefs.report.ending import ended
from tapefs.report.files import TroubleFile, read_report, write_report
from tapefs.report.metering import MeteredDrive
from tapefs.report.records import BufferUse, Files, Move, Path, RunReport, Stage
from tapefs.tape.fill import FillCounts

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Figures:
    """What the engine of a run has measured."""

    tally: Tally
    read: Stage
    compress: Stage
    write: Stage
    #: Frames by level.
    levels: dict[int, int]
    buffer: BufferUse

    @classmethod
    def of(
        cls,
        tally: Tally,
        pool: Pool,
        workers: Workers,
        drive: MeteredDrive,
        fills: FillCounts,
        elapsed_s: float,
        plain_bytes: int,
    ) -> Figures:
        """Make them of what a run's parts have counted. What the reader did not wait for a free frame it read."""
        starved_s, compress_s, write_s = pool.waited_s, workers.busy_s, drive.write_s
        return cls(
            tally=tally,
            read=Stage(busy_s=elapsed_s - starved_s, waited_s=starved_s, bytes=plain_bytes),
            compress=Stage(busy_s=compress_s, waited_s=elapsed_s * workers.count - compress_s, bytes=plain_bytes),
            write=Stage(busy_s=write_s, waited_s=elapsed_s - write_s, bytes=drive.written_bytes),
            levels=dict(workers.levels),
            buffer=BufferUse(size_bytes=fills.size_bytes, starts=fills.starts, stops=fills.stops),
        )


class Recorder:
    """Implements `tapefs.backup.watcher.Watcher` around another, for one run of one set."""

    def __init__(self, home: Home, ledger: Ledger, drive: Drive, job: Job, watcher: Watcher) -> None:
        self._home = home
        self._ledger = ledger
        self._drive = drive
        self._job = job
        self._watcher = watcher
        self._report: RunReport | None = None
        self._troubles: TroubleFile | None = None
        self._before: Counters | None = None
        self._verify_began_s = 0.0

    # -- a watcher ---------------------------------------------------------------------------------------------------

    def next_volume(self, exclude: list[VolumeId], *, ejected: bool, pool: str = "") -> VolumeId:
        """Pass it on."""
        return self._watcher.next_volume(exclude, ejected=ejected, pool=pool)

    def begins_anew(self, volume_id: VolumeId) -> bool:
        """Pass it on."""
        return self._watcher.begins_anew(volume_id)

    def this_volume(self, volume_id: VolumeId) -> None:
        """Pass it on."""
        self._watcher.this_volume(volume_id)

    def is_drive_wanted(self) -> bool:
        """Pass it on."""
        return self._watcher.is_drive_wanted()

    def give_way(self, volume_id: VolumeId) -> None:
        """Pass it on."""
        self._watcher.give_way(volume_id)

    def offer_copies(self, offer: CopyOffer) -> None:
        """Pass it on."""
        self._watcher.offer_copies(offer)

    def copies_coming(self) -> int:
        """Pass it on."""
        return self._watcher.copies_coming()

    def progress(self, progress: BackupProgress) -> None:
        """Pass it on."""
        if progress.stage == "verify" and not self._verify_began_s:
            self._verify_began_s = time.monotonic()
        self._watcher.progress(progress)

    def trouble(self, path: bytes, reason: str) -> None:
        """Note it, and pass it on."""
        if self._troubles is not None:
            try:
                self._troubles.add(path, reason)
            except OSError as error:
                log.warning("troubles of the run are not written down any more", error=str(error))
                self._troubles = None
        self._watcher.trouble(path, reason)

    def check_cancelled(self) -> None:
        """Pass it on."""
        self._watcher.check_cancelled()

    # -- the report --------------------------------------------------------------------------------------------------

    def begin(self, backup_set: BackupSet) -> None:
        """The run makes or goes on with this set."""
        try:
            self._before = self._counters()
            earlier = read_report(self._home, backup_set.set_id)
            self._troubles = TroubleFile(self._home, backup_set.set_id)
            self._report = _blank(self._job, backup_set, earlier)
            write_report(self._home, self._report)
        except (OSError, ValueError) as error:
            log.warning("no report of the run yet", set=backup_set.set_id, error=str(error))

    def measured(self, figures: Figures) -> None:
        """The engine has come to its end, good or bad."""
        if self._report is None:
            return
        tally = figures.tally
        content = Files(
            files=tally.files,
            directories=tally.directories,
            bytes=tally.bytes,
            new_files=tally.new_files,
            changed_files=tally.changed_files,
            removed_files=tally.removed_files,
            read_bytes=tally.read_bytes,
        )
        self._report = msgspec.structs.replace(
            self._report,
            content=content,
            read=figures.read,
            compress=figures.compress,
            write=figures.write,
            levels=figures.levels,
            buffer=figures.buffer,
        )

    def end(self, error: BaseException | None) -> None:
        """The run is over: write the report. Raises nothing."""
        if self._report is None:
            return
        try:
            if self._troubles is not None:
                self._troubles.close()
            write_report(self._home, self._finished(self._report, error))
        except (OSError, CatalogError) as failure:
            log.warning("no report of the run", set=self._report.set_id, error=str(failure))

    def _finished(self, report: RunReport, error: BaseException | None) -> RunReport:
        why = "" if error is None else str(error) or type(error).__name__
        return msgspec.structs.replace(
            ended(report, self._ledger, why, time.time_ns()),
            troubles=report.troubles if self._troubles is None else self._troubles.count,
            drive=_difference(self._counters(), self._before),
            verify_s=time.monotonic() - self._verify_began_s if self._verify_began_s else 0.0,
        )

    def _counters(self) -> Counters | None:
        """Return the drive's; None if it is silent, as one that died is: what happens next in the run tells that."""
        try:
            return self._drive.status().counters
        except DriveError as error:
            log.info("the drive does not tell what it has done", job=self._job.number, error=str(error))
            return None


def _blank(job: Job, backup_set: BackupSet, earlier: RunReport | None) -> RunReport:
    return RunReport(
        set_id=backup_set.set_id,
        set_number=backup_set.number,
        job=job.number,
        name=backup_set.name,
        type=backup_set.type,
        parent_id=backup_set.parent_id,
        codec=backup_set.codec,
        level=backup_set.level,
        sources=[Path.of(source) for source in backup_set.sources],
        runs=1 if earlier is None else earlier.runs + 1,
        moves=[Move(drive=each.drive, tape=each.tape, reason=each.reason, at_ns=each.at_ns) for each in job.moves],
        begun_at_ns=backup_set.started_at_ns,
        started_at_ns=time.time_ns(),
        content=Files() if earlier is None else earlier.content,
        troubles=0 if earlier is None else earlier.troubles,
    )


def _difference(after: Counters | None, before: Counters | None) -> Counters | None:
    """Return what was counted in between, None when one of them is not known."""
    if after is None or before is None:
        return None
    names = [name for name in Counters.__dataclass_fields__ if name != "seconds"]
    counts = {name: sub(getattr(after, name), getattr(before, name)) for name in names}
    seconds = {
        name: round(getattr(after.seconds, name) - getattr(before.seconds, name), 3)
        for name in Seconds.__dataclass_fields__
    }
    return Counters(**counts, seconds=Seconds(**seconds))
