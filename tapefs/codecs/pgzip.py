"""gzip: every frame is a member of its own, as pgzip writes them, so the payload is a multi-member `.tar.gz`.

Who compresses is a matter of speed only; the numbers are in docs/benchmarks.md. By default ISA-L makes levels 1 to 3
and zlib-ng the others; `pgzip` as the engine has zlib do all of them: up to 2 % smaller at the same level, in 1.3 to
six times the time. Frames are compressed beside each other by the caller's threads, so no engine uses threads of
its own. Any thread may use the codec.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, cast

import pgzip
from isal import igzip_lib, isal_zlib
from zlib_ng import zlib_ng

from tapefs.codecs.interface import Encoder, check_claim, check_level, check_plain
from tapefs.errors import BadStructure, UsageError

if TYPE_CHECKING:
    from tapefs.codecs.shelf import Shelf

#: A gzip member with a window of 32 KiB, in the language of zlib.
_GZIP = 16 + 15
_MOST_MEMORY = 9
#: Its stubs say that it is an exception, where it is a class of them.
_Damaged = cast(type[Exception], igzip_lib.IsalError)


class _Compressor(Protocol):
    """What zlib, zlib-ng and ISA-L have in common."""

    def compress(self, data: bytes | memoryview, /) -> bytes: ...

    def flush(self) -> bytes: ...


def isal_encoder(level: int) -> Encoder:
    """ISA-L: levels 0 to 3."""
    return _member(lambda: isal_zlib.compressobj(level, isal_zlib.DEFLATED, _GZIP))


def zlib_ng_encoder(level: int) -> Encoder:
    """zlib-ng: levels 0 to 9."""
    return _member(lambda: zlib_ng.compressobj(level, zlib_ng.DEFLATED, _GZIP, _MOST_MEMORY))


def zlib_encoder(level: int) -> Encoder:
    """zlib: levels 0 to 9."""
    return _member(lambda: zlib.compressobj(level, zlib.DEFLATED, _GZIP, _MOST_MEMORY))


def pgzip_encoder(level: int) -> Encoder:
    """pgzip, which is zlib: levels 0 to 9."""

    def encode(plain: bytes | memoryview) -> bytes:
        stored = io.BytesIO()
        with pgzip.PgzipFile(
            mode="wb", compresslevel=level, fileobj=stored, mtime=0, thread=1, blocksize=len(plain)
        ) as member:
            member.write(plain)
        return stored.getvalue()

    # Of nothing pgzip makes nothing, not even an empty member.
    empty = zlib_encoder(level)
    return lambda plain: encode(plain) if len(plain) else empty(plain)


def _quickest(level: int) -> Encoder:
    return isal_encoder(level) if 1 <= level <= 3 else zlib_ng_encoder(level)


#: By the name in the settings.
ENGINES: Mapping[str, Callable[[int], Encoder]] = MappingProxyType({"auto": _quickest, "pgzip": pgzip_encoder})


class PgzipCodec:
    """`.tar.gz`. See the seam for what the calls promise."""

    name = "pgzip"
    format = "gzip"
    is_tar = True
    suffix = ".tar.gz"
    unpack_command = "gzip -dc"
    levels = range(10)
    auto_levels = range(0)
    default_level = 4
    is_compressed = True

    def __init__(self, engine: str = "auto") -> None:
        """Raises UsageError for an engine that does not exist."""
        if engine not in ENGINES:
            raise UsageError(f"there is no gzip engine {engine!r}: use one of {', '.join(ENGINES)}")
        self._engine = ENGINES[engine]

    def encoder(self, level: int, shelf: Shelf | None = None) -> Encoder:
        """Return an encoder for one thread."""
        check_level(self, level)
        compress = self._engine(level)

        def encode(plain: bytes | memoryview) -> bytes | memoryview:
            check_plain(plain)
            return compress(plain)

        return encode

    def decode(self, stored: bytes | memoryview, plain_bytes: int) -> bytes:
        """Return the plain bytes of one frame. A member cannot make more of itself than was asked for, and a byte."""
        check_claim(plain_bytes)
        try:
            member = isal_zlib.decompressobj(_GZIP)
            plain = member.decompress(stored, plain_bytes + 1)
        except _Damaged as error:
            raise BadStructure(f"a frame is damaged: {error}") from error
        if len(plain) != plain_bytes or not member.eof or member.unused_data:
            raise BadStructure(f"a frame is not one whole gzip member of {plain_bytes} bytes")
        return plain

    def closing(self, frames: Sequence[tuple[int, int]]) -> bytes:
        """Return nothing: members end by themselves."""
        return b""


def _member(new: Callable[[], _Compressor]) -> Encoder:
    """Return an encoder that makes a compressor for every frame: they are good for one member only."""

    def encode(plain: bytes | memoryview) -> bytes:
        compressor = new()
        return compressor.compress(plain) + compressor.flush()

    return encode
