"""Frames from tape into the staging cache, and reading on while nothing else is wanted. Runs in the drive's thread.

A frame that is not what was written is read a second time, and then noted in the ledger as damage of this copy: others
are read first from then on. What may be the drive's fault, or that of the way to it, is told and not noted.

Reading on costs nothing while the tape runs, but disk space and the drive's time for others. So it goes a few frames
far at first, and twice as far each time that what is wanted next follows on what was read.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from enum import Enum
from typing import Protocol

import structlog

from catalog.errors import CatalogError, NotFound
from catalog.ids import FrameNo, SegmentId, VolumeId
from catalog.ledger import Ledger
from catalog.records import CopyState
from drivers.errors import PositionLost, ReadFailed
from drivers.interface import Drive
from drivers.virtual.generations import GENERATIONS
from drivers.virtual.motion import motion_of
from tapefs.codecs import codec_of_format
from tapefs.errors import BadStructure, ContentDamaged, KeyMissing, KeyUnfit
from tapefs.home import Home
from tapefs.keys.driving import give_key, take_key
from tapefs.keys.reading import open_payload
from tapefs.recall.frame_table import frame_table
from tapefs.recall.locates import LocateLog
from tapefs.recall.payload import PayloadReader
from tapefs.staging.stage import SegmentStage
from tapefs.taf.recall import ArchiveReader
from tapefs.verify.noting import note_frames

#: How far the mover reads on behind the first wish; plain bytes.
FIRST_READ_ON_BYTES = 16 * 1024**2
#: A wish that begins so many frames behind what was read follows on it: a reader may have skipped a file.
_NEAR_FRAMES = 4
#: After so many damaged frames in a row the rest of the wish is given up.
_FAILURES_IN_A_ROW = 8
#: Of the room for staging, the part that may be taken by what lies before a wish in an archive of another program.
_PASSED_PART = 8


log = structlog.get_logger(__name__)


class Loss(Enum):
    """Why frames cannot be had from a tape, as the arrivals call it."""

    #: They are not what was written, on this tape.
    DAMAGED = "damaged"
    #: They are encrypted, and the key is locked or not here.
    LOCKED = "locked"
    #: Something else, which says nothing about the tape.
    UNREAD = "read_failed"


class Listener(Protocol):
    """Who hears about frames."""

    def arrived(self, segment_id: SegmentId, first: FrameNo, last: FrameNo) -> None:
        """These frames are staged."""
        ...

    def failed(self, segment_id: SegmentId, first: FrameNo, last: FrameNo, message: str, error: Loss) -> None:
        """These frames cannot be had from this tape."""
        ...


class Stager:
    """Stages frames from one loaded tape."""

    def __init__(
        self,
        home: Home,
        ledger: Ledger,
        drive: Drive,
        volume_id: VolumeId,
        listener: Listener,
        locates: LocateLog | None = None,
        may_be_to_blame: Callable[[], bool] = lambda: False,
    ) -> None:
        """`may_be_to_blame` asks the drive whether what it cannot read may be its own fault, as when it is dirty."""
        self._home = home
        self._ledger = ledger
        self._drive = drive
        self._volume_id = volume_id
        self._listener = listener
        self._locates = locates
        self._may_be_to_blame = may_be_to_blame
        #: Damaged frames of the segment at hand that are still to be noted, and why the first is.
        self._to_note: list[int] = []
        self._reason = ""
        self._is_known_damaged = False
        self._reader: PayloadReader | ArchiveReader | None = None
        self._stage: SegmentStage | None = None
        #: The drive has the key of the tape, if it takes one.
        self._has_key = False
        self._read_over_bytes = _break_even_bytes(drive, locates)
        #: The frame that was read last, and how far reading on goes behind it.
        self._reached: tuple[SegmentId, FrameNo] | None = None
        self._read_on_bytes = FIRST_READ_ON_BYTES
        #: What may be kept of what an archive is decompressed for on the way; see `_passed`.
        self._passed_left_bytes = 0

    def fetch(self, segment_id: SegmentId, first: FrameNo, last: FrameNo) -> None:
        """Stage frames `first` to `last`; those present are announced at once. Damaged ones are told as failed.

        Raises NotFound when the segment is not on this tape, drive errors other than ReadFailed, OSError of the disk.
        """
        try:
            stage = self._open(segment_id)
        except (BadStructure, KeyMissing, KeyUnfit) as error:
            loss = Loss.UNREAD if isinstance(error, BadStructure) else Loss.LOCKED
            self._listener.failed(segment_id, first, last, str(error), loss)
            return
        try:
            self._fetch(stage, segment_id, first, last)
        finally:
            self._note_rest()

    def _fetch(self, stage: SegmentStage, segment_id: SegmentId, first: FrameNo, last: FrameNo) -> None:
        failures, number, is_first = 0, first, True
        self._passed_left_bytes = _room_bytes(self._home) // _PASSED_PART
        while number <= last:
            here = range(number, number + 1)
            if stage.has(here) or stage.revive(here):
                self._listener.arrived(segment_id, number, number)
                number = FrameNo(number + 1)
                continue
            if is_first:
                self._follow(segment_id, number)
                is_first = False
            self._reached = segment_id, number
            failures = 0 if self._fetch_one(number) else failures + 1
            number = FrameNo(number + 1)
            if failures == _FAILURES_IN_A_ROW and number <= last:
                self._listener.failed(segment_id, number, last, "too many damaged frames before it", Loss.DAMAGED)
                return

    def read_on(self, is_wanted: Callable[[], bool], most_bytes: int) -> None:
        """Stage what follows the frame that was read last while `is_wanted()`; it is asked before each frame.

        Goes as far as readers have come behind so far, at most `most_bytes` of plain stream, and over the end of the
        segment into the next one of the same set on this tape.
        """
        left_bytes = min(self._read_on_bytes, most_bytes)
        while self._reached is not None and left_bytes > 0 and is_wanted():
            following = self._behind(*self._reached)
            if following is None:
                return
            self._reached = segment_id, number = following
            try:
                stage = self._open(segment_id)
            except (BadStructure, KeyMissing, KeyUnfit) as error:
                log.warning("nothing is read ahead", segment=segment_id, reason=str(error))
                return
            left_bytes -= stage.extent_of(number)[1]
            here = range(number, number + 1)
            if not (stage.has(here) or stage.revive(here) or self._fetch_one(number)):
                return

    def rest(self) -> None:
        """Nothing is to be read for a while: a key does not stay in the drive. Raises drive errors."""
        if self._has_key:
            take_key(self._drive)
            self._has_key = False

    def close(self) -> None:
        """Let go of the segment at hand."""
        self._note_rest()
        if isinstance(self._reader, ArchiveReader):
            self._reader.close()
        if self._stage is not None:
            self._stage.close()
        self._stage = self._reader = None

    def _at_hand(self) -> PayloadReader | ArchiveReader:
        if self._reader is None:
            raise AssertionError("no segment is open")
        return self._reader

    def _open(self, segment_id: SegmentId) -> SegmentStage:
        if not self._has_key:
            give_key(self._home, self._drive, self._ledger.volume(self._volume_id))
            self._has_key = True
        if (
            self._stage is not None
            and self._stage.is_linked()  # Else somebody has emptied the staging folder.
            and self._at_hand().copy.segment_id == segment_id
        ):
            return self._stage
        self.close()
        copies = [copy for copy in self._ledger.copies(segment_id) if copy.volume_id == self._volume_id]
        if not copies:
            raise NotFound(f"segment {segment_id} is not on this tape")
        segment = self._ledger.segment(segment_id)
        rows = frame_table(self._home, self._ledger, self._drive, copies[0])
        if segment.archive is not None:
            self._reader = ArchiveReader(self._drive, segment, copies[0], rows, self._passed)
        else:
            unsealer = open_payload(self._home, segment)
            codec = codec_of_format(segment.codec)
            self._reader = PayloadReader(
                self._drive, copies[0], rows, codec, self._locates, self._read_over_bytes, unsealer
            )
        self._stage = SegmentStage.create(self._home.staging, segment_id, rows)
        self._is_known_damaged = copies[0].state is CopyState.DAMAGED
        return self._stage

    def _passed(self, number: int, plain: bytes) -> None:
        """Keep what was decompressed on the way to what is wanted, up to a bound: coming back to it is dear."""
        stage = self._stage
        if stage is None or len(plain) > self._passed_left_bytes:
            return
        self._passed_left_bytes -= len(plain)
        stage.publish(number, plain)
        self._listener.arrived(self._at_hand().copy.segment_id, FrameNo(number), FrameNo(number))

    def _behind(self, segment_id: SegmentId, number: FrameNo) -> tuple[SegmentId, FrameNo] | None:
        """Return the frame that comes next on the tape; None when there is none of this set."""
        segment = self._ledger.segment(segment_id)
        if number + 1 < segment.frames:
            return segment_id, FrameNo(number + 1)
        copies = self._ledger.copies_on(self._volume_id)
        place = next((place for place, copy in enumerate(copies) if copy.segment_id == segment_id), len(copies))
        for copy in copies[place + 1 : place + 2]:
            following = self._ledger.segment(copy.segment_id)
            if copy.state is CopyState.GOOD and following.set_id == segment.set_id and following.frames:
                return copy.segment_id, FrameNo(0)
        return None

    def _follow(self, segment_id: SegmentId, wanted: FrameNo) -> None:
        """If a wish follows on what was read, somebody comes behind: the next time more is read on."""
        if self._reached is None:
            return
        reached_id, reached = self._reached
        follows = segment_id == reached_id and 0 < wanted - reached <= _NEAR_FRAMES
        if follows or (wanted == 0 and self._behind(reached_id, reached) == (segment_id, wanted)):
            self._read_on_bytes *= 2
        else:
            self._read_on_bytes = FIRST_READ_ON_BYTES

    def _fetch_one(self, number: FrameNo) -> bool:
        reader, stage = self._at_hand(), self._stage
        if stage is None:
            raise AssertionError("no segment is open")
        segment_id = reader.copy.segment_id
        try:
            plain = self._plain(reader, number)
        except (ReadFailed, BadStructure) as error:
            loss = self._judge(reader, number, error)
            self._listener.failed(segment_id, number, number, str(error), loss)
            return False
        except PositionLost:
            reader.forget()
            raise
        stage.publish(number, plain)
        self._listener.arrived(segment_id, number, number)
        return True

    def _plain(self, reader: PayloadReader | ArchiveReader, number: int) -> bytes:
        """Return a frame; a first damage of a copy counts only if the frame cannot be read twice.

        Later ones only where that costs no more than a locate: before a drive gives up a block it tries for a minute.
        """
        try:
            return reader.plain(number)
        except (ReadFailed, BadStructure) as error:
            is_cheap = isinstance(error, BadStructure) and isinstance(reader, PayloadReader)
            if self._is_known_damaged and not is_cheap:
                raise
            log.info("a frame is read once more", segment=reader.copy.segment_id, frame=number, error=str(error))
        return reader.plain(number)

    # -- damage ------------------------------------------------------------------------------------------------------

    def _judge(self, reader: PayloadReader | ArchiveReader, number: int, error: Exception) -> Loss:
        """Return what a frame that cannot be read says of its copy, having noted the first of its damage."""
        if isinstance(reader, ArchiveReader) and not isinstance(error, ContentDamaged):
            return Loss.UNREAD
        if not self._is_known_damaged and self._may_be_to_blame():
            log.warning(
                "not noted as damage: the drive asks to be cleaned", segment=reader.copy.segment_id, error=str(error)
            )
            return Loss.UNREAD
        self._reason = self._reason or str(error)
        self._to_note.append(number)
        if not self._is_known_damaged:
            self._is_known_damaged = True
            self._note_rest()
        return Loss.DAMAGED

    def _note_rest(self) -> None:
        """Have the ledger know of damage. If that does not go, what can be read is worth more than the note."""
        frames, reason, reader = self._to_note, self._reason, self._reader
        self._to_note, self._reason = [], ""
        if not frames or reader is None:
            return
        copy = next(
            (each for each in self._ledger.copies(reader.copy.segment_id) if each.volume_id == self._volume_id), None
        )
        if copy is None:
            return  # It was given up meanwhile.
        try:
            note_frames(self._home, self._ledger, copy, reader.rows, frames, reason)
        except (OSError, CatalogError) as error:
            log.error("damage could not be noted", segment=copy.segment_id, frames=frames, error=str(error))


def _room_bytes(home: Home) -> int:
    return home.settings.staging.limit_bytes or shutil.disk_usage(home.staging).free // 4


def _break_even_bytes(drive: Drive, locates: LocateLog | None) -> int:
    """Return up to which distance ahead reading is quicker than a locate, for the tape in the drive."""
    if locates is not None:
        return locates.motion.break_even_bytes()
    generation = drive.status().medium_generation
    return motion_of(generation).break_even_bytes() if generation in GENERATIONS else 0
