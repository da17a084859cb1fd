"""The nodes of the mounted tree, as typed records."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field

from catalog.ids import EntryNo
from catalog.index.model import Directory, Entry, EntryFlag
from catalog.index.reader import IndexReader
from catalog.records import BackupSet
from tapefs.vfs.inodes import Inode

#: A plain number: an IntFlag costs 1.5 us an operation.
LINKED = int(EntryFlag.LINKED)

#: What people call the kinds of files, by S_IFMT.
KIND_NAMES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


@dataclass(frozen=True, slots=True)
class VirtualNode:
    """A node that no backup made: a folder of sets, a link to one, a text."""

    inode: Inode
    parent: Inode
    #: As st_mode, with the type bits.
    mode: int
    mtime_ns: int
    #: Owner: that of the state folder.
    uid: int
    gid: int
    #: Of a link its target, of a file its text.
    content: bytes = b""
    #: Of a folder: what is in it, in the order of listing. Filled while the tree is built.
    children: dict[bytes, Inode] = field(default_factory=dict)

    @property
    def is_directory(self) -> bool:
        """Is it a folder?"""
        return stat.S_ISDIR(self.mode)


@dataclass(frozen=True, slots=True)
class SetView:
    """A complete set with its index open."""

    backup_set: BackupSet
    reader: IndexReader
    #: 32 bits of the set's uuid: tells sets apart should a number ever come back.
    generation: int
    #: What to add to an entry's number, and to a directory's, to get its inode number.
    entry_base: int
    directory_base: int


@dataclass(frozen=True, slots=True)
class DirectoryNode:
    """A directory of a set."""

    inode: Inode
    view: SetView
    directory: Directory


@dataclass(frozen=True, slots=True)
class EntryNode:
    """Anything else in a set: a file, a symbolic link, a device.

    All names of a hardlinked file are one node: that of its first name.
    """

    inode: Inode
    view: SetView
    number: EntryNo
    entry: Entry


Node = VirtualNode | DirectoryNode | EntryNode


def first_name(reader: IndexReader, number: EntryNo, entry: Entry) -> tuple[EntryNo, Entry]:
    """Return the entry that speaks for a file with several names: its number, attributes and content are the file's.

    Costs a look-up if the file has several names, else nothing. Not for directories, which have links of another kind.
    """
    if entry.nlink > 1 or entry.flags & LINKED:
        first = reader.first_name(number)
        if first != number:
            return first, reader.entry(first)
    return number, entry
