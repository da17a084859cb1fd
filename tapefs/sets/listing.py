"""A directory that the trailers have entered and not left: what it holds so far, and what its last line must say.

Blocking; belongs to one thread.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from zlib import crc32

from catalog.ids import SegmentId
from catalog.index.model import Directory, Entry, Extent
from tapefs.errors import BadStructure
from tapefs.format.records import DirectoryEntered, DirectoryLeft, DirectoryPart, as_bytes
from tapefs.sets.rebase import MergedFiles
from tapefs.sets.spill import Queue

_segment_of = attrgetter("segment")


@dataclass(slots=True)
class Sums:
    """Stands for a list of (name, place) that may be long: its length and two checksums."""

    count: int = 0
    names: int = 0
    places: int = 0

    def add(self, names: Sequence[bytes], places: Iterable[int]) -> None:
        """Append to the list."""
        self.count += len(names)
        self.names = crc32(b"\0".join((*names, b"")), self.names)
        self.places = crc32(array("Q", places), self.places)


@dataclass(slots=True)
class SplitFile:
    """A file whose parts are still coming."""

    #: As its first part says, without the flags of the parts; of a stream as its newest part says.
    entry: Entry
    xattrs: list[tuple[bytes, bytes]]
    flags: int = 0
    #: How many there were.
    parts: int = 0
    extents: list[Extent] = field(default_factory=list)
    #: Bytes of the parts so far.
    length: int = 0
    #: It is a stream, and the part before was not the last.
    is_open: bool = False


@dataclass(slots=True)
class Listing:
    """The state of one open directory."""

    line: DirectoryEntered
    name: bytes
    #: Entries of its subdirectories, written when it is left.
    subdirectories: Queue
    #: Numbers of its subdirectories.
    children: array[int] = field(default_factory=lambda: array("Q"))
    files_first: int = 0
    files_count: int = 0
    files_bytes: int = 0
    last_file: bytes = b""
    last_subdirectory: bytes = b""
    split: SplitFile | None = None
    #: Member lines in the present segment: ordinal of the first, and what they say.
    first_member: int = 0
    here: Sums = field(default_factory=Sums)
    #: The same of earlier segments.
    earlier: list[tuple[SegmentId, Sums]] = field(default_factory=list)
    #: What its listing has said so far of earlier segments, and of subdirectories.
    said_earlier: list[tuple[SegmentId, Sums]] = field(default_factory=list)
    said_children: array[int] = field(default_factory=lambda: array("Q"))
    #: The directory in the base, and its files merged with those of the set.
    base: Directory | None = None
    merged: MergedFiles | None = None

    def note(self, ordinal: int, names: Sequence[bytes], places: Sequence[int]) -> None:
        """Member lines of this directory begin at `ordinal`."""
        if not self.here.count:
            self.first_member = ordinal
        self.here.add(names, places)

    def segment_ends(self, segment: SegmentId) -> None:
        """What was here is elsewhere from now on."""
        if self.here.count:
            self.earlier.append((segment, self.here))
            self.here = Sums()

    def hear(self, listing: DirectoryPart | DirectoryLeft) -> None:
        """Take in a piece of the listing, to be compared in the end."""
        for segment, rows in groupby(listing.elsewhere, _segment_of):
            members = list(rows)
            if not self.said_earlier or self.said_earlier[-1][0] != segment:
                self.said_earlier.append((segment, Sums()))
            names = [as_bytes(row.name, row.name_b64) for row in members]
            self.said_earlier[-1][1].add(names, [row.at for row in members])
        self.said_children.extend(listing.directories)
        if listing.removed or listing.removed_b64:
            if self.merged is None:
                raise BadStructure(f"directory {self.line.n} has lost names, but there is nothing it could have had")
            self.merged.remove(sorted([*map(str.encode, listing.removed), *listing.removed_b64]))

    def check(self, left: DirectoryLeft) -> None:
        """Compare with what the directory's last line says. Raises BadStructure."""
        number = self.line.n
        self.hear(left)
        if self.split is not None:
            raise BadStructure(f"directory {number} ends before its split file {self.split.entry.name!r} does")
        here = [(self.first_member, self.here.count)] if self.here.count else []
        if left.here != here and _joined(left.here) != here:
            raise BadStructure(f"directory {number} has members {here} in this segment, its listing says {left.here}")
        if self.said_earlier != self.earlier:
            raise BadStructure(f"the listing of directory {number} does not name its members in earlier segments")
        if self.base is None and self.said_children != self.children:
            raise BadStructure(f"the listing of directory {number} does not name its subdirectories")


def _joined(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for first, count in runs:
        if joined and sum(joined[-1]) == first:
            joined[-1] = (joined[-1][0], joined[-1][1] + count)
        else:
            joined.append((first, count))
    return joined
