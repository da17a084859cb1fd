"""The tree of the mount, for HTTP: the same names, found and read without a mount. One trio run, in the event loop.

Paths begin at the mount's root: `jobs/home/latest/etc/hosts`. Links of the virtual top are followed, those of sets are
shown. What is in a set never changes, so a name found once stays good; the index behind it may be closed meanwhile,
so nothing is kept over an await but what `Item` has.
"""

from __future__ import annotations

import math
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import trio

from catalog.ids import FrameNo
from catalog.index.model import Directory, Entry, EntryFlag
from catalog.ledger import Ledger
from sidecar.http.callers import Caller
from sidecar.http.statuses import Forbidden
from sidecar.http.turns import STEP_S
from sidecar.recalls.arrivals import Arrivals
from sidecar.recalls.recalling import Recalls
from sidecar.view.access import ACL_NAME, READ, SEARCH, Rights, covers, leads, may
from sidecar.view.link import OwnLink
from tapefs.errors import NoSuchThing, UsageError
from tapefs.home import Home
from tapefs.mount.content import Contents, OpenFile, OpenText
from tapefs.mount.describe import Description
from tapefs.mount.recalls import Recalls as Waits
from tapefs.mount.stages import Stages
from tapefs.mount.walks import Walks
from tapefs.mover.messages import FrameRange
from tapefs.vfs.archive import Archive
from tapefs.vfs.inodes import ROOT, Inode
from tapefs.vfs.nodes import DirectoryNode, EntryNode, Node, VirtualNode
from tapefs.vfs.residency import Residency, State, pieces_of, stretches
from tapefs.vfs.totals import Totals
from tapefs.vfs.tree import Owner, Tree

#: So many reads over HTTP may wait for tape at a time, and as many of one user.
MOST_WAITING = 400
#: Who reads on behalf of nobody in particular counts as this user where recalls are limited by user.
NOBODY_UID = 65_534

_SCOPE = "storage.read"
_XATTRS = int(EntryFlag.XATTRS)


