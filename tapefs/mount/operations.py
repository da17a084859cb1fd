"""The FUSE handlers: a thin adapter from pyfuse3 to the tree, the open files and the attributes. The only user of
pyfuse3.

Handlers run in trio's event loop, and everything but waiting for tape is done there: a look-up takes microseconds, a
hop to a thread a hundred. An exception other than FUSEError would end the mount, so every handler is wrapped.
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import stat
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

import pyfuse3
import structlog
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ReaddirToken,
    RequestContext,
    StatvfsData,
    XAttrNameT,
    readdir_reply,
)

from catalog.errors import CatalogError
from catalog.ids import EntryNo
from catalog.index.model import Directory, Entry
from tapefs.errors import NoSuchThing, UsageError
from tapefs.mount.content import Contents, OpenFile, OpenText
from tapefs.mount.describe import Description
from tapefs.mount.errnos import errno_of
from tapefs.mount.quick_wait import quick_trio
from tapefs.mount.tuning import takes_bytes
from tapefs.mount.wakefulness import Wakefulness
from tapefs.vfs.inodes import Inode
from tapefs.vfs.nodes import LINKED, DirectoryNode, EntryNode, Node, SetView, VirtualNode, first_name
from tapefs.vfs.totals import Totals
from tapefs.vfs.tree import Tree

#: What is in a set never changes.
_FOREVER_S = 86400.0
#: The virtual part follows the ledger.
_SOON_S = 1.0
_EIO = 5
_LONGEST_NAME = 255
#: The namespaces of attributes that files can have; of others nothing can be had, as everywhere.
_NAMESPACES = (b"user.", b"trusted.", b"security.", b"system.")
_BLOCK_BYTES = 4096
#: Flags of who wants to write.
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_TRUNC
#: Positions in a listing: `.` and `..` come before the first entry.
_DOTS = 2
#: Up to this size the bytes of a staged file are given to the kernel with the opening.
_STORED_BYTES = 64 * 1024
#: Of so many it is remembered that they were.
_STORED_FILES = 65_536
#: So many entries of a directory are decoded as soon as it has been opened.
_ROWS_AHEAD = 64

P = ParamSpec("P")
R = TypeVar("R")

log = structlog.get_logger("tapefs.mount")


def _handler(
    function: Callable[Concatenate[MountOperations, P], R],
) -> Callable[Concatenate[MountOperations, P], Coroutine[Any, Any, R]]:
    """Make a handler of a function, which waits for nothing: turn whatever it raises into FUSEError."""

    async def translated(self: MountOperations, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(self, *args, **kwargs)
        except FUSEError:
            raise
        except Exception as error:  # anything else would unmount the file system
            raise FUSEError(_errno(error, function.__name__)) from error

    functools.update_wrapper(translated, function)
    return translated


def _errno(error: Exception, handler: str) -> int:
    number = errno_of(error)
    if number is None:
        log.error("defect in the mount", handler=handler, exc_info=error)
        return _EIO
    if number == _EIO:
        log.error("input/output error", handler=handler, reason=str(error))
    return number


#: Position behind the row, number of the entry, the entry.
_Row = tuple[int, int, Entry]


class _Rows:
    """The entries of a directory in a set, in order from some position on."""

    def __init__(self, node: DirectoryNode, position: int) -> None:
        self.view = node.view
        #: Behind the last row taken by the kernel, which mostly goes on from there.
        self.position = position
        self._rest: Iterator[_Row] = node.view.reader.list_from(node.directory, position)
        #: Read but not taken yet.
        self._pending: _Row | None = None
        #: One object serves all rows, since the kernel's copy is made at once: half the time of a new one each.
        self.attributes = _blank(node.view, 0)

    def look_ahead(self) -> None:
        """Decode the first rows."""
        self._rest = itertools.chain(list(itertools.islice(self._rest, _ROWS_AHEAD)), self._rest)

    def reply(self, token: ReaddirToken) -> None:
        """Hand rows to the kernel until its buffer is full."""
        view, attributes = self.view, self.attributes
        rows = self._rest if self._pending is None else itertools.chain((self._pending,), self._rest)
        for row in rows:
            position, number, entry = row
            _fill(attributes, view, number, entry)
            if not readdir_reply(token, entry[0], attributes, position + _DOTS):
                self._pending = row
                return
            self.position = position
        self._pending = None


@dataclass(slots=True)
class _Listing:
    """An open directory, and how far it has been read."""

    inode: Inode
    #: Who has opened it.
    thread_id: int
    #: Of a directory in a set: as it was found by the last request.
    node: DirectoryNode | None = None
    rows: _Rows | None = None


class MountOperations(pyfuse3.Operations):
    """The handlers of one mount.

    `flush` is left out on purpose: the kernel then never again asks at every close whether something is to be written.
    """

    supports_dot_lookup = True
    enable_writeback_cache = False
    # Without it the kernel takes the group bits for what the owning group may do, where an ACL makes them a mask.
    enable_acl = True

    def __init__(self, tree: Tree, contents: Contents, description: Description, totals: Totals) -> None:
        super().__init__()
        self._tree = tree
        self._contents = contents
        self._description = description
        self._totals = totals
        self._files: dict[int, OpenFile] = {}
        #: By handle; and how many handles there are.
        self._inodes: dict[int, InodeT] = {}
        self._open_inodes: dict[InodeT, int] = {}
        #: Files whose bytes were given to the kernel, and not asked for since.
        self._stored: set[InodeT] = set()
        self._stores = takes_bytes(os.uname().release)
        self._listings: dict[int, _Listing] = {}
        self._handles = itertools.count(1)
        #: Opened last and not asked for yet.
        self._just_opened: _Listing | None = None

    def rest(self) -> None:
        """Let go of what was kept for the next request; called every few dozen requests, and before sleeping."""
        self._contents.rest()

    # -- names and attributes ----------------------------------------------------------------------------------------

    @_handler
    def lookup(self, parent_inode: InodeT, name: FileNameT, ctx: RequestContext) -> EntryAttributes:
        """Return the attributes of a name; that a set has none of that name may be remembered, too."""
        try:
            return _attributes_of(self._tree.lookup(Inode(parent_inode), name))
        except NoSuchThing:
            if not isinstance(self._tree.node(Inode(parent_inode)), DirectoryNode):
                raise
            # The kernel itself stops at 1,024 bytes only.
            if len(name) > _LONGEST_NAME:
                raise FUSEError(errno.ENAMETOOLONG) from None
            return _absent()

    @_handler
    def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        """Return the attributes of a node."""
        return _attributes_of(self._tree.node(Inode(inode)))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Nothing is kept per inode."""

    @_handler
    def readlink(self, inode: InodeT, ctx: RequestContext) -> FileNameT:
        """Return the target of a symbolic link."""
        node = self._tree.node(Inode(inode))
        if isinstance(node, EntryNode) and stat.S_ISLNK(node.entry.mode):
            return node.entry.target
        if isinstance(node, VirtualNode) and stat.S_ISLNK(node.mode):
            return node.content
        raise UsageError("this is no symbolic link")

    @_handler
    def getxattr(self, inode: InodeT, name: XAttrNameT, ctx: RequestContext) -> bytes:
        """Return an attribute that the source had, or what is known about where a file is."""
        value = self._description.value(self._tree.node(Inode(inode)), name)
        if value is None:
            raise FUSEError(errno.ENODATA if name.startswith(_NAMESPACES) else errno.ENOTSUP)
        return value

    @_handler
    def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[XAttrNameT]:
        """Return the names of the attributes that the source had."""
        return self._description.names(self._tree.node(Inode(inode)), ctx.pid)

    @_handler
    def statfs(self, ctx: RequestContext) -> StatvfsData:
        """Tell the size of everything that is shown; nothing is free."""
        size_bytes, nodes = self._totals.now()
        data = StatvfsData()
        data.f_bsize = data.f_frsize = _BLOCK_BYTES
        data.f_blocks = -(-size_bytes // _BLOCK_BYTES)
        data.f_files = nodes
        data.f_namemax = _LONGEST_NAME
        return data

    # -- directories -------------------------------------------------------------------------------------------------

    @_handler
    def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:
        """Begin to list a directory."""
        handle = next(self._handles)
        self._just_opened = self._listings[handle] = _Listing(Inode(inode), ctx.pid)
        return FileHandleT(handle)

    def look_ahead(self) -> None:
        """Prepare what is likely asked for next; called when there is a moment to spare.

        Who has opened a directory lists it next, and takes longer to wake up than it takes to decode the first entries.
        """
        listing, self._just_opened = self._just_opened, None
        if listing is None:
            return
        # An error is met again by the request itself, which has somebody to tell.
        with suppress(NoSuchThing, CatalogError):
            node = self._node_of(listing)
            if isinstance(node, DirectoryNode):
                rows = _Rows(node, 0)
                rows.look_ahead()
                listing.rows = rows

    @_handler
    def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        """List with attributes, so that whoever stats every name asks nothing more."""
        listing = self._listings[fh]
        node = self._node_of(listing)
        if isinstance(node, VirtualNode):
            self._list_virtual(node, start_id, token)
        elif isinstance(node, DirectoryNode):
            self._list_set(listing, node, start_id, token)
        else:
            raise UsageError("this is no directory")

    def _node_of(self, listing: _Listing) -> Node:
        """Return the directory; in a set it is remembered from the request before, as long as the index is open."""
        known = listing.node
        if known is not None and self._tree.view(known.view.backup_set.number) is known.view:
            return known
        node = self._tree.node(listing.inode)
        listing.node = node if isinstance(node, DirectoryNode) else None
        return node

    def _list_virtual(self, node: VirtualNode, position: int, token: ReaddirToken) -> None:
        dots = ((b".", node), (b"..", self._tree.node(node.parent)))
        for place, (name, child) in enumerate(dots[position:], position + 1):
            if not readdir_reply(token, name, _attributes_of(child), place):
                return
        for place, name, child in self._tree.children(node, max(0, position - _DOTS)):
            if not readdir_reply(token, name, _attributes_of(child), place + _DOTS):
                return

    def _list_set(self, listing: _Listing, node: DirectoryNode, position: int, token: ReaddirToken) -> None:
        place = max(0, position - _DOTS)
        if position == 0:
            self._contents.walks.listings.note(node.view.backup_set.number, node.directory, listing.thread_id)
        rows = listing.rows
        if rows is None or rows.position != place or rows.view is not node.view:
            rows = listing.rows = _Rows(node, place)
        if position >= _DOTS or self._list_dots(node, rows.attributes, position, token):
            rows.reply(token)

    def _list_dots(self, node: DirectoryNode, attributes: EntryAttributes, position: int, token: ReaddirToken) -> bool:
        # Of these two the kernel takes the inode number and the type only.
        attributes.st_mode = stat.S_IFDIR
        if position == 0:
            attributes.st_ino = InodeT(node.inode)
            if not readdir_reply(token, b".", attributes, 1):
                return False
        attributes.st_ino = InodeT(self._tree.parent(node))
        return readdir_reply(token, b"..", attributes, _DOTS)

    @_handler
    def releasedir(self, fh: FileHandleT) -> None:
        """Forget how far the listing was."""
        del self._listings[fh]

    # -- content -----------------------------------------------------------------------------------------------------

    @_handler
    def open(self, inode: InodeT, flags: FlagT, ctx: RequestContext) -> FileInfo:
        """Open a regular file; nothing is fetched before it is read."""
        if flags & _WRITING:
            raise FUSEError(errno.EROFS)
        node = self._tree.node(Inode(inode))
        file: OpenFile
        if isinstance(node, EntryNode):
            file = self._contents.open(node, ctx.uid, ctx.gid, ctx.pid)
        elif isinstance(node, VirtualNode):
            file = OpenText(node.content)
        else:
            raise UsageError("this is a directory")
        handle = next(self._handles)
        if self._stores and file.is_cacheable and isinstance(node, EntryNode) and not flags & os.O_DIRECT:
            self._store(inode, file, node.entry.size)
        self._files[handle] = file
        self._inodes[handle] = inode
        self._open_inodes[inode] = self._open_inodes.get(inode, 0) + 1
        # What a set has never changes. Were the kernel to drop the pages of a cold file, it would wait for those that a
        # mapping waits for, and nobody who opens the file meanwhile could be killed.
        keep_cache = isinstance(node, EntryNode)
        return FileInfo(fh=FileHandleT(handle), direct_io=not file.is_cacheable, keep_cache=keep_cache)

    def _store(self, inode: InodeT, file: OpenFile, size: int) -> None:
        """Give the bytes of a small file to the kernel's page cache: who opens it reads it next, and need not ask.

        Not while it is open already. Then the kernel may hold pages of it that an answer of ours is to fill, and would
        wait for that here, in the thread that is to answer. Of a file that nobody has open no read is on its way.
        """
        if not 0 < size <= _STORED_BYTES or inode in self._stored or inode in self._open_inodes:
            return
        try:
            content = file.read_nowait(0, size)
            if content is None:
                return
            pyfuse3.notify_store(inode, 0, content)
        except OSError as error:
            # Whoever reads asks for the bytes, and is told what is wrong with them.
            log.warning("the kernel is not given the bytes of small files any more", reason=str(error))
            self._stores = False
            return
        if len(self._stored) >= _STORED_FILES:
            self._stored.clear()
        self._stored.add(inode)

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        """Return the bytes, after having waited for tape if need be."""
        try:
            # If the kernel was given the bytes, it has dropped them.
            self._stored.discard(self._inodes[fh])
            file = self._files[fh]
            content = file.read_nowait(off, size)
            return await file.read(off, size) if content is None else content
        except Exception as error:  # anything but FUSEError would unmount the file system
            raise FUSEError(_errno(error, "read")) from error

    @_handler
    def release(self, fh: FileHandleT) -> None:
        """Let go of an open file."""
        inode = self._inodes.pop(fh)
        others = self._open_inodes[inode] - 1
        if others:
            self._open_inodes[inode] = others
        else:
            del self._open_inodes[inode]
        self._files.pop(fh).release()

    async def refuse(self, *_: Any, **__: Any) -> Any:
        """Raise EROFS: asked only if root has told the kernel to remount it for writing."""
        raise FUSEError(errno.EROFS)

    mkdir = rmdir = mknod = symlink = link = unlink = rename = create = refuse
    setattr = setxattr = removexattr = write = refuse

    def close(self) -> None:
        """Let go of all open files, after the session has ended."""
        while self._files:
            self._files.popitem()[1].release()


def _fill(attributes: EntryAttributes, view: SetView, number: int, entry: Entry) -> None:
    """Set what differs from entry to entry."""
    (_, mode, uid, gid, size, mtime_ns, ctime_ns, nlink, rdev, _, _, blocks, flags, _, offset, _) = entry
    if stat.S_ISDIR(mode):
        attributes.st_ino = view.directory_base + offset
    else:
        if nlink > 1 or flags & LINKED:
            number, (_, mode, uid, gid, size, mtime_ns, ctime_ns, nlink, rdev, _, _, blocks, _, _, _, _) = first_name(
                view.reader, EntryNo(number), entry
            )
        attributes.st_ino = view.entry_base + number
    attributes.st_mode = mode
    attributes.st_uid = uid
    attributes.st_gid = gid
    attributes.st_size = size
    attributes.st_mtime_ns = attributes.st_atime_ns = mtime_ns
    attributes.st_ctime_ns = ctime_ns
    attributes.st_nlink = nlink
    attributes.st_rdev = rdev
    attributes.st_blocks = blocks


def _blank(view: SetView, mode: int) -> EntryAttributes:
    attributes = EntryAttributes()
    attributes.generation = view.generation
    attributes.entry_timeout = attributes.attr_timeout = _FOREVER_S
    attributes.st_mode = mode
    return attributes


def _absent() -> EntryAttributes:
    attributes = EntryAttributes()
    attributes.st_ino = InodeT(0)
    attributes.entry_timeout = _FOREVER_S
    return attributes


def _attributes_of(node: Node) -> EntryAttributes:
    if isinstance(node, EntryNode):
        attributes = _blank(node.view, 0)
        _fill(attributes, node.view, node.number, node.entry)
        return attributes
    if isinstance(node, DirectoryNode):
        return _of_directory(node, node.directory)
    return _of_virtual(node)


def _of_directory(node: DirectoryNode, directory: Directory) -> EntryAttributes:
    attributes = _blank(node.view, directory.mode)
    attributes.st_ino = InodeT(node.inode)
    attributes.st_uid = directory.uid
    attributes.st_gid = directory.gid
    attributes.st_size = directory.size
    attributes.st_mtime_ns = attributes.st_atime_ns = directory.mtime_ns
    attributes.st_ctime_ns = directory.ctime_ns
    attributes.st_nlink = directory.nlink
    attributes.st_blocks = directory.blocks
    if directory.number == directory.parent:
        # The root of a set is an entry of a virtual folder, from which it goes when the set expires.
        attributes.entry_timeout = _SOON_S
    return attributes


def _of_virtual(node: VirtualNode) -> EntryAttributes:
    attributes = EntryAttributes()
    attributes.st_ino = InodeT(node.inode)
    attributes.entry_timeout = attributes.attr_timeout = _SOON_S
    attributes.st_mode = node.mode
    attributes.st_uid = node.uid
    attributes.st_gid = node.gid
    attributes.st_size = len(node.content)
    attributes.st_atime_ns = attributes.st_mtime_ns = attributes.st_ctime_ns = node.mtime_ns
    # As on btrfs: it says nothing about how many folders are inside.
    attributes.st_nlink = 1
    return attributes


# -- the session, for `tapefs.mount.session` ---------------------------------------------------------------------------


def attach(operations: MountOperations, mount_point: str, options: set[str], wakefulness: Wakefulness) -> None:
    """Mount. Raises RuntimeError with what libfuse says on stderr."""
    # A later pyfuse3 may take trio in another way: then it works as before, only slower.
    setattr(pyfuse3, "trio", quick_trio(operations.look_ahead, operations.rest, wakefulness))  # noqa: B010
    pyfuse3.init(operations, mount_point, options)


async def serve_requests(max_tasks: int) -> None:
    """Serve the kernel's requests until `stop` or an unmount."""
    await pyfuse3.main(min_tasks=8, max_tasks=max_tasks)


def stop() -> None:
    """Let `serve_requests` return when the requests at hand are answered."""
    pyfuse3.terminate()


def detach(*, unmount: bool) -> None:
    """End the session and unmount lazily: files that are open stay so, and fail."""
    pyfuse3.close(unmount=unmount)
