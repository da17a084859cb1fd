"""Decompressing a stream with bounded memory, and telling its end from where it is cut short. Blocking; one thread."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import BinaryIO, Protocol, cast

import zstandard
from isal import igzip_lib, isal_zlib

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
    EOFError,
)
#: Pieces of plain bytes that a decompressor is asked for.
_PLAIN_BYTES = 256 * 1024


#: Is told where a unit begins: in the file, in the plain stream.
Note = Callable[[int, int], None]


class Stream(Protocol):
    """Something to read from."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most `size`; b"" at the end. Raises what `DAMAGE` lists, and OSError."""
        ...


def _no_note(stored: int, plain: int) -> None:
    """Nobody wants to know where units begin."""


class Unit(Protocol):
    """A part of a compressed stream that can be decompressed without those before it: a zstd frame, a gzip member."""

    @property
    def eof(self) -> bool:
        """Was its end met?"""
        ...

    @property
    def unused_data(self) -> bytes:
        """What came behind its end."""
        ...


class Units:
    """Units one behind the other. One that is cut short is an error, where most libraries take it for the end.

    `note` is told where units begin, in the file and in the plain stream. Reading may begin at such a place. Pieces
    are cut from the file at the same places wherever it begins, so that damage shows at the same byte.
    """

    def __init__(self, file: BinaryIO, note: Note = _no_note, begin: tuple[int, int] = (0, 0)) -> None:
        self._file = file
        self._note = note
        self._stored_at, self._plain_at = begin
        file.seek(self._stored_at)
        self._rest = b""
        self._plain = io.BytesIO()
        self._is_inside = False

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""
        while not (piece := self._plain.read(size)):
            stored = self._rest or self._next_piece()
            self._rest = b""
            if not self._is_inside and not (stored := self._between(stored)):
                return b""
            if not stored and not self._wants_no_input():
                raise EOFError("the compressed stream is cut short")
            plain = self._decode(stored)
            self._plain_at += len(plain)
            self._plain = io.BytesIO(plain)
        return piece

    def _next_piece(self) -> bytes:
        if self._is_inside and self._wants_no_input():
            return b""
        piece = self._file.read(_STORED_BYTES - self._stored_at % _STORED_BYTES)
        self._stored_at += len(piece)
        return piece

    def _between(self, stored: bytes) -> bytes:
        """Return the first bytes of the next unit; b"" at the end."""
        if stored:
            self._note(self._stored_at - len(stored), self._plain_at)
            self._begin()
            self._is_inside = True
        return stored

    def _ended(self, unit: Unit) -> None:
        if unit.eof:
            self._is_inside = False
            self._rest = unit.unused_data

    def _begin(self) -> None:
        raise NotImplementedError

    def _decode(self, stored: bytes) -> bytes:
        raise NotImplementedError

    def _wants_no_input(self) -> bool:
        return False


class ZstdStream(Units):
    """Frames of zstd."""

    def _begin(self) -> None:
        self._unit = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES).decompressobj()

    def _decode(self, stored: bytes) -> bytes:
        plain = self._unit.decompress(stored)
        self._ended(self._unit)
        return plain


class GzipStream(Units):
    """Members of gzip; zeros behind the last one are what tapes and disks pad with."""

    def _begin(self) -> None:
        self._unit = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)

    def _between(self, stored: bytes) -> bytes:
        if stored and not stored.strip(b"\0"):
            while piece := self._next_piece():
                if piece.strip(b"\0"):
                    raise EOFError("there is something behind the end of the compressed stream")
            return b""
        return super()._between(stored)

    def _decode(self, stored: bytes) -> bytes:
        plain: bytes = self._unit.decompress(stored, _PLAIN_BYTES)
        self._ended(self._unit)
        return plain

    def _wants_no_input(self) -> bool:
        return not self._unit.needs_input


class PlainStream:
    """A stream that is not compressed: every place may be begun at."""

    def __init__(self, file: BinaryIO, note: Note = _no_note, begin: tuple[int, int] = (0, 0)) -> None:
        self._file = file
        file.seek(begin[0])

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""
        return self._file.read(size)


class MakesStream(Protocol):
    """Makes a stream of a file, which is read from `begin` on: (stored, plain) offset."""

    def __call__(self, file: BinaryIO, note: Note = ..., begin: tuple[int, int] = ...) -> Stream:
        """Make it."""
        ...


#: By what an archive's name ends in.
STREAMS: dict[str, MakesStream] = {".tar": PlainStream, ".tar.gz": GzipStream, ".tar.zst": ZstdStream}
