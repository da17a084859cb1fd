"""The namespace index of a set, as a pure function of its trailers.

Blocking, one thread. Memory is bounded: lines come in batches, subdirectories that wait for their parent's end go to a
scratch file beyond a thousand, files with several names beyond 20,000. What the trailers claim (counts, listings,
order) is checked against what they bring, so that a lost or foreign line cannot become a quietly incomplete tree.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from stat import S_IFDIR, S_IFREG
from typing import NamedTuple

from catalog.errors import StorageFailed
from catalog.ids import EntryNo, SegmentId, SegmentNo, SetId
from catalog.index.model import Directory, Entry, EntryFlag, Extent, FrameRow, SegmentRow, Totals, content_bytes
from catalog.index.reader import IndexReader
from catalog.index.writer import IndexWriter
from tapefs.errors import BadStructure
from tapefs.format.lines import read_lines
from tapefs.format.records import (
    DirectoryEntered,
    DirectoryLeft,
    DirectoryPart,
    End,
    FrameLine,
    Member,
    TrailerLine,
    name_of,
    xattrs_of,
)
from tapefs.sets.links import Links
from tapefs.sets.listing import Listing, SplitFile
from tapefs.sets.members import Batch, check_ascending, decode, entry_flags, extents_of, is_link, kind_of
from tapefs.sets.old_names import OldNames
from tapefs.sets.rebase import BaseTree, MergedDirectories, MergedFiles, is_as_before
from tapefs.sets.spill import Queue, Spill

#: Lines taken at a time.
_BATCH = 2048
_PIECE_BYTES = 256 * 1024
#: Plain numbers: an IntFlag costs 1.5 us an operation.
_CHANGED = int(EntryFlag.CHANGED)
_UNREADABLE = int(EntryFlag.UNREADABLE)
_SPLIT = int(EntryFlag.SPLIT)
_XATTRS = int(EntryFlag.XATTRS)
_IN_EXTENTS = int(EntryFlag.SPLIT | EntryFlag.SPARSE)


def pieces_of(trailer: Path) -> Generator[bytes, None, None]:
    """Yield what a trailer holds. Raises OSError."""
    with trailer.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


class Promised(NamedTuple):
    """What a set says of itself."""

    files: int
    directories: int
    bytes: int

    def check(self, found: Totals) -> None:
        """Raise BadStructure unless its index shows just that."""
        if (found.files, found.directories, found.bytes) != self:
            raise BadStructure(f"the trailers hold {found}, but the set says {self}")


def build_index(
    path: Path,
    set_id: SetId,
    trailers: Iterable[Path],
    base: IndexReader | None = None,
    *,
    pieces: Callable[[Path], Generator[bytes, None, None]] = pieces_of,
    check: Callable[[Totals], None] = lambda _: None,
) -> Totals:
    """Build the index at `path` from the local trailers of all of a set's segments, in order; replaces an older one.

    `base` is the index of the set that this one builds on, and lies beside it. `pieces` reads a trailer; `check` may
    refuse what the index shows, before it gets its name. Raises BadStructure, naming the segment; StorageFailed;
    Damaged when the base is; Conflict when somebody else builds it; what `pieces` and `check` raise. Then nothing is
    left.
    """
    spill, links, old_names = Spill(path.parent), Links(path.parent), OldNames(path.parent, base)
    try:
        with IndexWriter(path, set_id, base) as writer:
            builder = _Builder(writer, spill, links, old_names, None if base is None else BaseTree(base))
            first = 0 if base is None else base.segments_end
            for ordinal, trailer in enumerate(trailers):
                builder.read(SegmentNo(first + ordinal), ordinal, trailer, pieces)
            builder.finish()
            return writer.finish(check)
    finally:
        spill.close()
        links.close()
        old_names.close()


@dataclass(slots=True)
class _Segment:
    """The segment at hand: what its lines have brought so far."""

    #: In the index, where it follows on those of the base; and in its set.
    number: SegmentNo
    ordinal: int
    members: int = 0
    frames: int = 0
    plain_bytes: int = 0
    #: Where the last frame ends in the payload, and the last content in the plain stream.
    stored_end: int = 0
    content_end: int = 0
    end: End | None = None


class _Builder:
    """Follows the walk of the backup with a stack of open directories."""

    def __init__(
        self, writer: IndexWriter, spill: Spill, links: Links, old_names: OldNames, base: BaseTree | None
    ) -> None:
        self._writer = writer
        self._spill = spill
        self._links = links
        self._old_names = old_names
        self._base = base
        self._stack: list[Listing] = []
        #: Of the directories that the base does not have.
        self._last_number = -1 if base is None else base.directories_end - 1
        self._has_root = False
        self._segments: set[SegmentId] = set()
        self._segment = _Segment(SegmentNo(0), 0)

    def read(
        self, number: SegmentNo, ordinal: int, trailer: Path, pieces: Callable[[Path], Generator[bytes, None, None]]
    ) -> None:
        """Take in one segment. Raises BadStructure, StorageFailed, what `pieces` raises."""
        self._segment = _Segment(number, ordinal)
        try:
            with closing(pieces(trailer)) as stored:
                self._read_lines(read_lines(stored, TrailerLine))
            self._writer.flush()
        except (BadStructure, ValueError) as error:
            raise BadStructure(f"segment {ordinal} ({trailer.name}): {error}") from error
        except OSError as error:
            raise StorageFailed(f"cannot read {trailer}: {error.strerror}", retryable=False) from error

    def finish(self) -> None:
        """Take what has not changed from the base. Raises BadStructure unless a tree was brought, to its end."""
        if self._stack:
            raise BadStructure(f"the set's last segment ends inside directory {self._stack[-1].line.n}")
        if not self._has_root:
            raise BadStructure("the set has no root directory")
        if self._base is not None:
            self._base.share_the_rest(self._writer)

    def _read_lines(self, lines: Iterator[TrailerLine]) -> None:
        for batch in _batches(lines):
            if self._segment.end is not None:
                raise BadStructure("there are lines behind its end line")
            self._take_batch(batch)
        if self._segment.end is None:
            raise BadStructure("its end line is missing")

    def _take_batch(self, lines: list[TrailerLine]) -> None:
        """Decode all member lines at once, then follow the walk."""
        found = [line for line in lines if line.__class__ is Member]
        members = self._decode(found) if found else None
        start = 0
        for kind, group in groupby(lines, type):
            if kind is not Member:
                for line in group:
                    self._take_line(line)
            elif members is not None:
                stop = start + len(list(group))
                self._take_members(members, start, stop)
                start = stop

    def _decode(self, members: list[Member]) -> Batch:
        segment = self._segment
        batch = decode(members, segment.number, segment.content_end)
        segment.content_end = batch.end
        self._writer.add_hashes(segment.number, batch.hashes)
        return batch

    def _take_line(self, line: TrailerLine) -> None:
        if self._segment.end is not None:
            raise BadStructure("there are lines behind its end line")
        match line:
            case FrameLine():
                self._take_frame(line)
            case DirectoryEntered():
                self._enter(line)
            case DirectoryPart():
                self._top(line.n).hear(line)
            case DirectoryLeft():
                self._leave(line)
            case End():
                self._end(line)

    # -- directories -------------------------------------------------------------------------------------------------

    def _enter(self, line: DirectoryEntered) -> None:
        if line.again:
            if not any((line.n, line.p) == (listing.line.n, listing.line.p) for listing in self._stack):
                raise BadStructure(f"directory {line.n} goes on, but it is not open")
            return
        name = name_of(line)
        if line.base >= 0:
            base = self._enter_base(line, name)
        elif line.n <= self._last_number:
            raise BadStructure(f"directory {line.n} is entered after directory {self._last_number}")
        else:
            base, self._last_number = None, line.n
        if self._stack:
            self._enter_below(self._stack[-1], line, name)
        elif self._has_root or line.n != 0 or line.p != 0:
            raise BadStructure(f"directory {line.n} is outside the root")
        if kind_of(line.mode) != S_IFDIR:
            raise BadStructure(f"directory {line.n} has the mode {line.mode:o} of something else")
        self._has_root = True
        listing = Listing(line, name, Queue(self._spill), base=base)
        if self._base is not None and base is not None:
            listing.merged = MergedFiles(self._writer, self._base.reader, base)
        self._stack.append(listing)

    def _enter_base(self, line: DirectoryEntered, name: bytes) -> Directory:
        """Return the directory of the base that a line is about."""
        if self._base is None or line.base != line.n:
            raise BadStructure(f"directory {line.n} is said to be {line.base} of a base that does not have it")
        above = self._stack[-1].base if self._stack else None
        if self._stack and above is None:
            raise BadStructure(f"directory {line.n} is said to be of the base, but the one above it is new")
        return self._base.enter(line.n, above, name)

    def _enter_below(self, parent: Listing, line: DirectoryEntered, name: bytes) -> None:
        if line.p != parent.line.n:
            raise BadStructure(f"directory {line.n} is in {line.p}, but {parent.line.n} is open")
        if parent.split is not None:
            raise BadStructure(f"the split file {parent.split.entry.name!r} is not whole")
        check_ascending([name], parent.last_subdirectory)
        _finish_files(parent)
        parent.last_subdirectory = name
        parent.children.append(line.n)

    def _leave(self, left: DirectoryLeft) -> None:
        listing = self._top(left.n)
        listing.check(left)
        self._stack.pop()
        _finish_files(listing)
        first, count = self._finish_subdirectories(listing)
        line = listing.line
        xattrs = xattrs_of(line)
        self._writer.add_directory(
            Directory(
                line.n, line.p, line.mode, line.uid, line.gid, line.size, line.mtime, line.ctime, line.nlink, line.dev,
                line.ino, line.blocks, EntryNo(listing.files_first), listing.files_count, EntryNo(first), count,
                listing.files_bytes, _XATTRS if xattrs else 0,
            )
        )  # fmt: skip
        if xattrs:
            self._writer.add_directory_xattrs(line.n, xattrs)
        entry = _entry_of(line, listing.name)
        if self._stack and (listing.base is None or not is_as_before(listing.base, entry)):
            self._stack[-1].subdirectories.put(entry)

    def _finish_subdirectories(self, listing: Listing) -> tuple[EntryNo, int]:
        """Write what is to be written of the run of subdirectories; return its first number and its count."""
        if self._base is not None and listing.base is not None:
            merged = MergedDirectories(self._writer, self._base, listing.base, listing.said_children)
            return merged.finish(listing.subdirectories)
        first, count = EntryNo(0), 0
        for entries in listing.subdirectories.drain():
            number = self._writer.add_entries(entries)
            first = first if count else number
            count += len(entries)
        return first, count

    def _top(self, number: int) -> Listing:
        if not self._stack or self._stack[-1].line.n != number:
            raise BadStructure(f"a line is about directory {number}, which is not the one at hand")
        return self._stack[-1]

    # -- members -----------------------------------------------------------------------------------------------------

    def _take_members(self, batch: Batch, start: int, stop: int) -> None:
        """Take neighbouring lines: only by entering or leaving does the walk come to another directory."""
        listing = self._top(batch.directories[start])
        if set(batch.directories[start:stop]) != {listing.line.n}:
            raise BadStructure(f"directory {listing.line.n} is followed by another without a line of its own")
        if listing.children:
            raise BadStructure(f"directory {listing.line.n} has files behind its subdirectories")
        listing.note(self._segment.members, batch.names[start:stop], batch.places[start:stop])
        self._segment.members += stop - start
        if batch.special is None and listing.merged is None:
            self._take_whole(listing, batch.names[start:stop], batch.entries[start:stop])
            return
        for number in range(start, stop):
            member, entry = batch.members[number], batch.entries[number]
            if batch.special is None or not batch.special[number]:
                self._take_whole(listing, [entry.name], [entry])
            elif member.as_base:
                self._take_as_base(listing, member, entry)
            elif member.part < 0:
                self._take_special(listing, member, entry)
            else:
                self._take_part(listing, member, entry)

    def _take_whole(self, listing: Listing, names: Sequence[bytes], entries: list[Entry]) -> None:
        if listing.split is not None:
            raise BadStructure(f"the split file {listing.split.entry.name!r} is not whole")
        check_ascending(names, listing.last_file)
        self._add_files(listing, entries)

    def _take_as_base(self, listing: Listing, member: Member, entry: Entry) -> None:
        if listing.merged is None or listing.split is not None:
            raise BadStructure(f"{entry.name!r} has the content of a base that its directory does not have")
        number = listing.merged.put(entry, as_base=True)
        if entry.flags & _XATTRS:
            self._writer.add_xattrs(number, xattrs_of(member))

    def _take_special(self, listing: Listing, member: Member, entry: Entry) -> None:
        """Take a line that brings more than its entry."""
        if listing.split is not None:
            raise BadStructure(f"the split file {listing.split.entry.name!r} is not whole")
        check_ascending([entry.name], listing.last_file)
        extents = extents_of(member, self._segment.number)
        # Of what has no content none can be missing.
        has_content = bool(member.sha256) or kind_of(entry.mode) != S_IFREG or not entry.size
        self._add_related(listing, entry, xattrs_of(member), extents, has_content=has_content, sha256=member.sha256)

    def _take_part(self, listing: Listing, member: Member, entry: Entry) -> None:
        if listing.split is None:
            check_ascending([entry.name], listing.last_file)
            listing.split = SplitFile(entry, xattrs_of(member))
        split = listing.split
        # Only the last part of a stream, or of what was read from payloads, knows how long the file is.
        size = entry.size if split.is_open or member.more else split.entry.size
        expected = (split.entry.name, size, split.parts, split.length)
        found = (entry.name, entry.size, member.part, member.part_offset)
        if found != expected or not member.part_bytes or kind_of(entry.mode) != S_IFREG:
            raise BadStructure(f"part {member.part} of {entry.name!r} does not follow the part before it")
        if split.is_open:
            split.entry = entry._replace(segment=split.entry.segment, offset=split.entry.offset)
        split.extents += extents_of(member, self._segment.number)
        split.flags |= member.flags
        split.parts += 1
        split.length += member.part_bytes
        split.is_open = member.more
        if split.length > entry.size:
            raise BadStructure(f"the parts of {entry.name!r} have {split.length} bytes, not {entry.size}")
        if split.length == entry.size and not member.more:
            self._finish_split(listing, split)

    def _finish_split(self, listing: Listing, split: SplitFile) -> None:
        listing.split = None
        flags = entry_flags(split.flags) | _SPLIT | (split.entry.flags & _XATTRS)
        entry = split.entry._replace(flags=flags)
        self._add_related(listing, entry, split.xattrs, split.extents, has_content=True)

    def _add_related(
        self,
        listing: Listing,
        entry: Entry,
        xattrs: list[tuple[bytes, bytes]],
        extents: list[Extent],
        *,
        has_content: bool,
        sha256: bytes = b"",
    ) -> None:
        """Add an entry with its extents and attributes, and relate it to other names of its file."""
        links, first = self._links, None
        if is_link(entry.flags):
            first, entry, extents = links.take(entry, has_content=has_content)
        number = self._add_files(listing, [entry])
        if first is not None:
            self._writer.add_link(number, EntryNo(first.number))
        elif entry.flags & _CHANGED:
            links.forget(entry)
        elif entry.nlink > 1 and not entry.flags & _UNREADABLE:
            links.add(self._common_number(number, entry, sha256), entry, extents)
        if entry.flags & _IN_EXTENTS:
            self._writer.add_extents(number, extents)
        if xattrs:
            self._writer.add_xattrs(number, xattrs)

    def _common_number(self, number: EntryNo, entry: Entry, sha256: bytes) -> EntryNo:
        """Return the number that the names of a file shall have: an older one if the base may show some of them."""
        old = self._old_names.number_of(entry, sha256)
        if old is None:
            return number
        self._writer.add_link(number, old)
        return old

    def _add_files(self, listing: Listing, entries: list[Entry]) -> EntryNo:
        if listing.merged is not None:
            return listing.merged.put(entries[0], as_base=False)
        number = self._writer.add_entries(entries)
        if not listing.files_count:
            listing.files_first = number
        listing.files_count += len(entries)
        listing.files_bytes += content_bytes(entries)
        listing.last_file = entries[-1].name
        return number

    # -- the segment -------------------------------------------------------------------------------------------------

    def _take_frame(self, line: FrameLine) -> None:
        segment = self._segment
        if line.at < segment.stored_end or not line.plain or not line.stored:
            raise BadStructure(f"frame {segment.frames} is empty or overlaps the one before it")
        row = FrameRow(segment.plain_bytes, line.plain, line.at, line.stored, line.sum)
        self._writer.add_frames(segment.number, [row])
        segment.frames += 1
        segment.plain_bytes += line.plain
        segment.stored_end = line.at + line.stored

    def _end(self, end: End) -> None:
        segment = self._segment
        claimed = (end.number, end.members, end.frames, end.plain_bytes)
        found = (segment.ordinal, segment.members, segment.frames, segment.plain_bytes)
        if claimed != found:
            raise BadStructure(f"its end line says number, members, frames, plain bytes are {claimed}, not {found}")
        if segment.stored_end > end.payload_bytes or segment.content_end > segment.plain_bytes:
            raise BadStructure("its frames or contents reach beyond its payload")
        if end.segment in self._segments:
            raise BadStructure("it was there before")
        self._segments.add(end.segment)
        segment.end = end
        for listing in self._stack:
            listing.segment_ends(end.segment)
        self._writer.add_segment(
            SegmentRow(segment.number, end.segment, end.plain_bytes, end.payload_bytes, end.frames)
        )


def _batches(lines: Iterator[TrailerLine]) -> Iterator[list[TrailerLine]]:
    """Yield the lines in batches; a piece of a listing, of ten thousand names or so, is a batch's last line."""
    batch = []
    for line in lines:
        batch.append(line)
        if len(batch) == _BATCH or line.__class__ is DirectoryPart:
            yield batch
            batch = []
    if batch:
        yield batch


def _finish_files(listing: Listing) -> None:
    """All that has to be said of the directory's files has been said."""
    if listing.merged is not None:
        listing.files_first, listing.files_count, listing.files_bytes = listing.merged.finish()


def _entry_of(line: DirectoryEntered, name: bytes) -> Entry:
    return Entry(
        name, line.mode, line.uid, line.gid, line.size, line.mtime, line.ctime, line.nlink, 0, line.dev, line.ino,
        line.blocks, 0, 0, line.n, b"",
    )  # fmt: skip
