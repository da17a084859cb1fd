"""Where an interrupted backup stands: what its committed segments say of the directories it was in.

A pure function of their trailers; reads them as streams, and keeps only what belongs to directories that are open at
the end of the last one. Runs in the intake thread, before any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from catalog.ids import DirectoryNo, SegmentId
from catalog.index.model import EntryFlag
from tapefs.backup.elsewhere import Elsewheres
from tapefs.backup.tally import Tally
from tapefs.errors import BadStructure
from tapefs.format.lines import read_lines
from tapefs.format.records import (
    DirectoryEntered,
    DirectoryLeft,
    DirectoryPart,
    Member,
    TrailerLine,
    name_of,
)

_TROUBLED = int(EntryFlag.CHANGED | EntryFlag.UNREADABLE)

#: Told (segment's ordinal, member, path without a slash at its start) of every name of a file with several.
OnLink = Callable[[int, Member, bytes], None]


@dataclass(slots=True)
class OpenLevel:
    """A directory that had been entered and not left."""

    line: DirectoryEntered
    name: bytes
    #: Without a slash at its start.
    path: bytes
    #: Subdirectories that were entered, in name order.
    children: list[tuple[bytes, DirectoryNo]] = field(default_factory=list)
    #: Its member lines.
    elsewhere: Elsewheres = field(default_factory=Elsewheres)
    last_file: bytes = b""
    #: Names of the base that were said to be gone.
    removed: set[bytes] = field(default_factory=set)


@dataclass(slots=True)
class Standing:
    """Where a backup stands behind its last committed segment."""

    #: Open directories, the root first; empty if all has been left, or nothing entered.
    levels: list[OpenLevel] = field(default_factory=list)
    #: The highest number of a directory that the base does not have; -1: none.
    last_number: int = -1
    #: Segments that are committed.
    segments: int = 0
    #: The newest part of a file whose parts were still coming.
    part: Member | None = None
    #: The root was entered; with no open directory the whole tree has been taken.
    has_begun: bool = False
    #: Only what the lines tell; totals come from the index that is built of them.
    tally: Tally = field(default_factory=Tally)

    @property
    def is_whole(self) -> bool:
        """Has the whole tree been taken? Then only the SET INDEX is missing."""
        return self.has_begun and not self.levels


def read_standing(trailers: Sequence[tuple[SegmentId, Path]], on_link: OnLink) -> Standing:
    """Read the trailers of the committed segments, in their order. Raises BadStructure, OSError."""
    standing = Standing()
    for segment_id, path in trailers:
        with path.open("rb") as file:
            for line in read_lines(file, TrailerLine):
                _take(standing, segment_id, line, on_link)
        standing.segments += 1
    return standing


def _take(standing: Standing, segment_id: SegmentId, line: TrailerLine, on_link: OnLink) -> None:
    if isinstance(line, Member):
        _member(standing, segment_id, line, on_link)
    elif isinstance(line, DirectoryEntered):
        if not line.again:
            _enter(standing, line)
    elif isinstance(line, DirectoryPart | DirectoryLeft):
        level = _top(standing, line.n)
        level.removed.update(map(str.encode, line.removed))
        level.removed.update(line.removed_b64)
        if isinstance(line, DirectoryLeft):
            standing.levels.pop()


def _top(standing: Standing, number: int) -> OpenLevel:
    if not standing.levels or standing.levels[-1].line.n != number:
        raise BadStructure(f"a line is about directory {number}, which is not the one at hand")
    return standing.levels[-1]


def _enter(standing: Standing, line: DirectoryEntered) -> None:
    name, path = name_of(line), b""
    if standing.levels:
        parent = _top(standing, line.p)
        parent.children.append((name, line.n))
        path = parent.path + b"/" + name if parent.path else name
    standing.levels.append(OpenLevel(line, name, path))
    standing.has_begun = True
    if line.base < 0:
        standing.last_number = max(standing.last_number, line.n)
    standing.tally.directories += 1


def _member(standing: Standing, segment_id: SegmentId, line: Member, on_link: OnLink) -> None:
    level = _top(standing, line.d)
    name = name_of(line)
    level.elsewhere.add(name, segment_id, line.at)
    level.last_file = name
    if line.part >= 0 and (line.more or line.part_offset + line.part_bytes < line.size):
        standing.part = line
        return
    standing.part = None
    tally = standing.tally
    tally.files += 1
    tally.new_files += 1
    is_unread = bool(line.flags & EntryFlag.UNREADABLE)
    tally.bytes += 0 if is_unread else line.size
    tally.read_bytes += 0 if line.as_base or is_unread else line.size
    tally.troubled_files += bool(line.flags & _TROUBLED)
    tally.unread_files += is_unread
    if line.nlink > 1 and not line.as_base:
        on_link(standing.segments, line, level.path + b"/" + name if level.path else name)


def said_names(level: OpenLevel) -> set[bytes]:
    """Return the names that member lines of the directory have."""
    return set(level.elsewhere.names)