@dataclass(frozen=True, slots=True)
class Item:
    """Something at a path."""

    #: From the root, without slashes at the ends; empty for the root itself.
    path: bytes
    inode: Inode
    #: As st_mode, with the type bits.
    mode: int
    uid: int
    gid: int
    size_bytes: int
    mtime_ns: int
    #: Set of which it is a part; empty in the virtual top.
    set_id: str
    is_imported: bool
    #: Of a symbolic link.
    target: bytes
    acl: bytes

    @property
    def name(self) -> bytes:
        """The last part of its path."""
        return self.path.rpartition(b"/")[2]

    @property
    def is_directory(self) -> bool:
        """Is it a folder?"""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Is it a regular file?"""
        return stat.S_ISREG(self.mode)

    @property
    def tag(self) -> str:
        """What never comes again for another content: an entity tag without quotes."""
        if self.set_id:
            return f"{self.set_id}-{self.inode:x}"
        return f"{self.inode:x}-{self.mtime_ns:x}-{self.size_bytes:x}"

    @property
    def rights(self) -> Rights:
        """What decides who may have it."""
        return Rights(self.mode, self.uid, self.gid, self.acl)


class Files:
    """Names and contents. `run_waits` and `run_walks` must run meanwhile for contents that are on tape."""

    def __init__(self, home: Home, ledger: Ledger, recalls: Recalls, arrivals: Arrivals) -> None:
        self._recalls = recalls
        self._refreshing = trio.Lock()
        self._archive = Archive(home, ledger)
        self._stages = Stages(home.staging)
        owner = os.stat(home.path)
        self._totals = Totals(self._archive)
        self._tree = Tree(self._archive, ledger, Owner(owner.st_uid, owner.st_gid))
        link = OwnLink(recalls, arrivals)
        self._waits = Waits(link, MOST_WAITING, MOST_WAITING)
        self._walks = Walks(self._archive, link)
        self._contents = Contents(
            self._archive, self._stages, self._waits, self._walks, home.settings.recall.deadline_s or math.inf
        )
        self._residency = Residency(ledger, self._stages.look, self._waits.is_awaited, lambda: True, home.keyring.has)
        self._description = Description(self._residency)

    def close(self) -> None:
        """Close indexes and what is staged; nothing may run any more."""
        self._archive.close()
        self._stages.close()

    async def run_waits(self) -> None:
        """Bring reads that wait together with what arrives, until cancelled. May be begun again."""
        await self._waits.run()

    async def run_walks(self) -> None:
        """Look ahead of readers, until cancelled. May be begun again."""
        await self._walks.run()

    # -- names -------------------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Read what sets there are, in a thread, if that has changed: what follows without an await need not."""
        if self._tree.is_current():
            return
        async with self._refreshing:
            if not self._tree.is_current():
                self._tree.take(await trio.to_thread.run_sync(self._tree.read, self._tree.seen()))

    async def page(self, folder: Item, caller: Caller, start: int, count: int) -> list[tuple[int, Item]]:
        """Return up to `count` of what `children` yields, without holding up others for long. Raises Forbidden."""
        found: list[tuple[int, Item]] = []
        while len(found) < count:
            await self.refresh()
            before, until_s = len(found), time.monotonic() + STEP_S
            for position, item in islice(self.children(folder, caller, start), count - len(found)):
                start = position
                found.append((position, item))
                if time.monotonic() >= until_s:
                    break
            if len(found) == before:
                break
            await trio.lowlevel.checkpoint()
        return found

    def find(self, path: bytes, caller: Caller) -> Item:
        """Return what is at a path. Raises NoSuchThing, Forbidden, UsageError, CatalogError."""
        here = _item(b"", self._tree.node(ROOT))
        for name in names_of(path):
            here = self.child(here, name, caller)
        return here

    def children(self, folder: Item, caller: Caller, start: int = 0) -> Iterator[tuple[int, Item]]:
        """Yield (next position, item) of a folder; not to be kept over an await. Raises Forbidden."""
        _require(folder, caller, READ)
        node = self._tree.node(folder.inode)
        if isinstance(node, VirtualNode):
            for position, name, child in self._tree.children(node, start):
                if _is_in_scope(_below(folder.path, name), caller):
                    yield position, _item(_below(folder.path, name), self._followed(node, child))
        elif isinstance(node, DirectoryNode):
            for position, number, entry in node.view.reader.list_from(node.directory, start):
                if _is_in_scope(_below(folder.path, entry.name), caller):
                    child = self._tree.entry_node(node, number, entry)
                    yield position, _item(_below(folder.path, entry.name), child)

    def child(self, folder: Item, name: bytes, caller: Caller) -> Item:
        """Return what is called `name` in a folder. Raises as find."""
        if not folder.is_directory:
            raise NoSuchThing(f"there is no {name.decode(errors='replace')!r} here")
        _require(folder, caller, SEARCH)
        if not _is_in_scope(_below(folder.path, name), caller):
            raise Forbidden(f"no scope of {caller.name} is for /{_below(folder.path, name).decode(errors='replace')}")
        parent = self._tree.node(folder.inode)
        return _item(_below(folder.path, name), self._followed(parent, self._tree.lookup(folder.inode, name)))

    def _followed(self, parent: Node, node: Node) -> Node:
        """Return where a link of the virtual top leads to: a set's root, never another link."""
        if not (isinstance(node, VirtualNode) and stat.S_ISLNK(node.mode)):
            return node
        here = parent
        for name in node.content.split(b"/"):
            here = self._tree.lookup(here.inode, name)
        return here

    # -- contents ----------------------------------------------------------------------------------------------------

    def open(self, item: Item, caller: Caller) -> OpenFile:
        """Open a regular file. `release` it at the end; reads wait for tape. Raises Forbidden, UsageError."""
        if not item.is_file:
            raise UsageError(f"{item.path.decode(errors='replace')!r} is no regular file")
        self.require_readable(item, caller)
        node = self._tree.node(item.inode)
        if isinstance(node, VirtualNode):
            return OpenText(node.content)
        if not isinstance(node, EntryNode):
            raise UsageError(f"{item.path.decode(errors='replace')!r} is no regular file")
        return self._contents.open(node, NOBODY_UID if caller.uid is None else caller.uid, 0, 0)

    def require_readable(self, item: Item, caller: Caller) -> None:
        """Raise Forbidden unless he may read the file, or list the folder."""
        if covers(caller, _SCOPE, item.path) or not (item.is_file or item.is_directory):
            return
        if caller.role is None:
            raise Forbidden(f"no scope of {caller.name} is for /{item.path.decode(errors='replace')}")
        _require(item, caller, READ)

    def state(self, item: Item) -> State:
        """Return how soon the content can be read; what has none can be read at once."""
        node = self._tree.node(item.inode)
        if not isinstance(node, EntryNode) or not item.is_file:
            return State.ONLINE
        return self._residency.state(node.view.reader, node.entry, pieces_of(node.view.reader, node.number, node.entry))

    def total_bytes(self) -> int:
        """Return the size of all complete sets."""
        return self._totals.now()[0]

    def is_on_tape(self, item: Item) -> bool:
        """Is there a copy of all its content on tapes?"""
        node = self._tree.node(item.inode)
        if not isinstance(node, EntryNode):
            return False
        pieces = stretches(pieces_of(node.view.reader, node.number, node.entry))
        return bool(pieces) and all(self._residency.place(node.view.reader, piece) is not None for piece in pieces)

    def frames(self, item: Item) -> list[FrameRange]:
        """Return the frames that hold a file's content, as `recalls.order` and pins take them."""
        node = self._tree.node(item.inode)
        if not isinstance(node, EntryNode):
            return []
        reader, found = node.view.reader, []
        for piece in stretches(pieces_of(reader, node.number, node.entry)):
            frames = reader.frames_covering(piece.segment_no, piece.offset, piece.length)
            found.append(FrameRange(piece.segment_id, FrameNo(frames[0].number), FrameNo(frames[-1].number)))
        return found

    def attribute(self, item: Item, name: str) -> str | None:
        """Return one of our extended attributes, for instance `user.tapefs.sha256`; None where there is none."""
        value = self._description.value(self._tree.node(item.inode), name.encode())
        return None if value is None else value.decode(errors="replace")


