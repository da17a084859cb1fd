"""One segment on its way to tape: HEADER, PAYLOAD, TRAILER, commit. Used by the writer thread alone."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass

import msgspec
import structlog

from catalog.crash import crash_point
from catalog.ids import BlockNo, FileNo, SegmentId
from catalog.ledger import Ledger
from catalog.records import BackupSet, Intent, IntentKind, Segment, SegmentCopy, VolumeEnd
from drivers.interface import Drive
from tapefs import __version__
from tapefs.backup.draft import Draft
from tapefs.backup.frames import Frame
from tapefs.backup.payload import ArchivePayload, Payload, StreamedPayload
from tapefs.backup.scan import Checkpoint
from tapefs.backup.source import Seen
from tapefs.backup.tally import Tally
from tapefs.codecs import Codec
from tapefs.durable import sync_folder
from tapefs.format.lines import LineWriter
from tapefs.format.records import End, FrameLine, Header, Member, split_sources
from tapefs.format.structures import header_block
from tapefs.home import Home
from tapefs.tape.append import OpenTape
from tapefs.tape.blocks import BlockWriter

log = structlog.get_logger(__name__)

_before_intent = crash_point("segment.intent.before")
_after_intent = crash_point("segment.intent.after")
_after_header = crash_point("segment.header.after")
_after_frame = crash_point("segment.frame.after")
_after_payload = crash_point("segment.payload.after")
_after_local_trailer = crash_point("segment.local_trailer.after")
_after_trailer = crash_point("segment.trailer.after")
_after_sync = crash_point("segment.sync.after")
_after_commit = crash_point("segment.commit.after")


@dataclass(frozen=True, slots=True)
class PartProgress:
    """How far a file that is larger than a segment has come: its next part, and where that begins."""

    part: int = 0
    offset: int = 0
    #: As it was when its first part was read; None: no such file is in progress.
    seen: Seen | None = None


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """A segment that the intake has begun, and how to get back to its start."""

    segment_id: SegmentId
    number: int
    #: Plain bytes it may hold.
    limit_bytes: int
    checkpoint: Checkpoint
    tally: Tally
    progress: PartProgress


@dataclass(frozen=True, slots=True)
class SetContext:
    """What all segments of a set have in common."""

    home: Home
    ledger: Ledger
    backup_set: BackupSet
    host: str
    codec: Codec


@dataclass(frozen=True, slots=True)
class CommittedSegment:
    """A segment that counts, where it lies, and how long its trailer is."""

    segment: Segment
    copy: SegmentCopy
    label: str
    trailer_bytes: int


class SegmentWriter:
    """Writes one segment to the tape at hand, which must stand at its end."""

    def __init__(self, context: SetContext, drive: Drive, tape: OpenTape, plan: SegmentPlan) -> None:
        self._context = context
        self._drive = drive
        self._tape = tape
        self._plan = plan
        self._frames = 0
        self._plain_bytes = 0
        self._members = 0
        #: SHA-256 of the member that runs over frames.
        self._running = hashlib.sha256()
        self._blocks = BlockWriter(drive, tape.volume.block_size)
        self._payload = self._new_payload()
        self._trailer_path = context.home.trailer(plan.segment_id)
        self._part_path = self._trailer_path.with_suffix(".part")
        self._trailer_file = self._part_path.open("wb")
        self._trailer = LineWriter(self._trailer_file.write)
        self._payload_block = BlockNo(0)
        self._may_be_committed = False

    @property
    def stored_bytes(self) -> int:
        """Payload bytes so far."""
        return self._blocks.bytes

    @property
    def end_is_near(self) -> bool:
        """The drive has warned that the tape ends soon."""
        return self._blocks.end_is_near

    def begin(self) -> None:
        """Announce the segment in the ledger and write its HEADER. Raises drive and catalog errors, StorageFailed."""
        end = self._tape.end
        intent = Intent(
            structure_id=self._plan.segment_id,
            kind=IntentKind.SEGMENT,
            volume_id=self._tape.volume.volume_id,
            block=end.block,
            set_id=self._context.backup_set.set_id,
            opened_at_ns=time.time_ns(),
        )
        self._payload.begin()
        _before_intent()
        self._context.ledger.open_intent(intent, self._tape.claim)
        _after_intent()
        self._drive.write_block(header_block(self._header(), end.file + 1))
        self._drive.write_filemarks(1, sync=False)
        _after_header()
        self._payload_block = BlockNo(self._drive.position().block)

    def add(self, frame: Frame) -> None:
        """Write a frame that the workers are done with, and the lines it brings. Raises drive errors."""
        for start, length, first, draft in frame.pieces:
            if first:
                self._running = hashlib.sha256()
            self._running.update(frame.view[start : start + length])
            if draft >= 0:
                frame.sums[draft] = self._running.digest()
        self._trailer.write_many(self._lines(frame))
        place = self._payload.place
        self._payload.add(frame)
        if frame.used == 0:
            return
        self._trailer.write(FrameLine(at=place, stored=len(frame.stored), plain=frame.used, sum=frame.checksum))
        self._frames += 1
        self._plain_bytes += frame.used
        _after_frame()

    def finish(self) -> CommittedSegment:
        """Write what closes the payload and the TRAILER, sync, commit. Raises drive and catalog errors."""
        self._payload.finish()
        payload_sha256 = self._blocks.finish()
        self._drive.write_filemarks(1, sync=False)
        _after_payload()
        trailer_bytes = self._close_trailer(payload_sha256)
        _after_local_trailer()
        trailer_block = BlockNo(self._drive.position().block)
        self._write_trailer()
        _after_trailer()
        self._drive.write_filemarks(1, sync=True)
        _after_sync()
        committed = self._commit(payload_sha256, trailer_block, trailer_bytes)
        _after_commit()
        return committed

    def close(self) -> None:
        """Let go of what the payload needed. Harmless twice."""
        self._payload.close()

    def discard(self) -> None:
        """Forget the local trailer of a segment that did not come to be; what stays behind is told in the log."""
        self.close()
        try:
            # On a full disk even closing fails: it writes what is left in the buffer.
            self._trailer_file.close()
        except OSError as error:
            log.warning("a local trailer that is not needed", path=str(self._part_path), error=str(error))
        try:
            self._part_path.unlink(missing_ok=True)
            if not self._may_be_committed:
                self._trailer_path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("a local trailer that is not needed stays", path=str(self._part_path), error=str(error))

    def _new_payload(self) -> Payload:
        context = self._context
        if context.codec.is_tar:
            return StreamedPayload(self._blocks, context.codec)
        return ArchivePayload(self._blocks, context.home.spool, context.home.settings.backup.frame_bytes)

    def _lines(self, frame: Frame) -> list[msgspec.Struct]:
        sums = frame.sums
        lines: list[msgspec.Struct] = []
        for number, draft in enumerate(frame.drafts):
            if isinstance(draft, Draft):
                self._members += 1
                lines.append(draft.line(sums.get(number, b"")))
            elif isinstance(draft, msgspec.Struct):
                self._members += isinstance(draft, Member)
                lines.append(draft)
        return lines

    def _header(self) -> Header:
        backup_set, volume = self._context.backup_set, self._tape.volume
        sources, sources_b64 = split_sources(backup_set.sources)
        return Header(
            segment=self._plan.segment_id,
            number=self._plan.number,
            set=backup_set.set_id,
            set_number=backup_set.number,
            parent_set=backup_set.parent_id,
            type=backup_set.type,
            job=backup_set.job_id,
            job_number=backup_set.job_number,
            job_name=backup_set.name,
            sources=sources,
            sources_b64=sources_b64,
            installation=volume.installation_id,
            volume=volume.volume_id,
            codec=self._context.codec.format,
            block_size=volume.block_size,
            host=self._context.host,
            set_started_ns=backup_set.started_at_ns,
            created_ns=time.time_ns(),
            software=f"tapefs {__version__}",
        )

    def _close_trailer(self, payload_sha256: bytes) -> int:
        self._trailer.write(
            End(
                segment=self._plan.segment_id,
                number=self._plan.number,
                payload_sha256=payload_sha256,
                payload_bytes=self._blocks.bytes,
                payload_blocks=self._blocks.blocks,
                plain_bytes=self._plain_bytes,
                members=self._members,
                frames=self._frames,
            )
        )
        self._trailer.close()
        self._trailer_file.flush()
        os.fsync(self._trailer_file.fileno())
        size = self._trailer_file.tell()
        self._trailer_file.close()
        self._part_path.rename(self._trailer_path)
        sync_folder(self._trailer_path.parent)
        return size

    def _write_trailer(self) -> None:
        blocks = BlockWriter(self._drive, self._tape.volume.block_size)
        with self._trailer_path.open("rb") as trailer:
            while data := trailer.read(self._tape.volume.block_size):
                blocks.write(data)
        blocks.finish()

    def _commit(self, payload_sha256: bytes, trailer_block: BlockNo, trailer_bytes: int) -> CommittedSegment:
        start, position = self._tape.end, self._drive.position()
        segment = Segment(
            segment_id=self._plan.segment_id,
            set_id=self._context.backup_set.set_id,
            number=self._plan.number,
            codec=self._context.codec.format,
            plain_bytes=self._plain_bytes,
            stored_bytes=self._blocks.bytes,
            members=self._members,
            frames=self._frames,
            payload_sha256=payload_sha256,
            committed_at_ns=time.time_ns(),
        )
        copy = SegmentCopy(
            segment_id=segment.segment_id,
            volume_id=self._tape.volume.volume_id,
            header_file=start.file,
            header_block=start.block,
            payload_block=self._payload_block,
            trailer_block=trailer_block,
            end_block=BlockNo(position.block),
            block_size=self._tape.volume.block_size,
        )
        end = VolumeEnd(
            block=BlockNo(position.block),
            file=FileNo(position.file),
            used_bytes=start.used_bytes + self._blocks.bytes + trailer_bytes,
        )
        label = self._tape.volume.label
        # From here on the trailer stays: a commit that raises may be done all the same.
        self._may_be_committed = True
        self._context.ledger.commit_segment(segment, copy, self._tape.claim, end, label)
        self._tape.end = end
        return CommittedSegment(segment, copy, label, trailer_bytes)
