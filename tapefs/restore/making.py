"""Makes what one name of an index stands for.

Symbolic links, fifos, device nodes and files without content are made at once, files with content are planned; names
that belong to one file are put aside until it is known which of them are wanted.

One thread. Memory does not grow with the tree.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from catalog.errors import CatalogError
from catalog.ids import EntryNo
from catalog.index.model import Entry, EntryFlag
from tapefs.errors import BadStructure
from tapefs.restore.attributes import Refused, Xattrs
from tapefs.restore.contents import contents_of
from tapefs.restore.harmless import DEVICES
from tapefs.restore.links import LinkedName, Links
from tapefs.restore.plan import Directories, Plan, PlannedFile
from tapefs.restore.records import Index
from tapefs.restore.tally import Tally
from tapefs.restore.writer import BadName, Identity, Made, SafeWriter

# Plain numbers: an operation on flags costs 3 us.
_UNREADABLE = int(EntryFlag.UNREADABLE)
_LINKED = int(EntryFlag.LINKED)
_XATTRS = int(EntryFlag.XATTRS)
_NODES = {stat.S_IFIFO: "fifos", stat.S_IFCHR: "device nodes", stat.S_IFBLK: "device nodes"}
#: What a file system says that cannot give this file another name: other device, too many, no such thing as links.
_NO_LINKS = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP)
_COPIED = Refused("hardlinks", "the file system there cannot link them: copies were made")


class TargetFull(Exception):
    """There is no room left at the target: whatever comes next would fail as well."""


class _NotRestored(Exception):
    """This name cannot be restored, the message says why."""


class _NotAllowed(Exception):
    """The right to make it is missing."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.reason)
        self.refused = refused


class Name(NamedTuple):
    """A name that is to be restored, and who has its attributes and content: not the same for hardlinks."""

    path: bytes
    number: EntryNo
    first: EntryNo
    #: Of its directory, in `Directories`.
    place: int
    #: In `Links`; -1 if the file has no other names.
    group: int


