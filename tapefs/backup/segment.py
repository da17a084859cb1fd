"""One segment on its way to tape: HEADER, PAYLOAD, TRAILER, commit. Used by the writer thread alone."""

from __future__ import annotations

import time
from dataclasses import dataclass

import msgspec

from catalog.crash import crash_point
from catalog.ids import BlockNo, FileNo, SegmentId
from catalog.ledger import Ledger
from catalog.records import BackupSet, Intent, IntentKind, Segment, SegmentCopy, SetTotals, VolumeEnd
from drivers.interface import Drive
from tapefs import __version__
from tapefs.along.companions import Companions, Tee
from tapefs.backup.body import SegmentBody
from tapefs.backup.early_index import EarlyIndex
from tapefs.backup.frames import Frame
from tapefs.backup.payload import ArchivePayload, Payload, StreamedPayload
from tapefs.backup.scan import Checkpoint
from tapefs.backup.source import Seen
from tapefs.backup.tally import Tally
from tapefs.codecs import Codec
from tapefs.format.records import AGE, DRIVE, DRIVE_ALGORITHM, End, Header, split_sources
from tapefs.format.structures import header_block
from tapefs.home import Home
from tapefs.keys.driving import require_encrypted, write_encrypted, write_plain
from tapefs.settings.backup import BackupSettings
from tapefs.tape.append import OpenTape
from tapefs.tape.blocks import BlockSink
from tapefs.tape.files import TapeFile
from tapefs.tape.fill import FillBuffer, FillCounts

_before_intent = crash_point("segment.intent.before")
_after_intent = crash_point("segment.intent.after")
_after_header = crash_point("segment.header.after")
_after_copy = crash_point("segment.copy.after")
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
    #: Builds the index meanwhile; without it that is done at the end.
    early: EarlyIndex | None = None
    #: Movers of other drives that write further copies meanwhile.
    along: Companions | None = None


@dataclass(frozen=True, slots=True)
class CommittedSegment:
    """A segment that counts, where it lies, and how long its trailer is."""

    segment: Segment
    copy: SegmentCopy
    label: str
    trailer_bytes: int


_READ_BYTES = 1024 * 1024
#: The early warning comes 2 % before the end at most, and what is in the buffer then must still fit.
_BUFFERS_ON_A_TAPE = 250


