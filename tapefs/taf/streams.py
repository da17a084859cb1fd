"""Decompressing a stream with bounded memory, and telling its end from where it is cut short. Blocking; one thread."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import BinaryIO, Protocol, cast

import zstandard
from isal import igzip, isal_zlib

#: A window takes so much memory; `zstd --ultra -22` has one of 128 MiB.
_WINDOW_BYTES = 128 * 1024 * 1024
#: A block of zstd is at least 4 bytes and at most 128 KiB plain: so much makes 128 MiB at worst.
_STORED_BYTES = 4096

_ISAL = cast(type[Exception], isal_zlib.error)
#: What readers of streams raise for damage.
DAMAGE: tuple[type[BaseException], ...] = (
    zstandard.ZstdError,
    zlib.error,
    _ISAL,
    igzip.BadGzipFile,
    EOFError,
)


class Stream(Protocol):
    """Something to read from."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most `size`; b"" at the end. Raises what `DAMAGE` lists, and OSError."""
        ...


def _plain(file: BinaryIO) -> Stream:
    return file


def _gunzip(file: BinaryIO) -> Stream:
    stream: Stream = igzip.IGzipFile(fileobj=file, mode="rb")  # type: ignore[no-untyped-call]
    return stream


class ZstdStream:
    """Frames one behind the other. One that is cut short is an error; `stream_reader` takes it for the end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._stored = b""
        self._plain = io.BytesIO()

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""
        while not (piece := self._plain.read(size)):
            stored = self._stored or self._file.read(_STORED_BYTES)
            if not stored:
                if self._frame is not None:
                    raise EOFError("the compressed stream is cut short")
                return b""
            self._plain = io.BytesIO(self._decode(stored))
        return piece

    def _decode(self, stored: bytes) -> bytes:
        frame = self._frame or self._decompressor.decompressobj()
        plain = frame.decompress(stored)
        self._frame, self._stored = (None, frame.unused_data) if frame.eof else (frame, b"")
        return plain


#: By what an archive's name ends in.
STREAMS: dict[str, Callable[[BinaryIO], Stream]] = {".tar": _plain, ".tar.gz": _gunzip, ".tar.zst": ZstdStream}
