"""What a segment must hold, by its trailer: frames, contents in them, and paths for what was found damaged.

A trailer is read more than once, always as a stream: memory does not depend on the number of members. One thread.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from stat import S_ISREG
from typing import BinaryIO, NamedTuple

from catalog.index.model import EntryFlag
from catalog.records import Segment
from tapefs.errors import BadStructure
from tapefs.format.lines import read_lines
from tapefs.format.records import (
    DirectoryEntered,
    DirectoryLeft,
    End,
    FrameLine,
    Member,
    TrailerLine,
    name_of,
)

_UNREADABLE, _SPARSE = int(EntryFlag.UNREADABLE), int(EntryFlag.SPARSE)

_PIECE_BYTES = 256 * 1024


class Content(NamedTuple):
    """Content of one member: its place and length in the plain tar stream, and its sum."""

    at: int
    length: int
    sha256: bytes

    @property
    def end(self) -> int:
        """Where it ends in the plain stream."""
        return self.at + self.length


class Frame(NamedTuple):
    """A frame, and the contents that lie in it or run through it, in order."""

    number: int
    line: FrameLine
    #: Where it begins in the plain stream.
    plain_at: int
    contents: list[Content]

    @property
    def plain_end(self) -> int:
        """Where it ends in the plain stream."""
        return self.plain_at + self.line.plain


class Trailer:
    """A segment's trailer in a file that can be read again and again."""

    def __init__(self, file: BinaryIO, *, is_from_tape: bool = False) -> None:
        self._file = file
        self.is_from_tape = is_from_tape

    def lines(self) -> Iterator[TrailerLine]:
        """Yield its lines from the first one on; ends an iteration that runs. Raises BadStructure, OSError."""
        self._file.seek(0)
        return read_lines(self._file, TrailerLine)

    def pieces(self) -> Iterator[bytes]:
        """Yield its stored bytes; ends an iteration over lines. Raises OSError."""
        self._file.seek(0)
        while data := self._file.read(_PIECE_BYTES):
            yield data

    def check(self, segment: Segment) -> None:
        """Raise BadStructure unless it is whole and the ledger's segment is its own."""
        end = None
        for line in self.lines():
            if end is not None:
                raise BadStructure("the trailer goes on behind its end")
            end = line if isinstance(line, End) else None
        if end is None:
            raise BadStructure("the trailer has no end")
        said = (end.segment, end.payload_sha256, end.payload_bytes, end.plain_bytes, end.members, end.frames)
        known = (
            segment.segment_id, segment.payload_sha256, segment.stored_bytes, segment.plain_bytes, segment.members,
            segment.frames,
        )  # fmt: skip
        if said != known:
            raise BadStructure(f"the trailer is not that of segment {segment.segment_id} as the ledger knows it")


def frames_of(lines: Iterable[TrailerLine]) -> Iterator[Frame]:
    """Yield the frames of a payload with their contents.

    A member's line stands before the line of the frame in which it ends, so the lines are read ahead to the next
    content: over as many frames as one member has.
    """
    waiting: deque[Frame] = deque()
    contents: deque[Content] = deque()
    number = plain_at = behind = 0
    for line in lines:
        if isinstance(line, FrameLine):
            waiting.append(Frame(number, line, plain_at, []))
            number, plain_at = number + 1, plain_at + line.plain
        elif isinstance(line, Member):
            content = content_of(line)
            if content is None or content.at < behind:
                continue  # Nothing of its own: another name of what came before.
            contents.append(content)
            behind = content.end
        while waiting and waiting[0].plain_end <= behind:
            yield _filled(waiting.popleft(), contents)
    while waiting:
        yield _filled(waiting.popleft(), contents)


def _filled(frame: Frame, contents: deque[Content]) -> Frame:
    """Return the frame with its contents; those that end in it are taken out."""
    while contents and contents[0].at < frame.plain_end:
        frame.contents.append(contents[0])
        if contents[0].end > frame.plain_end:
            break
        contents.popleft()
    return frame


def content_of(member: Member) -> Content | None:
    """Return what a member line has on tape, be it shared with an earlier name; None for nothing."""
    if member.flags & _UNREADABLE or member.as_base or not S_ISREG(member.mode):
        return None
    if member.flags & _SPARSE:
        length = sum(length for _, length in member.data)
    else:
        length = member.size if member.part < 0 else member.part_bytes
    return Content(member.at, length, member.sha256) if length else None


def touched(lines: Iterable[TrailerLine], spans: Sequence[tuple[int, int]]) -> Iterator[tuple[bytes, Content]]:
    """Yield path and content of every file with content in one of the spans (start, end) of the plain stream.

    `spans` are ascending and do not overlap. Paths are absolute. Other names of a file (hardlinks) are named, too.
    Raises BadStructure when the lines make no tree.
    """
    starts = [start for start, _ in spans]
    folders: dict[int, bytes] = {}
    for line in lines:
        if isinstance(line, DirectoryEntered):
            folders[line.n] = _path(folders, line.p, name_of(line)) if line.n else b""
        elif isinstance(line, DirectoryLeft):
            folders.pop(line.n, None)
        elif isinstance(line, Member):
            content = content_of(line)
            if content is None:
                continue
            place = bisect_right(starts, content.end - 1) - 1
            if place >= 0 and spans[place][1] > content.at:
                yield _path(folders, line.d, name_of(line)), content


def _path(folders: dict[int, bytes], number: int, name: bytes) -> bytes:
    if number not in folders:
        raise BadStructure(f"a line is about directory {number}, which is not open")
    return folders[number] + b"/" + name
