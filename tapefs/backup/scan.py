"""The walk over the sources: a stack of open directories that can be set back to a checkpoint.

In a directory the files come in name order, then its subdirectories in name order: as `rsync`, `cp -r` and `tar` walk
it again. Names are bytes. Memory: the names of the directories on the way down, 8 bytes more a file. Directories are
opened relative to their parents without following links, so nothing that is renamed meanwhile leads the walk astray.

With a base, a set that is built on, only the names that are not as in the base are among a directory's files.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import takewhile

from catalog.ids import DirectoryNo, SegmentId
from catalog.index.model import Directory
from tapefs.backup.attributes import NO_ATTRIBUTES, Attributes, read_attributes
from tapefs.backup.base import Base, Difference, State
from tapefs.backup.elsewhere import Elsewheres
from tapefs.backup.latecomers import Latecomers, status_of
from tapefs.backup.rules import Rules
from tapefs.backup.selection import Branch
from tapefs.backup.standing import OpenLevel
from tapefs.backup.tally import joined, mark_of

#: In `OpenDirectory.places`: this name has no member.
NOWHERE = 2**64 - 1
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: File descriptors held for directories on the way down; deeper ones are opened again when needed.
_DEPTH_HELD = 400
#: Some filesystems count characters: their names may have more than the format and the kernel's other ones take.
_LONGEST_NAME_BYTES = 255


class Kind(Enum):
    """What a name in a directory is, as far as the walk wants to know."""

    REGULAR = 1
    DIRECTORY = 2
    #: Symbolic links, and what is never opened: opening a device can do harm.
    SPECIAL = 3


class OpenDirectory:
    """A directory that the walk is in."""

    __slots__ = (
        "announced",
        "attributes",
        "base",
        "branch",
        "children",
        "difference",
        "directories",
        "elsewhere",
        "fd",
        "files",
        "here",
        "name",
        "next_directory",
        "next_file",
        "number",
        "parent",
        "part_place",
        "path",
        "places",
        "specials",
        "status",
    )

    def __init__(
        self,
        parent: OpenDirectory | None,
        name: bytes,
        number: DirectoryNo,
        status: os.stat_result,
        branch: Branch | None,
        fd: int,
        attributes: Attributes,
        base: Directory | None = None,
    ) -> None:
        self.parent = parent
        self.name = name
        #: Absolute, without a slash at the end; empty for the root.
        self.path: bytes = b"" if parent is None else parent.path + b"/" + name
        self.number = number
        self.status = status
        #: Part of the selection while above a source, None inside one.
        self.branch = branch
        self.fd = fd
        self.attributes = attributes
        #: The directory at the same path in the set that is built on.
        self.base = base
        #: How it differs from that, apart from its subdirectories.
        self.difference = Difference()
        #: It has a line in a trailer already. One with a `base` gets none while nothing in it differs.
        self.announced = False
        #: Names of everything but directories, sorted, without those that are as in the base; those in `specials` are
        #: no regular files.
        self.files: list[bytes] = []
        self.specials: set[bytes] = set()
        self.directories: list[bytes] = []
        self.next_file = 0
        self.next_directory = 0
        #: Numbers of the subdirectories entered so far.
        self.children: list[DirectoryNo] = []
        #: Runs of member ordinals in the present segment.
        self.here: list[tuple[int, int]] = []
        #: Per file written in the present segment: where its content begins; in the order of `files`.
        self.places = array("Q")
        #: The same of a part of the file at `next_file`, which goes on in the next segment.
        self.part_place = NOWHERE
        self.elsewhere = Elsewheres()

    @property
    def state(self) -> State:
        """Return what is to be done about the file at `next_file`."""
        return State.NEW if self.base is None else State(self.difference.states[self.next_file])

    def new_files(self, most: int) -> list[bytes]:
        """Return the regular files from `next_file` on, up to `most`, as long as all are new."""
        start, specials = self.next_file, self.specials
        if self.base is not None:
            states = self.difference.states[start : start + most]
            most = len(states) - len(states.lstrip(b"%c" % State.NEW))
        names = self.files[start : start + most]
        return list(takewhile(lambda name: name not in specials, names)) if specials else names

    def member_done(self, ordinal: int, place: int) -> None:
        """The file at `next_file` ends with member line `ordinal`, whose content is at `place` of the plain stream."""
        self._add_run(ordinal)
        self.places.append(place)
        self.part_place = NOWHERE
        self.next_file += 1

    def members_done(self, ordinal: int, places: Sequence[int]) -> None:
        """The same of as many files as there are `places`, whose member lines follow each other."""
        if not places:
            return
        self._add_run(ordinal, len(places))
        self.places.extend(places)
        self.part_place = NOWHERE
        self.next_file += len(places)

    def part_done(self, ordinal: int, place: int) -> None:
        """A part of the file at `next_file` is member line `ordinal`; the file goes on in the next segment."""
        self._add_run(ordinal)
        self.part_place = place

    def pass_over(self) -> None:
        """The file at `next_file` gets no member."""
        self.places.append(NOWHERE)
        self.next_file += 1

    def put_first(self, name: bytes) -> None:
        """Make `name` the file at `next_file`, and those behind it in name order follow."""
        if self.files[:1] != [name]:
            self.files.insert(0, name)
            self.difference.states.insert(0, State.CHANGED)
        self.specials.discard(name)

    def _add_run(self, ordinal: int, members: int = 1) -> None:
        if self.here:
            first, count = self.here[-1]
            if first + count == ordinal:
                self.here[-1] = (first, count + members)
                return
        self.here.append((ordinal, members))

    def segment_ends(self, segment_id: SegmentId) -> None:
        """What was in this segment is from now on elsewhere."""
        start = self.next_file - len(self.places)
        for name, place in zip(self.files[start : self.next_file], self.places, strict=True):
            self._is_elsewhere(name, segment_id, place)
        if self.part_place != NOWHERE:
            self._is_elsewhere(self.files[self.next_file], segment_id, self.part_place)
        self._begin_segment()

    def _is_elsewhere(self, name: bytes, segment_id: SegmentId, place: int) -> None:
        if place != NOWHERE:
            self.elsewhere.add(name, segment_id, place)

    def _begin_segment(self) -> None:
        self.here, self.places, self.part_place = [], array("Q"), NOWHERE

    def go_back(self, level: Level) -> None:
        """Stand as at the start of the segment that did not come to be."""
        self.announced = level.announced
        self.next_file, self.next_directory = level.next_file, level.next_directory
        del self.children[level.children :]
        self.elsewhere.truncate(level.elsewhere)
        self._begin_segment()

    def close(self) -> None:
        """Let go of the file descriptor; it comes back when needed."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def held_fd(self) -> int:
        """Return a descriptor of this directory, opening it again below its parent if need be. Raises OSError."""
        if self.fd < 0:
            if self.parent is None:
                self.fd = os.open(b"/", _DIRECTORY_FLAGS)
            else:
                self.fd = os.open(self.name, _DIRECTORY_FLAGS, dir_fd=self.parent.held_fd())
        return self.fd


