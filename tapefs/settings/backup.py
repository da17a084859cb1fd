"""[backup] and [staging]: how tapes are written, and what is kept on the disk."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

SMALLEST_SEGMENT_BYTES = 1024**2

_Natural = Annotated[int, Meta(ge=0)]
_Count = Annotated[int, Meta(ge=1)]


class BackupSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How backups are written."""

    block_size: Annotated[int, Meta(ge=4096, le=16 * 1024**2)] = 256 * 1024
    #: Plain bytes of a segment; 0 means 32 GiB, or a fiftieth of a small tape.
    segment_bytes: _Natural = 0
    segment_members: _Count = 1_000_000
    frame_bytes: Annotated[int, Meta(ge=64 * 1024, le=64 * 1024**2, multiple_of=512)] = 4 * 1024 * 1024
    #: What makes gzip members: `auto` is the quickest for the level, `pgzip` has zlib do it.
    gzip_engine: Literal["auto", "pgzip"] = "auto"
    #: Compression threads of jobs that name none; 0 means one per core.
    threads: Annotated[int, Meta(ge=0, le=1024)] = 0
    #: How far what compresses stands back when other programs want the processors: added to the nice values of those
    #: threads; 0 means not at all.
    niceness: Annotated[int, Meta(ge=0, le=19)] = 10
    pool: Annotated[str, Meta(min_length=1)] = "default"
    #: Memory of the fill buffer before the drive; 0 means none. 128 MiB carry an LTO-9 drive over 0.7 s at its slowest.
    buffer_bytes: Annotated[int, Meta(ge=0, le=64 * 1024**3)] = 128 * 1024**2
    #: Jobs that do not say it themselves are spooled: whole segments go to disk first.
    spool: bool = False
    #: Disk space that the spool of a job may take; 0 means half of what is free when the job begins.
    spool_bytes: _Natural = 0
    #: A stream is stored in parts of this size, each of which lies on disk as a whole before it goes to tape; a quarter
    #: of what is free there is the most.
    stream_part_bytes: Annotated[int, Meta(ge=1024**2)] = 4 * 1024**3
    #: A client that sends nothing of its stream for so long is given up.
    stream_idle_s: Annotated[float, Meta(gt=0)] = 3600.0

    def __post_init__(self) -> None:
        """Refuse segments that would hold little but headers and trailers."""
        if 0 < self.segment_bytes < SMALLEST_SEGMENT_BYTES:
            raise ValueError(f"segment_bytes is 0 or at least {SMALLEST_SEGMENT_BYTES}")


class StagingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The cache of what was read from tape."""

    #: Disk space it may take; 0 means a quarter of what is free at start.
    limit_bytes: _Natural = 0
    #: How much of it pins may hold; the rest is for readers.
    pinned_percent: Annotated[int, Meta(ge=0, le=95)] = 75
