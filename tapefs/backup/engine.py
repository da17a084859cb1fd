"""The loop of a backup: walk, take in, cut into segments, change tapes, go back when a segment was lost.

Runs in the mover's main thread, the intake thread. Another thread, the tape stream's, owns the drive between `begin` of
a segment and the next `settle`; whatever touches the drive here settles first.
"""

from __future__ import annotations

import os
import stat
import time

from catalog.ids import DirectoryNo, SegmentId, new_uuid
from catalog.index.model import EntryFlag, content_bytes
from catalog.records import Job, SetTotals
from drivers.errors import DiskFull, EndOfMedium, WriteFailed
from drivers.interface import Drive
from tapefs.backup.attributes import read_attributes
from tapefs.backup.base import Base, State, Verdict, fresh_flag
from tapefs.backup.frames import Pool, Workers, frames_for
from tapefs.backup.holes import cut
from tapefs.backup.intake import MEMBER_OVERHEAD_BYTES, Intake, member_path
from tapefs.backup.interrupted import Interrupted, seen_again
from tapefs.backup.layout import layout_of
from tapefs.backup.links import LinkMap
from tapefs.backup.payload import archive_room
from tapefs.backup.scan import OpenDirectory
from tapefs.backup.scouts import Scouts
from tapefs.backup.segment import CommittedSegment, PartProgress, SegmentPlan, SetContext
from tapefs.backup.session import STORED_PER_PLAIN, TapeSession
from tapefs.backup.set_index import write_set_index
from tapefs.backup.small import SmallFiles
from tapefs.backup.source import NO_FILE_ANY_MORE, Source, Special, Vanished
from tapefs.backup.spool import spooled_segment_bytes
from tapefs.backup.start import walk_of
from tapefs.backup.stream import Lost, TapeStream
from tapefs.backup.tally import Tally
from tapefs.backup.watcher import BackupProgress, Watcher
from tapefs.format.records import name_of
from tapefs.report.metering import MeteredDrive
from tapefs.report.recorder import Figures
from tapefs.tape.fill import FillCounts

_LINKED = int(EntryFlag.LINKED)
_PROGRESS_EVERY_S = 0.25
#: Steps between two looks at the clock.
_STEPS = 32


