"""Names that belong to one file: which of them gets the content, and that the others become links to it.

Memory does not grow with them: names are sorted by the file that they belong to (`plan.SortedRecords`), and what became
of a file's content stands in an unnamed scratch file. One thread.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import NamedTuple

from catalog.ids import EntryNo
from tapefs.restore.plan import RUN_FILES, SortedRecords, flush, forget, pread, roomy, scratch_file
from tapefs.restore.writer import Identity

#: Big-endian: the number that the file has in the index, a name's entry, place of its directory, is that new.
_NAME = struct.Struct(">QQq?")
#: Names before the one that has the content, device and inode of that, is it made.
_RESULT = struct.Struct("<QQQ?")


class LinkedName(NamedTuple):
    """A name of a file that has several, at least on the source."""

    #: The entry that has its attributes and content.
    first: EntryNo
    number: EntryNo
    #: Of its directory, in `Directories`.
    place: int
    #: Is the directory new, so that nothing else can have this name?
    is_new: bool


class Links:
    """`add` all names, `sort`, `choose` the names that get the content, tell what became of it, then read `others`."""

    def __init__(self, scratch: Path, run_names: int = RUN_FILES) -> None:
        """Scratch files lie in the folder `scratch`, without names."""
        self._names = SortedRecords(scratch, _NAME.size, run_names)
        self._results = scratch_file(scratch)
        self._groups = 0

    def add(self, name: LinkedName) -> None:
        """Take a name in. Raises HomeError if the scratch file cannot grow."""
        self._names.add(_NAME.pack(*name))

    def sort(self) -> None:
        """Bring the names of a file together; called once, after the last `add`. Raises OSError, HomeError."""
        self._names.sort()

    def choose(self, is_free: Callable[[LinkedName], bool]) -> Iterator[tuple[int, LinkedName]]:
        """Yield (group, name) for every file: the first name that is free gets the content."""
        for group, names in self._grouped():
            before, chosen = 0, None
            for name in names:
                if is_free(name):
                    chosen = name
                    break
                before += 1
            self._write(group, before, Identity(0, 0), is_made=False)
            self._groups = group + 1
            if chosen is not None:
                yield group, chosen

    def made(self, group: int, identity: Identity) -> None:
        """The content is there, under the name that was chosen. Raises HomeError."""
        self._write(group, self._read(group)[0], identity, is_made=True)

    def others(self) -> Iterator[tuple[LinkedName, Identity | None, Iterator[LinkedName]]]:
        """Yield (name that has the content, which file it is or None if that failed, the names behind it)."""
        for group, names in self._grouped():
            if group >= self._groups:
                return
            before, identity, is_made = self._read(group)
            chosen = next(islice(names, before, None), None)
            if chosen is not None:
                yield chosen, identity if is_made else None, names

    def _grouped(self) -> Iterator[tuple[int, Iterator[LinkedName]]]:
        for group, (_, records) in enumerate(groupby(self._names, key=_first_of)):
            yield group, map(_unpack, records)

    def _write(self, group: int, before: int, identity: Identity, *, is_made: bool) -> None:
        with roomy():
            self._results.seek(group * _RESULT.size)
            self._results.write(_RESULT.pack(before, *identity, is_made))

    def _read(self, group: int) -> tuple[int, Identity, bool]:
        flush(self._results)
        before, dev, ino, is_made = _RESULT.unpack(pread(self._results, _RESULT.size, group * _RESULT.size))
        return before, Identity(dev, ino), is_made

    def close(self) -> None:
        """Give the scratch space back."""
        self._names.close()
        forget(self._results)


def _first_of(record: bytes) -> bytes:
    return record[:8]


def _unpack(record: bytes) -> LinkedName:
    first, number, place, is_new = _NAME.unpack(record)
    return LinkedName(EntryNo(first), EntryNo(number), place, is_new)
