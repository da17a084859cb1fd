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
from tapefs.backup.frames import Frame, Piece, Pool, Span, Workers
from tapefs.backup.scan import OpenDirectory
from tapefs.backup.segment import Draft
from tapefs.backup.stream import TapeStream
from tapefs.backup.tally import Tally
from tapefs.format.records import DirectoryEntered, DirectoryLeft, DirectoryPart, as_text
from tapefs.format.tar import END_OF_ARCHIVE, TarKind, TarNames, member_header, padding, part_extra, part_name

_ZEROS = memoryview(bytes(1024 * 1024))
#: A large member begins in the present frame while that is emptier than this, else in a new one.
_NEARLY_EMPTY_BYTES = 256 * 1024
#: Room that header, padding and end of archive of one more member take at most in a segment, long names included.
MEMBER_OVERHEAD_BYTES = 32 * 1024

NO_FILE_ANY_MORE = "it is no regular file any more"
#: Names in one line of a directory's listing.
_LONGEST_LISTING = 10_000

_open_flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Vanished(Exception):
    """The file is gone or has become something else; nothing of it was taken in."""


class Source:
    """A regular file of a directory, open for reading."""

    __slots__ = ("directory", "fd", "name", "status")

    def __init__(self, directory: OpenDirectory, name: bytes, fd: int, status: os.stat_result) -> None:
        self.directory = directory
        self.name = name
        #: -1: it cannot be read any more, and counts as zeros.
        self.fd = fd
        self.status = status

    @classmethod
    def open(cls, directory: OpenDirectory, name: bytes) -> Source:
        """Open it. Raises OSError; Vanished when it is no regular file any more."""
        fd = _open(name, directory.held_fd())
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise Vanished(NO_FILE_ANY_MORE)
        return cls(directory, name, fd, status)

    def close(self) -> None:
        """Let go of it."""
        if self.fd >= 0:
            os.close(self.fd)

    def has_changed(self) -> bool:
        """Has it been written to, or touched, since it was opened?"""
        if self.fd < 0:
            return True
        now, then = os.fstat(self.fd), self.status
        return (now.st_mtime_ns, now.st_ctime_ns, now.st_size) != (then.st_mtime_ns, then.st_ctime_ns, then.st_size)


def _open(name: bytes, directory_fd: int) -> int:
    try:
        # Reading for a backup is no access that the file's owner wants to see.
        return os.open(name, _open_flags | os.O_NOATIME, dir_fd=directory_fd)
    except PermissionError:
        return os.open(name, _open_flags, dir_fd=directory_fd)