class SegmentLost(Exception):
    """The tape stream has lost a segment; go back to its start."""


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
    ) -> None:
        """With a `base` only what differs from it is taken in. The caller closes it.

        An `interrupted` backup goes on behind its last committed segment. Raises BadStructure, OSError when its
        trailers do not tell where that is.
        """
        settings = context.home.settings.backup
        threads = job.threads or settings.threads or len(os.sched_getaffinity(0))
        self._context = context
        self._drive = drive = MeteredDrive(drive)
        self._began_s = time.perf_counter()
        #: Plain bytes of the segments that have been taken in wholly.
        self._plain_bytes = 0
        self._watcher = watcher
        self._largest_members = settings.segment_members
        self._pool = Pool.of(frames_for(threads), settings.frame_bytes)
        self._tapes = TapeSession(context, drive, watcher, settings)
        # A 7z lies on disk before it goes to tape in any case.
        self._has_spool = context.codec.is_tar and (settings.spool if job.spool is None else job.spool)
        if self._has_spool:
            self._tapes.spool_bytes = spooled_segment_bytes(context.home)
        self._base = base
        self._job, self._sources = job, sources
        self._scouts: Scouts | None = None
        self._walk = walk_of(context, job, sources, base, watcher.trouble)
        self._layout = layout_of(context.codec)
        self._fills = FillCounts()
        self._workers = Workers(threads, context.codec, job.level, self._pool, self._fills)
        self._intake = Intake(
            self._pool, self._workers, self._watcher.trouble, self._look_around, Tally(), self._layout
        )
        self._small = SmallFiles(self._intake, self._layout, self._look_around) if context.codec.is_tar else None
        self._links = LinkMap(context.home.path)
        if base is not None:
            self._intake.tally = base.tally()
            self._discount(self._walk.stack[0])
        self._stream: TapeStream | None = None
        self._plan: SegmentPlan | None = None
        self._number = 0
        self._progress = PartProgress()
        self._lost: Lost | None = None
        #: Payload bytes on the tapes left behind.
        self._stored_before = 0
        self._path = b""
        self._steps = 0
        self._told_at_s = 0.0
        self._interrupted = interrupted
        self._is_whole = False
        #: Names of the base that are gone from the directory at hand since the backup was interrupted.
        self._gone: list[bytes] = []
        if interrupted is not None:
            self._stand(interrupted)

    def _stand(self, interrupted: Interrupted) -> None:
        """Stand where the backup was interrupted."""
        standing = interrupted.read(self._links)
        self._number = self._links.committed = standing.segments
        self._tapes.segments = list(interrupted.segments)
        self._tapes.unindexed = list(interrupted.unindexed)
        self._stored_before = sum(segment.segment.stored_bytes for segment in interrupted.segments)
        self._intake.tally = standing.tally.copy()
        self._is_whole = standing.is_whole
        if not standing.levels:
            return
        part = standing.part
        name = None if part is None else name_of(part)
        self._gone = self._walk.stand(standing.levels, standing.last_number, name)
        if part is not None:
            seen = seen_again(self._walk.stack[-1], part, self._look_around)
            self._progress = PartProgress(part.part + 1, part.part_offset + part.part_bytes, seen)

    def write(self) -> None:
        """Write the whole set, SET INDEX included. Raises what `run_backup` names."""
        if not self._context.codec.is_tar:
            archive_room(self._context.home.spool, 0)  # Before any tape is touched.
        if self._base is not None:
            # First of all: they are at work while a tape is put in.
            self._scouts = self._base.scouts(self._job, self._sources, self._context.backup_set.started_at_ns)
        self._open_stream()
        while not self._is_whole:
            try:
                self._begin_segment(0)
                if self._gone:
                    self._intake.removed(self._walk.stack[-1], self._gone)
                    self._gone = []
                while self._walk.stack:
                    self._step()
                self._end_segment()
                self._settle()
                break
            except SegmentLost:
                self._go_back()
        self._write_final_index()

    def figures(self) -> Figures:
        """Return what was measured since the engine was made."""
        tally, elapsed_s = self._intake.tally.copy(), time.perf_counter() - self._began_s
        return Figures.of(tally, self._pool, self._workers, self._drive, self._fills, elapsed_s, self._plain_bytes)

    def close(self) -> None:
        """End all threads and let go of all descriptors; what is not committed is lost."""
        self._intake.abandon()
        if self._scouts is not None:
            self._scouts.close()
        if self._stream is not None:
            self._stream.close()
        self._workers.close()
        self._walk.close()
        self._links.close()

    def tell(self, stage: str) -> None:
        """Report progress now."""
        tally, stream = self._intake.tally, self._stream
        tape = self._tapes.tape
        self._watcher.progress(
            BackupProgress(
                set_id=self._context.backup_set.set_id, stage=stage, path=self._path, bytes=tally.read_bytes,
                files=tally.new_files + tally.changed_files,
                stored_bytes=self._stored_before + (stream.stored_bytes if stream is not None else 0),
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
                self._make_room(0)
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
        if self._stream is not None and self._stream.is_broken:
            raise SegmentLost
        now_s = time.monotonic()
        if now_s - self._told_at_s >= _PROGRESS_EVERY_S:
            self._told_at_s = now_s
            self._watcher.check_cancelled()
            self.tell("write")

    def _take_next(self, directory: OpenDirectory) -> None:
        state, tally = directory.state, self._intake.tally
        # A file of which parts are stored goes on, whatever has become of it.
        if state is State.DOUBTFUL and self._progress.seen is None and self._keep(directory):
            return
        if not directory.announced:
            self._announce()
        files, content = tally.files, tally.bytes
        if state is not State.NEW or self._progress.seen is not None or not self._take_small(directory):
            self._take_file(directory)
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
                self._make_room(source.attributes.bytes)
                self._intake.restate(source, fresh_flag(source.status))
                self._intake.tally.changed_files += 1
                self._intake.tally.restated_files += 1
            else:
                directory.pass_over()
                self._intake.tally.files += 1
                self._intake.tally.bytes += content_bytes([old])
            return True
        finally:
            source.close()

    def _take_small(self, directory: OpenDirectory) -> bool:
        """Take files the short way, and the one behind them if it is open then. False: none could be taken."""
        most = self._largest_members - self._intake.members
        if self._small is None or most <= 0 or self._ends_soon():
            return False
        place = directory.next_file
        found = self._small.take(directory, self._at_hand().limit_bytes, most)
        if found is not None:
            self._take_opened(*found)
        return directory.next_file > place

    def _take_file(self, directory: OpenDirectory) -> None:
        name = directory.files[directory.next_file]
        if name in directory.specials:
            self._take_special(directory, name)
            return
        try:
            source = Source.open(directory, name, self._look_around, keeps_holes=self._layout.keeps_holes)
        except (Vanished, OSError) as error:
            if self._progress.seen is None:
                self._take_unopened(directory, name, error)
                return
            # Parts of it are committed: the others are written as zeros, so that the file is whole, with a mark.
            source = Source(directory, name, -1, *self._progress.seen)
        self._take_opened(source, may_retry=True)

    def _take_opened(self, source: Source, may_retry: bool) -> None:
        fresh: Source | None = source
        while fresh is not None:
            source = fresh
            try:
                fresh = self._take_regular(source, may_retry=may_retry)
            finally:
                source.close()
            may_retry = False

    def _take_special(self, directory: OpenDirectory, name: bytes) -> None:
        try:
            special = Special.look(directory, name)
        except OSError as error:
            self._pass_over(directory, name, f"left out: {error.strerror}")
            return
        mode = special.status.st_mode
        if stat.S_ISSOCK(mode) or stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            self._pass_over(
                directory, name, "left out: a socket" if stat.S_ISSOCK(mode) else "left out: it has changed"
            )
        elif not self._take_link(special):
            self._make_room(special.attributes.bytes)
            self._intake.special(special)
            self._remember(special)

    def _take_unopened(self, directory: OpenDirectory, name: bytes, error: Vanished | OSError) -> None:
        if isinstance(error, Vanished):
            self._pass_over(directory, name, f"left out: {error}")
        elif isinstance(error, FileNotFoundError):
            self._pass_over(directory, name, "left out: it vanished before it was read")
        else:
            self._take_unreadable(directory, name, error)

    def _take_unreadable(self, directory: OpenDirectory, name: bytes, error: OSError) -> None:
        try:
            status = os.stat(name, dir_fd=directory.held_fd(), follow_symlinks=False)
        except OSError as second:
            self._pass_over(directory, name, f"left out: {second.strerror}")
            return
        if not stat.S_ISREG(status.st_mode):
            # A link or a socket by now: as a file without content it would make the set's index impossible.
            self._pass_over(directory, name, f"left out: {NO_FILE_ANY_MORE}")
            return
        attributes = read_attributes(b"/proc/self/fd/%d/%b" % (directory.held_fd(), name))
        self._make_room(attributes.bytes)
        self._intake.unreadable(directory, name, status, attributes, str(error.strerror))

    def _pass_over(self, directory: OpenDirectory, name: bytes, reason: str) -> None:
        self._watcher.trouble(directory.path + b"/" + name, reason)
        self._intake.tally.troubled_files += 1
        if directory.state is not State.NEW:
            self._intake.removed(directory, [name])
            self._intake.tally.removed_files += 1
        directory.pass_over()

    def _take_regular(self, source: Source, *, may_retry: bool) -> Source | None:
        """Take a file; if it changed and `may_retry`, return what has its name now, open, to be taken instead."""
        stored_bytes, has_links = source.stored_bytes, source.status.st_nlink > 1
        needed_bytes = stored_bytes + MEMBER_OVERHEAD_BYTES
        is_large = needed_bytes > self._at_hand().limit_bytes and needed_bytes > self._tapes.full_segment_bytes()
        if is_large or self._progress.seen is not None:
            self._take_parts(source)
        elif not has_links or not self._take_link(source):
            self._make_room(stored_bytes)
            fresh = self._intake.file(source, may_retry=may_retry)
            if fresh is not None:
                return fresh
            if has_links:
                self._remember(source)
        return None

    def _take_link(self, of: Source | Special) -> bool:
        """Take another name of a file that is in this segment; if it is in an earlier one, just say so in its flags."""
        status = of.status
        if status.st_nlink == 1 or of.flags & EntryFlag.CHANGED:
            return False
        link = self._links.find(status)
        if link is None:
            return False
        if link.path and link.segment == self._number:
            self._make_room(len(link.path))
            if link.segment == self._number:
                self._intake.link(of, link)
                self._links.linked(status, link, self._number)
                return True
        of.flags |= _LINKED
        return False

    def _remember(self, of: Source | Special, *, is_split: bool = False) -> None:
        """Note where a file with more names was stored."""
        if of.status.st_nlink == 1:
            return
        draft = self._intake.newest
        if draft.flags & EntryFlag.CHANGED:
            self._links.forget(of.status)
        else:
            path = b"" if is_split else member_path(of.directory, of.name)
            self._links.stored(of.status, self._number, draft.at, path)

    def _take_parts(self, source: Source) -> None:
        """A file larger than a segment: parts that fill one segment each, the first a fresh one."""
        if self._progress.seen is None:
            if source.status.st_nlink > 1 and self._links.find(source.status) is not None:
                source.flags |= _LINKED
            self._progress = PartProgress(0, 0, source.seen)
            if self._intake.members:
                self._next_segment(0)
        else:
            # Later parts go by what the first one said; if the file has changed since, it gets its mark.
            source.seen = self._progress.seen
        while self._take_part(source):
            self._next_segment(0)
        self._remember(source, is_split=True)

    def _take_part(self, source: Source) -> bool:
        """Fill the segment at hand with the next part; False when it was the last."""
        progress, size = self._progress, source.status.st_size
        overhead = MEMBER_OVERHEAD_BYTES + source.attributes.bytes + source.map_bytes
        room = max(self._at_hand().limit_bytes - self._size_bytes() - overhead, 1)
        end, runs = min(progress.offset + room, size), None
        if source.runs is not None:
            end, runs = cut(source.runs, progress.offset, size, room)
        self._intake.part(source, progress.part, progress.offset, end - progress.offset, runs)
        if end == size:
            self._progress = PartProgress()
            return False
        self._progress = PartProgress(progress.part + 1, end, source.seen)
        return True

    # -- segments ----------------------------------------------------------------------------------------------------

    def _at_hand(self) -> SegmentPlan:
        if self._plan is None:
            raise AssertionError("no segment has begun")
        return self._plan

    def _make_room(self, content_bytes: int) -> None:
        """Begin another segment if one more member with that content would make this one too large."""
        members = self._intake.members
        fits = self._size_bytes() + content_bytes + MEMBER_OVERHEAD_BYTES <= self._at_hand().limit_bytes
        if fits and (not members or (members < self._largest_members and not self._ends_soon())):
            return
        self._next_segment(content_bytes + MEMBER_OVERHEAD_BYTES)

    def _size_bytes(self) -> int:
        """What the segment at hand takes if nothing can be compressed."""
        return self._intake.plain_bytes + self._intake.beside_bytes

    def _next_segment(self, needed_bytes: int) -> None:
        self._end_segment()
        self._begin_segment(needed_bytes)

    def _begin_segment(self, needed_bytes: int) -> None:
        """Begin a segment that holds at least `needed_bytes`, on another tape if this one has no room."""
        if self._watcher.is_drive_wanted():
            self._give_way()
        if not self._context.codec.is_tar:
            self._settle()  # Until then the segment before takes up room.
            self._tapes.spool_bytes = archive_room(self._context.home.spool, needed_bytes)
        if not self._has_room(needed_bytes):
            self._settle()
            self._tapes.look_at_room()
        while not self._has_room(needed_bytes):
            self._tapes.require_more_than_labels()
            self._change_tape(None)
        self._plan = SegmentPlan(
            segment_id=SegmentId(new_uuid()),
            number=self._number,
            limit_bytes=self._tapes.room_for_segment(),
            checkpoint=self._walk.checkpoint(),
            tally=self._intake.tally.copy(),
            progress=self._progress,
        )
        stream = self._open_stream()
        stream.begin(self._plan)
        self._intake.begin(stream)
        for directory in self._walk.stack:
            if directory.announced or directory.parent is None:
                self._intake.enter(directory)

    def _has_room(self, needed_bytes: int) -> bool:
        return self._tapes.room_for_segment() >= max(needed_bytes, 1) and not self._ends_soon()

    def _ends_soon(self) -> bool:
        return self._stream is not None and self._stream.end_is_near

    def _end_segment(self) -> None:
        self._intake.finish()
        self._open_stream().finish()
        self._walk.segment_ends(self._at_hand().segment_id)
        self._tapes.room_bytes -= self._size_bytes() * STORED_PER_PLAIN
        self._plain_bytes += self._intake.plain_bytes
        self._number += 1

    def _committed(self, segment: CommittedSegment) -> None:
        self._links.committed = segment.segment.number + 1
        self._tapes.segments.append(segment)
        self._tapes.unindexed.append(segment)

    # -- tapes -------------------------------------------------------------------------------------------------------

    def _open_stream(self) -> TapeStream:
        if self._stream is None:
            tape = self._tapes.tape or self._tapes.open_next()
            self._stream = TapeStream(
                self._context, self._drive, tape, self._pool, self._committed, self._fills, spool=self._has_spool
            )
        return self._stream

    def _settle(self) -> None:
        """Have the drive for ourselves, everything handed over being committed. Raises SegmentLost."""
        before_s = time.perf_counter()
        self._lost = self._open_stream().settle()
        self._pool.waited_s += time.perf_counter() - before_s
        if self._lost is not None:
            raise SegmentLost

    def _give_way(self) -> None:
        """Let others use the drive, then go on at the end of the tape at hand. Raises SegmentLost."""
        self._settle()
        self._close_stream()
        self._tapes.give_way()
        self._open_stream()

    def _close_stream(self) -> None:
        stream = self._open_stream()
        stream.close()
        self._stored_before += stream.stored_bytes
        self._stream = None

    def _change_tape(self, trouble: BaseException | None) -> None:
        """Leave the tape at hand and open the next; the stream is settled."""
        self._close_stream()
        self._tapes.leave(self._totals(), trouble)
        self._open_stream()

    def _go_back(self) -> None:
        """Stand at the start of the lost segment again, on another tape. Raises what no other tape would help."""
        lost = self._lost or self._open_stream().settle()
        if lost is None:
            raise AssertionError("no segment was lost")
        self._lost = None
        self._intake.abandon()
        if isinstance(lost.error, DiskFull) or not isinstance(lost.error, EndOfMedium | WriteFailed):
            raise lost.error
        self._walk.go_back(lost.plan.checkpoint)
        self._intake.tally = lost.plan.tally.copy()
        self._number = lost.plan.number
        self._links.go_back(self._number)
        self._progress = lost.plan.progress
        self._change_tape(lost.error)

    def _write_final_index(self) -> None:
        totals = self._totals()
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
                self._change_tape(error)

    def _totals(self) -> SetTotals:
        tally = self._intake.tally
        return SetTotals(
            files=tally.files, directories=tally.directories, bytes=tally.bytes,
            stored_bytes=sum(segment.segment.stored_bytes for segment in self._tapes.segments),
            troubled_files=tally.troubled_files + self._walk.unlisted,
            unread_files=tally.unread_files + self._walk.unlisted,
        )  # fmt: skip
