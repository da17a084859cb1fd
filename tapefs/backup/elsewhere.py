"""Which names of a directory have their members in earlier segments: 20 bytes a name, however long the directory is.

A line of the trailer for each would take ten times that; they are made piece by piece when they are written. Belongs to
one thread at a time.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import NamedTuple

from catalog.ids import DirectoryNo, SegmentId
from tapefs.format.records import DirectoryPart, Elsewhere, as_text


class Elsewheres:
    """A list of (name, segment, place). The names are those that the walk holds anyway."""

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self._places = array("Q")
        #: Per name its segment's place in `_segments`.
        self._numbers = array("I")
        self._segments: list[SegmentId] = []

    def __len__(self) -> int:
        return len(self.names)

    def add(self, name: bytes, segment: SegmentId, place: int) -> None:
        """Append one whose content is at `place` of that segment's plain stream."""
        if not self._segments or self._segments[-1] != segment:
            self._segments.append(segment)
        self.names.append(name)
        self._places.append(place)
        self._numbers.append(len(self._segments) - 1)

    def truncate(self, count: int) -> None:
        """Keep the first `count`."""
        del self.names[count:]
        del self._places[count:]
        del self._numbers[count:]

    def piece(self, start: int, stop: int) -> Elsewheres:
        """Return a copy of a part."""
        part = Elsewheres()
        part.names, part._places = self.names[start:stop], self._places[start:stop]
        part._numbers, part._segments = self._numbers[start:stop], list(self._segments)
        return part

    def lines(self) -> list[Elsewhere]:
        """Return them all as a trailer has them."""
        found = []
        for name, place, number in zip(self.names, self._places, self._numbers, strict=True):
            text, raw = as_text(name)
            found.append(Elsewhere(name=text, name_b64=raw, segment=self._segments[number], at=place))
        return found


class ListingPiece(NamedTuple):
    """A `DirectoryPart` to be."""

    number: DirectoryNo
    elsewhere: Elsewheres
    directories: Sequence[DirectoryNo]

    def line(self) -> DirectoryPart:
        """Make it."""
        return DirectoryPart(n=self.number, elsewhere=self.elsewhere.lines(), directories=list(self.directories))
