"""The bytes of extended attributes in an index; those of entries in chunks, each different set of a chunk once.

On many systems every file has the same label, or the ACL of its folder: in a row of its own it would take as much room
as the entry. Pure functions, and a collector that belongs to one thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, starmap
from operator import lt
from struct import Struct
from struct import error as StructError
from typing import cast

from catalog.index.layout import CRC_BYTES, NUMBER_KEY, VALUE_BYTES, Item, seal

#: Lengths of the name and of the value that follow.
_XATTR = Struct("<HI")
#: Of a chunk: count of entries, count of different sets of attributes.
_HEAD = Struct("<HH")
#: Number of the entry less that of the chunk's first, ordinal of its set.
_ROW = Struct("<IH")
#: Where a set ends in the heap.
_END = Struct("<I")
#: What is left in a chunk for entries and sets.
_ROOM_BYTES = VALUE_BYTES - _HEAD.size - CRC_BYTES
#: Of an entry's number less the first.
_SPAN = 1 << 32


def encode_xattrs(xattrs: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Pack extended attributes. Raises ValueError when their names are not as they must be, or one is too long."""
    names = [name for name, _ in xattrs]
    if not names or not all(map(lt, [b"", *names], names)) or b"\0" in b"".join(names):
        raise ValueError("the names of attributes do not ascend, or there are none")
    try:
        return b"".join(_XATTR.pack(len(name), len(value)) + name + value for name, value in xattrs)
    except StructError as error:
        raise ValueError(f"an attribute does not fit: {error}") from error


def decode_xattrs(packed: bytes) -> list[tuple[bytes, bytes]]:
    """Return what `encode_xattrs` has packed, by name."""
    xattrs = []
    at = 0
    while at < len(packed):
        name_bytes, value_bytes = _XATTR.unpack_from(packed, at)
        name = at + _XATTR.size
        at = name + name_bytes + value_bytes
        xattrs.append((packed[name : name + name_bytes], packed[name + name_bytes : at]))
    return xattrs


def encode_directory_xattrs(number: int, packed: bytes) -> Item:
    """Pack the attributes of a directory."""
    key = NUMBER_KEY.pack(number)
    return key, seal(key, packed)


def decode_directory_xattrs(value: bytes) -> list[tuple[bytes, bytes]]:
    """Return those of a sound record."""
    return decode_xattrs(value[:-CRC_BYTES])


def encode_entry_xattrs(first: int, rows: Sequence[tuple[int, int]], packed: Sequence[bytes]) -> Item:
    """Pack a chunk: per entry its number less `first` and the ordinal of its attributes in `packed`."""
    key = NUMBER_KEY.pack(first)
    body = (
        _HEAD.pack(len(rows), len(packed)),
        *starmap(_ROW.pack, rows),
        *map(_END.pack, accumulate(map(len, packed))),
        *packed,
    )
    return key, seal(key, b"".join(body))


def find_xattrs(first: int, value: bytes, number: int) -> list[tuple[bytes, bytes]] | None:
    """Return the attributes of an entry out of the sound chunk that begins at `first`; None if it has none there."""
    count, sets = _HEAD.unpack_from(value)
    at = bisect_left(range(count), number - first, key=lambda row: _row(value, row)[0])
    if at == count or _row(value, at)[0] != number - first:
        return None
    ends = _HEAD.size + count * _ROW.size
    heap = ends + sets * _END.size
    ordinal = _row(value, at)[1]
    begin = _END.unpack_from(value, ends + (ordinal - 1) * _END.size)[0] if ordinal else 0
    return decode_xattrs(value[heap + begin : heap + _END.unpack_from(value, ends + ordinal * _END.size)[0]])


def _row(value: bytes, at: int) -> tuple[int, int]:
    return cast("tuple[int, int]", _ROW.unpack_from(value, _HEAD.size + at * _ROW.size))


class XattrChunks:
    """Cuts what comes by ascending number into chunks of a page, or of one entry that is longer."""

    def __init__(self) -> None:
        self._first = 0
        self._last = -1
        self._rows: list[tuple[int, int]] = []
        #: Ordinals of the packed sets.
        self._sets: dict[bytes, int] = {}
        self._bytes = 0

    def take(self, number: int, xattrs: Sequence[tuple[bytes, bytes]]) -> list[Item]:
        """Take an entry's attributes, return a chunk that is full now. Raises ValueError when numbers do not ascend."""
        if number <= self._last:
            raise ValueError(f"the attributes of entry {number} come after those of entry {self._last}")
        packed = encode_xattrs(xattrs)
        done: list[Item] = []
        if self._rows and (self._bytes + self._needed(packed) > _ROOM_BYTES or number - self._first >= _SPAN):
            done = self.rest()
        if not self._rows:
            self._first = number
        self._last = number
        self._bytes += self._needed(packed)
        self._rows.append((number - self._first, self._sets.setdefault(packed, len(self._sets))))
        return done

    def rest(self) -> list[Item]:
        """Return what is left as a chunk, if there is any."""
        if not self._rows:
            return []
        item = encode_entry_xattrs(self._first, self._rows, list(self._sets))
        self._rows, self._sets, self._bytes = [], {}, 0
        return [item]

    def _needed(self, packed: bytes) -> int:
        known = packed in self._sets
        return _ROW.size + (0 if known else _END.size + len(packed))