def reason_of(error: Exception) -> str:
    """Return what to tell about a failure with one name. Raises TargetFull instead if it concerns all of them."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        raise TargetFull(
            f"{os.strerror(error.errno)}: make room at the target and in the state folder, then restore again; "
            "what is complete is left alone"
        ) from error
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)


class Maker:
    """All but `link_others` may raise TargetFull."""

    def __init__(
        self, index: Index, writer: SafeWriter, plan: Plan, directories: Directories, links: Links, tally: Tally
    ) -> None:
        self._index = index
        self._writer = writer
        self._plan = plan
        self._directories = directories
        self._links = links
        self._tally = tally

    def take(self, path: bytes, number: EntryNo, entry: Entry, place: int, *, is_new: bool) -> None:
        """Make or plan an entry that is no directory; `place` and `is_new` are of its directory."""
        with self._reporting(path):
            if entry.nlink > 1 or entry.flags & _LINKED:
                self._links.add(LinkedName(self._first_of(number, entry), number, place, is_new))
            else:
                self._check_free(path, is_new=is_new)
                self._make(Name(path, number, number, place, -1), entry)

    def _first_of(self, number: EntryNo, entry: Entry) -> EntryNo:
        first = self._index.first_name(number)
        if first != number and stat.S_IFMT(self._index.entry(first).mode) != stat.S_IFMT(entry.mode):
            raise BadStructure("the index is damaged: it is another name of something else")
        return first

    def _check_free(self, path: bytes, *, is_new: bool) -> None:
        """Raise FileExistsError if there is something that must stay."""
        if not self._writer.overwrite and not is_new and self._writer.exists(path):
            raise FileExistsError

    @contextmanager
    def _reporting(self, path: bytes) -> Iterator[None]:
        """Make what goes wrong with a name a line of the report."""
        try:
            yield
        except FileExistsError:
            self._tally.skip(path)
        except _NotAllowed as error:
            self._tally.refuse(path, [error.refused])
        except BadStructure as error:
            self._tally.damage(path, str(error))
        except (OSError, BadName, CatalogError, _NotRestored) as error:
            self._tally.fail(path, reason_of(error))

    # -- one name ----------------------------------------------------------------------------------------------------

    def _make(self, name: Name, entry: Entry) -> None:
        """Make what the entry stands for, or plan it."""
        kind = stat.S_IFMT(entry.mode)
        if kind == stat.S_IFREG:
            self._take_file(name, entry)
        elif kind == stat.S_IFLNK:
            self._done(name, self._writer.make_symlink(name.path, entry.target, entry, self.xattrs(name.first, entry)))
            self._tally.symlinks += 1
        elif kind in _NODES:
            self._done(name, self._make_node(name, entry))
            self._tally.specials += 1
        else:
            raise _NotRestored("neither a file nor a directory, link, fifo or device node: not restored")

    def _done(self, name: Name, made: Made) -> None:
        self._tally.refuse(name.path, made.refused)
        if name.group >= 0:
            self._links.made(name.group, made.identity)

    def xattrs(self, number: EntryNo, entry: Entry) -> Xattrs:
        """Return the extended attributes of an entry. Raises CatalogError."""
        return self._index.xattrs(number) if entry.flags & _XATTRS else ()

    def _make_node(self, name: Name, entry: Entry) -> Made:
        if not self._writer.special and not stat.S_ISFIFO(entry.mode):
            raise _NotAllowed(DEVICES)
        try:
            return self._writer.make_node(name.path, entry.rdev, entry, self.xattrs(name.first, entry))
        except PermissionError as error:
            refused = Refused(_NODES[stat.S_IFMT(entry.mode)], "not made: only root may, and not everywhere")
            raise _NotAllowed(refused) from error

    def _take_file(self, name: Name, entry: Entry) -> None:
        if entry.flags & _UNREADABLE:
            raise _NotRestored("it could not be read when it was backed up")
        contents = contents_of(self._index, name.first, entry)
        self._tally.files_total += 1
        self._tally.bytes_total += entry.size
        if contents:
            segment, offset, _, _ = contents[0]
            self._plan.add(PlannedFile(segment, offset, name.number, name.first, name.place, name.group))
            return
        made = self._writer.new_file(name.path).finish(entry.size, entry, self.xattrs(name.first, entry))
        self.file_done(name, made, entry)

    def file_done(self, name: Name, made: Made, entry: Entry) -> None:
        """Count a regular file that is complete. Raises OSError."""
        self._tally.files += 1
        self._tally.bytes += entry.size
        self._done(name, made)

    # -- names that belong to one file -------------------------------------------------------------------------------

    def take_linked(self) -> None:
        """Make or plan, of the names that belong to one file, the first that is not there already."""
        self._links.sort()
        for group, linked in self._links.choose(self._is_free):
            path = self.path_of(linked.place, linked.number)
            with self._reporting(path):
                entry = self._index.entry(linked.first)
                self._make(Name(path, linked.number, linked.first, linked.place, group), entry)

    def _is_free(self, linked: LinkedName) -> bool:
        path = self.path_of(linked.place, linked.number)
        with self._reporting(path):
            self._check_free(path, is_new=linked.is_new)
            return True
        return False

    def path_of(self, place: int, number: EntryNo) -> bytes:
        """Return the path of an entry in a directory. Raises CatalogError, OSError."""
        return join(self._directories.path(place), self._index.entry(number).name)

    def link_others(self) -> None:
        """Make the other names of all files whose content was restored."""
        for chosen, identity, others in self._links.others():
            first = self.path_of(chosen.place, chosen.number)
            for linked in others:
                path = self.path_of(linked.place, linked.number)
                self._tally.tell(path)
                with self._reporting(path):
                    self._check_free(path, is_new=linked.is_new)
                    if identity is None:
                        raise _NotRestored(f"another name of {os.fsdecode(first)}, which could not be restored")
                    self._link(first, identity, path, linked.first)
                    self._tally.links += 1

    def _link(self, first: bytes, identity: Identity, path: bytes, number: EntryNo) -> None:
        try:
            self._writer.make_link(first, identity, path)
        except OSError as error:
            entry = self._index.entry(number)
            if error.errno not in _NO_LINKS or not stat.S_ISREG(entry.mode):
                raise
            self._writer.copy_file(first, identity, path, entry, self.xattrs(number, entry))
            self._tally.refuse(path, [_COPIED])


def join(above: bytes, name: bytes) -> bytes:
    """Return the path of a name in a directory."""
    return above + b"/" + name if above else name
