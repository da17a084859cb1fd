"""Payloads on their way from one tape to another: in files without names on the disk of the state folder.

Whatever dies leaves nothing behind. In the thread that owns the drive.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from catalog.errors import StorageFailed
from catalog.records import Segment, SegmentCopy
from drivers.interface import BlockNo, Drive
from tapefs.errors import BadStructure
from tapefs.format.records import Header
from tapefs.format.structures import read_header
from tapefs.home import Home
from tapefs.tape.blocks import BlockReader
from tapefs.verify.places import blocks_from

#: Left free on the disk of the state folder.
_LEAST_FREE_BYTES = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class Spooled:
    """A payload on disk, as it was read from tape."""

    segment: Segment
    header: Header
    #: Length of the blocks it was cut into, and is again: the trailer counts them.
    block_size: int
    file: IO[bytes]


def has_room(home: Home, segment: Segment) -> bool:
    """Does the disk take this payload, too?"""
    return free_bytes(home) >= segment.stored_bytes


def no_room(home: Home, segment: Segment) -> StorageFailed:
    """Return the error for a disk that does not even take one payload."""
    return StorageFailed(
        f"a copy of segment {segment.number} needs {segment.stored_bytes} bytes on the disk of {home.spool}, "
        f"which has {max(free_bytes(home), 0)} to give: make room there",
        retryable=True,
    )


def read_payload(
    home: Home, drive: Drive, segment: Segment, copy: SegmentCopy, look_around: Callable[[], None]
) -> Spooled:
    """Read one payload from the loaded tape. Raises BadStructure when it is not as it was written, drive errors.

    `look_around` is called for every block, and may raise.
    """
    header = read_header(next(blocks_from(drive, copy, copy.header_block)))
    if header.segment != segment.segment_id:
        raise BadStructure(f"the tape has segment {header.segment} where {segment.segment_id} should be")
    drive.locate(BlockNo(copy.payload_block))
    file = tempfile.TemporaryFile(dir=_folder(home))  # noqa: SIM115 -- it is closed when it is on tape
    try:
        sha256 = hashlib.sha256()
        for block in BlockReader(drive, copy.block_size).rest_of_file():
            look_around()
            sha256.update(block)
            file.write(block)
        file.flush()
        if sha256.digest() != segment.payload_sha256:
            raise BadStructure(f"segment {segment.number} on tape is not as it was written")
    except BaseException:
        file.close()
        raise
    return Spooled(segment, header, copy.block_size, file)


def _folder(home: Home) -> str:
    home.spool.mkdir(mode=0o700, exist_ok=True)
    return str(home.spool)


def free_bytes(home: Home) -> int:
    """Return how much may be written to the disk; below zero when it should have more already."""
    status = os.statvfs(_folder(home))
    return status.f_bavail * status.f_frsize - _LEAST_FREE_BYTES
