"""Where the frames of a segment lie: from the set's index, or from the trailer on tape. Runs in the drive's thread."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing

import structlog

from catalog.errors import Damaged, NotFound, OtherIndexVersion
from catalog.index.model import FrameRow
from catalog.index.reader import IndexReader
from catalog.ledger import Ledger
from catalog.records import Segment, SegmentCopy
from drivers.interface import Drive
from tapefs.errors import BadStructure
from tapefs.format.records import FrameLine
from tapefs.home import Home
from tapefs.verify.places import open_trailer
from tapefs.verify.trailer import Trailer

log = structlog.get_logger(__name__)


def frame_table(home: Home, ledger: Ledger, drive: Drive, copy: SegmentCopy) -> list[FrameRow]:
    """Return the frames of a segment of which `copy` lies on the tape in the drive.

    The index of an expired set is gone, and files of it may still be open: then the trailer on tape says it, which
    costs a locate. Raises NotFound, BadStructure, KeyMissing, drive errors other than ReadFailed, OSError.
    """
    segment = ledger.segment(copy.segment_id)
    try:
        return _from_index(home, segment)
    except (NotFound, Damaged, OtherIndexVersion) as error:
        if segment.archive is not None:
            raise BadStructure(
                f"what lies where in {os.fsdecode(segment.archive.path)} is not known any more"
            ) from error
        log.info("the trailer on tape stands in for the index", segment=segment.segment_id, reason=str(error))
        return _from_trailer(home, drive, segment, copy)


def _from_index(home: Home, segment: Segment) -> list[FrameRow]:
    with closing(IndexReader(home.index(segment.set_id))) as reader:
        for each in reader.segments():
            if each.segment_id == segment.segment_id:
                return [frame.row for frame in reader.frames(each.number)]
    raise NotFound(f"the index of set {segment.set_id} does not know segment {segment.segment_id}")


def _from_trailer(home: Home, drive: Drive, segment: Segment, copy: SegmentCopy) -> list[FrameRow]:
    problems: list[str] = []
    with ExitStack() as files:
        trailer = open_trailer(home, drive, segment, copy, problems.append, files)
        if trailer is None:
            raise BadStructure("; ".join(problems))
        return _rows(trailer)


def _rows(trailer: Trailer) -> list[FrameRow]:
    rows = []
    plain_offset = 0
    for line in trailer.lines():
        if isinstance(line, FrameLine):
            rows.append(FrameRow(plain_offset, line.plain, line.at, line.stored, line.sum))
            plain_offset += line.plain
    return rows
