"""The tree that is mounted: the virtual top, and below it the sets. No FUSE here.

    /README.txt
    /jobs/NAME/TIME -> a set's root        /jobs/NAME/latest (link)
    /sets/SETID (link)
    /tapes/LABEL/CONTENTS.txt, and a link per set with data on the tape

The virtual part is made anew whenever the ledger has changed; what is in a set never changes. One thread uses a Tree.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple
from uuid import UUID

import structlog

from catalog.errors import CatalogError, NotFound
from catalog.ids import DirectoryNo, EntryNo, SetNumber
from catalog.index.model import Entry
from catalog.ledger import Ledger
from catalog.records import BackupSet, Volume
from tapefs.errors import NoSuchThing
from tapefs.vfs.archive import ROOT_DIRECTORY, Archive, Reading, Seen
from tapefs.vfs.inodes import (
    ROOT,
    Inode,
    directory_base,
    directory_inode,
    entry_base,
    entry_inode,
    split,
    virtual_inode,
)
from tapefs.vfs.nodes import DirectoryNode, EntryNode, Node, SetView, VirtualNode, first_name
from tapefs.vfs.roster import LATEST, Roster, folder_name
from tapefs.vfs.texts import README, OnTape, tape_contents

_FOLDER = stat.S_IFDIR | 0o555
_PRIVATE_FOLDER = stat.S_IFDIR | 0o700
_LINK = stat.S_IFLNK | 0o777
_TEXT = stat.S_IFREG | 0o444
_PRIVATE_TEXT = stat.S_IFREG | 0o400

log = structlog.get_logger("tapefs.vfs")


class Owner(NamedTuple):
    """Who owns the virtual nodes."""

    uid: int
    gid: int


class Tree:
    """Nodes by inode number and by name. Look-ups raise NoSuchThing; a damaged index raises Damaged."""

    def __init__(self, archive: Archive, ledger: Ledger, owner: Owner) -> None:
        self._archive = archive
        self._ledger = ledger
        self._owner = owner
        self._roster: Roster | None = None
        self._top = _Top(owner, 0)
        self._views: dict[SetNumber, SetView] = {}

    # -- look-ups ----------------------------------------------------------------------------------------------------

    def node(self, inode: Inode) -> Node:
        """Return the node with that number."""
        number, is_directory, within = split(inode)
        if number == 0:
            return self._virtual(inode)
        view = self.view(number)
        try:
            if is_directory:
                return DirectoryNode(inode, view, view.reader.directory(DirectoryNo(within)))
            return _entry_node(view, EntryNo(within), view.reader.entry(EntryNo(within)))
        except NotFound as error:
            raise NoSuchThing(f"set {view.backup_set.set_id} has no node {within}") from error

    def lookup(self, parent: Inode, name: bytes) -> Node:
        """Return the node called `name` in `parent`; `.` and `..` work, as NFS wants them."""
        if name == b".":
            return self.node(parent)
        if name == b"..":
            return self.node(self.parent(self.node(parent)))
        here = self.node(parent)
        if isinstance(here, DirectoryNode):
            return self._entry(here, name)
        if isinstance(here, VirtualNode) and name in here.children:
            return self.node(here.children[name])
        raise NoSuchThing(f"there is no {name.decode(errors='replace')!r} here")

    def _entry(self, here: DirectoryNode, name: bytes) -> Node:
        found = here.view.reader.lookup(here.directory, name)
        if found is None:
            raise NoSuchThing(f"there is no {name.decode(errors='replace')!r} here")
        return self.entry_node(here, *found)

    def entry_node(self, here: DirectoryNode, number: EntryNo, entry: Entry) -> Node:
        """Return the node of an entry of a directory."""
        set_number = here.view.backup_set.number
        if stat.S_ISDIR(entry.mode):
            directory = DirectoryNo(entry.offset)
            return DirectoryNode(
                directory_inode(set_number, directory), here.view, here.view.reader.directory(directory)
            )
        return _entry_node(here.view, number, entry)

    def parent(self, node: Node) -> Inode:
        """Return the directory a directory is in; the root is in itself. Raises NoSuchThing for a set's file."""
        if isinstance(node, VirtualNode):
            return node.parent
        if isinstance(node, EntryNode):
            raise NoSuchThing("a file does not know its directory")
        if node.directory.number == ROOT_DIRECTORY:
            return self._current().job_of[node.view.backup_set.number]
        return directory_inode(node.view.backup_set.number, node.directory.parent)

    def children(self, folder: VirtualNode, start: int = 0) -> Iterator[tuple[int, bytes, Node]]:
        """Yield (next position, name, node) of a virtual folder as it was when `folder` was looked up.

        What has gone since is left out, and so is a set whose index cannot be read: it must not hide the others.
        """
        for position, (name, inode) in enumerate(islice(folder.children.items(), start, None), start + 1):
            try:
                yield position, name, self.node(inode)
            except NoSuchThing:
                continue
            except CatalogError as error:
                log.error("a set cannot be shown", folder=name.decode(errors="replace"), reason=str(error))

    def view(self, number: SetNumber) -> SetView:
        """Return a complete set with its index; valid until something else is looked up."""
        view = self._views.get(number)
        if view is None:
            return self._add_view(self._archive.set_by_number(number))
        if view.reader is not self._archive.index(view.backup_set.set_id):
            # It was closed meanwhile, because many others were opened.
            return self._add_view(view.backup_set)
        return view

    def _add_view(self, backup_set: BackupSet) -> SetView:
        view = self._views[backup_set.number] = _view(self._archive, backup_set)
        return view

    # -- the virtual top ---------------------------------------------------------------------------------------------

    def _virtual(self, inode: Inode) -> VirtualNode:
        top = self._current()
        node = top.nodes.get(inode)
        if node is None:
            self._fill_all_tapes(top)
            node = top.nodes.get(inode)
        if node is None:
            raise NoSuchThing(f"there is no node {inode}")
        if inode in top.unfilled:
            self._fill_tape(top, node)
        return node

    def _current(self) -> _Top:
        roster = self._archive.roster()
        if roster is not self._roster:
            self._put(roster, self._built(roster))
        return self._top

    def is_current(self) -> bool:
        """Can nodes be looked up without reading all sets? With 10,000 that takes 120 ms."""
        return self._archive.is_current() and self._archive.known_roster is self._roster

    def seen(self) -> Seen:
        """Return what is known before all sets are read."""
        return self._archive.seen()

    def read(self, seen: Seen) -> tuple[Reading, _Top | None]:
        """Read all sets, in whatever thread; `take` has them count."""
        reading = self._archive.read(seen)
        return reading, None if reading.roster is self._roster else self._built(reading.roster)

    def take(self, found: tuple[Reading, _Top | None]) -> None:
        """Have what was read count from now on."""
        reading, top = found
        self._archive.take(reading)
        if top is not None:
            self._put(reading.roster, top)

    def _built(self, roster: Roster) -> _Top:
        return _build(self._owner, roster, self._ledger.volumes())

    def _put(self, roster: Roster, top: _Top) -> None:
        self._top, self._roster = top, roster
        self._views = {number: view for number, view in self._views.items() if number in top.job_of}

    def _fill_all_tapes(self, top: _Top) -> None:
        for inode in list(top.unfilled):
            self._fill_tape(top, top.nodes[inode])

    def _fill_tape(self, top: _Top, folder: VirtualNode) -> None:
        """Put CONTENTS.txt and the links into a tape's folder: on demand, because a full tape has many segments."""
        volume = top.unfilled.pop(folder.inode)
        path = f"tapes/{volume.label}"
        segments = self._on_tape(volume)
        text = tape_contents(volume, segments).encode()
        top.add(folder, path, "CONTENTS.txt", _PRIVATE_TEXT, folder.mtime_ns, text)
        for each in segments:
            backup_set = each.backup_set
            if backup_set is not None and backup_set.number in top.job_of:
                link = each.set_name.replace("/", "-")
                target = f"../../jobs/{each.set_name}".encode()
                top.add(folder, path, link, _LINK, backup_set.finished_at_ns, target)

    def _on_tape(self, volume: Volume) -> list[OnTape]:
        roster = self._archive.roster()
        found = []
        for copy in self._ledger.copies_on(volume.volume_id):
            segment = self._ledger.segment(copy.segment_id)
            backup_set = roster.known(segment.set_id)
            name = f"{folder_name(backup_set.name)}/{roster.time_name(segment.set_id)}" if backup_set else "-"
            found.append(OnTape(copy, segment, backup_set, name))
        return found


