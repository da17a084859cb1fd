"""The writing of a further copy while the backup runs: what the mover of another drive does, with a tape of its own.

The bytes come from the mover of the backup, block by block as they go to the first tape; HEADER and TRAILER are this
tape's own. A copy is committed when the first one is, and by itself. Whatever goes wrong costs this copy of a segment,
or all that are still to come: they are made later, from tape. Mover's main thread, which owns the drive.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from catalog.crash import crash_point
from catalog.ids import BlockNo, FileNo, SegmentId
from catalog.records import Intent, IntentKind, Segment, SegmentCopy, SetTotals, VolumeEnd
from drivers.errors import DiskFull, EndOfMedium, PositionLost, WriteFailed
from drivers.interface import BlockNo as DriveBlock
from drivers.interface import Drive
from tapefs.along.words import (
    Begin,
    Changing,
    Committed,
    Copied,
    CopyTask,
    Dropped,
    Go,
    Hello,
    HungUp,
    Lost,
    PayloadEnds,
    Ready,
    Sealed,
    TrailerIsThere,
    Wire,
    connect,
)
from tapefs.backup.copying import is_indexed, on_tape, set_index_table
from tapefs.backup.segment import CommittedSegment, SetContext, buffer_bytes, header_for
from tapefs.backup.session import STORED_PER_PLAIN, TapeSession
from tapefs.backup.set_index import write_set_index
from tapefs.backup.watcher import Watcher
from tapefs.errors import BadStructure
from tapefs.format.records import DRIVE, Header
from tapefs.format.structures import header_block
from tapefs.keys.driving import require_encrypted, write_encrypted, write_plain
from tapefs.keys.policy import Seal
from tapefs.tape.append import OpenTape
from tapefs.tape.files import TapeFile
from tapefs.tape.fill import FillBuffer, FillCounts

log = structlog.get_logger(__name__)

_after_intent = crash_point("along.intent.after")
_after_header = crash_point("along.header.after")
_after_block = crash_point("along.block.after")
_after_payload = crash_point("along.payload.after")
_after_trailer = crash_point("along.trailer.after")
_after_sync = crash_point("along.sync.after")
_after_commit = crash_point("along.commit.after")
_after_index = crash_point("along.index.after")

_READ_BYTES = 1024 * 1024

Step = Callable[[], None]


def copy_along(context: SetContext, drive: Drive, watcher: Watcher, task: CopyTask) -> None:
    """Write a further copy of the set as long as its backup runs; returns when that has ended, or wants no more.

    Raises NoTape, Cancelled, TapeError, drive and catalog errors. What is committed then stays.
    """
    try:
        wire = connect(task.address)
    except HungUp:
        return  # It was over before this drive came to it.
    try:
        _Second(context, drive, watcher, task, wire).run()
    except HungUp as error:
        log.info("a further copy ends", set=task.set_id, reason=str(error))
    finally:
        wire.hang_up()
        wire.close()


@dataclass(slots=True)
class _Copying:
    """The segment at hand."""

    begin: Begin
    tape: OpenTape
    payload_block: BlockNo
    fill: FillBuffer
    sha256: hashlib._Hash
    payload_bytes: int = 0
    trailer_block: BlockNo | None = None
    trailer_bytes: int = 0
    stored_trailer_bytes: int = 0
    trailer_sha256: bytes = b""

    @property
    def segment_id(self) -> SegmentId:
        """Which it is."""
        return self.begin.header.segment


class _Second:
    """The making of one further copy."""

    def __init__(self, context: SetContext, drive: Drive, watcher: Watcher, task: CopyTask, wire: Wire) -> None:
        self._context = context
        self._drive = drive
        self._watcher = watcher
        self._task = task
        self._wire = wire
        self._copying: _Copying | None = None
        self._totals = SetTotals(files=0, directories=0, bytes=0, stored_bytes=0, troubled_files=0)
        self._tapes = TapeSession(context, drive, watcher, context.home.settings.backup, pool=task.pool)

    def run(self) -> None:
        """Do it, until the other mover hangs up."""
        self._wire.say(Hello(target=self._task.target))
        try:
            while True:
                word = self._wire.hear(self._watcher.check_cancelled)
                if isinstance(word, bytes):
                    self._attempt(partial(self._take, word))
                elif isinstance(word, Sealed):
                    self._seal()
                    return
                else:
                    self._follow(word)
        finally:
            self._forget()

    def _follow(self, word: object) -> None:
        if isinstance(word, Go):
            self._go(word)
        elif isinstance(word, Begin):
            self._attempt(partial(self._begin, word))
        elif isinstance(word, PayloadEnds):
            self._attempt(partial(self._end_payload, word.sha256))
        elif isinstance(word, TrailerIsThere):
            self._attempt(self._write_trailer)
        elif isinstance(word, Committed):
            self._commit(word.segment)
        elif isinstance(word, Lost):
            self._attempt(self._step_back)
        else:
            raise HungUp("the other mover speaks another language")

    def _attempt(self, step: Step) -> None:
        """Do a step; if the tape or the drive does not allow it, the segment at hand gets no copy now."""
        try:
            step()
        except DiskFull:
            raise
        except (EndOfMedium, WriteFailed) as error:
            self._drop(str(error))
            self._wire.say(Changing())
            self._tapes.leave(self._totals, error)
            self._open_next()
        except PositionLost as error:
            self._drop(str(error))
            self._wire.say(Changing())
            self._tapes.stand_again(error)
            self._ready()
        except BadStructure as error:
            self._drop(str(error))
            self._attempt(self._step_back)

    # -- tapes -------------------------------------------------------------------------------------------------------

    def _go(self, word: Go) -> None:
        self._tapes.wanted = Seal(word.key_fingerprint, word.by_drive)
        self._tapes.foreign = lambda: word.exclude
        self._open_next()

    def _open_next(self) -> None:
        """Get a tape; one that has some of this set is gone on with, and its SET INDEX repeats what lacks one."""
        volume_id, context = self._tapes.open_next().volume.volume_id, self._context
        there = on_tape(context, volume_id)
        self._tapes.segments += there
        if there and not is_indexed(context, volume_id):
            self._tapes.unindexed += there
            self._tapes.look_at_room()
        self._ready()

    def _ready(self) -> None:
        tape, room_bytes = self._tapes.at_hand(), int(self._tapes.room_bytes / STORED_PER_PLAIN)
        self._wire.say(Ready(volume_id=tape.volume.volume_id, room_bytes=max(room_bytes, 0)))

    def _change_tape(self) -> None:
        self._wire.say(Changing())
        self._tapes.require_more_than_labels()
        self._tapes.leave(self._totals, None)
        self._open_next()

    def _forget(self) -> None:
        copying, self._copying = self._copying, None
        if copying is not None:
            copying.fill.close()

    def _drop(self, reason: str) -> None:
        copying = self._copying
        self._forget()
        if copying is not None:
            self._wire.say(Dropped(segment_id=copying.segment_id, reason=reason))

    def _step_back(self) -> None:
        """Stand where the committed data ends; what was begun there is overwritten."""
        self._forget()
        self._drive.locate(DriveBlock(self._tapes.at_hand().end.block))
        self._ready()

    # -- a segment ---------------------------------------------------------------------------------------------------

    def _begin(self, word: Begin) -> None:
        self._forget()
        self._totals = word.totals
        tape = self._tapes.at_hand()
        if not _fits(word.header, tape):
            reason = f"it is encrypted with another key than tape {tape.volume.label}"
            self._wire.say(Dropped(segment_id=word.header.segment, reason=reason))
            raise HungUp(reason)
        if self._tapes.room_bytes < word.limit_bytes * STORED_PER_PLAIN:
            reason = f"tape {tape.volume.label} has no room for it"
            self._wire.say(Dropped(segment_id=word.header.segment, reason=reason))
            self._change_tape()
            return
        self._announce(tape, word.header.segment)
        _after_intent()
        fill = FillBuffer(self._drive, buffer_bytes(self._context.home.settings.backup, tape), FillCounts())
        self._copying = _Copying(word, tape, BlockNo(0), fill, hashlib.sha256())
        write_plain(self._drive, tape.drive_key)
        self._drive.write_block(header_block(header_for(word.header, tape), tape.end.file + 1))
        self._drive.write_filemarks(1, sync=False)
        _after_header()
        write_encrypted(self._drive, tape.drive_key)
        self._copying.payload_block = BlockNo(self._drive.position().block)

    def _announce(self, tape: OpenTape, segment_id: SegmentId) -> None:
        intent = Intent(
            structure_id=segment_id,
            kind=IntentKind.SEGMENT,
            volume_id=tape.volume.volume_id,
            block=tape.end.block,
            set_id=self._task.set_id,
            opened_at_ns=time.time_ns(),
        )
        self._context.ledger.open_intent(intent, tape.claim)

    def _take(self, block: bytes) -> None:
        copying = self._copying
        if copying is None:
            return  # It was dropped, and the other mover did not know yet.
        copying.sha256.update(block)
        copying.payload_bytes += len(block)
        copying.fill.write_block(block)
        _after_block()

    def _end_payload(self, sha256: bytes) -> None:
        copying = self._copying
        if copying is None:
            return
        if copying.sha256.digest() != sha256:
            raise BadStructure("what came from the other mover is not what it has sent")
        copying.fill.drain()
        self._drive.write_filemarks(1, sync=False)
        _after_payload()
        copying.trailer_block = BlockNo(self._drive.position().block)

    def _write_trailer(self) -> None:
        copying = self._copying
        if copying is None:
            return
        segment_id, recipient = copying.segment_id, copying.tape.recipient
        trailer = TapeFile(self._drive, copying.begin.header.block_size, recipient, "trailer", segment_id)
        with self._context.home.trailer(segment_id).open("rb") as file:
            for data in iter(partial(file.read, _READ_BYTES), b""):
                trailer.write(data)
        copying.trailer_sha256 = trailer.finish() if recipient else trailer.finish()[:0]
        copying.trailer_bytes, copying.stored_trailer_bytes = trailer.bytes, trailer.stored_bytes
        _after_trailer()
        require_encrypted(self._drive, copying.tape.drive_key)
        self._drive.write_filemarks(1, sync=True)
        _after_sync()

    def _commit(self, segment: Segment) -> None:
        copying, self._copying = self._copying, None
        if copying is None or copying.trailer_block is None:
            return
        tape, position = copying.tape, self._drive.position()
        copy = SegmentCopy(
            segment_id=segment.segment_id,
            volume_id=tape.volume.volume_id,
            header_file=tape.end.file,
            header_block=tape.end.block,
            payload_block=copying.payload_block,
            trailer_block=copying.trailer_block,
            end_block=BlockNo(position.block),
            block_size=copying.begin.header.block_size,
            trailer_sha256=copying.trailer_sha256,
        )
        used_bytes = tape.end.used_bytes + copying.payload_bytes + copying.stored_trailer_bytes
        end = VolumeEnd(block=BlockNo(position.block), file=FileNo(position.file), used_bytes=used_bytes)
        self._context.ledger.commit_segment(segment, copy, tape.claim, end, tape.volume.label)
        tape.end = end
        _after_commit()
        log.info(
            "segment copied at once", segment=segment.segment_id, tape=tape.volume.label, bytes=copying.payload_bytes
        )
        committed = CommittedSegment(segment, copy, tape.volume.label, copying.trailer_bytes)
        self._tapes.segments.append(committed)
        self._tapes.unindexed.append(committed)
        self._wire.say(Copied(segment_id=segment.segment_id))
        self._tapes.look_at_room()
        if self._tapes.room_for_segment():
            self._ready()
        else:
            self._attempt(self._change_tape)

    # -- the end -----------------------------------------------------------------------------------------------------

    def _seal(self) -> None:
        """Write the last SET INDEX of this copy; without one it is written later."""
        tapes = self._tapes
        if not tapes.unindexed:
            return
        context = self._context
        backup_set = context.ledger.backup_set(self._task.set_id)
        context = SetContext(context.home, context.ledger, backup_set, context.host, context.codec)
        totals = SetTotals(**{field: getattr(backup_set, field) for field in SetTotals.__struct_fields__})
        table = set_index_table(context, {each.copy.volume_id for each in tapes.segments})
        try:
            write_set_index(context, self._drive, tapes.at_hand(), table, tapes.unindexed, totals, final=True)
        except DiskFull:
            raise
        except (EndOfMedium, WriteFailed, PositionLost) as error:
            log.warning(
                "no set index at the end of a further copy", tape=tapes.at_hand().volume.label, error=str(error)
            )
            if not isinstance(error, PositionLost):
                tapes.leave(totals, error)
            return
        tapes.unindexed.clear()
        _after_index()


def _fits(header: Header, tape: OpenTape) -> bool:
    """May a copy of that segment go to the tape? It has the same bytes, and what is encrypted stays so."""
    payload_key = "" if header.encryption == DRIVE else header.key_fingerprint or ""
    return payload_key == tape.payload_key and (header.encryption != DRIVE or tape.volume.by_drive)