class SegmentWriter:
    """Writes one segment to the tape at hand, which must stand at its end."""

    def __init__(
        self,
        context: SetContext,
        drive: Drive,
        tape: OpenTape,
        plan: SegmentPlan,
        fills: FillCounts,
        body: SegmentBody | None = None,
    ) -> None:
        """With a `body` that is finished already its payload comes by `copy`. Raises OSError."""
        self._context = context
        self._drive = drive
        self._tape = tape
        self._plan = plan
        self._fill = FillBuffer(drive, buffer_bytes(context.home.settings.backup, tape), fills)
        self._tee = Tee(self._fill)
        self._blocks = self._tape_file(self._tee, "payload")
        self._body = body or SegmentBody(context.home.trailer(plan.segment_id), self._new_payload(), context.early)
        self._payload_block = BlockNo(0)
        self._may_be_committed = False

    @property
    def stored_bytes(self) -> int:
        """Payload bytes on tape so far, and on their way there."""
        return self._blocks.stored_bytes

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
        self._body.begin()
        _before_intent()
        self._context.ledger.open_intent(intent, self._tape.claim)
        _after_intent()
        header = self._header()
        if self._context.along is not None:
            self._tee.go_to(self._context.along.begin(header, self._plan.limit_bytes, self._totals()))
        write_plain(self._drive, self._tape.drive_key)
        self._drive.write_block(header_block(header, end.file + 1))
        self._drive.write_filemarks(1, sync=False)
        _after_header()
        write_encrypted(self._drive, self._tape.drive_key)
        self._payload_block = BlockNo(self._drive.position().block)

    def add(self, frame: Frame) -> None:
        """Write a frame that the workers are done with, and the lines it brings. Raises drive errors."""
        self._body.add(frame)

    def copy(self, stored: bytes) -> None:
        """Write a piece of the payload of a finished body. Raises drive errors."""
        self._blocks.write(stored)
        _after_copy()

    def finish(self) -> CommittedSegment:
        """Write what closes the payload and the TRAILER, sync, commit. Raises drive and catalog errors."""
        self._body.finish()
        payload_sha256 = self._blocks.finish()
        self._tee.payload_ends(payload_sha256)
        self._fill.drain()
        self._drive.write_filemarks(1, sync=False)
        _after_payload()
        trailer_bytes = self._body.close_trailer(self._end(payload_sha256))
        _after_local_trailer()
        self._tee.trailer_is_there()
        trailer_block = BlockNo(self._drive.position().block)
        trailer = self._tape_file(self._drive, "trailer")
        trailer_sha256 = self._write_trailer(trailer)
        _after_trailer()
        require_encrypted(self._drive, self._tape.drive_key)
        self._drive.write_filemarks(1, sync=True)
        _after_sync()
        segment = self._segment(payload_sha256)
        copy = self._copy(trailer_block, trailer_sha256 if self._tape.recipient else b"")
        committed = self._commit(segment, copy, trailer.stored_bytes, trailer_bytes)
        self._tee.committed(segment)
        _after_commit()
        return committed

    def close(self) -> None:
        """Let go of what the payload needed. Harmless twice."""
        self._body.close()

    def discard(self) -> None:
        """The segment has not come to be: the drive is nobody's, the local trailer goes."""
        self._tee.lost()
        self._fill.close()
        self._body.discard(keep_trailer=self._may_be_committed)

    def _tape_file(self, sink: BlockSink, what: str) -> TapeFile:
        tape = self._tape
        return TapeFile(sink, tape.volume.block_size, tape.recipient, what, self._plan.segment_id)

    def _new_payload(self) -> Payload:
        context = self._context
        if context.codec.is_tar:
            return StreamedPayload(self._blocks, context.codec)
        return ArchivePayload(self._blocks, context.home.spool, context.home.settings.backup.frame_bytes)

    def _header(self) -> Header:
        backup_set, volume = self._context.backup_set, self._tape.volume
        sources, sources_b64 = split_sources(backup_set.sources)
        header = Header(
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
        return header_for(header, self._tape)

    def _totals(self) -> SetTotals:
        tally = self._plan.tally
        return SetTotals(
            files=tally.files, directories=tally.directories, bytes=tally.bytes, stored_bytes=0,
            troubled_files=tally.troubled_files, unread_files=tally.unread_files,
            unread_mark=tally.unread_mark,
        )  # fmt: skip

    def _end(self, payload_sha256: bytes) -> End:
        return End(
            segment=self._plan.segment_id,
            number=self._plan.number,
            payload_sha256=payload_sha256,
            payload_bytes=self._blocks.stored_bytes,
            payload_blocks=self._blocks.blocks,
            plain_bytes=self._body.plain_bytes,
            members=self._body.members,
            frames=self._body.frames,
            key_fingerprint=self._tape.payload_key or None,
            preamble=self._blocks.preamble,
        )

    def _write_trailer(self, blocks: TapeFile) -> bytes:
        with self._body.trailer_path.open("rb") as trailer:
            while data := trailer.read(_READ_BYTES):
                blocks.write(data)
        return blocks.finish()

    def _segment(self, payload_sha256: bytes) -> Segment:
        return Segment(
            segment_id=self._plan.segment_id,
            set_id=self._context.backup_set.set_id,
            number=self._plan.number,
            codec=self._context.codec.format,
            plain_bytes=self._body.plain_bytes,
            stored_bytes=self._blocks.stored_bytes,
            members=self._body.members,
            frames=self._body.frames,
            payload_sha256=payload_sha256,
            committed_at_ns=time.time_ns(),
            key_fingerprint=self._tape.payload_key,
            preamble=self._blocks.preamble,
        )

    def _copy(self, trailer_block: BlockNo, trailer_sha256: bytes) -> SegmentCopy:
        start = self._tape.end
        return SegmentCopy(
            segment_id=self._plan.segment_id,
            volume_id=self._tape.volume.volume_id,
            header_file=start.file,
            header_block=start.block,
            payload_block=self._payload_block,
            trailer_block=trailer_block,
            end_block=BlockNo(self._drive.position().block),
            block_size=self._tape.volume.block_size,
            trailer_sha256=trailer_sha256,
        )

    def _commit(
        self, segment: Segment, copy: SegmentCopy, stored_trailer_bytes: int, trailer_bytes: int
    ) -> CommittedSegment:
        end = VolumeEnd(
            block=copy.end_block,
            file=FileNo(self._drive.position().file),
            used_bytes=self._tape.end.used_bytes + segment.stored_bytes + stored_trailer_bytes,
        )
        label = self._tape.volume.label
        # From here on the trailer stays: a commit that raises may be done all the same.
        self._may_be_committed = True
        self._context.ledger.commit_segment(segment, copy, self._tape.claim, end, label)
        self._tape.end = end
        return CommittedSegment(segment, copy, label, trailer_bytes)


def header_for(header: Header, tape: OpenTape) -> Header:
    """Return the HEADER as it is to stand on that tape: copies differ in which it is, and in who encrypts it."""
    volume = tape.volume
    encryption = DRIVE if volume.by_drive else AGE if volume.key_fingerprint else None
    return msgspec.structs.replace(
        header,
        volume=volume.volume_id,
        created_ns=time.time_ns(),
        encryption=encryption,
        algorithm=DRIVE_ALGORITHM if volume.by_drive else None,
        key_fingerprint=volume.key_fingerprint or None,
    )


def buffer_bytes(settings: BackupSettings, tape: OpenTape) -> int:
    """Return the size of the fill buffer: little on a small tape, whose early warning it would hide."""
    return min(settings.buffer_bytes, tape.volume.capacity_bytes // _BUFFERS_ON_A_TAPE)
