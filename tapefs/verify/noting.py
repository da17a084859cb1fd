"""Damage met by somebody who reads parts of a copy: the ledger learns it, as it does when the copy is read back.

Nobody has read the rest of the copy, so it does not count as read back, and reading it back says later how it is. Runs
in the drive's thread; no tape moves.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import structlog

from catalog.errors import CatalogError
from catalog.index.model import FrameRow
from catalog.ledger import Ledger
from catalog.records import CopyState, Segment, SegmentCopy
from tapefs.errors import BadStructure
from tapefs.home import Home
from tapefs.taf.verifying import lost_paths
from tapefs.verify.copy import joined, runs_of
from tapefs.verify.damage import Damage, read_damage, write_damage
from tapefs.verify.trailer import Trailer, touched

#: Begins the sentence about what was met; what reading back has found stands in others.
_MET = "PAYLOAD: met while files were read:"

log = structlog.get_logger(__name__)


def note_frames(
    home: Home, ledger: Ledger, copy: SegmentCopy, rows: Sequence[FrameRow], frames: Collection[int], reason: str
) -> None:
    """Record that these frames of a copy are not what was written; `rows` are all of the segment's.

    The file of the damage comes first, so that whoever finds the copy damaged finds out what it costs. Frames that were
    known before stay known. Raises OSError, catalog errors.
    """
    segment, volume = ledger.segment(copy.segment_id), ledger.volume(copy.volume_id)
    problems, known = _known(home.damage(copy.segment_id, copy.volume_id), copy)
    if not set(frames) <= known:
        found = sorted(known | set(frames))
        damage = Damage(
            segment=segment.segment_id,
            set=segment.set_id,
            volume=volume.volume_id,
            tape=volume.label,
            found_at_ns=time.time_ns(),
            problems=[*problems, f"{_MET} {len(found)} of {len(rows)} frames are damaged ({reason})"],
            frames=runs_of(found),
        )
        write_damage(home, damage, _paths(home, segment, rows, found))
    ledger.mark_copy(copy.segment_id, copy.volume_id, CopyState.DAMAGED, time.time_ns(), wholly=False)


def _known(path: Path, copy: SegmentCopy) -> tuple[list[str], set[int]]:
    """Return what reading back has said of the copy, and the frames that are known to be damaged."""
    if copy.state is not CopyState.DAMAGED:
        return [], set()
    try:
        read = read_damage(path)
    except ValueError as error:
        log.warning("a file of damage is damaged itself, and made anew", path=str(path), error=str(error))
        read = None
    if read is None:
        return [], set()
    damage, paths = read
    paths.close()
    problems = [each for each in damage.problems if not each.startswith(_MET)]
    return problems, {number for first, count in damage.frames for number in range(first, first + count)}


def _paths(home: Home, segment: Segment, rows: Sequence[FrameRow], frames: Sequence[int]) -> Iterator[bytes]:
    """Yield the files with content in these frames, by the local trailer; by the index where that is gone.

    Where neither can be read, nothing: the frames are known all the same.
    """
    spans = joined([(rows[each].plain_offset, rows[each].plain_offset + rows[each].plain_bytes) for each in frames])
    try:
        if segment.archive is None:
            with home.trailer(segment.segment_id).open("rb") as file:
                yield from _each_once(path for path, _ in touched(Trailer(file).lines(), spans))
            return
    except (FileNotFoundError, BadStructure) as error:
        log.info("the index stands in for a trailer", segment=segment.segment_id, reason=str(error))
    # As reading back has them: paths of ours are absolute, those in archives of others as they are there.
    above = b"/" if segment.archive is None else b""
    try:
        yield from (above + path for path in lost_paths(home, segment, frames))
    except CatalogError as error:
        log.warning("the files in damaged frames cannot be told", segment=segment.segment_id, reason=str(error))


def _each_once(paths: Iterator[bytes]) -> Iterator[bytes]:
    before = b""
    for path in paths:
        if path != before:
            yield path
        before = path
