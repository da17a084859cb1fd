"""The bytes of a names file: blocks of names, the entries that bear them, the directories those are in. Pure functions.

`docs/index.md` describes every field. Everything is little endian and unaligned. Blocks are compressed by zstd, each
part by itself; the table at the end has a checksum of every part, and the tail one of the table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from struct import Struct, pack, unpack
from struct import error as StructError
from typing import NamedTuple, cast

from catalog.errors import Damaged, WrongVersion
from catalog.ids import SetId

VERSION = 1
MAGIC = b"tapefs names"
#: Stands before, between and behind the names of a block: no name holds it.
SEPARATOR = b"\0"
#: Plain bytes of names at which a block ends. Small, because a search over a thousand sets has one of each in memory;
#: 1 MiB would take 5 % off the file of /usr.
BLOCK_BYTES = 64 * 1024
#: Runs of entries in a chunk of the map to directories.
CHUNK_RUNS = 4096
DIGEST_BYTES = 8

#: Magic, layout version.
HEAD = Struct("<12sI")
#: Place and length of the table, its BLAKE2b-128, layout version, magic.
TAIL = Struct("<QQ16sI12s")
#: First and end of the entries' numbers, blocks, chunks, length of the set id that follows.
_TABLE = Struct("<QQIIH")
#: Place, stored bytes of names and of numbers, plain bytes of the names, names, entries, bytes of a count and of a
#: number, digests of names and numbers, length of the first name that follows.
_BLOCK = Struct("<QIQIIQBB8s8sH")
#: First entry, place, stored bytes, runs, digest.
_CHUNK = Struct("<QQII8s")


class BlockRow(NamedTuple):
    """Where a block lies, and what is in it."""

    offset: int
    names_stored_bytes: int
    numbers_stored_bytes: int
    names_bytes: int
    names: int
    entries: int
    count_width_bytes: int
    number_width_bytes: int
    names_digest: bytes
    numbers_digest: bytes
    first_name: bytes


class ChunkRow(NamedTuple):
    """Where a chunk of the map to directories lies."""

    first_entry: int
    offset: int
    stored_bytes: int
    runs: int
    digest: bytes


class Table(NamedTuple):
    """What a names file says of itself."""

    set_id: SetId
    #: The range of entries whose names it has: all of the index's own.
    entries_first: int
    entries_end: int
    blocks: Sequence[BlockRow]
    chunks: Sequence[ChunkRow]


def digest(data: bytes) -> bytes:
    """Return the checksum of a stored part."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def width_of(value: int) -> int:
    """Return the bytes that a number up to `value` takes, at least one."""
    return max(1, (value.bit_length() + 7) // 8)


def to_planes(values: Sequence[int], width_bytes: int) -> bytes:
    """Return numbers as all their lowest bytes, then all their second bytes, and so on: that compresses well."""
    packed = pack(f"<{len(values)}Q", *values)
    return b"".join(packed[place::8] for place in range(width_bytes))


def from_planes(data: bytes, count: int, width_bytes: int) -> tuple[int, ...]:
    """Return the numbers that `to_planes` has packed."""
    packed = bytearray(8 * count)
    for place in range(width_bytes):
        packed[place::8] = data[place * count : (place + 1) * count]
    return cast("tuple[int, ...]", unpack(f"<{count}Q", packed))


def encode_table(table: Table) -> bytes:
    """Pack the table. Raises ValueError when a number does not fit."""
    text = table.set_id.encode()
    try:
        parts = [_TABLE.pack(table.entries_first, table.entries_end, len(table.blocks), len(table.chunks), len(text))]
        parts.append(text)
        for block in table.blocks:
            parts += (_BLOCK.pack(*block[:-1], len(block.first_name)), block.first_name)
        parts += [_CHUNK.pack(*chunk) for chunk in table.chunks]
    except StructError as error:
        raise ValueError(f"the table of names does not fit: {error}") from error
    return b"".join(parts)


def decode_table(data: bytes) -> Table:
    """Return a sound table of this version."""
    entries_first, entries_end, block_count, chunk_count, length = _TABLE.unpack_from(data)
    at = _TABLE.size + length
    set_id = SetId(data[_TABLE.size : at].decode())
    blocks = []
    for _ in range(block_count):
        *fields, length = _BLOCK.unpack_from(data, at)
        at += _BLOCK.size + length
        blocks.append(BlockRow._make((*fields, data[at - length : at])))
    chunks = [ChunkRow(*fields) for fields in _CHUNK.iter_unpack(data[at : at + chunk_count * _CHUNK.size])]
    return Table(set_id, entries_first, entries_end, blocks, chunks)


def encode_tail(offset: int, table: bytes) -> bytes:
    """Return what stands at the end of the file."""
    return TAIL.pack(offset, len(table), _table_digest(table), VERSION, MAGIC)


def decode_tail(tail: bytes, where: str) -> tuple[int, int, bytes]:
    """Return place, length and digest of the table. Raises Damaged, WrongVersion."""
    if len(tail) != TAIL.size or not tail.endswith(MAGIC):
        raise Damaged("this is not a whole names file", where)
    offset, length, table_digest, version, _ = TAIL.unpack(tail)
    if version != VERSION:
        raise WrongVersion(f"{where} has layout {version}, this program knows {VERSION}")
    return offset, length, table_digest


def check_table(data: bytes, table_digest: bytes, where: str) -> None:
    """Raise Damaged unless this is the table that the tail was made for."""
    if _table_digest(data) != table_digest:
        raise Damaged("the table of names does not match its checksum", where)


def _table_digest(table: bytes) -> bytes:
    return hashlib.blake2b(table, digest_size=16, person=MAGIC).digest()