def names_of(path: bytes) -> list[bytes]:
    """Return the parts of a path; empty ones and `.` are left out. Raises UsageError for `..` and NUL."""
    names = [name for name in path.split(b"/") if name not in (b"", b".")]
    if b".." in names or b"\0" in path:
        raise UsageError("a path must not hold `..` or NUL")
    return names


def _below(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


def _is_in_scope(path: bytes, caller: Caller) -> bool:
    """May he know of it? Who has scopes and no role: if it is what they are for, or on the way to it."""
    return caller.role is not None or covers(caller, _SCOPE, path) or leads(caller, _SCOPE, path)


def _require(item: Item, caller: Caller, wanted: int) -> None:
    """Raise Forbidden unless he may; of who has no role his scopes decide, whoever he stands for."""
    if caller.role is None:
        if _is_in_scope(item.path, caller):
            return
    elif may(caller, item.rights, wanted, is_imported=item.is_imported) or _may_see_names(item, caller, wanted):
        return
    who = f"user {caller.uid}" if caller.uid is not None else caller.name
    raise Forbidden(f"{who} may not {'read' if wanted == READ else 'enter'} /{item.path.decode(errors='replace')}")


def _may_see_names(item: Item, caller: Caller, wanted: int) -> bool:
    """Who stands for no user of this system sees names in sets, as by `find`, and what is for everybody."""
    if not item.is_directory or caller.uid is not None:
        return False
    return bool(item.set_id or item.mode & wanted)


def _item(path: bytes, node: Node) -> Item:
    if isinstance(node, VirtualNode):
        return Item(
            path, node.inode, node.mode, node.uid, node.gid, len(node.content), node.mtime_ns, "", False,
            node.content if stat.S_ISLNK(node.mode) else b"", b"",
        )  # fmt: skip
    backup_set, reader = node.view.backup_set, node.view.reader
    own: Directory | Entry
    if isinstance(node, DirectoryNode):
        own, size_bytes, target = node.directory, 0, b""
        acl = _acl(reader.directory_xattrs(own.number)) if own.flags & _XATTRS else b""
    else:
        own, size_bytes, target = node.entry, node.entry.size, node.entry.target
        acl = _acl(reader.xattrs(node.number)) if own.flags & _XATTRS else b""
    return Item(
        path, node.inode, own.mode, own.uid, own.gid, size_bytes, own.mtime_ns, backup_set.set_id,
        backup_set.is_imported, target, acl,
    )  # fmt: skip


def _acl(xattrs: list[tuple[bytes, bytes]]) -> bytes:
    return next((value for name, value in xattrs if name == ACL_NAME), b"")
