"""One file after another into the segment at hand: small ones, links, special files, files larger than a segment.

What cannot be read, or not as it was, gets its mark, or is left out with a reason. Intake thread.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from catalog.index.model import EntryFlag
from tapefs.backup.attributes import read_attributes
from tapefs.backup.base import State
from tapefs.backup.cutter import Cutter
from tapefs.backup.holes import cut
from tapefs.backup.intake import MEMBER_OVERHEAD_BYTES, Intake, member_path
from tapefs.backup.layout import Layout
from tapefs.backup.links import LinkMap
from tapefs.backup.scan import OpenDirectory
from tapefs.backup.segment import PartProgress
from tapefs.backup.small import SmallFiles
from tapefs.backup.source import NO_FILE_ANY_MORE, Source, Special, Vanished

_LINKED = int(EntryFlag.LINKED)


class Taker:
    """Takes what the walk comes to."""

    def __init__(
        self,
        cutter: Cutter,
        intake: Intake,
        links: LinkMap,
        layout: Layout,
        small: SmallFiles | None,
        trouble: Callable[[bytes, str], None],
        look_around: Callable[[], None],
    ) -> None:
        """`trouble` is told of (path, reason); `look_around` is called while large files are read.

        `small` takes small files the short way; None where the codec has none.
        """
        self._cutter = cutter
        self._intake = intake
        self._links = links
        self._layout = layout
        self._small = small
        self._trouble = trouble
        self._look_around = look_around

    def take(self, directory: OpenDirectory) -> None:
        """Take the file at `next_file`, and the small ones behind it if it is one."""
        is_new = directory.state is State.NEW and self._cutter.progress.seen is None
        if not is_new or not self._take_small(directory):
            self._take_file(directory)

    def _take_small(self, directory: OpenDirectory) -> bool:
        """Take files the short way, and the one behind them if it is open then. False: none could be taken."""
        most = self._cutter.members_left
        if self._small is None or most <= 0:
            return False
        place = directory.next_file
        found = self._small.take(directory, self._cutter.limit_bytes, most)
        if found is not None:
            self._take_opened(*found)
        return directory.next_file > place

    def _take_file(self, directory: OpenDirectory) -> None:
        name = directory.files[directory.next_file]
        if name in directory.specials:
            self._take_special(directory, name)
            return
        try:
            source = Source.open(directory, name, self._look_around, keeps_holes=self._layout.keeps_holes)
        except (Vanished, OSError) as error:
            if self._cutter.progress.seen is None:
                self._take_unopened(directory, name, error)
                return
            # Parts of it are committed: the others are written as zeros, so that the file is whole, with a mark.
            source = Source(directory, name, -1, *self._cutter.progress.seen)
        self._take_opened(source, may_retry=True)

    def _take_opened(self, source: Source, may_retry: bool) -> None:
        fresh: Source | None = source
        while fresh is not None:
            source = fresh
            try:
                fresh = self._take_regular(source, may_retry=may_retry)
            finally:
                source.close()
            may_retry = False

    def _take_special(self, directory: OpenDirectory, name: bytes) -> None:
        try:
            special = Special.look(directory, name)
        except OSError as error:
            self._pass_over(directory, name, f"left out: {error.strerror}")
            return
        mode = special.status.st_mode
        if stat.S_ISSOCK(mode) or stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            self._pass_over(
                directory, name, "left out: a socket" if stat.S_ISSOCK(mode) else "left out: it has changed"
            )
        elif not self._take_link(special):
            self._cutter.make_room(special.attributes.bytes)
            self._intake.special(special)
            self._remember(special)

    def _take_unopened(self, directory: OpenDirectory, name: bytes, error: Vanished | OSError) -> None:
        if isinstance(error, Vanished):
            self._pass_over(directory, name, f"left out: {error}")
        elif isinstance(error, FileNotFoundError):
            self._pass_over(directory, name, "left out: it vanished before it was read")
        else:
            self._take_unreadable(directory, name, error)

    def _take_unreadable(self, directory: OpenDirectory, name: bytes, error: OSError) -> None:
        try:
            status = os.stat(name, dir_fd=directory.held_fd(), follow_symlinks=False)
        except OSError as second:
            self._pass_over(directory, name, f"left out: {second.strerror}")
            return
        if not stat.S_ISREG(status.st_mode):
            # A link or a socket by now: as a file without content it would make the set's index impossible.
            self._pass_over(directory, name, f"left out: {NO_FILE_ANY_MORE}")
            return
        attributes = read_attributes(b"/proc/self/fd/%d/%b" % (directory.held_fd(), name))
        self._cutter.make_room(attributes.bytes)
        self._intake.unreadable(directory, name, status, attributes, str(error.strerror))

    def _pass_over(self, directory: OpenDirectory, name: bytes, reason: str) -> None:
        self._trouble(directory.path + b"/" + name, reason)
        self._intake.tally.troubled_files += 1
        if directory.state is not State.NEW:
            self._intake.removed(directory, [name])
            self._intake.tally.removed_files += 1
        directory.pass_over()

    def _take_regular(self, source: Source, *, may_retry: bool) -> Source | None:
        """Take a file; if it changed and `may_retry`, return what has its name now, open, to be taken instead."""
        stored_bytes, has_links = source.stored_bytes, source.status.st_nlink > 1
        needed_bytes = stored_bytes + MEMBER_OVERHEAD_BYTES
        is_large = needed_bytes > self._cutter.limit_bytes and needed_bytes > self._cutter.full_segment_bytes()
        if is_large or self._cutter.progress.seen is not None:
            self._take_parts(source)
        elif not has_links or not self._take_link(source):
            self._cutter.make_room(stored_bytes)
            fresh = self._intake.file(source, may_retry=may_retry)
            if fresh is not None:
                return fresh
            if has_links:
                self._remember(source)
        return None

    def _take_link(self, of: Source | Special) -> bool:
        """Take another name of a file that is in this segment; if it is in an earlier one, just say so in its flags."""
        status = of.status
        if status.st_nlink == 1 or of.flags & EntryFlag.CHANGED:
            return False
        link = self._links.find(status)
        if link is None:
            return False
        if link.path and link.segment == self._cutter.number:
            self._cutter.make_room(len(link.path))
            if link.segment == self._cutter.number:
                self._intake.link(of, link)
                self._links.linked(status, link, self._cutter.number)
                return True
        of.flags |= _LINKED
        return False

    def _remember(self, of: Source | Special, *, is_split: bool = False) -> None:
        """Note where a file with more names was stored."""
        if of.status.st_nlink == 1:
            return
        draft = self._intake.newest
        if draft.flags & EntryFlag.CHANGED:
            self._links.forget(of.status)
        else:
            path = b"" if is_split else member_path(of.directory, of.name)
            self._links.stored(of.status, self._cutter.number, draft.at, path)

    def _take_parts(self, source: Source) -> None:
        """A file larger than a segment: parts that fill one segment each, the first a fresh one."""
        if self._cutter.progress.seen is None:
            if source.status.st_nlink > 1 and self._links.find(source.status) is not None:
                source.flags |= _LINKED
            self._cutter.progress = PartProgress(0, 0, source.seen)
            if self._intake.members:
                self._cutter.next_segment(0)
        else:
            # Later parts go by what the first one said; if the file has changed since, it gets its mark.
            source.seen = self._cutter.progress.seen
        while self._take_part(source):
            self._cutter.next_segment(0)
        self._remember(source, is_split=True)

    def _take_part(self, source: Source) -> bool:
        """Fill the segment at hand with the next part; False when it was the last."""
        progress, size = self._cutter.progress, source.status.st_size
        overhead = MEMBER_OVERHEAD_BYTES + source.attributes.bytes + source.map_bytes
        room = max(self._cutter.limit_bytes - self._cutter.size_bytes() - overhead, 1)
        end, runs = min(progress.offset + room, size), None
        if source.runs is not None:
            end, runs = cut(source.runs, progress.offset, size, room)
        self._intake.part(source, progress.part, progress.offset, end - progress.offset, runs)
        if end == size:
            self._cutter.progress = PartProgress()
            return False
        self._cutter.progress = PartProgress(progress.part + 1, end, source.seen)
        return True
