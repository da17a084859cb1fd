"""Frames from tape into the staging cache, and reading on while nothing else is wanted. Runs in the drive's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from catalog.errors import NotFound
from catalog.ids import FrameNo, SegmentId, VolumeId
from catalog.index.model import FrameRow
from catalog.index.reader import IndexReader
from catalog.ledger import Ledger
from drivers.errors import PositionLost, ReadFailed
from drivers.interface import Drive
from tapefs.codecs import codec_of_format
from tapefs.errors import BadStructure
from tapefs.home import Home
from tapefs.recall.locates import LocateLog
from tapefs.recall.payload import PayloadReader
from tapefs.staging.stage import SegmentStage

#: Present frames between wanted ones are read over up to this many bytes on tape; beyond, a locate is cheaper.
_READ_OVER_BYTES = 512 * 1024**2
#: After so many damaged frames in a row the rest of the wish is given up.
_FAILURES_IN_A_ROW = 8


class Listener(Protocol):
    """Who hears about frames."""

    def arrived(self, segment_id: SegmentId, first: FrameNo, last: FrameNo) -> None:
        """These frames are staged."""
        ...

    def failed(self, segment_id: SegmentId, first: FrameNo, last: FrameNo, message: str) -> None:
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
    ) -> None:
        self._home = home
        self._ledger = ledger
        self._drive = drive
        self._volume_id = volume_id
        self._listener = listener
        self._locates = locates
        self._reader: PayloadReader | None = None
        self._stage: SegmentStage | None = None

    def fetch(self, segment_id: SegmentId, first: FrameNo, last: FrameNo) -> None:
        """Stage frames `first` to `last`; those present are announced at once. Damaged ones are told as failed.

        Raises NotFound when the segment is not on this tape, drive errors other than ReadFailed, OSError of the disk.
        """
        stage = self._open(segment_id)
        failures, number = 0, first
        while number <= last:
            here = range(number, number + 1)
            if stage.has(here) or stage.revive(here):
                self._listener.arrived(segment_id, number, number)
                number = FrameNo(number + 1)
                continue
            self._skip_over_to(number)
            failures = 0 if self._fetch_one(number) else failures + 1
            number = FrameNo(number + 1)
            if failures == _FAILURES_IN_A_ROW and number <= last:
                self._listener.failed(segment_id, number, last, "too many damaged frames before it")
                return

    def read_on(self, segment_id: SegmentId, after: FrameNo, is_wanted: Callable[[], bool]) -> None:
        """Stage what follows `after` in the segment while `is_wanted()`; it is asked before each frame."""
        stage = self._open(segment_id)
        number = FrameNo(after + 1)
        frames = len(self._at_hand().rows)
        while number < frames and is_wanted():
            stage.revive(range(number, number + 1))
            missing = stage.missing(range(number, frames))
            if not missing:
                return
            number = FrameNo(missing[0])
            self._skip_over_to(number)
            if not self._fetch_one(number):
                return
            number = FrameNo(number + 1)

    def close(self) -> None:
        """Let go of the segment at hand."""
        if self._stage is not None:
            self._stage.close()
        self._stage = self._reader = None

    def _at_hand(self) -> PayloadReader:
        if self._reader is None:
            raise AssertionError("no segment is open")
        return self._reader

    def _open(self, segment_id: SegmentId) -> SegmentStage:
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
        rows = frame_rows(self._home, self._ledger, segment_id)
        self._reader = PayloadReader(self._drive, copies[0], rows, codec_of_format(segment.codec), self._locates)
        self._stage = SegmentStage.create(self._home.staging, segment_id, rows)
        return self._stage

    def _skip_over_to(self, number: FrameNo) -> None:
        """Read over a short stretch before the frame instead of locating: the tape is faster that way."""
        reader = self._at_hand()
        here = reader.next_offset
        if here is None or not 0 < reader.rows[number].offset - here <= _READ_OVER_BYTES:
            return
        reader.read_over(reader.rows[number].offset)

    def _fetch_one(self, number: FrameNo) -> bool:
        reader, stage = self._at_hand(), self._stage
        if stage is None:
            raise AssertionError("no segment is open")
        segment_id = reader.copy.segment_id
        try:
            plain = reader.plain(number)
        except (ReadFailed, BadStructure) as error:
            self._listener.failed(segment_id, number, number, str(error))
            return False
        except PositionLost:
            reader.forget()
            raise
        stage.publish(number, plain)
        self._listener.arrived(segment_id, number, number)
        return True


def frame_rows(home: Home, ledger: Ledger, segment_id: SegmentId) -> list[FrameRow]:
    """Return the frames of a segment of a complete set. Raises NotFound, Damaged."""
    set_id = ledger.segment(segment_id).set_id
    reader = IndexReader(home.index(set_id))
    try:
        for segment in reader.segments():
            if segment.segment_id == segment_id:
                return [frame.row for frame in reader.frames(segment.number)]
    finally:
        reader.close()
    raise NotFound(f"the index of set {set_id} does not know segment {segment_id}")