class Intake:
    """Fills frames of one segment after the other."""

    def __init__(
        self,
        pool: Pool,
        workers: Workers,
        trouble: Callable[[bytes, str], None],
        look_around: Callable[[], None],
        tally: Tally,
    ) -> None:
        """`look_around` is called between the frames of a large member; what it raises ends the segment."""
        self._pool = pool
        self._workers = workers
        self._trouble = trouble
        self._look_around = look_around
        self.tally = tally
        self._names = TarNames()
        self._stream: TapeStream | None = None
        self._frame: Frame | None = None
        #: Of the present segment: plain bytes and member lines so far.
        self.plain_bytes = 0
        self.members = 0

    # -- segments and frames -----------------------------------------------------------------------------------------

    def begin(self, stream: TapeStream) -> None:
        """A segment begins on that stream."""
        self._stream = stream
        self.plain_bytes = self.members = 0
        self._frame = self._pool.free.get()

    def finish(self) -> None:
        """Close the archive and hand over the last frame."""
        self._bytes(END_OF_ARCHIVE)
        self._hand_over()

    def abandon(self) -> None:
        """The present segment is lost: drop what is in the frame at hand."""
        if self._frame is not None:
            self._pool.give_back(self._frame)
            self._frame = None

    def _here(self) -> Frame:
        if self._frame is None:
            raise AssertionError("no segment has begun")
        return self._frame

    def _hand_over(self) -> None:
        frame, stream = self._here(), self._stream
        if stream is None:
            raise AssertionError("no segment has begun")
        self._frame = None
        if frame.used:
            self._workers.submit(frame)
        else:
            frame.ready.set()
        stream.put(frame)

    def _next_frame(self) -> Frame:
        self._hand_over()
        frame = self._frame = self._pool.free.get()
        return frame

    def _room(self, length: int) -> Frame:
        """Return a frame for a member of that length."""
        frame = self._here()
        size = len(frame.view)
        if frame.used + length <= size or (length > size and frame.used < _NEARLY_EMPTY_BYTES):
            return frame
        return self._next_frame()

    def _bytes(self, data: bytes) -> None:
        """Add bytes, over as many frames as they need."""
        view = memoryview(data)
        frame = self._here()
        while view:
            if frame.used == len(frame.view):
                frame = self._next_frame()
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
            header = self._header(directory.path[1:], status, 0, TarKind.DIRECTORY)
            self._room(len(header))
            self._bytes(header)
        text, raw = as_text(directory.name)
        parent = directory if directory.parent is None else directory.parent
        self._here().drafts.append(
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
            self._here().drafts.append(DirectoryPart(n=directory.number, removed=texts, removed_b64=raws))

    def leave(self, directory: OpenDirectory) -> None:
        """The directory's listing is complete; a long one takes several lines."""
        drafts, number = self._here().drafts, directory.number
        elsewhere, children = directory.elsewhere, directory.children
        start, longest = 0, _LONGEST_LISTING
        while max(len(elsewhere), len(children)) - start > longest:
            piece = slice(start, start + longest)
            drafts.append(DirectoryPart(n=number, elsewhere=elsewhere[piece], directories=children[piece]))
            start += longest
        drafts.append(
            DirectoryLeft(n=number, here=directory.here, elsewhere=elsewhere[start:], directories=children[start:])
        )

    def symlink(self, directory: OpenDirectory, name: bytes) -> None:
        """A symbolic link. Raises OSError."""
        fd = directory.held_fd()
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        target = os.readlink(name, dir_fd=fd)
        header = self._header(_member_path(directory, name), status, 0, TarKind.SYMLINK, target=target)
        self._room(len(header))
        self._bytes(header)
        self._note(directory, Draft(directory.number, name, status, 0, self.plain_bytes, target=target))
        self.tally.files += 1

    def unreadable(self, directory: OpenDirectory, name: bytes, status: os.stat_result, reason: str) -> None:
        """A regular file whose content cannot be had: a line in the trailer, no member."""
        self._trouble(directory.path + b"/" + name, f"content is not in the backup: {reason}")
        self._note(directory, Draft(directory.number, name, status, EntryFlag.UNREADABLE, self.plain_bytes))
        self.tally.files += 1
        self.tally.troubled_files += 1

    def file(self, source: Source) -> None:
        """A whole regular file."""
        status, directory = source.status, source.directory
        size = status.st_size
        header = self._header(_member_path(directory, source.name), status, size, TarKind.REGULAR)
        self._room(len(header) + size + padding(size))
        self._bytes(header)
        at = self.plain_bytes
        flags = self._content(source, 0, size)
        self._note(directory, Draft(directory.number, source.name, status, flags, at))
        self._count(size, flags)

    def restate(self, source: Source, flags: int) -> None:
        """A regular file whose content the base has: only what is said of it is new."""
        directory = source.directory
        line = Draft(directory.number, source.name, source.status, flags, self.plain_bytes).line(b"")
        self._here().drafts.append(msgspec.structs.replace(line, as_base=True))
        directory.member_done(self.members, self.plain_bytes)
        self.members += 1
        self._count(source.status.st_size, 0)

    def part(self, source: Source, part: int, offset: int, length: int) -> None:
        """A part of a file that is larger than a segment; the last one ends at the file's size."""
        status, directory = source.status, source.directory
        path = _member_path(directory, part_name(source.name, part))
        header = self._header(path, status, length, TarKind.REGULAR, extra=[part_extra(source.name, part, offset)])
        self._room(len(header) + length + padding(length))
        self._bytes(header)
        at = self.plain_bytes
        flags = self._content(source, offset, length) | EntryFlag.SPLIT
        last = offset + length == status.st_size
        draft = Draft(directory.number, source.name, status, flags, at, part, offset, length)
        self._note(directory, draft, last=last)
        if last:
            self._count(status.st_size, flags)

    def _count(self, size: int, flags: int) -> None:
        self.tally.files += 1
        self.tally.bytes += size
        self.tally.troubled_files += bool(flags & EntryFlag.CHANGED)

    def _note(self, directory: OpenDirectory, draft: Draft, *, last: bool = True) -> None:
        self._here().drafts.append(draft)
        (directory.member_done if last else directory.part_done)(self.members, draft.at)
        self.members += 1

    def _header(
        self,
        path: bytes,
        status: os.stat_result,
        size: int,
        kind: TarKind,
        *,
        target: bytes = b"",
        extra: list[tuple[bytes, bytes]] | None = None,
    ) -> bytes:
        return member_header(
            path,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            size,
            status.st_mtime_ns,
            kind=kind,
            target=target,
            uname=self._names.user(status.st_uid),
            gname=self._names.group(status.st_gid),
            extra=extra or (),
        )

    # -- content -----------------------------------------------------------------------------------------------------

    def _content(self, source: Source, offset: int, length: int) -> int:
        """Add `length` bytes of the file and the padding; the draft that follows gets their sum. Returns its flags."""
        frame = self._here()
        if frame.used + length + padding(length) <= len(frame.view):
            problem = self._whole(source, offset, length)
        else:
            problem = self._over_frames(source, offset, length)
        self._bytes(bytes(padding(length)))
        if not problem and source.has_changed():
            problem = "it changed while it was read"
        if problem:
            self._trouble(source.directory.path + b"/" + source.name, f"kept with a mark: {problem}")
            return EntryFlag.CHANGED
        return 0

    def _whole(self, source: Source, offset: int, length: int) -> str:
        frame = self._here()
        start = frame.used
        problem = _read(source.fd, frame.view[start : start + length], offset)
        frame.used += length
        self.plain_bytes += length
        frame.spans.append(Span(len(frame.drafts), start, length))
        return problem

    def _over_frames(self, source: Source, offset: int, length: int) -> str:
        frame = self._here()
        problem, first, end = "", True, offset + length
        while offset < end or first:
            if frame.used == len(frame.view):
                self._look_around()
                frame = self._next_frame()
            taken = min(end - offset, len(frame.view) - frame.used)
            here = frame.view[frame.used : frame.used + taken]
            if problem:
                _zero(here)
            else:
                problem = _read(source.fd, here, offset)
            offset += taken
            frame.pieces.append(Piece(frame.used, taken, first, len(frame.drafts) if offset == end else -1))
            frame.used += taken
            self.plain_bytes += taken
            first = False
        return problem


def _member_path(directory: OpenDirectory, name: bytes) -> bytes:
    return directory.path[1:] + b"/" + name if directory.path else name


def _read(fd: int, view: memoryview, offset: int) -> str:
    """Fill `view` from the file; what is missing becomes zeros. Returns what went wrong, or nothing."""
    done = 0
    while done < len(view):
        try:
            got = os.preadv(fd, [view[done:]], offset + done)
        except OSError as error:
            _zero(view[done:])
            return f"reading failed at byte {offset + done} ({error.strerror}); the rest is zeros"
        if not got:
            _zero(view[done:])
            return f"it shrank to {offset + done} bytes while it was read; the rest is zeros"
        done += got
    return ""


def _zero(view: memoryview) -> None:
    for start in range(0, len(view), len(_ZEROS)):
        piece = view[start : start + len(_ZEROS)]
        piece[:] = _ZEROS[: len(piece)]
