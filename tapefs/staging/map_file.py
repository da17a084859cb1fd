"""The map of a segment's staging file: its layout, and the shared view of it that every process has.

Byte by byte in `docs/staging.md`. Header and frame table never change once written and carry a checksum; the words,
the times and the frames' checksums behind them change under `SegmentStage`. All numbers are little-endian. Any thread.

A word is loaded and stored through a memoryview of the mapping, cast to 64-bit items. CPython moves such an item with
one `memcpy` of 8 aligned bytes, which compilers for x86-64 turn into one `mov`: another process sees the old word or
the new one, never a mixture, and x86-64 shows the stores of one core in their order.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

from catalog.ids import SegmentId
from catalog.index.model import FrameRow
from tapefs.errors import BadStructure

HEADER_BYTES = 4096
WORD_BYTES = 8
#: Bit of a generation word: the frame is staged. The bits above count how often it was evicted.
PRESENT = 1

_MAGIC = b"TAPEFSMP"
_VERSION = 2
#: Magic, version, CRC-32 of header and table, segment, frames, plain bytes, boot, inode of the .plain file, and the
#: second since the epoch at which the machine was started, as the clock said when the map was made.
_HEAD = struct.Struct("<8sII16sQQ16sQq")
_FRAME = struct.Struct("<QQ")
#: Where the checksum stands; it counts as zero when it is computed.
_CRC_AT = 12


class Unusable(Exception):
    """The map cannot be trusted, so nothing of it counts as staged.

    `is_stale` if only the machine was started again since: then each of its frames can be verified.
    """

    def __init__(self, reason: str, *, is_stale: bool = False) -> None:
        super().__init__(reason)
        self.is_stale = is_stale


def boot_id() -> bytes:
    """Return what tells one run of the machine from another, 16 bytes."""
    return UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip()).bytes


def boot_time_s() -> int:
    """Return when the machine was started, in seconds since the epoch, as the clock says now."""
    return int(time.time() - time.clock_gettime(time.CLOCK_MONOTONIC))


class MapFile:
    """An open map. `starts` holds where each frame begins, and at the end the plain length."""

    __slots__ = (
        "_mapping",
        "_view",
        "booted_s",
        "checksums",
        "count",
        "fd",
        "last_used",
        "plain_inode",
        "starts",
        "words",
    )

    def __init__(self, path: Path, segment_id: SegmentId, *, stale: bool = False) -> None:
        """Open and check it; with `stale` one of an earlier boot. Raises FileNotFoundError, Unusable, OSError."""
        self.fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        try:
            self._load(segment_id, stale=stale)
        except BaseException:
            os.close(self.fd)
            raise

    def _load(self, segment_id: SegmentId, *, stale: bool) -> None:
        fixed, head = _read_fixed(self.fd, segment_id, stale=stale)
        self.count, self.plain_inode, self.booted_s = head.frames, head.plain_inode, head.booted_s
        table = struct.unpack(f"<{2 * self.count}Q", fixed[HEADER_BYTES:])
        self.starts = [*table[::2], head.plain_bytes]
        self._mapping = mmap.mmap(self.fd, file_bytes(self.count))
        self._view = memoryview(self._mapping)
        words_at, times_at, checksums_at = (array_offset(self.count, array) for array in range(3))
        self.words = self._view[words_at:times_at].cast("Q")
        self.last_used = self._view[times_at:checksums_at].cast("q")
        self.checksums = self._view[checksums_at:].cast("Q")

    def forget(self) -> None:
        """Say of every frame that it is not staged, to all who have this map open."""
        for frame in range(self.count):
            self.words[frame] &= ~PRESENT

    def close(self) -> None:
        """Unmap and close it; the locks of this open file go."""
        for view in (self.words, self.last_used, self.checksums, self._view):
            view.release()
        self._mapping.close()
        os.close(self.fd)


def array_offset(count: int, array: int) -> int:
    """Return where the words (0), the times of last use (1), the checksums (2) of a map of `count` frames begin."""
    return HEADER_BYTES + count * (_FRAME.size + array * WORD_BYTES)


def file_bytes(count: int) -> int:
    """Return the length of a map of `count` frames."""
    return array_offset(count, 3)


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
    head = _HEAD.pack(
        _MAGIC, _VERSION, 0, UUID(segment_id).bytes, count, starts[-1], boot_id(), plain_inode, boot_time_s()
    )
    table = b"".join(_FRAME.pack(start, stop - start) for start, stop in pairwise(starts))
    fixed = bytearray(head.ljust(HEADER_BYTES, b"\0") + table)
    struct.pack_into("<I", fixed, _CRC_AT, zlib.crc32(fixed))
    return bytes(fixed) + bytes(file_bytes(count) - len(fixed))


def adopted_map(segment_id: SegmentId, old: MapFile) -> bytes:
    """Return the bytes of a map of this boot in place of one of an earlier boot: no frame counts as staged, but each
    that did keeps its checksum, so that it can be verified, and its last use, told from the start of this boot.
    """
    content = bytearray(new_map(segment_id, old.starts, old.plain_inode))
    shift_s = old.booted_s - boot_time_s()
    now_s = int(time.clock_gettime(time.CLOCK_MONOTONIC))
    # A clock that was set in between must not make a frame look younger than what is used from now on.
    times = [min(used_s + shift_s, now_s) for used_s in old.last_used]
    struct.pack_into(f"<{old.count}Q", content, array_offset(old.count, 0), *(word & ~PRESENT for word in old.words))
    struct.pack_into(f"<{old.count}q", content, array_offset(old.count, 1), *times)
    struct.pack_into(f"<{old.count}Q", content, array_offset(old.count, 2), *old.checksums)
    return bytes(content)


class _Head(NamedTuple):
    frames: int
    plain_bytes: int
    plain_inode: int
    booted_s: int


def _read_fixed(fd: int, segment_id: SegmentId, *, stale: bool) -> tuple[bytes, _Head]:
    """Return header and table as bytes, and what the header says. Raises Unusable."""
    head = os.pread(fd, HEADER_BYTES, 0)
    if len(head) < HEADER_BYTES or not head.startswith(_MAGIC):
        raise Unusable("it is no staging map")
    _, version, checksum, segment, count, plain_bytes, boot, inode, booted_s = _HEAD.unpack_from(head)
    if version != _VERSION:
        raise Unusable(f"it has version {version}, this tapefs knows {_VERSION}")
    if os.fstat(fd).st_size != file_bytes(count):
        raise Unusable("its length is wrong")
    fixed = head + _read_table(fd, count)
    if zlib.crc32(fixed[:_CRC_AT] + bytes(4) + fixed[_CRC_AT + 4 :]) != checksum:
        raise Unusable("its checksum is wrong")
    if segment != UUID(segment_id).bytes:
        raise Unusable("it belongs to another segment")
    if boot != boot_id() and not stale:
        raise Unusable("the machine was started again since", is_stale=True)
    return fixed, _Head(count, plain_bytes, inode, booted_s)


def _read_table(fd: int, count: int) -> bytes:
    table = os.pread(fd, count * _FRAME.size, HEADER_BYTES)
    if len(table) != count * _FRAME.size:
        raise Unusable("it is cut short")
    return table
