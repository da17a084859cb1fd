"""Records as bytes that prove themselves: every stored value has a checksum over its table, its key and its content.

A stored value is

    offset  length  field
    0       1       version of this encoding, 1
    1       8       BLAKE2b-64 of the version byte, the key's length (two bytes, big-endian), the key and the content;
                    personalised with the table's name, so that a value under a wrong key or in a wrong table is noticed
    9       rest    content: the record in msgpack, structures as maps by field name

LMDB itself has no checksums: of 2,000 flipped bits it noticed 4. Pure functions, safe in every thread.
"""

from __future__ import annotations

import hashlib
from typing import Any, Generic, TypeVar

import msgspec

from catalog.errors import Damaged, WrongVersion

VERSION = 1
_CHECKSUM_BYTES = 8
_HEAD_BYTES = 1 + _CHECKSUM_BYTES
#: BLAKE2b takes a personalisation of at most 16 bytes.
_MAX_TABLE_BYTES = 16

R = TypeVar("R")

_encoder = msgspec.msgpack.Encoder()


def _checksum(table: bytes, version: int, key: bytes, content: bytes) -> bytes:
    head = bytes((version,)) + len(key).to_bytes(2, "big") + key
    return hashlib.blake2b(head + content, digest_size=_CHECKSUM_BYTES, person=table).digest()


def seal(table: bytes, key: bytes, content: bytes) -> bytes:
    """Return the value to store for `content` under `key` in `table` (at most 16 bytes)."""
    return bytes((VERSION,)) + _checksum(table, VERSION, key, content) + content


def unseal(table: bytes, key: bytes, value: bytes) -> bytes:
    """Return the content of a stored value.

    Raises Damaged when it is not what was stored there, WrongVersion when it is, but of another encoding.
    """
    content = value[_HEAD_BYTES:]
    if len(value) < _HEAD_BYTES or value[1:_HEAD_BYTES] != _checksum(table, value[0], key, content):
        raise Damaged("a record does not match its checksum", where(table, key))
    if value[0] != VERSION:
        raise WrongVersion(
            f"record {where(table, key)} has encoding {value[0]}, this tapefs knows {VERSION}: "
            "use the tapefs that wrote it"
        )
    return content


def where(table: bytes, key: bytes) -> str:
    """Name a record for the operator: its table, and its key with unprintable bytes escaped."""
    return f"{table.decode()}[{key.decode('ascii', 'backslashreplace')!r}]"


class Codec(Generic[R]):
    """Turns records of one table into stored values and back."""

    def __init__(self, table: str, type_: type[R]) -> None:
        self._table = table.encode()
        if not 0 < len(self._table) <= _MAX_TABLE_BYTES:
            raise AssertionError(f"table name {table} is longer than {_MAX_TABLE_BYTES} bytes")
        decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(type_)
        self._decoder: msgspec.msgpack.Decoder[R] = decoder

    def encode(self, key: bytes, record: R) -> bytes:
        """Return the value to store. Raises ValueError for a record that could not be read back as its type."""
        content = _encoder.encode(record)
        try:
            self._decoder.decode(content)
        except msgspec.ValidationError as error:
            raise ValueError(f"{record!r} does not fit {self._table.decode()}: {error}") from error
        return seal(self._table, key, content)

    def decode(self, key: bytes, value: bytes) -> R:
        """Return the record. Raises Damaged, WrongVersion."""
        content = unseal(self._table, key, value)
        try:
            return self._decoder.decode(content)
        except msgspec.DecodeError as error:
            raise Damaged(f"a record does not fit its type: {error}", where(self._table, key)) from error
