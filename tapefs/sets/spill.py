"""Entries that wait for their turn, on disk. Blocking; belongs to one thread."""

from __future__ import annotations

import marshal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from catalog.errors import StorageFailed
from catalog.index.model import Entry

#: Entries that one level of the tree keeps in memory: about 600 kB.
KEPT = 1024


class Spill:
    """A nameless scratch file for all levels of a tree; what the deepest one wrote is at the end and goes first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: IO[bytes] | None = None
        self._end = 0

    def close(self) -> None:
        """Give the space back; harmless twice."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def put(self, entries: list[Entry]) -> tuple[int, int]:
        """Write entries behind all others and return their place. Raises StorageFailed."""
        # Not msgpack: times after 2554 have more than 64 bits.
        data = marshal.dumps(list(map(tuple, entries)))
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by close()
            self._file.seek(self._end)
            self._file.write(data)
        except OSError as error:
            raise StorageFailed(f"cannot write to a scratch file: {error.strerror}", retryable=False) from error
        place = (self._end, len(data))
        self._end += len(data)
        return place

    def get(self, place: tuple[int, int]) -> list[Entry]:
        """Return what was put at a place. Raises StorageFailed."""
        if self._file is None:
            raise AssertionError("nothing was put")
        try:
            self._file.seek(place[0])
            rows = marshal.loads(self._file.read(place[1]))  # noqa: S302 - our own file, which has no name
        except OSError as error:
            raise StorageFailed(f"cannot read a scratch file: {error.strerror}", retryable=False) from error
        return list(map(Entry._make, rows))

    def drop_from(self, start: int) -> None:
        """Forget everything from there on."""
        self._end = start


class Queue:
    """The entries of one level, first in, first out; all but the last ones are on disk."""

    def __init__(self, spill: Spill) -> None:
        self._spill = spill
        self._places: list[tuple[int, int]] = []
        self._kept: list[Entry] = []

    @property
    def is_empty(self) -> bool:
        """Does nothing wait?"""
        return not self._places and not self._kept

    def put(self, entry: Entry) -> None:
        """Add an entry; deeper levels must be empty. Raises StorageFailed."""
        self._kept.append(entry)
        if len(self._kept) >= KEPT:
            self._places.append(self._spill.put(self._kept))
            self._kept = []

    def drain(self) -> Iterator[list[Entry]]:
        """Yield all entries in order, and forget them."""
        for place in self._places:
            yield self._spill.get(place)
        if self._places:
            self._spill.drop_from(self._places[0][0])
            self._places = []
        if self._kept:
            yield self._kept
            self._kept = []
