"""Packs the extended attributes of entries into chunks: each different set of a chunk is stored once.

On many systems every file has the same label, or the ACL of its folder: in a row of its own it would take as much room
as the entry. Pure; belongs to one thread.
"""

from __future__ import annotations

from collections.abc import Sequence

from catalog.index import layout
from catalog.index.layout import Item


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
        packed = layout.encode_xattrs(xattrs)
        done: list[Item] = []
        if self._rows and (
            self._bytes + self._needed(packed) > layout.XATTRS_ROOM_BYTES or number - self._first >= layout.XATTRS_SPAN
        ):
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
        item = layout.encode_entry_xattrs(self._first, self._rows, list(self._sets))
        self._rows, self._sets, self._bytes = [], {}, 0
        return [item]

    def _needed(self, packed: bytes) -> int:
        known = packed in self._sets
        return layout.XATTRS_ROW_BYTES + (0 if known else layout.XATTRS_SET_BYTES + len(packed))