@dataclass(frozen=True, slots=True)
class Level:
    """How far an open directory was."""

    directory: OpenDirectory
    announced: bool
    next_file: int
    next_directory: int
    children: int
    elsewhere: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A place in the walk between two members."""

    levels: tuple[Level, ...]
    next_number: int
    unlisted: int
    unlisted_mark: int


class Walk:
    """The stack of open directories. `trouble` is told (path, reason) of what cannot be read or is left out."""

    def __init__(
        self,
        selection: Branch,
        rules: Rules,
        trouble: Callable[[bytes, str], None],
        *,
        left_out: frozenset[tuple[int, int]] = frozenset(),
        pseudo_devices: frozenset[int] = frozenset(),
        base: Base | None = None,
    ) -> None:
        self._rules = rules
        self._trouble = trouble
        #: (st_dev, st_ino) of directories never entered: the state folder.
        self._left_out = left_out
        self._pseudo_devices = pseudo_devices
        self.stack: list[OpenDirectory] = []
        self._base = base
        self._next_number = 0 if base is None else int(base.next_number)
        #: Names and directories that should have been entered or listed and could not, and directories whose extended
        #: attributes could not be read.
        self.unlisted = 0
        #: The sum of the marks of their paths.
        self.unlisted_mark = 0
        self._push(None, b"", selection)

    def checkpoint(self) -> Checkpoint:
        """Return the present place; taken at the start of a segment, when no directory has members in it yet."""
        levels = tuple(
            Level(d, d.announced, d.next_file, d.next_directory, len(d.children), len(d.elsewhere)) for d in self.stack
        )
        return Checkpoint(levels, self._next_number, self.unlisted, self.unlisted_mark)

    def go_back(self, checkpoint: Checkpoint) -> None:
        """Stand at `checkpoint` again, its segment not having come to be."""
        keep = {id(level.directory) for level in checkpoint.levels}
        for directory in self.stack:
            if id(directory) not in keep:
                directory.close()
        self.stack = []
        for level in checkpoint.levels:
            level.directory.go_back(level)
            self.stack.append(level.directory)
        self._next_number = checkpoint.next_number
        self.unlisted, self.unlisted_mark = checkpoint.unlisted, checkpoint.unlisted_mark

    def stand(self, levels: Sequence[OpenLevel], last_number: int, part: bytes | None) -> list[bytes]:
        """Stand where an interrupted walk stood; this one has only entered the root.

        `part` is the name of a file in the last directory whose parts are still coming. Directories are opened by their
        names and listed again; what has appeared or changed before the place where the walk stood is told as trouble.
        Returns names of the base that are gone from the last directory and were not said to be.
        """
        for level in levels[1:]:
            self._enter_again(level)
        self._next_number = max(0 if self._base is None else int(self._base.next_number), last_number + 1)
        for directory, level in zip(self.stack, levels, strict=True):
            directory.number, directory.announced = level.line.n, True
            directory.elsewhere = level.elsewhere
        late = Latecomers(self._base, self._miss)
        for directory, level in zip(self.stack, levels, strict=True):
            late.pass_over(directory, level)
        last, level = self.stack[-1], levels[-1]
        if part is not None:
            last.put_first(part)
        gone = [] if level.children else [name for name in last.difference.removed if name > level.last_file]
        return [name for name in gone if name not in level.removed]

    def _enter_again(self, level: OpenLevel) -> None:
        """Enter a directory by its name; one that cannot be entered any more is left when its time comes."""
        parent = self.stack[-1]
        branch = parent.branch.children.get(level.name) if parent.branch is not None else None
        if self._push(parent, level.name, branch) is None:
            status, in_base = status_of(level.line), self._in_base(parent, level.name)
            lost = OpenDirectory(parent, level.name, level.line.n, status, None, -1, NO_ATTRIBUTES, in_base)
            self.stack.append(lost)

    def segment_ends(self, segment_id: SegmentId) -> None:
        """Tell all open directories that their members so far lie in that segment."""
        for directory in self.stack:
            directory.segment_ends(segment_id)

    def enter_next(self) -> OpenDirectory | None:
        """Enter the next subdirectory of the topmost one; None when it could not be entered (told as trouble)."""
        parent = self.stack[-1]
        name = parent.directories[parent.next_directory]
        parent.next_directory += 1
        branch = parent.branch.children[name] if parent.branch is not None else None
        return self._push(parent, name, branch)

    def pass_next(self, is_same: Callable[[DirectoryNo], bool]) -> bool:
        """Pass over the next subdirectory of the topmost one if it is as in the base, with all that is in it.

        `is_same` says that of the content of a directory of the base.
        """
        parent = self.stack[-1]
        name = parent.directories[parent.next_directory]
        if self._base is None or parent.base is None:
            return False
        if parent.branch is not None and not parent.branch.children[name].whole:
            return False
        known = self._base.child(parent.base, name)
        if known is None:
            return False
        try:
            status = os.stat(name, dir_fd=parent.held_fd(), follow_symlinks=False)
        except OSError:
            return False
        if self._reason_against(status, named=parent.branch is not None):
            return False
        if not self._base.is_same_directory(known, status) or not is_same(known.number):
            return False
        parent.children.append(known.number)
        parent.next_directory += 1
        return True

    def leave(self) -> OpenDirectory:
        """Leave the topmost directory and return it."""
        directory = self.stack.pop()
        directory.close()
        return directory

    def close(self) -> None:
        """Let go of all descriptors."""
        for directory in self.stack:
            directory.close()

    def _push(self, parent: OpenDirectory | None, name: bytes, branch: Branch | None) -> OpenDirectory | None:
        path = b"/" if parent is None else parent.path + b"/" + name
        try:
            if parent is None:
                fd = os.open(b"/", _DIRECTORY_FLAGS)
            else:
                fd = os.open(name, _DIRECTORY_FLAGS, dir_fd=parent.held_fd())
        except OSError as error:
            self._miss(path, f"directory left out: {error.strerror}")
            return None
        status = os.fstat(fd)
        # What lies on the way to a source, and a source itself, was asked for by name.
        if reason := self._reason_against(status, named=branch is not None):
            os.close(fd)
            self._trouble(path, reason)
            return None
        inner = None if branch is None or branch.whole else branch
        attributes = read_attributes(fd)
        if attributes.problem:
            self._miss(path, attributes.problem)
        in_base = self._in_base(parent, name)
        directory = OpenDirectory(parent, name, DirectoryNo(-1), status, inner, fd, attributes, in_base)
        self._number(directory)
        if not self._is_foreign(directory):
            self._list(directory)
        if self._base is not None and directory.base is not None:
            directory.difference = self._base.compare(directory.base, directory.files, fd)
            directory.files = directory.difference.names
        if parent is not None:
            parent.children.append(directory.number)
        self.stack.append(directory)
        if len(self.stack) > _DEPTH_HELD:
            self.stack[-_DEPTH_HELD].close()
        return directory

    def _in_base(self, parent: OpenDirectory | None, name: bytes) -> Directory | None:
        if self._base is None:
            return None
        if parent is None:
            return self._base.root()
        return None if parent.base is None else self._base.child(parent.base, name)

    def _number(self, directory: OpenDirectory) -> None:
        """A directory that the base has keeps its number, so that what is above and below it can stay as it is."""
        if directory.base is not None:
            directory.number = directory.base.number
        else:
            directory.number = DirectoryNo(self._next_number)
            self._next_number += 1

    def _is_foreign(self, directory: OpenDirectory) -> bool:
        """Does the walk end here, at the root of another filesystem? A source may be one."""
        parent = directory.parent
        if parent is None or parent.branch is not None or not self._rules.one_file_system:
            return False
        return directory.status.st_dev != parent.status.st_dev

    def _reason_against(self, status: os.stat_result, *, named: bool) -> str:
        if not named and status.st_dev in self._pseudo_devices:
            return "left out: a filesystem of the kernel's own, or a tapefs mount"
        if (status.st_dev, status.st_ino) in self._left_out:
            return "left out: the state folder of this tapefs"
        return ""

    def _miss(self, path: bytes, reason: str) -> None:
        self.unlisted += 1
        self.unlisted_mark = joined(self.unlisted_mark, mark_of(path))
        self._trouble(path, reason)

    def _list(self, directory: OpenDirectory) -> None:
        # A directory that is changed meanwhile may be told a name twice; an index wants each once.
        for name, kind in dict(self._names(directory)).items():
            if len(name) > _LONGEST_NAME_BYTES:
                self._miss(
                    directory.path + b"/" + name, f"left out: its name is longer than {_LONGEST_NAME_BYTES} bytes"
                )
            elif kind is Kind.DIRECTORY:
                directory.directories.append(name)
            else:
                directory.files.append(name)
                if kind is Kind.SPECIAL:
                    directory.specials.add(name)
        directory.files.sort()
        directory.directories.sort()

    def _names(self, directory: OpenDirectory) -> Iterator[tuple[bytes, Kind]]:
        if directory.branch is None:
            return self._all_names(directory)
        return self._branch_names(directory, directory.branch)

    def _branch_names(self, directory: OpenDirectory, branch: Branch) -> Iterator[tuple[bytes, Kind]]:
        for name in branch.children:
            try:
                mode = os.stat(name, dir_fd=directory.fd, follow_symlinks=False).st_mode
            except OSError as error:
                self._miss(directory.path + b"/" + name, f"left out: {error.strerror}")
                continue
            yield name, _kind(stat.S_ISDIR(mode), stat.S_ISREG(mode))

    def _all_names(self, directory: OpenDirectory) -> Iterator[tuple[bytes, Kind]]:
        is_wanted = self._rules.within(directory.path, directory.fd)
        try:
            # A bytes path gives bytes names; the magic link leads to the very directory that is open.
            with os.scandir(b"/proc/self/fd/%d" % directory.fd) as entries:
                for entry in entries:
                    if is_wanted is None or is_wanted(entry):
                        is_directory = entry.is_dir(follow_symlinks=False)
                        yield entry.name, _kind(is_directory, is_directory or entry.is_file(follow_symlinks=False))
        except OSError as error:
            self._miss(directory.path or b"/", f"listing is incomplete: {error.strerror}")


def _kind(is_directory: bool, is_regular: bool) -> Kind:
    if is_directory:
        return Kind.DIRECTORY
    return Kind.REGULAR if is_regular else Kind.SPECIAL
