"""Codecs: how the frames of a payload are compressed.

A new codec is one module, one line in `CODECS`, and the contract tests in `tests/codecs`. A codec itself holds no state
and may be used by every thread; an encoder that it made belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tapefs.codecs.interface import MAX_FRAME_BYTES, Codec, Encoder
from tapefs.codecs.zstd import ZstdCodec
from tapefs.errors import UsageError

__all__ = ["CODECS", "MAX_FRAME_BYTES", "Codec", "Encoder", "codec"]

#: By the name that stands in headers, jobs and on the command line.
CODECS: Mapping[str, Codec] = MappingProxyType({"zstd": ZstdCodec()})


def codec(name: str) -> Codec:
    """Return the codec of that name. Raises UsageError when there is none."""
    try:
        return CODECS[name]
    except KeyError:
        raise UsageError(f"there is no codec {name!r}: use one of {', '.join(CODECS)}") from None
