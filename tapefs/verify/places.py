"""The places of a segment on tape: getting there, reading a tape file, and the trailer to compare with.

Runs in the drive's thread.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import BinaryIO

import structlog

from catalog.ids import BlockNo
from catalog.records import Segment, SegmentCopy
from drivers.errors import EndOfData, ReadFailed
from drivers.interface import BlockNo as DriveBlockNo
from drivers.interface import Drive
from tapefs.errors import BadStructure
from tapefs.home import Home
from tapefs.keys.reading import open_file
from tapefs.tape.blocks import BlockReader
from tapefs.verify.trailer import Trailer

log = structlog.get_logger(__name__)


def locate(drive: Drive, block: BlockNo) -> None:
    """Go to a logical block, unless the head stands there.

    Raises BadStructure when the tape ends before it, drive errors.
    """
    target = DriveBlockNo(block)
    if drive.position().block == target:
        return
    try:
        drive.locate(target)
    except EndOfData:
        raise BadStructure(f"the tape ends before block {block}") from None


def blocks_from(drive: Drive, copy: SegmentCopy, block: BlockNo) -> Iterator[bytes]:
    """Yield the blocks of the tape file that begins at `block`. Raises BadStructure, drive errors."""
    locate(drive, block)
    for view in BlockReader(drive, copy.block_size).rest_of_file():
        yield bytes(view)


def is_same(found: Iterator[bytes], expected: Iterator[bytes]) -> bool:
    """Are these the same bytes, however they are cut? Reads `found` to its end."""
    rest, same = b"", True
    for piece in found:
        while same and len(rest) < len(piece):
            more = next(expected, b"")
            same = bool(more)
            rest += more
        same = same and rest.startswith(piece)
        rest = rest[len(piece) :]
    return same and not rest and not next(expected, b"")


def open_trailer(
    home: Home, drive: Drive, segment: Segment, copy: SegmentCopy, problem: Callable[[str], None], files: ExitStack
) -> Trailer | None:
    """Return the local trailer if it is whole, else the one on tape, else None, having told what is wrong.

    `files` closes them. Raises OSError, drive errors other than ReadFailed; KeyMissing when only the one on tape is
    left and cannot be decrypted.
    """
    try:
        local = Trailer(files.enter_context(home.trailer(segment.segment_id).open("rb")))
        local.check(segment)
        return local
    except FileNotFoundError:
        pass  # That on tape is as good: it is compared with the ledger likewise.
    except BadStructure as error:
        log.warning("a local trailer is damaged", segment=segment.segment_id, error=str(error))
    file: BinaryIO = files.enter_context(tempfile.TemporaryFile(dir=home.trailers))  # noqa: SIM115 - `files` closes it
    try:
        for piece in open_file(home, blocks_from(drive, copy, copy.trailer_block)):
            file.write(piece)
        from_tape = Trailer(file, is_from_tape=True)
        from_tape.check(segment)
    except (ReadFailed, BadStructure) as error:
        problem(f"TRAILER: {error}; and the state folder has none, so files cannot be told apart")
        return None
    return from_tape
