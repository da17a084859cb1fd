"""7z archives from plain members, made with the product's container and an encoder."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence

from tapefs.codecs import Encoder
from tapefs.codecs.lzma2 import END_OF_STREAM
from tapefs.format.sevenzip import SIGNATURE_BYTES, ArchiveIndex, signature_header

MTIME_NS = 1_500_000_000_123_456_700


def archive(members: Sequence[tuple[bytes, int, bytes]], encode: Encoder, *, in_block: int = 1, cut: int = 0) -> bytes:
    """Return an archive of (path, mode, content), so many with content to a block, frames of `cut` bytes."""
    index = ArchiveIndex(io.BytesIO(), 1 << 20)
    out = bytearray(SIGNATURE_BYTES)
    block: list[bytes] = []

    def end_block() -> None:
        plain = b"".join(block)
        size = cut or len(plain)
        packed = b"".join(encode(plain[start : start + size]) for start in range(0, len(plain), size)) + END_OF_STREAM
        out.extend(packed)
        index.add_block(len(packed), len(plain))
        block.clear()

    for path, mode, content in members:
        index.add_member(path, mode, MTIME_NS, (len(content), zlib.crc32(content)) if content else None)
        if content:
            block.append(content)
        if len(block) == in_block:
            end_block()
    if block:
        end_block()
    *packed_header, end = index.closing()
    out.extend(b"".join(packed_header))
    out[:SIGNATURE_BYTES] = signature_header(len(out), end)
    return bytes(out) + end
