"""Further copies of a complete set, made from tape: the sources are never read for them.

Payloads go from a tape that has them into nameless files on disk, as many as fit, and from there to another tape: each
behind a HEADER with the same segment uuid and before the same TRAILER. One drive is enough, and tapes are changed as
seldom as the disk allows. Mover's main thread, which owns the drive. What was committed counts: a copy that was
interrupted goes on with the segments that are left.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import IO

import structlog

from catalog.crash import crash_point
from catalog.ids import BlockNo, FileNo, SegmentId, VolumeId
from catalog.records import (
    CopyState,
    IndexCopy,
    Intent,
    IntentKind,
    Segment,
    SegmentCopy,
    SetTotals,
    VolumeEnd,
    VolumeState,
)
from drivers.errors import DiskFull, EndOfMedium, PositionLost, WriteFailed
from drivers.interface import Drive
from tapefs.backup.payloads_on_disk import Spooled, has_room, no_room, read_payload
from tapefs.backup.segment import CommittedSegment, SetContext, header_for
from tapefs.backup.session import TapeSession
from tapefs.backup.set_index import write_set_index
from tapefs.backup.watcher import BackupProgress, Watcher
from tapefs.errors import BadStructure, TapeError
from tapefs.format.structures import header_block
from tapefs.keys.driving import give_key, require_encrypted, write_encrypted, write_plain
from tapefs.keys.policy import Seal, TapeKeys, seal_of
from tapefs.tape.again import load_known, or_once_more
from tapefs.tape.append import OpenTape
from tapefs.tape.blocks import BlockWriter
from tapefs.tape.files import TapeFile

log = structlog.get_logger(__name__)

_after_spool = crash_point("copy.spool.after")
_after_intent = crash_point("copy.intent.after")
_after_header = crash_point("copy.header.after")
_after_payload = crash_point("copy.payload.after")
_after_trailer = crash_point("copy.trailer.after")
_after_sync = crash_point("copy.sync.after")
_after_commit = crash_point("copy.commit.after")

_READ_BYTES = 1024 * 1024
_PROGRESS_EVERY_S = 0.25


def good_copies(context: SetContext, segment_id: SegmentId) -> list[SegmentCopy]:
    """Return the copies of a segment that are not known to be damaged, the first one made first."""
    copies = [copy for copy in context.ledger.copies(segment_id) if copy.state is CopyState.GOOD]
    order = context.ledger.backup_set(context.backup_set.set_id).tapes
    return sorted(copies, key=lambda copy: order.index(context.ledger.volume(copy.volume_id).label))


def places_of(context: SetContext) -> Iterator[list[CommittedSegment]]:
    """Yield for each segment of the set where it lies, its first copy first."""
    ledger = context.ledger
    for segment in ledger.segments(context.backup_set.set_id):
        trailer_bytes = context.home.trailer(segment.segment_id).stat().st_size
        yield [
            CommittedSegment(segment, copy, ledger.volume(copy.volume_id).label, trailer_bytes)
            for copy in good_copies(context, segment.segment_id)
        ]


def on_tape(context: SetContext, volume_id: VolumeId) -> list[CommittedSegment]:
    """Return what of the set lies on the tape, in the order of the set."""
    return [each for places in places_of(context) for each in places if each.copy.volume_id == volume_id]


def is_indexed(context: SetContext, volume_id: VolumeId) -> bool:
    """Does a SET INDEX follow everything of the set that lies on the tape?"""
    end = max((each.copy.end_block for each in on_tape(context, volume_id)), default=0)
    indexes = context.ledger.index_copies(context.backup_set.set_id)
    return any(index.volume_id == volume_id and index.block >= end for index in indexes)


def set_index_table(context: SetContext, own: Collection[VolumeId]) -> list[CommittedSegment]:
    """Return what the SET INDEX of a copy names: all segments, on the tapes of this copy where they are there."""
    return [min(places, key=lambda each: each.copy.volume_id not in own) for places in places_of(context)]


def make_copies(context: SetContext, drive: Drive, watcher: Watcher, wanted: int) -> None:
    """Have `wanted` copies of every segment of a COMPLETE set, each on another tape; harmless when they are there.

    Raises NoTape, Cancelled, TapeError, StorageFailed when the disk has no room for one segment, drive and catalog
    errors. What is committed then stays.
    """
    _CopyRun(context, drive, watcher, wanted=wanted).run()


def copy_to_pool(context: SetContext, drive: Drive, watcher: Watcher, pool: str) -> None:
    """Have a copy of every segment of a COMPLETE set on tapes of a pool; harmless when they are there.

    Raises as `make_copies`.
    """
    _CopyRun(context, drive, watcher, pool=pool).run()


def copy_off(
    context: SetContext,
    drive: Drive,
    watcher: Watcher,
    volume_id: VolumeId,
    exclude: Collection[VolumeId],
    shelf: dict[SegmentId, Spooled],
) -> None:
    """Have a copy of what a COMPLETE set has on a tape on others of its pool, to replace it; harmless when it is there.

    Payloads that are on the shelf are taken from there, and closed. Raises as `make_copies`.
    """
    pool = context.ledger.volume(volume_id).pool
    _CopyRun(context, drive, watcher, pool=pool, replaces=volume_id, exclude=exclude, shelf=shelf).run()


class _CopyRun:
    """The making of one further copy: the one of that number, the one in that pool, or the one instead of another."""

    def __init__(
        self,
        context: SetContext,
        drive: Drive,
        watcher: Watcher,
        *,
        wanted: int = 0,
        pool: str = "",
        replaces: VolumeId | None = None,
        exclude: Collection[VolumeId] = (),
        shelf: dict[SegmentId, Spooled] | None = None,
    ) -> None:
        self._context = context
        self._drive = drive
        self._watcher = watcher
        self._wanted = wanted
        self._pool = pool
        self._replaces = replaces
        self._shelf = {} if shelf is None else shelf
        self._set = context.backup_set
        used = self._used()
        settings = context.home.settings.backup
        self._tapes = TapeSession(context, drive, watcher, settings, pool=pool, _tried=sorted(used.union(exclude)))
        #: The tape of this copy that is not in the drive and has room left.
        self._begun = self._begun_before(used)
        self._label = ""
        self._copied_bytes = 0
        self._told_at_s = 0.0

    def run(self) -> None:
        while lacking := [each for each in self._segments() if self._is_lacking(each)]:
            seal = self._seal_of(lacking[0])
            self._turn_to(seal)
            batch = self._spool([each for each in lacking if self._seal_of(each) == seal])
            _after_spool()
            try:
                self._write_batch(batch)
            finally:
                for spooled in batch:
                    spooled.file.close()
        if self._tapes.unindexed:
            self._write_index()
        elif self._replaces is not None and self._is_index_lacking():
            self._turn_to(seal_of(self._context.ledger.volume(self._replaces)))
            self._have_tape()
            self._write_index()
        self._index_the_rest()

    def _used(self) -> set[VolumeId]:
        """Return tapes that this copy cannot go to.

        One that has any of the set is not used again: each copy is whole on tapes of its own. What replaces another
        copy may lie beside the rest of that.
        """
        ledger, replaced = self._context.ledger, self._replaces
        copies = [ledger.copies(each.segment_id) for each in self._segments()]
        if replaced is not None:
            copies = [some for some in copies if any(copy.volume_id == replaced for copy in some)]
        used = {copy.volume_id for some in copies for copy in some}
        return used if replaced is None else used | {replaced}

    def _seal_of(self, segment: Segment) -> Seal:
        """Return how its payload is encrypted; if it is not, how its copies are that a drive has encrypted."""
        if segment.key_fingerprint:
            return Seal(segment.key_fingerprint)
        volumes = (self._context.ledger.volume(copy.volume_id) for copy in self._copies(segment))
        return next((seal_of(volume) for volume in volumes if volume.by_drive), Seal())

    def _turn_to(self, seal: Seal) -> None:
        """Have tapes that fit what is copied. Raises as `TapeKeys.of_new_tape`."""
        tapes, ledger = self._tapes, self._context.ledger
        tapes.wanted = seal
        keys = TapeKeys(self._context.home, seal, self._drive)
        keys.of_new_tape(self._pool or self._set.pool)
        if tapes.tape is not None and not keys.is_fit(tapes.tape.volume):
            tapes.leave(self._totals(), None)
        if self._begun is not None and not keys.is_fit(ledger.volume(self._begun)):
            self._begun = None

    def _segments(self) -> list[Segment]:
        return self._context.ledger.segments(self._set.set_id)

    def _is_lacking(self, segment: Segment) -> bool:
        if self._replaces is not None:
            copies = self._context.ledger.copies(segment.segment_id)
            is_there = any(copy.volume_id == self._replaces for copy in copies)
            return is_there and not any(self._stands_for(copy) for copy in self._copies(segment))
        if self._pool:
            return not any(self._is_in_pool(copy.volume_id) for copy in self._copies(segment))
        return len(self._copies(segment)) < self._wanted

    def _is_index_lacking(self) -> bool:
        """Has the tape that is to be left an index that none replaces yet?"""
        indexes = self._context.ledger.index_copies(self._set.set_id)
        is_there = any(index.volume_id == self._replaces for index in indexes)
        return is_there and not any(self._stands_for(index) for index in indexes)

    def _stands_for(self, other: SegmentCopy | IndexCopy) -> bool:
        """Was it made instead of what is on the tape that is to be left, on a tape that is to be trusted?"""
        if other.replaces != self._replaces:
            return False
        return self._context.ledger.volume(other.volume_id).state is not VolumeState.SUSPECT

    def _is_in_pool(self, volume_id: VolumeId) -> bool:
        return self._context.ledger.volume(volume_id).pool == self._pool

    def _copies(self, segment: Segment) -> list[SegmentCopy]:
        return good_copies(self._context, segment.segment_id)

    # -- from tape to disk -------------------------------------------------------------------------------------------

    def _spool(self, lacking: Sequence[Segment]) -> list[Spooled]:
        """Return those that are on disk; if none is, read as many from one tape as the disk takes, at least one."""
        if at_hand := [self._shelf.pop(each.segment_id) for each in lacking if each.segment_id in self._shelf]:
            return at_hand
        source = self._source_of(lacking[0])
        if self._tapes.tape is not None:
            # The tape that is being written is needed again: its index is written when it is left for good.
            self._begun, self._tapes.tape = self._tapes.tape.volume.volume_id, None
        self._watcher.this_volume(source.volume_id)
        volume = self._context.ledger.volume(source.volume_id)
        self._label = volume.label
        or_once_more(self._drive, volume, partial(load_known, self._drive, volume))
        give_key(self._context.home, self._drive, volume)
        found: list[Spooled] = []
        try:
            for segment, copy in self._on_tape(lacking, source.volume_id):
                if not has_room(self._context.home, segment):
                    if found:
                        break
                    raise no_room(self._context.home, segment)
                read = partial(read_payload, self._context.home, self._drive, segment, copy, self._look_around)
                found.append(or_once_more(self._drive, volume, read))
                if self._watcher.is_drive_wanted():
                    break
        except BaseException:
            for spooled in found:
                spooled.file.close()
            raise
        return found

    def _source_of(self, segment: Segment) -> SegmentCopy:
        copies = self._copies(segment)
        if not copies:
            raise TapeError(f"segment {segment.number} of set {self._set.set_id} has no copy left that could be copied")
        return copies[0]

    def _on_tape(self, lacking: Sequence[Segment], volume_id: VolumeId) -> Iterator[tuple[Segment, SegmentCopy]]:
        """Yield those of the segments that lie on the tape, in tape order."""
        places = [(each, copy) for each in lacking for copy in self._copies(each) if copy.volume_id == volume_id]
        return iter(sorted(places, key=lambda place: place[1].header_block))

    # -- from disk to tape -------------------------------------------------------------------------------------------

    def _write_batch(self, batch: Sequence[Spooled]) -> None:
        self._have_tape()
        for spooled in batch:
            # Another drive that was given up as too slow may have come to its end with this one.
            while self._is_lacking(spooled.segment) and not self._try(spooled):
                self._open_next()
            if self._watcher.is_drive_wanted():
                self._label = self._tapes.give_way().volume.label

    def _have_tape(self) -> None:
        if self._tapes.tape is None:
            self._open_begun()

    def _begun_before(self, used: set[VolumeId]) -> VolumeId | None:
        """Return the tape to which an interrupted run has written this copy last, if there is room on it.

        It holds nothing of the copies before, nothing damaged, and nothing of the segments that are left.
        """
        ledger, foreign = self._context.ledger, set()
        if self._replaces is not None:
            used = self._replacing()
        for segment in [] if self._replaces is not None else self._segments():
            good = [copy.volume_id for copy in self._copies(segment)]
            copies = [copy.volume_id for copy in ledger.copies(segment.segment_id)]
            if self._is_lacking(segment):
                foreign.update(copies)
            elif not self._pool:
                foreign.update(good[: self._wanted - 1])
            foreign.update(set(copies) - set(good))
        own = [ledger.volume(volume_id) for volume_id in used - foreign]
        if self._pool:
            own = [volume for volume in own if volume.pool == self._pool]
        open_ones = [each for each in own if each.state is VolumeState.APPENDABLE and not each.location]
        order = ledger.backup_set(self._set.set_id).tapes
        last = max(open_ones, key=lambda volume: order.index(volume.label), default=None)
        return None if last is None else last.volume_id

    def _replacing(self) -> set[VolumeId]:
        """Return the tapes that have copies which replace those on the tape that is to be left."""
        copies = (copy for segment in self._segments() for copy in self._copies(segment))
        return {copy.volume_id for copy in copies if copy.replaces == self._replaces}

    def _open_begun(self) -> None:
        """Have the tape in the drive that this copy has begun, or another."""
        if self._begun is None:
            self._open_next()
            return
        self._label = self._tapes.reopen(self._begun).volume.label
        if not self._tapes.segments:
            # Begun by an interrupted run: the SET INDEX repeats what that has left without one.
            self._tapes.segments = on_tape(self._context, self._begun)
            self._tapes.unindexed = [] if is_indexed(self._context, self._begun) else list(self._tapes.segments)
            self._tapes.look_at_room()
        self._begun = None

    def _open_next(self) -> None:
        tape = self._tapes.open_next()
        self._label = tape.volume.label

    def _try(self, spooled: Spooled) -> bool:
        """Write a segment to the tape at hand; False when it has no room for it, and was left."""
        trailer_bytes = self._context.home.trailer(spooled.segment.segment_id).stat().st_size
        if self._tapes.room_bytes < 1.01 * spooled.segment.stored_bytes + 3 * trailer_bytes:
            self._tapes.require_more_than_labels()
            self._tapes.leave(self._totals(), None)
            return False
        copied_bytes = self._copied_bytes
        try:
            committed = self._write(self._tapes.at_hand(), spooled)
        except DiskFull:
            raise
        except (EndOfMedium, WriteFailed) as error:
            self._copied_bytes = copied_bytes
            self._tapes.leave(self._totals(), error)
            return False
        except PositionLost as error:
            self._copied_bytes = copied_bytes
            self._stand_again(error)
            return self._try(spooled)
        self._tapes.segments.append(committed)
        self._tapes.unindexed.append(committed)
        self._tapes.look_at_room()
        return True

    def _stand_again(self, trouble: PositionLost) -> None:
        """After a reset: stand where the committed data of the tape at hand ends, or of another. Raises `trouble`."""
        self._label = self._tapes.stand_again(trouble).volume.label

    def _write(self, tape: OpenTape, spooled: Spooled) -> CommittedSegment:
        """Write HEADER, PAYLOAD and TRAILER, sync, commit. Raises drive and catalog errors."""
        segment, drive, start = spooled.segment, self._drive, tape.end
        self._announce(tape, segment)
        _after_intent()
        write_plain(drive, tape.drive_key)
        drive.write_block(header_block(header_for(spooled.header, tape), start.file + 1))
        drive.write_filemarks(1, sync=False)
        _after_header()
        write_encrypted(drive, tape.drive_key)
        payload_block = drive.position().block
        blocks = BlockWriter(drive, spooled.block_size)
        if self._feed(blocks, spooled.file) != segment.payload_sha256:
            raise BadStructure(
                f"the copy of segment {segment.number} changed on the disk of {self._context.home.spool}"
            )
        drive.write_filemarks(1, sync=False)
        _after_payload()
        trailer_block = drive.position().block
        with self._context.home.trailer(segment.segment_id).open("rb") as file:
            trailer = TapeFile(drive, spooled.block_size, tape.recipient, "trailer", segment.segment_id)
            trailer_sha256 = self._feed(trailer, file)
        _after_trailer()
        require_encrypted(drive, tape.drive_key)
        drive.write_filemarks(1, sync=True)
        _after_sync()
        position = drive.position()
        copy = SegmentCopy(
            segment_id=segment.segment_id,
            volume_id=tape.volume.volume_id,
            header_file=start.file,
            header_block=start.block,
            payload_block=BlockNo(payload_block),
            trailer_block=BlockNo(trailer_block),
            end_block=BlockNo(position.block),
            block_size=spooled.block_size,
            trailer_sha256=trailer_sha256 if tape.recipient else b"",
            replaces=self._replaces or VolumeId(""),
        )
        end = VolumeEnd(
            block=BlockNo(position.block),
            file=FileNo(position.file),
            used_bytes=start.used_bytes + blocks.bytes + trailer.stored_bytes,
        )
        self._context.ledger.commit_segment(segment, copy, tape.claim, end, tape.volume.label)
        tape.end = end
        _after_commit()
        log.info("segment copied", segment=segment.segment_id, tape=tape.volume.label, bytes=blocks.bytes)
        return CommittedSegment(segment, copy, tape.volume.label, trailer.bytes)

    def _announce(self, tape: OpenTape, segment: Segment) -> None:
        intent = Intent(
            structure_id=segment.segment_id,
            kind=IntentKind.SEGMENT,
            volume_id=tape.volume.volume_id,
            block=tape.end.block,
            set_id=self._set.set_id,
            opened_at_ns=time.time_ns(),
        )
        self._context.ledger.open_intent(intent, tape.claim)

    def _feed(self, blocks: BlockWriter | TapeFile, file: IO[bytes]) -> bytes:
        file.seek(0)
        while data := file.read(_READ_BYTES):
            blocks.write(data)
            self._copied_bytes += len(data)
            self._look_around()
        return blocks.finish()

    def _write_index(self) -> None:
        """Write the last SET INDEX of this copy; it names all segments, on tapes of this copy where they are there."""
        tapes = self._tapes
        table = set_index_table(self._context, self._own())
        while True:
            try:
                write_set_index(
                    self._context,
                    self._drive,
                    tapes.at_hand(),
                    table,
                    tapes.unindexed,
                    self._totals(),
                    final=True,
                    replaces=self._replaces,
                )
            except DiskFull:
                raise
            except (EndOfMedium, WriteFailed) as error:
                tapes.leave(self._totals(), error)
                self._open_next()
            except PositionLost as error:
                self._stand_again(error)
            else:
                tapes.unindexed.clear()
                return

    def _own(self) -> set[VolumeId]:
        """Return the tapes of this copy; of one that replaces another all but the tape that is left."""
        if self._replaces is None:
            return {each.copy.volume_id for each in self._tapes.segments}
        return self._replacing().union(each.copy.volume_id for each in self._tapes.segments)

    def _index_the_rest(self) -> None:
        """Write the SET INDEX of tapes that an interrupted run has left without one."""
        tapes = self._tapes
        for volume_id in {each.copy.volume_id: None for places in places_of(self._context) for each in places}:
            is_open = self._context.ledger.volume(volume_id).state is VolumeState.APPENDABLE
            if is_open and not is_indexed(self._context, volume_id):
                tapes.wanted = seal_of(self._context.ledger.volume(volume_id))
                tapes.reopen(volume_id)
                tapes.segments = on_tape(self._context, volume_id)
                tapes.unindexed = list(tapes.segments)
                self._write_index()

    # -- on the way --------------------------------------------------------------------------------------------------

    def _totals(self) -> SetTotals:
        return SetTotals(**{field: getattr(self._set, field) for field in SetTotals.__struct_fields__})

    def _look_around(self) -> None:
        self._watcher.check_cancelled()
        now_s = time.monotonic()
        if now_s - self._told_at_s < _PROGRESS_EVERY_S:
            return
        self._told_at_s = now_s
        self._watcher.progress(
            BackupProgress(
                set_id=self._set.set_id,
                stage="copy",
                tape=self._label,
                path=b"",
                files=self._set.files,
                bytes=self._set.bytes,
                stored_bytes=self._copied_bytes,
            )
        )
