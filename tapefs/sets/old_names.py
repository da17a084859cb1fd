"""Files with several names that the base of a set has, to find those of which one more name turns up.

Blocking; belongs to one thread. A name may come without any change of its file: with the directory that it is in, which
was renamed. The file's other names may be in directories that are shared, so the new one must bear their number.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from stat import S_ISREG

from catalog.ids import EntryNo, SegmentNo
from catalog.index.model import Entry, EntryFlag
from catalog.index.reader import IndexReader
from tapefs.scratch import KEPT, ScratchMap

#: mode to ino: all that `lstat` tells but the blocks, which change when a file is written back.
_MARK = slice(1, 11)
_KEY_BYTES = 16
#: The content that is there is not what the file has.
_BROKEN = int(EntryFlag.CHANGED | EntryFlag.UNREADABLE)
#: The content may be another, though all that `lstat` tells is the same.
_FRESH = int(EntryFlag.FRESH)
_SPLIT = int(EntryFlag.SPLIT)


class OldNames:
    """Numbers by what tells that a file is as it was. Every method may raise Damaged, StorageFailed."""

    def __init__(self, folder: Path, base: IndexReader | None, kept: int = KEPT) -> None:
        """Read nothing yet; without a base there are none. Spills to `folder`."""
        self._base = base
        self._files: ScratchMap[tuple[int]] = ScratchMap(folder, _number, kept)
        self._is_read = False

    def close(self) -> None:
        """Give the space back; harmless twice."""
        self._files.close()

    def number_of(self, entry: Entry, sha256: bytes) -> EntryNo | None:
        """Return the number that the file's names in the base have in common; None if it has at most one there.

        `sha256` is that of its content, if it has one, and lies in one piece.
        """
        if self._base is None:
            return None
        if not self._is_read:
            self._read(self._base)
            self._is_read = True
        found = self._files.get(_key(entry))
        if found is None or not self._is_same(self._base, self._base.entry(EntryNo(found[0])), entry, sha256):
            return None
        return EntryNo(found[0])

    def _is_same(self, base: IndexReader, old: Entry, new: Entry, sha256: bytes) -> bool:
        """Is the content the same, too, where that is in doubt?"""
        if old.target != new.target:
            return False
        if not old.flags & _FRESH or not S_ISREG(old.mode) or not old.size:
            return True
        return not old.flags & _SPLIT and base.sha256(SegmentNo(old.segment), old.offset) == sha256

    def _read(self, base: IndexReader) -> None:
        for _, first in base.links():
            entry = base.entry(first)
            if not entry.flags & _BROKEN:
                self._files.put(_key(entry), (first,))


def _key(entry: Entry) -> bytes:
    return blake2b(repr(entry[_MARK]).encode(), digest_size=_KEY_BYTES).digest()


def _number(values: tuple[object, ...]) -> tuple[int]:
    return (values[0],)  # type: ignore[return-value]
