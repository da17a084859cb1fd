"""The loop of a backup: walk, pass over what the base has, have the rest taken in, go back when a segment was lost.

Runs in the mover's main thread, the intake thread. `taker` takes files in, `cutter` makes segments of them and owns the
way to the drive.
"""

from __future__ import annotations

import os
import time

from catalog.ids import DirectoryNo
from catalog.index.model import content_bytes
from catalog.records import Job
from drivers.errors import DiskFull, EndOfMedium, PositionLost, WriteFailed
from drivers.interface import Drive
from tapefs.backup.base import Base, State, Verdict, fresh_flag
from tapefs.backup.cutter import Cutter, SegmentLost
from tapefs.backup.frames import Pool, Workers, frames_for
from tapefs.backup.inflow import Inflow, StreamTaker, StreamWalk
from tapefs.backup.intake import Intake
from tapefs.backup.interrupted import Interrupted, seen_again
from tapefs.backup.layout import layout_of
from tapefs.backup.links import LinkMap
from tapefs.backup.scan import OpenDirectory
from tapefs.backup.scouts import Scouts
from tapefs.backup.segment import PartProgress, SetContext
from tapefs.backup.session import TapeSession
from tapefs.backup.set_index import write_set_index
from tapefs.backup.small import SmallFiles
from tapefs.backup.source import Source, Vanished
from tapefs.backup.start import walk_of
from tapefs.backup.taker import Taker
from tapefs.backup.tally import Tally
from tapefs.backup.watcher import BackupProgress, Watcher
from tapefs.format.records import name_of
from tapefs.report.metering import MeteredDrive
from tapefs.report.recorder import Figures
from tapefs.standing_back import standing_back
from tapefs.tape.fill import FillCounts

_PROGRESS_EVERY_S = 0.25
#: Steps between two looks at the clock.
_STEPS = 32


