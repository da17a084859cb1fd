"""Trailers of segments whose TRAILER is gone, from the members of their payloads. Blocking; needs no tape.

A trailer tells of directories by numbers that count over the whole set, and names in each listing what other segments
have of it. So the segments of a set are gone through in order, those with a trailer too, and what is missing is written
as the backup would have. What no archive holds is made up: ctime is mtime, device and inode are numbers of our own.

Memory grows with the names in the directories that are open at the end of a segment.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from catalog.ids import DirectoryNo, SegmentId
from catalog.index.model import Directory, EntryFlag
from catalog.index.reader import IndexReader
from tapefs.errors import BadStructure
from tapefs.format.lines import LineWriter, read_lines
from tapefs.format.records import (
    DirectoryEntered,
    DirectoryLeft,
    DirectoryPart,
    Elsewhere,
    End,
    FrameLine,
    Member,
    TrailerLine,
    as_text,
    name_of,
    split_xattrs,
)
from tapefs.format.records import (
    split_sources as split_names,
)
from tapefs.home import Home
from tapefs.rebuild.payloads import RawLine, RawMember, members_file
from tapefs.rebuild.trailers import TrailerFile

_LINKED, _SPLIT, _SPARSE = int(EntryFlag.LINKED), int(EntryFlag.SPLIT), int(EntryFlag.SPARSE)
_ROOT_MODE = stat.S_IFDIR | 0o755
#: Names in one piece of a listing.
_PIECE = 10_000
_BLOCK = 512


@dataclass(slots=True)
class _Open:
    """A directory that was entered and not left."""

    number: int
    path: bytes
    line: DirectoryEntered
    base: Directory | None
    #: Numbers of its subdirectories in the order of their names, with these names.
    children: list[tuple[bytes, int]] = field(default_factory=list)
    #: Members in the segment at hand: the first one's ordinal, and names with places.
    first: int = 0
    here: list[tuple[bytes, int]] = field(default_factory=list)
    #: Those of earlier segments.
    elsewhere: list[tuple[bytes, SegmentId, int]] = field(default_factory=list)
    #: Names of members that are directories in the base.
    replaced: set[bytes] = field(default_factory=set)


def assemble(home: Home, folder: Path, segments: Sequence[tuple[SegmentId, bool]], base: IndexReader | None) -> None:
    """Make the missing local trailers of a set; `segments` are all of it in order, and which have none.

    `folder` has what was found in their payloads, `base` is the index of the set that this one builds on. Raises
    BadStructure, StorageFailed, Damaged, OSError.
    """
    _Assembly(home, folder, base).run(segments)


class _Assembly:
    """Goes through a set."""

    def __init__(self, home: Home, folder: Path, base: IndexReader | None) -> None:
        self._home = home
        self._folder = folder
        self._base = base
        self._stack: list[_Open] = []
        self._next = 0 if base is None else base.directories_end
        self._segment = SegmentId("")
        self._number = 0
        self._members = 0
        self._sink: Callable[[msgspec.Struct], None] = lambda _: None
        #: Name and ordinal of the part of a file with which the next segment begins.
        self._to_come: tuple[bytes, int] | None = None

    def run(self, segments: Sequence[tuple[SegmentId, bool]]) -> None:
        for number, (segment_id, is_missing) in enumerate(segments):
            self._segment, self._number, self._members = segment_id, number, 0
            if is_missing:
                following = segments[number + 1] if number + 1 < len(segments) else None
                self._make(segment_id, following)
            else:
                self._follow(segment_id)
            for each in self._stack:
                each.elsewhere += [(name, segment_id, at) for name, at in each.here]
                each.here = []

    # -- a segment that has its trailer ------------------------------------------------------------------------------

    def _trailer(self, segment_id: SegmentId) -> Iterator[TrailerLine]:
        with self._home.trailer(segment_id).open("rb") as file:
            yield from read_lines(file, TrailerLine)

    def _follow(self, segment_id: SegmentId) -> None:
        """Learn from its lines where the walk stands behind it."""
        for line in self._trailer(segment_id):
            match line:
                case DirectoryEntered():
                    if not line.again:
                        self._note_entered(line)
                case Member():
                    self._note_member(self._at(line.d), name_of(line), line.at)
                case DirectoryLeft():
                    self._at(line.n)
                    self._stack.pop()

    def _note_entered(self, line: DirectoryEntered) -> None:
        name = name_of(line)
        path = b"/".join(filter(None, (self._stack[-1].path, name))) if self._stack else b""
        self._push(line, path, name)

    def _at(self, number: int) -> _Open:
        if not self._stack or self._stack[-1].number != number:
            raise BadStructure(f"a line is about directory {number}, which is not the one at hand")
        return self._stack[-1]

    # -- a segment that has none -------------------------------------------------------------------------------------

    def _raw(self, segment_id: SegmentId) -> Iterator[RawMember | FrameLine | End]:
        with members_file(self._folder, segment_id).open("rb") as file:
            yield from read_lines(file, RawLine)

    def _first_part(self, following: tuple[SegmentId, bool] | None) -> tuple[bytes, int] | None:
        """Return name and ordinal of the part of a file with which a segment begins; None when it begins otherwise."""
        if following is None:
            return None
        segment_id, is_missing = following
        for line in self._raw(segment_id) if is_missing else self._trailer(segment_id):
            match line:
                case RawMember() if not stat.S_ISDIR(line.mode) or line.part >= 0:
                    return (line.path.rpartition(b"/")[2], line.part) if line.part > 0 else None
                case Member():
                    return (name_of(line), line.part) if line.part > 0 else None
        return None

    def _make(self, segment_id: SegmentId, following: tuple[SegmentId, bool] | None) -> None:
        names, gone = self._look_ahead(segment_id)
        trailer = TrailerFile(self._home, segment_id)
        try:
            writer = LineWriter(trailer.write)
            self._sink = writer.write
            self._write(segment_id, _Files(names), gone, following)
            writer.close()
            trailer.keep()
        finally:
            trailer.discard()

    def _look_ahead(self, segment_id: SegmentId) -> tuple[dict[bytes, int], dict[bytes, list[bytes]]]:
        """Return how many names members have that have more, and what of the base is a directory now, by folder."""
        names: dict[bytes, int] = {}
        gone: dict[bytes, list[bytes]] = {}
        for line in self._raw(segment_id):
            if not isinstance(line, RawMember):
                continue
            if line.link:
                names[line.link] = names.get(line.link, 1) + 1
            elif stat.S_ISDIR(line.mode) and self._base is not None:
                folder, _, name = line.path.rpartition(b"/")
                directory = self._of_base(folder)
                found = None if directory is None else self._base.lookup(directory, name)
                if found is not None and not stat.S_ISDIR(found[1].mode):
                    gone.setdefault(folder, []).append(name)
        return names, gone

    def _of_base(self, path: bytes) -> Directory | None:
        """Return the directory at that path in the base."""
        if self._base is None:
            return None
        directory = self._base.directory(DirectoryNo(0))
        for name in path.split(b"/") if path else ():
            found = self._base.lookup(directory, name)
            if found is None or not stat.S_ISDIR(found[1].mode):
                return None
            directory = self._base.directory(DirectoryNo(found[1].offset))
        return directory

    def _write(
        self,
        segment_id: SegmentId,
        files: _Files,
        gone: dict[bytes, list[bytes]],
        following: tuple[SegmentId, bool] | None,
    ) -> None:
        self._to_come = self._first_part(following)
        is_start = True
        open_before = [each.path for each in self._stack]
        if not self._stack:
            self._enter(RawMember(path=b"", mode=_ROOT_MODE, at=0), gone)
        else:
            self._sink(msgspec.structs.replace(self._stack[0].line, again=True))
        depth = 1
        for line in self._raw(segment_id):
            if isinstance(line, FrameLine):
                self._sink(line)
            elif isinstance(line, End):
                self._close_down_to(self._still_open(following))
                self._sink(msgspec.structs.replace(line, members=self._members, number=self._number))
            elif is_start and depth < len(open_before) and line.path == open_before[depth]:
                # The directories above the place where it goes on.
                self._sink(msgspec.structs.replace(self._stack[depth].line, again=True))
                depth += 1
            else:
                if is_start:
                    is_start = False
                self._take(line, files, gone)

    def _still_open(self, following: tuple[SegmentId, bool] | None) -> int:
        """Return how many of the open directories stay so behind this segment."""
        if following is None:
            return 0
        segment_id, is_missing = following
        if is_missing:
            # Those that it does not begin with are left there.
            return len(self._stack)
        numbers = []
        for line in self._trailer(segment_id):
            if not isinstance(line, DirectoryEntered) or not line.again:
                break
            numbers.append(line.n)
        kept = [each.number for each in self._stack]
        while kept and kept != numbers[: len(kept)]:
            kept.pop()
        return len(kept)

    def _take(self, raw: RawMember, files: _Files, gone: dict[bytes, list[bytes]]) -> None:
        folder, _, name = raw.path.rpartition(b"/")
        while self._stack[-1].path != folder:
            if len(self._stack) == 1:
                raise BadStructure(f"the member {raw.path[:80]!r} stands before its directory")
            self._leave()
        if stat.S_ISDIR(raw.mode):
            self._enter(raw, gone)
            return
        directory = self._stack[-1]
        goes_on = self._to_come == (name, raw.part + 1)
        member = files.line(raw, directory.number, self._number, goes_on=goes_on)
        if self._base is not None and directory.base is not None:
            found = self._base.lookup(directory.base, name)
            if found is not None and stat.S_ISDIR(found[1].mode):
                directory.replaced.add(name)
        self._note_member(directory, name_of(member), member.at)
        self._sink(member)

    def _note_member(self, directory: _Open, name: bytes, at: int) -> None:
        if not directory.here:
            directory.first = self._members
        directory.here.append((name, at))
        self._members += 1

    # -- directories -------------------------------------------------------------------------------------------------

    def _enter(self, raw: RawMember, gone: dict[bytes, list[bytes]]) -> None:
        name = raw.path.rpartition(b"/")[2]
        base = self._of_base(raw.path)
        number = base.number if base is not None else self._next
        text, name_b64 = as_text(name)
        xattrs, xattrs_b64 = split_xattrs(raw.xattrs)
        line = DirectoryEntered(
            n=DirectoryNo(number),
            p=DirectoryNo(self._stack[-1].number if self._stack else 0),
            name=text,
            name_b64=name_b64,
            mode=raw.mode,
            uid=raw.uid,
            gid=raw.gid,
            size=0,
            mtime=raw.mtime,
            ctime=raw.mtime,
            nlink=2,
            dev=0,
            ino=0,
            blocks=0,
            xattrs=xattrs,
            xattrs_b64=xattrs_b64,
            base=number if base is not None else -1,
        )
        self._sink(line)
        self._push(line, raw.path, name)
        if removed := sorted(gone.get(raw.path, [])):
            texts, raws = split_names(removed)
            self._sink(DirectoryPart(n=line.n, removed=texts, removed_b64=raws))

    def _push(self, line: DirectoryEntered, path: bytes, name: bytes) -> None:
        if self._stack:
            self._stack[-1].children.append((name, line.n))
        base = None if line.base < 0 or self._base is None else self._base.directory(line.n)
        self._stack.append(_Open(line.n, path, line, base))
        if line.base < 0:
            self._next = line.n + 1

    def _close_down_to(self, depth: int) -> None:
        while len(self._stack) > depth:
            self._leave()

    def _leave(self) -> None:
        """Say the listing of the innermost directory."""
        directory = self._stack.pop()
        number = DirectoryNo(directory.number)
        elsewhere = [_elsewhere(*row) for row in directory.elsewhere]
        while len(elsewhere) > _PIECE:
            self._sink(DirectoryPart(n=number, elsewhere=elsewhere[:_PIECE]))
            elsewhere = elsewhere[_PIECE:]
        self._sink(
            DirectoryLeft(
                n=number,
                here=[(directory.first, len(directory.here))] if directory.here else [],
                elsewhere=elsewhere,
                directories=[DirectoryNo(each) for each in self._children(directory)],
            )
        )

    def _children(self, directory: _Open) -> list[int]:
        """Return the numbers of its subdirectories by name: those of the base are there still, as far as we know."""
        children = dict(directory.children)
        if self._base is not None and directory.base is not None:
            for _, _, entry in self._base.list_from(directory.base, directory.base.files_count):
                if entry.name not in directory.replaced:
                    children.setdefault(entry.name, entry.offset)
        return [children[name] for name in sorted(children)]


class _Files:
    """Makes the lines of members; knows those with several names."""

    def __init__(self, names: dict[bytes, int]) -> None:
        self._names = names
        self._firsts: dict[bytes, Member] = {}
        self._inode = 0

    def line(self, raw: RawMember, directory: int, segment: int, *, goes_on: bool) -> Member:
        """Return the line of a member in that directory; `goes_on`: its file has a part behind this one.

        Raises BadStructure for a link to nothing.
        """
        text, name_b64 = as_text(raw.path.rpartition(b"/")[2])
        if raw.link:
            first = self._firsts.get(raw.link)
            if first is None:
                raise BadStructure(f"{raw.path[:80]!r} is another name of {raw.link[:80]!r}, which is not there")
            return msgspec.structs.replace(
                first,
                d=DirectoryNo(directory),
                name=text,
                name_b64=name_b64,
                flags=first.flags & ~_SPARSE | _LINKED,
                sha256=b"",
                data=[],
            )
        self._inode += 1
        member = self._first(raw, directory, segment, text, name_b64)
        if goes_on:
            return msgspec.structs.replace(member, more=True)
        if raw.path in self._names:
            self._firsts[raw.path] = member
        return member

    def _first(self, raw: RawMember, directory: int, segment: int, text: str, name_b64: bytes) -> Member:
        xattrs, xattrs_b64 = split_xattrs(raw.xattrs)
        target, target_b64 = as_text(raw.target)
        is_part = raw.part >= 0
        shift = raw.part_offset if is_part else 0
        stored = raw.size if raw.data is None else sum(length for _, length in raw.data)
        return Member(
            d=DirectoryNo(directory),
            name=text,
            name_b64=name_b64,
            mode=raw.mode,
            uid=raw.uid,
            gid=raw.gid,
            # Of a part: as far as it reaches; the last one's is the file's.
            size=shift + raw.size,
            mtime=raw.mtime,
            ctime=raw.mtime,
            nlink=self._names.get(raw.path, 1),
            rdev=raw.rdev,
            # No two files of a set have both in common.
            dev=segment + 1,
            ino=self._inode,
            blocks=-(-(shift + stored) // _BLOCK) if stat.S_ISREG(raw.mode) else 0,
            flags=(_SPLIT if is_part else 0) | (0 if raw.data is None else _SPARSE),
            at=raw.at,
            sha256=raw.sha256,
            target=target,
            target_b64=target_b64,
            part=raw.part,
            part_offset=raw.part_offset,
            part_bytes=raw.size if is_part else 0,
            xattrs=xattrs,
            xattrs_b64=xattrs_b64,
            data=[(place + shift, length) for place, length in raw.data or ()],
        )


def _elsewhere(name: bytes, segment: SegmentId, at: int) -> Elsewhere:
    text, name_b64 = as_text(name)
    return Elsewhere(name=text, name_b64=name_b64, segment=segment, at=at)
