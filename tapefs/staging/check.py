"""Comparing what is staged with the checksums taken when it came from tape. Any process; blocks for disk I/O.

Readers, movers and the evictor may be at work meanwhile: a frame is locked only while it is compared, and a wrong one
is dropped before that lock goes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from catalog.ids import SegmentId
from tapefs.staging.area import StagingArea
from tapefs.staging.pair import changing, remove_pair
from tapefs.staging.stage import SegmentStage

#: A segment and a number of plain bytes of it that have been compared.
Progress = Callable[[SegmentId, int], None]


class BadFrame(NamedTuple):
    """A frame whose bytes are not those that came from tape."""

    segment_id: SegmentId
    frame: int


@dataclass(slots=True)
class Findings:
    """What a check has seen."""

    segments: int = 0
    frames: int = 0
    bytes: int = 0
    wrong: list[BadFrame] = field(default_factory=list)
    #: Segments whose files cannot be used at all: no map, a damaged one, another version's. Nobody is served from them.
    unusable: list[SegmentId] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Is everything as it came from tape?"""
        return not self.wrong and not self.unusable


def check_staging(folder: Path, *, repair: bool, progress: Progress = lambda *_: None) -> Findings:
    """Compare every staged frame with its checksum.

    With `repair` wrong frames are dropped, also while files are open that need them, and unusable files removed; all of
    that comes from tape again. Raises OSError.
    """
    area = StagingArea(folder)
    area.adopt()
    findings = Findings()
    for segment_id in sorted(area.segments()):
        findings.segments += 1
        if not _check_segment(folder, segment_id, findings, progress, repair=repair):
            findings.unusable.append(segment_id)
            if repair:
                _remove(folder, segment_id)
    return findings


def _check_segment(
    folder: Path, segment_id: SegmentId, findings: Findings, progress: Progress, *, repair: bool
) -> bool:
    """Return False if the segment's files cannot be used."""
    stage = SegmentStage.open(folder, segment_id)
    if stage is None:
        return False
    try:
        for frame in range(stage.frame_count):
            is_intact = stage.is_intact(frame, drop=repair)
            if is_intact is None:
                continue
            length = stage.extent_of(frame)[1]
            findings.frames += 1
            findings.bytes += length
            if not is_intact:
                findings.wrong.append(BadFrame(segment_id, frame))
            progress(segment_id, length)
    finally:
        stage.close()
    return True


def _remove(folder: Path, segment_id: SegmentId) -> None:
    with changing(folder):
        stage = SegmentStage.open(folder, segment_id)
        if stage is None:
            remove_pair(folder, segment_id)
        else:  # Somebody has made it anew meanwhile.
            stage.close()
