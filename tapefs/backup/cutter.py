"""Where segments begin and end, and on which tape; going back when one was lost. Intake thread.

Another thread, the tape stream's, owns the drive between `begin` of a segment and the next `settle`; whatever touches
the drive here settles first.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from catalog.ids import SegmentId, VolumeId, new_uuid
from catalog.records import SetTotals
from drivers.errors import DiskFull, EndOfMedium, PositionLost, WriteFailed
from tapefs.backup.frames import Pool
from tapefs.backup.intake import MEMBER_OVERHEAD_BYTES, Intake
from tapefs.backup.links import LinkMap
from tapefs.backup.payload import archive_room
from tapefs.backup.scan import Walk
from tapefs.backup.segment import CommittedSegment, PartProgress, SegmentPlan
from tapefs.backup.session import STORED_PER_PLAIN, TapeSession
from tapefs.backup.spool import spooled_segment_bytes
from tapefs.backup.stream import Lost, TapeStream
from tapefs.backup.tally import joined
from tapefs.backup.watcher import Watcher
from tapefs.keys.policy import seal_of
from tapefs.tape.fill import FillCounts


class SegmentLost(Exception):
    """The tape stream has lost a segment; go back to its start."""


class Cutter:
    """The segment at hand, and the stream that it goes to."""

    def __init__(
        self,
        tapes: TapeSession,
        pool: Pool,
        intake: Intake,
        walk: Walk,
        links: LinkMap,
        watcher: Watcher,
        fills: FillCounts,
        *,
        has_spool: bool,
    ) -> None:
        """With `has_spool` whole segments are collected on disk before they go to tape."""
        self._context = tapes.context
        self._tapes = tapes
        self._pool = pool
        self._intake = intake
        self._walk = walk
        self._links = links
        self._watcher = watcher
        self._fills = fills
        self._has_spool = has_spool
        self._largest_members = tapes.settings.segment_members
        self._stream: TapeStream | None = None
        self._plan: SegmentPlan | None = None
        self._lost: Lost | None = None
        #: Tapes with further copies from before an interruption.
        self._others: list[VolumeId] = []
        #: Payload bytes on the tapes left behind.
        self._stored_before = 0
        #: Ordinal of the segment at hand.
        self.number = 0
        #: Of the file at hand, if it is larger than a segment.
        self.progress = PartProgress()
        #: Plain bytes of the segments that have been taken in wholly.
        self.plain_bytes = 0

    @property
    def limit_bytes(self) -> int:
        """Plain bytes that the segment at hand may hold."""
        return self._at_hand().limit_bytes

    @property
    def members_left(self) -> int:
        """So many members may still come into the segment at hand; 0 when its tape ends soon."""
        return 0 if self._ends_soon() else self._largest_members - self._intake.members

    @property
    def is_broken(self) -> bool:
        """The segments that were begun will never be committed."""
        return self._stream is not None and self._stream.is_broken

    @property
    def stored_bytes(self) -> int:
        """Payload bytes on tape, and on their way there."""
        return self._stored_before + (0 if self._stream is None else self._stream.stored_bytes)

    @property
    def committed(self) -> int:
        """How many segments of the set are committed; the tape's thread counts them."""
        return self._links.committed

    def full_segment_bytes(self) -> int:
        """Plain bytes of a segment where there is plenty of room."""
        return self._tapes.full_segment_bytes()

    def stand(self, segments: Sequence[CommittedSegment], unindexed: Sequence[CommittedSegment]) -> None:
        """Stand behind segments that an interrupted backup has committed."""
        self.number = self._links.committed = len(segments)
        self._tapes.segments = list(segments)
        self._tapes.unindexed = list(unindexed)
        self._stored_before = sum(each.segment.stored_bytes for each in segments)
        own = {each.copy.volume_id for each in segments}
        copies = (copy for each in segments for copy in self._context.ledger.copies(each.segment.segment_id))
        self._others = sorted({copy.volume_id for copy in copies} - own)

    def open(self) -> None:
        """Get the first tape. Raises StorageFailed when the disk lacks room for whole segments, and as `open_next`."""
        # Looked at before any tape is touched.
        if self._has_spool:
            self._tapes.spool_bytes = spooled_segment_bytes(self._context.home)
        elif not self._context.codec.is_tar:
            archive_room(self._context.home.spool, 0)
        along, watcher = self._context.along, self._watcher
        self._tapes.foreign = self._other_tapes
        if along is not None:
            watcher.offer_copies(along.offer)
        self._open_stream()
        if along is not None:
            along.wait_for(watcher.copies_coming(), watcher.check_cancelled)

    def close(self) -> None:
        """End the stream; what is not committed is lost."""
        if self._stream is not None:
            self._stream.close()

    def make_room(self, content_bytes: int) -> None:
        """Begin another segment if one more member with that content would make this one too large."""
        members = self._intake.members
        fits = self.size_bytes() + content_bytes + MEMBER_OVERHEAD_BYTES <= self.limit_bytes
        if fits and (not members or (members < self._largest_members and not self._ends_soon())):
            return
        self.next_segment(content_bytes + MEMBER_OVERHEAD_BYTES)

    def size_bytes(self) -> int:
        """What the segment at hand takes if nothing can be compressed."""
        return self._intake.plain_bytes + self._intake.beside_bytes

    def next_segment(self, needed_bytes: int) -> None:
        """End the segment at hand and begin one that holds at least `needed_bytes`."""
        self.end_segment()
        self.begin_segment(needed_bytes)

    def begin_segment(self, needed_bytes: int) -> None:
        """Begin a segment that holds at least `needed_bytes`, on another tape if this one has no room."""
        if self._watcher.is_drive_wanted():
            self._give_way()
        if not self._context.codec.is_tar:
            self.settle()  # Until then the segment before takes up room.
            self._tapes.spool_bytes = archive_room(self._context.home.spool, needed_bytes)
        if not self._has_room(needed_bytes):
            self.settle()
            self._tapes.look_at_room()
        while not self._has_room(needed_bytes):
            self._tapes.require_more_than_labels()
            self.change_tape(None)
        self._plan = SegmentPlan(
            segment_id=SegmentId(new_uuid()),
            number=self.number,
            limit_bytes=self._limit_bytes(needed_bytes),
            checkpoint=self._walk.checkpoint(),
            tally=self._intake.tally.copy(),
            progress=self.progress,
        )
        stream = self._open_stream()
        stream.begin(self._plan)
        self._intake.begin(stream)
        for directory in self._walk.stack:
            if directory.announced or directory.parent is None:
                self._intake.enter(directory)

    def give_way_if_wanted(self) -> None:
        """Between two segments: let others use the drive if they want it. Raises SegmentLost."""
        if self._watcher.is_drive_wanted():
            self._give_way()

    def _other_tapes(self) -> list[VolumeId]:
        """Return the tapes that further copies lie on: this one stays on its own."""
        along = self._context.along
        return self._others if along is None else [*self._others, *along.other_tapes()]

    def _limit_bytes(self, needed_bytes: int) -> int:
        room_bytes, along = self._tapes.room_for_segment(), self._context.along
        return room_bytes if along is None else along.limit_bytes(room_bytes, needed_bytes)

    def _has_room(self, needed_bytes: int) -> bool:
        return self._tapes.room_for_segment() >= max(needed_bytes, 1) and not self._ends_soon()

    def _at_hand(self) -> SegmentPlan:
        if self._plan is None:
            raise AssertionError("no segment has begun")
        return self._plan

    def _ends_soon(self) -> bool:
        return self._stream is not None and self._stream.end_is_near

    def end_segment(self) -> None:
        """Hand over what is left of the segment at hand; it is committed later, or lost."""
        self._intake.finish()
        self._open_stream().finish()
        self._walk.segment_ends(self._at_hand().segment_id)
        self._tapes.room_bytes -= self.size_bytes() * STORED_PER_PLAIN
        if self._context.along is not None:
            self._context.along.handed_over(self._at_hand().segment_id, self.size_bytes())
        self.plain_bytes += self._intake.plain_bytes
        self.number += 1

    def _committed(self, segment: CommittedSegment) -> None:
        self._links.committed = segment.segment.number + 1
        self._tapes.segments.append(segment)
        self._tapes.unindexed.append(segment)

    def _open_stream(self) -> TapeStream:
        if self._stream is None:
            tape = self._tapes.tape or self._tapes.open_next()
            if self._context.along is not None:
                before = [each.copy.volume_id for each in self._tapes.segments]
                self._context.along.now_on(tape.volume.volume_id, seal_of(tape.volume), before)
            self._stream = TapeStream(
                self._context, self._tapes.drive, tape, self._pool, self._committed, self._fills, spool=self._has_spool
            )
        return self._stream

    def settle(self) -> None:
        """Have the drive for ourselves, everything handed over being committed. Raises SegmentLost."""
        before_s = time.perf_counter()
        self._lost = self._open_stream().settle()
        self._pool.waited_s += time.perf_counter() - before_s
        if self._lost is not None:
            raise SegmentLost

    def _give_way(self) -> None:
        """Let others use the drive, then go on at the end of the tape at hand. Raises SegmentLost."""
        self.settle()
        self._close_stream()
        self._tapes.give_way()
        self._open_stream()

    def _close_stream(self) -> None:
        stream = self._open_stream()
        stream.close()
        self._stored_before += stream.stored_bytes
        self._stream = None

    def change_tape(self, trouble: BaseException | None) -> None:
        """Leave the tape at hand and open the next; the stream is settled."""
        self._close_stream()
        self._tapes.leave(self.totals(), trouble)
        self._open_stream()

    def go_back(self) -> None:
        """Stand at the start of the lost segment again, on another tape, or on the same one when the drive was reset.

        Raises what neither would help.
        """
        lost = self._lost or self._open_stream().settle()
        if lost is None:
            raise AssertionError("no segment was lost")
        self._lost = None
        if self._context.along is not None:
            self._context.along.go_back()
        self._intake.abandon()
        if isinstance(lost.error, DiskFull) or not isinstance(lost.error, EndOfMedium | WriteFailed | PositionLost):
            raise lost.error
        self._walk.go_back(lost.plan.checkpoint)
        self._intake.tally = lost.plan.tally.copy()
        self.number = lost.plan.number
        self._links.go_back(self.number)
        self.progress = lost.plan.progress
        if isinstance(lost.error, PositionLost):
            self.stand_again(lost.error)
        else:
            self.change_tape(lost.error)

    def stand_again(self, trouble: PositionLost) -> None:
        """After a reset: go on where the committed data of the tape at hand ends; the stream is settled."""
        self._close_stream()
        self._tapes.stand_again(trouble)
        self._open_stream()

    def totals(self) -> SetTotals:
        """Return what has been taken in so far."""
        tally = self._intake.tally
        return SetTotals(
            files=tally.files, directories=tally.directories, bytes=tally.bytes,
            stored_bytes=sum(segment.segment.stored_bytes for segment in self._tapes.segments),
            troubled_files=tally.troubled_files + self._walk.unlisted,
            unread_files=tally.unread_files + self._walk.unlisted,
            unread_mark=joined(tally.unread_mark, self._walk.unlisted_mark),
        )  # fmt: skip
