"""The map of a segment's staging file: its layout, and the shared view of it that every process has.

Byte by byte in `docs/staging.md`. Header and frame table never change once written and carry a checksum; the words
and the times behind them change under `SegmentStage`. All numbers are little-endian. Any thread.

A word is loaded and stored through a memoryview of the mapping, cast to 64-bit items. CPython moves such an item with
one `memcpy` of 8 aligned bytes, which compilers for x86-64 turn into one `mov`: another process sees the old word or
the new one, never a mixture, and x86-64 shows the stores of one core in their order.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from uuid import UUID

from catalog.ids import SegmentId
from catalog.index.model import FrameRow
from tapefs.errors import BadStructure

HEADER_BYTES = 4096
WORD_BYTES = 8
#: Bit of a generation word: the frame is staged. The bits above count how often it was evicted.
PRESENT = 1

_MAGIC = b"TAPEFSMP"
_VERSION = 1
#: Magic, version, CRC-32 of header and table, segment, frames, plain bytes, boot, inode of the .plain file.
_HEAD = struct.Struct("<8sII16sQQ16sQ")
_FRAME = struct.Struct("<QQ")
#: Where the checksum stands; it counts as zero when it is computed.
_CRC_AT = 12


class Unusable(Exception):
    """The map cannot be trusted, so nothing of it counts as staged.

    `is_stale` if only the machine was started again since.
    """

    def __init__(self, reason: str, *, is_stale: bool = False) -> None:
        super().__init__(reason)
        self.is_stale = is_stale


def boot_id() -> bytes:
    """Return what tells one run of the machine from another, 16 bytes."""
    return UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip()).bytes


class MapFile:
    """An open map. `starts` holds where each frame begins, and at the end the plain length."""

    __slots__ = ("_mapping", "_view", "count", "fd", "last_used", "plain_inode", "starts", "words")

    def __init__(self, path: Path, segment_id: SegmentId) -> None:
        """Open and check it. Raises FileNotFoundError, Unusable, OSError."""
        self.fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            self._load(segment_id)
        except BaseException:
            os.close(self.fd)
            raise

    def _load(self, segment_id: SegmentId) -> None:
        fixed, self.count, plain_bytes, self.plain_inode = _read_fixed(self.fd, segment_id)
        table = struct.unpack(f"<{2 * self.count}Q", fixed[HEADER_BYTES:])
        self.starts = [*table[::2], plain_bytes]
        words_at = word_offset(self.count, 0)
        self._mapping = mmap.mmap(self.fd, file_bytes(self.count))
        self._view = memoryview(self._mapping)
        times_at = words_at + self.count * WORD_BYTES
        self.words = self._view[words_at:times_at].cast("Q")
        self.last_used = self._view[times_at:].cast("Q")

    def close(self) -> None:
        """Unmap and close it; the locks of this open file go."""
        for view in (self.words, self.last_used, self._view):
            view.release()
        self._mapping.close()
        os.close(self.fd)


def word_offset(count: int, frame: int) -> int:
    """Return where the word of `frame` stands in the map of a segment with `count` frames.

    Frames are locked there, too.
    """
    return HEADER_BYTES + count * _FRAME.size + frame * WORD_BYTES


def file_bytes(count: int) -> int:
    """Return the length of a map of `count` frames."""
    return HEADER_BYTES + count * (_FRAME.size + 2 * WORD_BYTES)


def starts_of(frames: Sequence[FrameRow]) -> list[int]:
    """Return where each frame begins, and the plain length.

    Raises BadStructure unless they tile the plain stream from 0.
    """
    starts = [0]
    for number, frame in enumerate(frames):
        if frame.plain_offset != starts[-1] or frame.plain_bytes <= 0:
            raise BadStructure(f"frame {number} does not follow the one before it: the frame table is damaged")
        starts.append(frame.plain_offset + frame.plain_bytes)
    if starts[-1] >= 1 << 63:
        raise BadStructure("the frame table claims more bytes than a file can have")
    return starts


def new_map(segment_id: SegmentId, starts: Sequence[int], plain_inode: int) -> bytes:
    """Return the bytes of a map of this boot that says: nothing is staged. `starts` is what `starts_of` returns."""
    count = len(starts) - 1
    head = _HEAD.pack(_MAGIC, _VERSION, 0, UUID(segment_id).bytes, count, starts[-1], boot_id(), plain_inode)
    table = b"".join(_FRAME.pack(start, stop - start) for start, stop in pairwise(starts))
    fixed = bytearray(head.ljust(HEADER_BYTES, b"\0") + table)
    struct.pack_into("<I", fixed, _CRC_AT, zlib.crc32(fixed))
    return bytes(fixed) + bytes(file_bytes(count) - len(fixed))


def _read_fixed(fd: int, segment_id: SegmentId) -> tuple[bytes, int, int, int]:
    """Return header and table as bytes, the number of frames, the plain length, the inode. Raises Unusable."""
    head = os.pread(fd, HEADER_BYTES, 0)
    if len(head) < HEADER_BYTES or not head.startswith(_MAGIC):
        raise Unusable("it is no staging map")
    _, version, checksum, segment, count, plain_bytes, boot, inode = _HEAD.unpack_from(head)
    if version != _VERSION:
        raise Unusable(f"it has version {version}, this tapefs knows {_VERSION}")
    if os.fstat(fd).st_size != file_bytes(count):
        raise Unusable("its length is wrong")
    fixed = head + _read_table(fd, count)
    if zlib.crc32(fixed[:_CRC_AT] + bytes(4) + fixed[_CRC_AT + 4 :]) != checksum:
        raise Unusable("its checksum is wrong")
    if segment != UUID(segment_id).bytes:
        raise Unusable("it belongs to another segment")
    if boot != boot_id():
        raise Unusable("the machine was started again since", is_stale=True)
    return fixed, count, plain_bytes, inode


def _read_table(fd: int, count: int) -> bytes:
    table = os.pread(fd, count * _FRAME.size, HEADER_BYTES)
    if len(table) != count * _FRAME.size:
        raise Unusable("it is cut short")
    return table
