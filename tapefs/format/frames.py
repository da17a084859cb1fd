"""Frames, the independently decodable pieces of a payload: their checksums, and the seek table behind the last one.

Pure functions; any thread may use them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import xxhash

from tapefs.errors import BadStructure

#: Magic of the skippable frame that holds the table, and of the footer that ends it (zstd seekable format 0.1.0).
_SKIPPABLE_MAGIC = 0x184D2A5E
_FOOTER_MAGIC = 0x8F92EAB1

_SKIPPABLE = struct.Struct("<II")
_ENTRY = struct.Struct("<II")
#: Number of frames, descriptor, magic. The descriptor is 0: no checksums in the table, our frames have their own.
_FOOTER = struct.Struct("<IBI")


def frame_checksum(stored: bytes | memoryview) -> bytes:
    """Return the XXH3-128 of a frame's stored bytes, most significant byte first. Releases the GIL.

    It tells damage, not malice: what was written is known by the SHA-256 of contents and payloads.
    """
    return xxhash.xxh3_128_digest(stored)


def seek_table(frames: Sequence[tuple[int, int]]) -> bytes:
    """Return the seek table for frames of these (stored, plain) lengths, each under 4 GiB: a skippable zstd frame."""
    entries = b"".join([_ENTRY.pack(stored, plain) for stored, plain in frames])
    footer = _FOOTER.pack(len(frames), 0, _FOOTER_MAGIC)
    return _SKIPPABLE.pack(_SKIPPABLE_MAGIC, len(entries) + len(footer)) + entries + footer


def seek_table_bytes(frames: int) -> int:
    """Return how long the seek table of so many frames is."""
    return _SKIPPABLE.size + frames * _ENTRY.size + _FOOTER.size


def read_seek_table(end: bytes | memoryview) -> list[tuple[int, int]]:
    """Return the (stored, plain) lengths in the seek table that ends a payload; `end` is the payload's last bytes.

    Raises BadStructure when there is no whole table at the end of `end`.
    """
    if len(end) < _SKIPPABLE.size + _FOOTER.size:
        raise BadStructure("there is no seek table: too few bytes")
    count, descriptor, magic = _FOOTER.unpack_from(end, len(end) - _FOOTER.size)
    length = seek_table_bytes(count)
    if magic != _FOOTER_MAGIC or descriptor != 0 or length > len(end):
        raise BadStructure("there is no seek table of ours at the end of the payload")
    table = memoryview(end)[len(end) - length :]
    if _SKIPPABLE.unpack_from(table) != (_SKIPPABLE_MAGIC, length - _SKIPPABLE.size):
        raise BadStructure("the seek table at the end of the payload is damaged")
    return list(_ENTRY.iter_unpack(table[_SKIPPABLE.size : length - _FOOTER.size]))
