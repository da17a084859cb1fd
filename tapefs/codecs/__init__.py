"""Codecs: how the frames of a payload are compressed.

A new codec is one module, one line in `CODECS`, and the contract tests in `tests/codecs`. A codec itself holds no state
and may be used by every thread; an encoder that it made belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tapefs.codecs.interface import AUTO_LEVEL, MAX_FRAME_BYTES, Codec, Encoder, check_level, is_open
from tapefs.codecs.lzma2 import Py7zrCodec, SevenZipCommandCodec
from tapefs.codecs.pgzip import PgzipCodec
from tapefs.codecs.tar import TarCodec
from tapefs.codecs.zstd import ZstdCodec
from tapefs.errors import UsageError

__all__ = [
    "AUTO_LEVEL",
    "CODECS",
    "MAX_FRAME_BYTES",
    "Codec",
    "Encoder",
    "check_level",
    "codec",
    "codec_of_format",
    "is_open",
]

_ALL: tuple[Codec, ...] = (ZstdCodec(), PgzipCodec(), TarCodec(), Py7zrCodec(), SevenZipCommandCodec())

#: By the name in jobs and on the command line.
CODECS: Mapping[str, Codec] = MappingProxyType({each.name: each for each in _ALL})

#: By the name in headers and in the ledger's segments; any codec of a format reads what the others have written.
_BY_FORMAT: Mapping[str, Codec] = MappingProxyType({each.format: each for each in reversed(_ALL)})


def codec(name: str, gzip_engine: str = "auto") -> Codec:
    """Return the codec of that name, to write with. Raises UsageError when there is none, or no such engine."""
    if name == PgzipCodec.name:
        return PgzipCodec(gzip_engine)
    try:
        return CODECS[name]
    except KeyError:
        raise UsageError(f"there is no codec {name!r}: use one of {', '.join(CODECS)}") from None


def codec_of_format(name: str) -> Codec:
    """Return a codec that reads payloads of that format. Raises UsageError when there is none."""
    try:
        return _BY_FORMAT[name]
    except KeyError:
        raise UsageError(f"there is no format {name!r} of payloads: {', '.join(_BY_FORMAT)} are known") from None
