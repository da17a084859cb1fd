"""Which entries are names of the same file, while an index is built. Blocking; belongs to one thread.

Bounded: a file goes when all its names were seen; beyond `tapefs.scratch.KEPT` files the oldest go to a scratch file.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from catalog.ids import EntryNo, SegmentNo
from catalog.index.model import Entry, EntryFlag, Extent
from tapefs.errors import BadStructure
from tapefs.scratch import KEPT, ScratchMap

#: Lists of extents kept in memory: up to 130 kB each.
_LISTS_KEPT = 64
_KEY = Struct("<QQ")
_IN_EXTENTS = int(EntryFlag.SPLIT | EntryFlag.SPARSE)
_EXTENT_FIELDS = 4


class First(NamedTuple):
    """The first name of a file that has more."""

    number: int
    #: Where its content is.
    segment: int
    offset: int
    size: int
    #: Of its flags SPLIT and SPARSE.
    flags: int
    #: Where the newest copy of the content is, which a later name in that segment refers to.
    copy_segment: int
    copy_at: int
    #: How many names are still to come.
    left: int


def _first(values: tuple[object, ...]) -> First:
    return First(*values)  # type: ignore[arg-type]


class Links:
    """Files with several names, by device and inode. Every method may raise StorageFailed."""

    def __init__(self, folder: Path, kept: int = KEPT) -> None:
        """Spill to `folder`."""
        self._files: ScratchMap[First] = ScratchMap(folder, _first, kept)
        self._extents: ScratchMap[tuple[bytes]] = ScratchMap(folder, _packed, min(kept, _LISTS_KEPT))

    def close(self) -> None:
        """Give the space back; harmless twice."""
        self._files.close()
        self._extents.close()

    def add(self, number: EntryNo, entry: Entry, extents: Sequence[Extent]) -> None:
        """An entry whose file has other names is its first one."""
        key = _key(entry)
        flags = entry.flags & _IN_EXTENTS
        self._files.put(
            key,
            First(number, entry.segment, entry.offset, entry.size, flags, entry.segment, entry.offset, entry.nlink - 1),
        )
        if extents:
            self._extents.put(key, (array("Q", [field for extent in extents for field in extent]).tobytes(),))
        else:
            self._extents.drop(key)

    def forget(self, entry: Entry) -> None:
        """Its content is not what other names of it have."""
        self._drop(_key(entry))

    def take(self, entry: Entry, *, has_content: bool) -> tuple[First, Entry, list[Extent]]:
        """Return the first name of a further one; the entry with its content there; and the extents of that.

        `has_content`: the content is in this entry's segment once more. Raises BadStructure when there is no such file.
        """
        key = _key(entry)
        first = self._files.get(key)
        if first is None or first.size != entry.size:
            raise BadStructure(f"{entry.name!r} is another name of a file that was not there before")
        place = (entry.segment, entry.offset)
        if not has_content and place != (first.copy_segment, first.copy_at):
            raise BadStructure(f"{entry.name!r} is a link to a place where its file is not")
        extents = self._extents_of(key)
        if first.left > 1:
            self._files.put(key, first._replace(copy_segment=place[0], copy_at=place[1], left=first.left - 1))
        else:
            self._drop(key)
        flags = entry.flags & ~_IN_EXTENTS | first.flags
        return first, entry._replace(segment=first.segment, offset=first.offset, flags=flags), extents

    def _drop(self, key: bytes) -> None:
        self._files.drop(key)
        self._extents.drop(key)

    def _extents_of(self, key: bytes) -> list[Extent]:
        packed = self._extents.get(key)
        if packed is None:
            return []
        fields = array("Q", packed[0])
        rows = zip(*[iter(fields)] * _EXTENT_FIELDS, strict=True)
        return [Extent(place, length, SegmentNo(segment), offset) for place, length, segment, offset in rows]


def _key(entry: Entry) -> bytes:
    return _KEY.pack(entry.dev, entry.ino)


def _packed(values: tuple[object, ...]) -> tuple[bytes]:
    return (values[0],)  # type: ignore[return-value]
