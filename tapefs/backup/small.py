"""Small files that have nothing special about them, the short way: little but calls of the system, and sums.

The other way, through `Source`, `Draft`, a worker and the writer, takes three times as long for a small file. Whatever
turns out to be anything else is handed on. For the intake thread.
"""

from __future__ import annotations

import os
from binascii import b2a_base64
from collections.abc import Callable
from hashlib import sha256

import msgspec

from catalog.index.model import EntryFlag
from tapefs.backup.attributes import NO_ATTRIBUTES, NOT_THERE
from tapefs.backup.base import fresh_from_ns
from tapefs.backup.draft import PLAIN_LINE
from tapefs.backup.frames import Span
from tapefs.backup.intake import MEMBER_OVERHEAD_BYTES, Intake, read_into
from tapefs.backup.layout import Layout
from tapefs.backup.scan import OpenDirectory
from tapefs.backup.source import Source, Vanished, open_file

#: Larger ones are hashed by the workers. Of small ones that is no help: a worker that gives the GIL back for each sum
#: and waits for it again holds up all others.
_MOST_BYTES = 32 * 1024
#: Files taken at once. In between somebody looks whether the backup is to go on.
_AT_ONCE = 64
_TYPE, _REGULAR = 0o170000, 0o100000
_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_FRESH = int(EntryFlag.FRESH)
_FRESH_FLAGS = b'"flags":%d,' % _FRESH


class SmallFiles:
    """Takes runs of small files into the frames of an intake."""

    def __init__(self, intake: Intake, layout: Layout, look_around: Callable[[], None]) -> None:
        """`layout` must be that of a tar archive."""
        self._intake = intake
        self._layout = layout
        self._look_around = look_around

    def take(self, directory: OpenDirectory, limit_bytes: int, most: int) -> tuple[Source, bool] | None:
        """Take files from the one at `next_file` on, at most `most`, while they are small, plain and new.

        The segment may grow to `limit_bytes`. If the file that is at `next_file` then is another kind of regular file,
        return it, open, and whether it may be tried once more if it changes.
        """
        try:
            held = directory.held_fd()
        except OSError:
            return None  # Whoever takes them the long way meets this again.
        intake = self._intake
        # Before the looks at the files: more of them count as fresh then, not fewer.
        fresh_ns = fresh_from_ns()
        prefix = directory.path[1:] + b"/" if directory.path else b""
        most_bytes = limit_bytes - MEMBER_OVERHEAD_BYTES
        number = directory.number
        plain_header, encode = self._layout.plain_header, msgspec.json.encode
        fstat, listxattr, close = os.fstat, os.listxattr, os.close
        frame = intake.here()
        view, used, add_line = frame.view, frame.used, frame.drafts.append
        #: Where the frame at hand begins in the plain stream.
        base = intake.plain_bytes - used
        places: list[int] = []
        content_bytes = fd = 0
        odd: Source | None = None
        has_changed, problem, end = False, "", 0
        # One loop, with few functions around its steps: 100 ns each are nothing but here.
        for name in directory.new_files(min(most, _AT_ONCE)):
            try:
                fd = open_file(name, held)
            except OSError:
                break
            try:
                status = fstat(fd)
                mode, inode, device, links, uid, gid, size, _, _, _ = status
                blocks = status.st_blocks
                try:
                    has_xattrs = bool(listxattr(fd))
                except OSError as error:
                    has_xattrs = error.errno not in NOT_THERE
                if (
                    size > _MOST_BYTES
                    or links != 1
                    or mode & _TYPE != _REGULAR
                    or blocks * _BLOCK < size
                    or base + used + size > most_bytes
                    or status.st_rdev
                    or has_xattrs
                    or not name.isascii()
                ):
                    odd = Source.of(directory, name, fd, status, self._look_around)
                    break
                mtime_ns, ctime_ns = status.st_mtime_ns, status.st_ctime_ns
                header = plain_header(prefix + name, mode, uid, gid, size, mtime_ns)
                padding = -size % _BLOCK
                if used + len(header) + size + padding > len(view):
                    frame.used = used
                    base += used
                    frame = intake.next_frame()
                    view, used, add_line = frame.view, 0, frame.drafts.append
                start = used + len(header)
                end = start + size
                view[used:start] = header
                content = view[start:end]
                problem = read_into(fd, content, 0)
                view[end : end + padding] = _ZEROS[:padding]
                now = fstat(fd)
                has_changed = now.st_mtime_ns != mtime_ns or now.st_ctime_ns != ctime_ns or now.st_size != size
                is_fresh = ctime_ns > fresh_ns
                if problem or has_changed:
                    odd = Source(directory, name, fd, status, NO_ATTRIBUTES, None, _FRESH if is_fresh else 0)
                    break
                add_line(
                    PLAIN_LINE
                    % (
                        number, encode(name.decode("ascii")), mode, uid, gid, size, mtime_ns, ctime_ns, device, inode,
                        blocks, _FRESH_FLAGS if is_fresh else b"", base + start,
                        b2a_base64(sha256(content).digest(), newline=False),
                    )
                )  # fmt: skip
                places.append(base + start)
                content_bytes += size
                used = end + padding
            except (OSError, Vanished):
                break
            finally:
                if odd is None:
                    close(fd)
        frame.used = used
        intake.plain_bytes = base + used
        intake.small_files(directory, places, content_bytes)
        if odd is None:
            return None
        if not problem and not has_changed:
            return odd, True
        return self._settle(odd, used, end + -end % _BLOCK, problem)

    def _settle(self, odd: Source, used: int, end: int, problem: str) -> tuple[Source, bool] | None:
        """Settle what becomes of a file that has not been read as it was; it ends at `end` of the frame at hand."""
        intake, frame, size = self._intake, self._intake.here(), odd.status.st_size
        before = frame.used, intake.plain_bytes
        start = end - size - (-size % _BLOCK)
        frame.spans.append(Span(len(frame.drafts), start, size))
        frame.used = end
        intake.plain_bytes += end - used
        try:
            fresh = intake.settle(odd, intake.plain_bytes - end + start, before, problem)
        finally:
            odd.close()
        return None if fresh is None else (fresh, False)
