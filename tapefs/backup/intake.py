"""Files become members of frames: the intake thread's inner loop.

A frame begins at a tar header wherever it can: a member that fits into a frame is never cut, a larger one runs over as
many as it needs. What a file does while it is read never breaks its neighbours: it is cut or padded to the length in
its header, and marked.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence

import msgspec

from catalog.index.model import EntryFlag
from tapefs.backup.attributes import Attributes
from tapefs.backup.base import fresh_flag
from tapefs.backup.draft import Draft
from tapefs.backup.elsewhere import ListingPiece
from tapefs.backup.frames import Frame, Piece, Pool, Span, Workers
from tapefs.backup.holes import Run, data_bytes
from tapefs.backup.layout import Layout
from tapefs.backup.links import Link
from tapefs.backup.scan import OpenDirectory
from tapefs.backup.source import Source, Special
from tapefs.backup.stream import TapeStream
from tapefs.backup.tally import Tally, mark_of
from tapefs.format.records import DirectoryEntered, DirectoryLeft, DirectoryPart, as_text, split_xattrs
from tapefs.format.tar import (
    TarKind,
    attribute_records,
    part_extra,
    part_name,
    sparse_map,
)

_ZEROS = memoryview(bytes(1024 * 1024))
#: A large member begins in the present frame while that is emptier than this, else in a new one.
_NEARLY_EMPTY_BYTES = 256 * 1024
#: Room that header, padding and end of archive of one more member take at most in a segment, long names included.
MEMBER_OVERHEAD_BYTES = 32 * 1024

#: Names in one line of a directory's listing.
_LONGEST_LISTING = 10_000

#: How the problem begins of a file of which something could not be read; what has shrunk is all there.
_FAILED = "reading failed"

_LINKED = int(EntryFlag.LINKED)
_SPLIT = int(EntryFlag.SPLIT)
_CHANGED = int(EntryFlag.CHANGED)
_UNREADABLE = int(EntryFlag.UNREADABLE)
_BROKEN = int(EntryFlag.CHANGED | EntryFlag.UNREADABLE)
_KINDS = {
    stat.S_IFLNK: TarKind.SYMLINK,
    stat.S_IFIFO: TarKind.FIFO,
    stat.S_IFCHR: TarKind.CHARACTER_DEVICE,
    stat.S_IFBLK: TarKind.BLOCK_DEVICE,
}


class Intake:
    """Fills frames of one segment after the other."""

    def __init__(
        self,
        pool: Pool,
        workers: Workers,
        trouble: Callable[[bytes, str], None],
        look_around: Callable[[], None],
        tally: Tally,
        layout: Layout,
    ) -> None:
        """`look_around` is called between the frames of a large member; what it raises ends the segment."""
        self._pool = pool
        self._workers = workers
        self._trouble = trouble
        self._look_around = look_around
        self.tally = tally
        self._layout = layout
        self._padding = layout.padding
        self._stream: TapeStream | None = None
        self._frame: Frame | None = None
        #: The newest member line.
        self._newest: Draft | None = None
        #: Of the present segment: plain bytes, what its members take beside them, and member lines so far.
        self.plain_bytes = 0
        self.beside_bytes = 0
        self.members = 0

    # -- segments and frames -----------------------------------------------------------------------------------------

    def begin(self, stream: TapeStream) -> None:
        """A segment begins on that stream."""
        self._stream = stream
        self.plain_bytes = self.beside_bytes = self.members = 0
        self._frame = self._pool.take()

    def finish(self) -> None:
        """Close the archive and hand over the last frame."""
        self._bytes(self._layout.end)
        self._hand_over()

    def abandon(self) -> None:
        """The present segment is lost: drop what is in the frame at hand."""
        if self._frame is not None:
            self._pool.give_back(self._frame)
            self._frame = None

    def here(self) -> Frame:
        """Return the frame at hand."""
        if self._frame is None:
            raise AssertionError("no segment has begun")
        return self._frame

    def _hand_over(self) -> None:
        frame, stream = self.here(), self._stream
        if stream is None:
            raise AssertionError("no segment has begun")
        self._frame = None
        if frame.used:
            self._workers.submit(frame)
        else:
            frame.ready.set()
        stream.put(frame)

    def next_frame(self) -> Frame:
        """Hand over the frame at hand and return another."""
        self._hand_over()
        frame = self._frame = self._pool.take()
        return frame

    def _room(self, length: int) -> Frame:
        """Return a frame for a member of that length."""
        frame = self.here()
        size = len(frame.view)
        if frame.used + length <= size or (length > size and frame.used < _NEARLY_EMPTY_BYTES):
            return frame
        return self.next_frame()

    def _bytes(self, data: bytes) -> None:
        """Add bytes, over as many frames as they need."""
        view = memoryview(data)
        frame = self.here()
        while view:
            if frame.used == len(frame.view):
                frame = self.next_frame()
            taken = min(len(view), len(frame.view) - frame.used)
            frame.view[frame.used : frame.used + taken] = view[:taken]
            frame.used += taken
            self.plain_bytes += taken
            view = view[taken:]

    # -- members -----------------------------------------------------------------------------------------------------

    def enter(self, directory: OpenDirectory) -> None:
        """A directory member; said again at the start of a segment for those entered in an earlier one."""
        status = directory.status
        if directory.parent is not None:
            extra = _records(directory.attributes)
            header = self._header(directory.path[1:], status, 0, TarKind.DIRECTORY, extra=extra)
            self._room(len(header))
            self._bytes(header)
        text, raw = as_text(directory.name)
        xattrs, raw_xattrs = split_xattrs(directory.attributes.xattrs)
        parent = directory if directory.parent is None else directory.parent
        self.here().drafts.append(
            DirectoryEntered(
                n=directory.number,
                p=parent.number,
                name=text,
                name_b64=raw,
                mode=status.st_mode,
                uid=status.st_uid,
                gid=status.st_gid,
                size=status.st_size,
                mtime=status.st_mtime_ns,
                ctime=status.st_ctime_ns,
                nlink=status.st_nlink,
                dev=status.st_dev,
                ino=status.st_ino,
                blocks=status.st_blocks,
                xattrs=xattrs,
                xattrs_b64=raw_xattrs,
                base=-1 if directory.base is None else directory.number,
                again=directory.announced,
            )
        )
        if not directory.announced:
            directory.announced = True
            self.tally.directories += directory.base is None
            self.removed(directory, directory.difference.removed)

    def removed(self, directory: OpenDirectory, names: Sequence[bytes]) -> None:
        """Names of the base, ascending, that the directory does not have any more."""
        for start in range(0, len(names), _LONGEST_LISTING):
            pairs = [as_text(name) for name in names[start : start + _LONGEST_LISTING]]
            texts, raws = [text for text, raw in pairs if not raw], [raw for _, raw in pairs if raw]
            self.here().drafts.append(DirectoryPart(n=directory.number, removed=texts, removed_b64=raws))

    def leave(self, directory: OpenDirectory) -> None:
        """The directory's listing is complete; a long one takes several lines."""
        drafts, number = self.here().drafts, directory.number
        elsewhere, children = directory.elsewhere, directory.children
        start, longest = 0, _LONGEST_LISTING
        while max(len(elsewhere), len(children)) - start > longest:
            stop = start + longest
            drafts.append(ListingPiece(number, elsewhere.piece(start, stop), children[start:stop]))
            start = stop
        rest = elsewhere.piece(start, len(elsewhere)).lines()
        drafts.append(DirectoryLeft(n=number, here=directory.here, elsewhere=rest, directories=children[start:]))

    def special(self, special: Special) -> None:
        """A symbolic link, fifo or device node."""
        directory, name, status, attributes = special.directory, special.name, special.status, special.attributes
        target, flags = special.target, special.flags
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        path = member_path(directory, name)
        header = self._header(path, status, 0, kind, target=target, rdev=status.st_rdev, extra=_records(attributes))
        content = self._layout.content_of_link(target)
        self._room(len(header) + len(content))
        self._bytes(header)
        at = self.plain_bytes
        self._bytes(content)
        if flags & _CHANGED:
            self._trouble(directory.path + b"/" + name, "kept with a mark: it changed while it was looked at")
        self._note(
            directory,
            Draft(directory.number, name, status, flags, at, target=target, xattrs=attributes.xattrs),
        )
        self._count(directory, attributes)

    def link(self, of: Source | Special, first: Link) -> None:
        """Another name of a file that has a member in this segment."""
        directory, status, attributes = of.directory, of.status, of.attributes
        path = member_path(directory, of.name)
        header = self._header(path, status, 0, TarKind.HARDLINK, target=first.path)
        self._room(len(header))
        self._bytes(header)
        flags = of.flags | _LINKED
        target = of.target if isinstance(of, Special) else b""
        self._note(
            directory,
            Draft(directory.number, of.name, status, flags, first.at, target=target, xattrs=attributes.xattrs),
        )
        self._count(directory, attributes)

    def unreadable(
        self, directory: OpenDirectory, name: bytes, status: os.stat_result, attributes: Attributes, reason: str
    ) -> None:
        """A regular file whose content cannot be had: a line in the trailer, no member."""
        self._trouble(directory.path + b"/" + name, f"content is not in the backup: {reason}")
        flags = EntryFlag.UNREADABLE | fresh_flag(status)
        draft = Draft(directory.number, name, status, flags, self.plain_bytes, xattrs=attributes.xattrs)
        self._note(directory, draft)
        self._count(directory, attributes)

    def file(self, source: Source, *, may_retry: bool = False) -> Source | None:
        """A whole regular file.

        If it changed meanwhile, `may_retry` and all of it is still in the frame at hand, it is taken back; then what
        has the name now is returned, open, to be taken instead.
        """
        status, runs, xattrs = source.status, source.runs, source.attributes.xattrs
        size = status.st_size
        ranges: Sequence[Run] = ((0, size),)
        path = member_path(source.directory, source.name)
        if runs is None and not xattrs:
            self.beside_bytes += self._layout.beside_bytes(path)
            header = self._layout.plain_header(
                path, status.st_mode, status.st_uid, status.st_gid, size, status.st_mtime_ns
            )
        else:
            front, whole, extra = b"", -1, attribute_records(xattrs) if xattrs else ()
            if runs is not None:
                front, ranges, size, whole = sparse_map(runs, size), runs, data_bytes(runs), size
            stored = len(front) + size
            header = self._header(path, status, stored, TarKind.REGULAR, sparse_bytes=whole, extra=extra) + front
        length = len(header) + size + self._padding(size)
        frame = self._room(length)
        used, plain_bytes = frame.used, self.plain_bytes
        at = plain_bytes + len(header)
        is_here = used + length <= len(frame.view)
        if is_here:
            problem = self._member(frame, header, source, ranges, size)
        else:
            self._bytes(header)
            problem = self._content(source, ranges, size)
        return self.settle(source, at, (used, plain_bytes) if may_retry and is_here else None, problem)

    def small_files(self, directory: OpenDirectory, places: Sequence[int], content_bytes: int) -> None:
        """Count whole regular files that are in the frames, with their lines; their contents begin at `places`."""
        directory.members_done(self.members, places)
        self.members += len(places)
        self.tally.files += len(places)
        self.tally.bytes += content_bytes

    def settle(self, source: Source, at: int, before: tuple[int, int] | None, problem: str) -> Source | None:
        """The content of a whole file is in the frames, at `at` of the plain stream: take it back, or keep it.

        `before` says where the frame at hand and the plain stream ended before the member, if it may be taken back.
        """
        directory, attributes = source.directory, source.attributes
        has_changed = source.has_changed()
        if has_changed and before is not None:
            fresh = source.again(self._look_around, keeps_holes=self._layout.keeps_holes)
            if fresh is not None:
                frame = self.here()
                frame.used, self.plain_bytes = before
                frame.spans.pop()
                return fresh
        flags = source.flags
        if problem or has_changed:
            flags |= self._mark(source, problem)
        draft = Draft(
            directory.number, source.name, source.status, flags, at, xattrs=attributes.xattrs, data=source.runs or ()
        )
        self._note(directory, draft)
        self._count(directory, attributes)
        return None

    def restate(self, source: Source, flags: int) -> None:
        """A regular file whose content the base has: only what is said of it is new."""
        directory = source.directory
        xattrs = source.attributes.xattrs
        draft = Draft(directory.number, source.name, source.status, flags, self.plain_bytes, xattrs=xattrs)
        line = draft.line(b"")
        self.here().drafts.append(msgspec.structs.replace(line, as_base=True))
        directory.member_done(self.members, self.plain_bytes)
        self.members += 1
        self._newest = draft
        self._count(directory, source.attributes)

    def part(
        self, source: Source, part: int, offset: int, length: int, runs: list[Run] | None, *, more: bool = False
    ) -> None:
        """A part of a file that is larger than a segment; the last one ends at the file's size.

        `runs` is the data in it, if the file has holes. With `more` it is a stream whose end is not known.
        """
        status, directory = source.status, source.directory
        path = member_path(directory, part_name(source.name, part))
        extra = [part_extra(source.name, part, offset), *_records(source.attributes)]
        front, size = b"", length
        ranges: Sequence[Run] = ((offset, length),)
        if runs is not None:
            front = sparse_map([(place - offset, count) for place, count in runs], length)
            ranges, size = runs, data_bytes(runs)
        header = self._header(
            path, status, len(front) + size, TarKind.REGULAR, sparse_bytes=-1 if runs is None else length, extra=extra
        )
        self._room(len(header) + len(front) + size + self._padding(size))
        self._bytes(header + front)
        at = self.plain_bytes
        problem = self._content(source, ranges, size)
        flags = source.flags | _SPLIT
        if problem or source.has_changed():
            flags |= self._mark(source, problem)
        draft = Draft(
            directory.number, source.name, status, flags, at, part, offset, length,
            xattrs=source.attributes.xattrs, data=runs or (), more=more,
        )  # fmt: skip
        last = offset + length == status.st_size and not more
        self._note(directory, draft, last=last)
        if last:
            self._count(directory, source.attributes)

    def _mark(self, source: Source, problem: str) -> int:
        reason = problem or "it changed while it was read"
        path = source.directory.path + b"/" + source.name
        self._trouble(path, f"kept with a mark: {reason}")
        if problem.startswith(_FAILED) and not source.is_unread:
            source.is_unread = True
            self.tally.note_unread(mark_of(path))
        return _CHANGED

    def _count(self, directory: OpenDirectory, attributes: Attributes) -> None:
        """Count the file of the newest member line, and tell what could not be had of its attributes."""
        tally, draft = self.tally, self.newest
        # Plain numbers: a flag of its enumeration costs 1 us an operation.
        flags = int(draft.flags)
        tally.files += 1
        if flags & _UNREADABLE:
            tally.note_unread(mark_of(directory.path + b"/" + draft.name))
        elif (not flags & _LINKED or flags & _CHANGED) and stat.S_ISREG(draft.status.st_mode):
            tally.bytes += draft.status.st_size
        if attributes.problem:
            self._trouble(directory.path + b"/" + draft.name, attributes.problem)
        if flags & _BROKEN or attributes.problem:
            tally.troubled_files += 1

    @property
    def newest(self) -> Draft:
        """Return the newest member line."""
        if self._newest is None:
            raise AssertionError("there was no member")
        return self._newest

    def _note(self, directory: OpenDirectory, draft: Draft, *, last: bool = True) -> None:
        self.here().drafts.append(draft)
        (directory.member_done if last else directory.part_done)(self.members, draft.at)
        self.members += 1
        self._newest = draft

    def _header(
        self,
        path: bytes,
        status: os.stat_result,
        size: int,
        kind: TarKind,
        *,
        target: bytes = b"",
        rdev: int = 0,
        sparse_bytes: int = -1,
        extra: Sequence[tuple[bytes, bytes]] = (),
    ) -> bytes:
        self.beside_bytes += self._layout.beside_bytes(path)
        return self._layout.header(
            path, status, size, kind, target=target, rdev=rdev, sparse_bytes=sparse_bytes, extra=extra
        )

    # -- content -----------------------------------------------------------------------------------------------------

    def _content(self, source: Source, ranges: Sequence[Run], size: int) -> str:
        """Add ranges of the file, `size` bytes in all, and the padding; the draft that follows gets their sum.

        Return what went wrong, or nothing.
        """
        frame = self.here()
        if frame.used + size + self._padding(size) <= len(frame.view):
            return self._member(frame, b"", source, ranges, size)
        problem = self._over_frames(source, ranges, size)
        self._bytes(bytes(self._padding(size)))
        return problem

    def _member(self, frame: Frame, header: bytes, source: Source, ranges: Sequence[Run], size: int) -> str:
        """Add a whole member to a frame that has room for it, as `_content` adds a content."""
        view, start = frame.view, frame.used + len(header)
        view[frame.used : start] = header
        problem, end = "", start
        for offset, length in ranges:
            here = view[end : end + length]
            problem = _zero(here, problem) if problem else read_into(source.fd, here, offset)
            end += length
        if padding := self._padding(size):
            view[end : end + padding] = _ZEROS[:padding]
            end += padding
        frame.spans.append(Span(len(frame.drafts), start, size))
        self.plain_bytes += end - frame.used
        frame.used = end
        return problem

    def _over_frames(self, source: Source, ranges: Sequence[Run], size: int) -> str:
        frame = self.here()
        problem, done = "", 0
        for start, length in ranges:
            offset, end = start, start + length
            while offset < end:
                if frame.used == len(frame.view):
                    self._look_around()
                    frame = self.next_frame()
                taken = min(end - offset, len(frame.view) - frame.used)
                here = frame.view[frame.used : frame.used + taken]
                problem = _zero(here, problem) if problem else read_into(source.fd, here, offset)
                first, done = done == 0, done + taken
                frame.pieces.append(Piece(frame.used, taken, first, len(frame.drafts) if done == size else -1))
                frame.used += taken
                self.plain_bytes += taken
                offset += taken
        return problem


def _records(attributes: Attributes) -> Sequence[tuple[bytes, bytes]]:
    return attribute_records(attributes.xattrs) if attributes.xattrs else ()


def member_path(directory: OpenDirectory, name: bytes) -> bytes:
    """Return the path of a member, as it stands in the archive."""
    return directory.path[1:] + b"/" + name if directory.path else name


def read_into(fd: int, view: memoryview, offset: int) -> str:
    """Fill `view` from the file; what is missing becomes zeros. Returns what went wrong, or nothing."""
    done, length = 0, len(view)
    while done < length:
        try:
            got = os.preadv(fd, [view[done:] if done else view], offset + done)
        except OSError as error:
            _zero(view[done:])
            return f"{_FAILED} at byte {offset + done} ({error.strerror}); the rest is zeros"
        if not got:
            _zero(view[done:])
            return f"it shrank to {offset + done} bytes while it was read; the rest is zeros"
        done += got
    return ""


def _zero(view: memoryview, problem: str = "") -> str:
    """Fill `view` with zeros; return `problem`."""
    for start in range(0, len(view), len(_ZEROS)):
        piece = view[start : start + len(_ZEROS)]
        piece[:] = _ZEROS[: len(piece)]
    return problem
