"""LZMA2 for 7z: `py7zr` compresses in this process, `7zip_command` has the program 7z do it.

A frame is a run of LZMA2 chunks that begins with a reset of the dictionary, so it decodes alone. Frames joined are a
block of a `.7z`, see `tapefs.format.sevenzip`; the byte that ends an LZMA2 stream stands at the end of a block's last
frame only. Encoders leave it out. LZMA2 has no check of its own; the frame's checksum in the trailer has to do, and the
CRCs in the archive for others. Any thread may use the codecs.
"""

from __future__ import annotations

import lzma
import shutil
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tapefs.codecs.interface import MAX_FRAME_BYTES, Encoder, check_claim, check_level, check_plain
from tapefs.errors import BadStructure, CodecFailed, UsageError

if TYPE_CHECKING:
    from tapefs.codecs.shelf import Shelf

#: Ends an LZMA2 stream.
END_OF_STREAM = b"\0"
#: No encoder takes a smaller dictionary.
_LEAST_DICTIONARY_BYTES = 4096

#: Names of the program, in the order of liking: p7zip's and 7-Zip's whole one, then those that know fewer formats.
PROGRAMS = ("7z", "7zz", "7za", "7zr")
#: Longer than any frame takes; a program that hangs must not hold the tape for ever.
_PATIENCE_S = 3600

_XZ_MAGIC = b"\xfd7zXZ\0"
_XZ_HEADER_BYTES = 12
_XZ_FOOTER_BYTES = 12
#: Length of the check behind a block, by the type in the stream's header.
_XZ_CHECK_BYTES = {0: 0, 1: 4, 4: 8, 10: 32}


class _Lzma2Codec:
    """What both codecs share: the payload, and how it is read."""

    name: str
    levels: range
    auto_levels = range(0)
    default_level: int
    format = "7z"
    suffix = ".7z"
    is_tar = False
    #: The members' contents, one behind the other: that is the plain stream of a 7z segment.
    unpack_command = 'd=$(mktemp -d) && cat >"$d/payload.7z" && 7z x -so "$d/payload.7z" && rm -r "$d"'
    is_compressed = True

    def decode(self, stored: bytes | memoryview, plain_bytes: int) -> bytes:
        """Return the plain bytes of one frame, last of its block or not, with a dictionary no larger than they are."""
        check_claim(plain_bytes)
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": max(plain_bytes, _LEAST_DICTIONARY_BYTES)}]
        decompressor = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
        try:
            plain = decompressor.decompress(stored, plain_bytes + 1)
            if not decompressor.eof:
                plain += decompressor.decompress(END_OF_STREAM, 1)
        except lzma.LZMAError as error:
            raise BadStructure(f"a frame is damaged: {error}") from error
        if len(plain) != plain_bytes or not decompressor.eof or decompressor.unused_data:
            raise BadStructure(f"a frame is not one whole run of LZMA2 chunks of {plain_bytes} bytes")
        return plain

    def closing(self, frames: Sequence[tuple[int, int]]) -> bytes:
        """Return nothing: what ends an archive depends on its members."""
        return b""


class Py7zrCodec(_Lzma2Codec):
    """`.7z`, made with liblzma in this process, as the library py7zr does."""

    name = "py7zr"
    levels = range(10)
    default_level = 5

    def encoder(self, level: int, shelf: Shelf | None = None) -> Encoder:
        """Return an encoder for one thread. Takes about 12 times a frame of memory, 16 at level 9."""
        check_level(self, level)

        def encode(plain: bytes | memoryview) -> bytes:
            check_plain(plain)
            filters = [{"id": lzma.FILTER_LZMA2, "preset": level, "dict_size": dictionary_bytes(len(plain))}]
            return _without_end(lzma.compress(plain, lzma.FORMAT_RAW, filters=filters))

        return encode


class SevenZipCommandCodec(_Lzma2Codec):
    """`.7z`, made with the program 7z: one run of it for every frame, which costs some 10 ms of its second."""

    name = "7zip_command"
    levels = range(1, 10)
    default_level = 5

    def encoder(self, level: int, shelf: Shelf | None = None) -> Encoder:
        """Return an encoder for one thread. Raises UsageError when the program is not installed."""
        check_level(self, level)
        program = next(filter(None, map(shutil.which, PROGRAMS)), None)
        if program is None:
            raise UsageError("the codec 7zip_command needs the program 7z: install 7-Zip or p7zip, or use py7zr")

        def encode(plain: bytes | memoryview) -> bytes:
            check_plain(plain)
            dictionary = dictionary_bytes(len(plain))
            # xz, because it goes through a pipe; inside is the same LZMA2.
            command = [program, "a", "-txz", f"-mx={level}", f"-m0=lzma2:d={dictionary}b", "-mmt=1", "-si", "-so", "x"]
            try:
                done = subprocess.run(command, input=plain, capture_output=True, check=False, timeout=_PATIENCE_S)
            except subprocess.TimeoutExpired as error:
                raise CodecFailed(f"{program} did not end within {_PATIENCE_S} s") from error
            if done.returncode:
                reason = done.stderr.decode(errors="backslashreplace").strip()
                raise CodecFailed(f"{program} ended with {done.returncode}: {reason}")
            return _without_end(chunks_of_xz(done.stdout))

        return encode


def dictionary_bytes(plain_bytes: int) -> int:
    """Return the size of dictionary that a frame of that length is made with."""
    return min(max(plain_bytes, _LEAST_DICTIONARY_BYTES), MAX_FRAME_BYTES)


def chunks_of_xz(xz: bytes) -> bytes:
    """Return the LZMA2 stream in an xz file of one block and no other filter. Raises CodecFailed when it is none."""
    check = _XZ_CHECK_BYTES.get(xz[7] & 0xF) if xz.startswith(_XZ_MAGIC) and len(xz) > 32 else None
    if check is None:
        raise CodecFailed("7z has not made an xz file")
    index_bytes = 4 * (int.from_bytes(xz[-8:-4], "little") + 1)
    index = xz[-_XZ_FOOTER_BYTES - index_bytes : -_XZ_FOOTER_BYTES]
    unpadded_bytes, _ = _varint(index, 2)
    header_bytes = 4 * (xz[_XZ_HEADER_BYTES] + 1)
    filters = xz[_XZ_HEADER_BYTES + 1] & 3
    if index[:2] != b"\0\1" or filters:
        raise CodecFailed("7z has made an xz file of more than one block or filter")
    start = _XZ_HEADER_BYTES + header_bytes
    return xz[start : _XZ_HEADER_BYTES + unpadded_bytes - check]


def _varint(octets: bytes, place: int) -> tuple[int, int]:
    """Return xz's number at a place, and the place behind it."""
    value = shift = 0
    while True:
        octet = octets[place]
        value |= (octet & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if not octet & 0x80:
            return value, place


def _without_end(stream: bytes) -> bytes:
    if stream[-1:] != END_OF_STREAM:
        raise CodecFailed("an LZMA2 stream does not end as one")
    return stream[:-1]
