"""Framing of the messages between sidecar and mover: four bytes of length, big-endian, then msgpack. Pure functions."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from tapefs.errors import TapefsError
from tapefs.mover.messages import Command, Report

#: Bytes of the length in front of every message.
PREFIX_BYTES = 4
#: No message comes near it: a longer one means that the two sides have lost each other.
LONGEST_BYTES = 64 * 1024 * 1024

T = TypeVar("T")
_encoder = msgspec.msgpack.Encoder()


class WireError(TapefsError):
    """The other side sent something that is no message."""


def encode(message: Command | Report) -> bytes:
    """Return the message with its length in front."""
    payload = _encoder.encode(message)
    return len(payload).to_bytes(PREFIX_BYTES, "big") + payload


def length_of(prefix: bytes) -> int:
    """Return the length that a prefix of PREFIX_BYTES announces. Raises WireError."""
    length = int.from_bytes(prefix, "big")
    if not 0 < length <= LONGEST_BYTES:
        raise WireError(f"a message of {length} bytes is announced: this is not the mover's protocol")
    return length


def decode(payload: bytes | memoryview, kind: type[T]) -> T:
    """Return the message without its length as one of the union `kind` (Command or Report). Raises WireError."""
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except msgspec.DecodeError as error:
        raise WireError(f"not a message of the mover's protocol: {error}") from error
