"""Plain tar: a frame is a slice of the stream, so the payload is a `.tar`. Without state.

A slice has no check of its own; the frame's checksum in the trailer has to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tapefs.codecs.interface import Encoder, check_claim, check_level, check_plain
from tapefs.errors import BadStructure

if TYPE_CHECKING:
    from tapefs.codecs.shelf import Shelf


class TarCodec:
    """`.tar`. See the seam for what the calls promise."""

    name = "tar"
    format = "tar"
    is_tar = True
    suffix = ".tar"
    unpack_command = ""
    levels = range(1)
    auto_levels = range(0)
    default_level = 0
    is_compressed = False

    def encoder(self, level: int, shelf: Shelf | None = None) -> Encoder:
        """Return an encoder for one thread. It copies, because the buffer of a frame is used again."""
        check_level(self, level)

        def encode(plain: bytes | memoryview) -> bytes | memoryview:
            check_plain(plain)
            return bytes(plain) if shelf is None else shelf.copy(plain)

        return encode

    def decode(self, stored: bytes | memoryview, plain_bytes: int) -> bytes:
        """Return the slice itself."""
        check_claim(plain_bytes)
        if len(stored) != plain_bytes:
            raise BadStructure(f"a frame of {plain_bytes} plain bytes has {len(stored)} on tape")
        return bytes(stored)

    def closing(self, frames: Sequence[tuple[int, int]]) -> bytes:
        """Return nothing: the plain stream has its own end."""
        return b""