class Engine:
    """The state of a running backup."""

    def __init__(
        self,
        context: SetContext,
        drive: Drive,
        watcher: Watcher,
        job: Job,
        sources: list[bytes],
        base: Base | None = None,
        interrupted: Interrupted | None = None,
        inflow: Inflow | None = None,
    ) -> None:
        """With a `base` only what differs from it is taken in. The caller closes it. `inflow`: the job's stream.

        An `interrupted` backup goes on behind its last committed segment. Threads run from here to `close`.
        """
        settings = context.home.settings.backup
        threads = job.threads or settings.threads or len(os.sched_getaffinity(0))
        self._context = context
        self._drive = drive = MeteredDrive(drive)
        self._began_s = time.perf_counter()
        self._watcher = watcher
        self._pool = Pool.of(frames_for(threads), settings.frame_bytes)
        self._tapes = TapeSession(context, drive, watcher, settings)
        self._base = base
        self._job, self._sources = job, sources
        self._scouts: Scouts | None = None
        if inflow is None:
            self._walk = walk_of(context, job, sources, base, watcher.trouble)
        else:
            self._walk = StreamWalk(context.backup_set.started_at_ns, job, watcher.trouble)
        self._layout = layout_of(context.codec)
        self._fills = FillCounts()
        self._workers = Workers(
            threads, context.codec, job.level, self._pool, self._fills, settings.niceness, settings.buffer_bytes
        )
        self._intake = Intake(
            self._pool, self._workers, self._watcher.trouble, self._look_around, Tally(), self._layout
        )
        self._links = LinkMap(context.home.path)
        # A 7z lies on disk before it goes to tape in any case.
        has_spool = context.codec.is_tar and (settings.spool if job.spool is None else job.spool) and inflow is None
        self._cutter = Cutter(
            self._tapes, self._pool, self._intake, self._walk, self._links, watcher, self._fills, has_spool=has_spool
        )
        small = SmallFiles(self._intake, self._layout, self._look_around) if context.codec.is_tar else None
        self._taker: Taker | StreamTaker = Taker(
            self._cutter, self._intake, self._links, self._layout, small, watcher.trouble, self._look_around
        )
        if inflow is not None:
            self._taker = StreamTaker(self._cutter, self._intake, inflow, self._look_around)
        self._path = b""
        self._steps = 0
        self._told_at_s = 0.0
        self._interrupted = interrupted
        self._is_whole = False
        #: Names of the base that are gone from the directory at hand since the backup was interrupted.
        self._gone: list[bytes] = []

    def _get_ready(self) -> None:
        """Take over what there is already: the base, and what was committed before an interruption."""
        if self._base is not None:
            self._intake.tally = self._base.tally()
            self._discount(self._walk.stack[0])
        if self._interrupted is not None:
            self._stand(self._interrupted)
        if self._base is not None:
            # They are at work while a tape is put in.
            self._scouts = self._base.scouts(self._job, self._sources, self._context.backup_set.started_at_ns)

    def _stand(self, interrupted: Interrupted) -> None:
        """Stand where the backup was interrupted. Raises BadStructure, OSError when its trailers do not tell where."""
        standing = interrupted.read(self._links)
        self._cutter.stand(interrupted.segments, interrupted.unindexed)
        self._intake.tally = standing.tally.copy()
        self._is_whole = standing.is_whole
        if not standing.levels:
            return
        part = standing.part
        name = None if part is None else name_of(part)
        self._gone = self._walk.stand(standing.levels, standing.last_number, name)
        if part is not None:
            seen = seen_again(self._walk.stack[-1], part, self._look_around)
            self._cutter.progress = PartProgress(part.part + 1, part.part_offset + part.part_bytes, seen)

    def write(self) -> None:
        """Write the whole set, SET INDEX included. Raises what `run_backup` names."""
        self._get_ready()
        self._cutter.open()
        while not self._is_whole:
            try:
                self._cutter.begin_segment(0)
                if self._gone:
                    self._intake.removed(self._walk.stack[-1], self._gone)
                    self._gone = []
                with standing_back(self._context.home.settings.backup.niceness):
                    while self._walk.stack:
                        self._step()
                self._cutter.end_segment()
                self._cutter.settle()
                break
            except SegmentLost:
                self._cutter.go_back()
        self._write_final_index()

    def figures(self) -> Figures:
        """Return what was measured since the engine was made."""
        tally, elapsed_s = self._intake.tally.copy(), time.perf_counter() - self._began_s
        return Figures.of(
            tally, self._pool, self._workers, self._drive, self._fills, elapsed_s, self._cutter.plain_bytes
        )

    def close(self) -> None:
        """End all threads and let go of all descriptors; what is not committed is lost."""
        self._intake.abandon()
        if self._scouts is not None:
            self._scouts.close()
        self._cutter.close()
        self._workers.close()
        self._walk.close()
        self._links.close()

    def tell(self, stage: str) -> None:
        """Report progress now."""
        tally, tape = self._intake.tally, self._tapes.tape
        self._watcher.progress(
            BackupProgress(
                set_id=self._context.backup_set.set_id, stage=stage, path=self._path,
                bytes=tally.read_bytes + self._cutter.progress.offset,
                files=tally.new_files + tally.changed_files, stored_bytes=self._cutter.stored_bytes,
                tape=tape.volume.label if tape is not None else "",
            )
        )  # fmt: skip

    # -- the walk ----------------------------------------------------------------------------------------------------

    def _step(self) -> None:
        self._steps += 1
        if self._steps % _STEPS == 0:
            self._look_around()
        directory = self._walk.stack[-1]
        if directory.next_file < len(directory.files):
            self._take_next(directory)
        elif directory.next_directory < len(directory.directories):
            self._enter_next()
        else:
            self._leave(directory)

    def _enter_next(self) -> None:
        if self._scouts is not None and self._walk.pass_next(self._is_same):
            return
        child = self._walk.enter_next()
        if child is None:
            return
        self._path = child.path
        if self._base is None or child.base is None:
            self._announce()
            return
        self._discount(child)
        if not self._base.is_same_directory(child.base, child.status):
            self._announce()

    def _is_same(self, number: DirectoryNo) -> bool:
        return self._scouts is not None and self._scouts.is_same(number, self._look_around)

    def _discount(self, directory: OpenDirectory) -> None:
        """What is gone from the directory, and what is still to be looked at, is not of the set so far."""
        difference, tally = directory.difference, self._intake.tally
        tally.files -= difference.base_files
        tally.bytes -= difference.base_bytes
        tally.removed_files += len(difference.removed)

    def _announce(self) -> None:
        """The directory at hand differs from the base's: it gets lines in the trailer, and those above it."""
        for directory in list(self._walk.stack):
            if not directory.announced:
                self._cutter.make_room(0)
                self._intake.enter(directory)

    def _leave(self, directory: OpenDirectory) -> None:
        if self._base is not None and directory.base is not None:
            missing = self._base.missing(directory.base, directory.children)
            for number in missing:
                self._base.discount(number, self._intake.tally)
            if missing or directory.difference.removed:
                self._announce()
        self._walk.leave()
        if directory.announced:
            self._intake.leave(directory)

    def _look_around(self) -> None:
        if self._cutter.is_broken:
            raise SegmentLost
        now_s = time.monotonic()
        if now_s - self._told_at_s >= _PROGRESS_EVERY_S:
            self._told_at_s = now_s
            self._watcher.check_cancelled()
            if isinstance(self._taker, StreamTaker):
                self._taker.tell_kept()
            self.tell("write")

    def _take_next(self, directory: OpenDirectory) -> None:
        state, tally = directory.state, self._intake.tally
        # A file of which parts are stored goes on, whatever has become of it.
        if state is State.DOUBTFUL and self._cutter.progress.seen is None and self._keep(directory):
            return
        if not directory.announced:
            self._announce()
        files, content = tally.files, tally.bytes
        self._taker.take(directory)
        tally.read_bytes += tally.bytes - content
        if state is State.NEW:
            tally.new_files += tally.files - files
        else:
            tally.changed_files += tally.files - files

    def _keep(self, directory: OpenDirectory) -> bool:
        """If the content is as in the base, be done with the file at `next_file` without storing it again."""
        if self._base is None or directory.base is None:
            raise AssertionError("without a base nothing is doubtful")
        try:
            name = directory.files[directory.next_file]
            source = Source.open(directory, name, self._look_around, keeps_holes=self._layout.keeps_holes)
        except (Vanished, OSError):
            return False  # Whoever takes it meets this again.
        try:
            old = self._base.entry(directory.base, source.name)
            verdict = self._base.verdict(directory.base, old, source.fd, source.status, self._look_around)
            if verdict is Verdict.STORE or source.has_changed():
                return False
            if verdict is Verdict.RESTATE:
                self._announce()
                self._cutter.make_room(source.attributes.bytes)
                self._intake.restate(source, fresh_flag(source.status))
                self._intake.tally.changed_files += 1
            else:
                directory.pass_over()
                self._intake.tally.files += 1
                self._intake.tally.bytes += content_bytes([old])
            return True
        finally:
            source.close()

    def _write_final_index(self) -> None:
        totals = self._cutter.totals()
        if self._interrupted is not None:
            totals = self._interrupted.totals(totals, self._tapes.segments)
        while True:
            try:
                tapes = self._tapes
                write_set_index(
                    self._context, self._drive, tapes.at_hand(), tapes.segments, tapes.unindexed, totals, final=True
                )
                return
            except DiskFull:
                raise
            except (EndOfMedium, WriteFailed) as error:
                self._cutter.change_tape(error)
            except PositionLost as error:
                self._cutter.stand_again(error)