class _Top:
    """The virtual nodes of one state of the ledger."""

    def __init__(self, owner: Owner, mtime_ns: int) -> None:
        self._owner = owner
        self.root = VirtualNode(ROOT, ROOT, _FOLDER, mtime_ns, *owner)
        self.nodes: dict[Inode, VirtualNode] = {ROOT: self.root}
        #: Folder of the job, by the number of each complete set.
        self.job_of: dict[SetNumber, Inode] = {}
        #: Tapes' folders that nobody has looked into yet.
        self.unfilled: dict[Inode, Volume] = {}

    def add(
        self, parent: VirtualNode, path: str, name: str, mode: int, mtime_ns: int, content: bytes = b""
    ) -> VirtualNode:
        """Put a node into `parent`, which is at `path`; one that is there already is left as it is."""
        key = name.encode("utf-8", "surrogateescape")
        if key in parent.children:
            return self.nodes[parent.children[key]]
        inode = virtual_inode(f"{path}/{name}")
        while inode in self.nodes:
            inode = Inode(inode + 1)
        node = VirtualNode(inode, parent.inode, mode, mtime_ns, *self._owner, content)
        self.nodes[inode] = node
        parent.children[key] = inode
        return node


def _build(owner: Owner, roster: Roster, volumes: list[Volume]) -> _Top:
    newest_ns = max((each.finished_at_ns for each in roster.complete), default=0)
    top = _Top(owner, newest_ns)
    top.add(top.root, "", "README.txt", _TEXT, newest_ns, README.encode())
    jobs = top.add(top.root, "", "jobs", _FOLDER, newest_ns)
    for name, sets in sorted(roster.by_name.items()):
        _add_job(top, jobs, folder_name(name), sets, roster)
    links = top.add(top.root, "", "sets", _FOLDER, newest_ns)
    for each in roster.complete:
        target = f"../jobs/{folder_name(each.name)}/{roster.time_name(each.set_id)}"
        top.add(links, "sets", each.set_id, _LINK, each.finished_at_ns, target.encode())
    tapes = top.add(top.root, "", "tapes", _PRIVATE_FOLDER, max((each.written_at_ns for each in volumes), default=0))
    for volume in volumes:
        folder = top.add(tapes, "tapes", folder_name(volume.label), _PRIVATE_FOLDER, volume.written_at_ns)
        top.unfilled[folder.inode] = volume
    return top


def _add_job(top: _Top, jobs: VirtualNode, name: str, sets: list[BackupSet], roster: Roster) -> None:
    newest = sets[-1]
    folder = top.add(jobs, "jobs", name, _FOLDER, newest.finished_at_ns)
    for each in sets:
        folder.children[roster.time_name(each.set_id).encode()] = directory_inode(each.number, ROOT_DIRECTORY)
        top.job_of[each.number] = folder.inode
    target = roster.time_name(newest.set_id).encode()
    top.add(folder, f"jobs/{name}", LATEST, _LINK, newest.finished_at_ns, target)


def _entry_node(view: SetView, number: EntryNo, entry: Entry) -> EntryNode:
    number, entry = first_name(view.reader, number, entry)
    return EntryNode(entry_inode(view.backup_set.number, number), view, number, entry)


def _view(archive: Archive, backup_set: BackupSet) -> SetView:
    return SetView(
        backup_set=backup_set,
        reader=archive.index(backup_set.set_id),
        generation=UUID(backup_set.set_id).int >> 96,
        entry_base=entry_base(backup_set.number),
        directory_base=directory_base(backup_set.number),
    )
