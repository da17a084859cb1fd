"""The tree as WebDAV shows it, which knows folders and files only. One trio run, in the event loop.

Symbolic links of a set are followed as Samba follows those of a share: within the set, which is their `/`. Those that
lead nowhere, or where the caller may not go, are left out, and so are devices, fifos and sockets. For the tree to have
an end, no link leads to a folder that it stands in, and on any path one link to a folder is followed.
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from sidecar.http.callers import Caller
from sidecar.http.statuses import Forbidden
from sidecar.view.files import Files, Item, names_of
from tapefs.errors import NoSuchThing

#: Links behind links, as Linux has it.
MOST_LINKS = 40


@dataclass(frozen=True, slots=True)
class Place:
    """Where something lies."""

    #: From the root to the thing itself; behind a link the way that it really has.
    way: tuple[Item, ...]
    #: Has a link to a folder been followed?
    has_crossed: bool = False

    @property
    def item(self) -> Item:
        """The thing."""
        return self.way[-1]


class Places:
    """Finds things for one caller."""

    def __init__(self, files: Files, caller: Caller) -> None:
        self._files = files
        self._caller = caller

    def find(self, path: bytes) -> Place:
        """Return what is at a path. Raises as Files.find."""
        place = Place((self._files.find(b"", self._caller),))
        for name in names_of(path):
            place = self._step(place, self._files.child(place.item, name, self._caller))
        return place

    def children(self, place: Place, start: int) -> Iterator[tuple[int, bytes, Item | None]]:
        """Yield (next position, name, item) of a folder, None for what is left out; not to be kept over an await."""
        for position, child in self._files.children(place.item, self._caller, start):
            try:
                found = self._step(place, child).item if _is_odd(child) else child
            except (NoSuchThing, Forbidden):
                found = None
            yield position, child.name, found

    def _step(self, place: Place, child: Item) -> Place:
        """Return where a child of a folder is. Raises NoSuchThing for what is left out."""
        if stat.S_ISLNK(child.mode):
            return self._follow(place, child)
        if _is_odd(child):
            raise NoSuchThing(f"{child.name.decode(errors='replace')!r} is neither a file nor a folder")
        return Place((*place.way, child), place.has_crossed)

    def _follow(self, place: Place, link: Item) -> Place:
        way, names, links = list(place.way), deque[bytes](), 0
        top = next(number for number, item in enumerate(way) if item.set_id)
        child = link
        while True:
            if stat.S_ISLNK(child.mode):
                links += 1
                if child.target.startswith(b"/"):
                    del way[top + 1 :]
                names.extendleft(name for name in reversed(child.target.split(b"/")) if name not in (b"", b"."))
            else:
                way.append(child)
            while names and names[0] == b"..":
                names.popleft()
                del way[max(top + 1, len(way) - 1) :]
            if not names or links > MOST_LINKS:
                break
            child = self._files.child(way[-1], names.popleft(), self._caller)
        found = way[-1]
        is_loop = found.is_directory and (place.has_crossed or found.inode in {item.inode for item in place.way})
        if links > MOST_LINKS or is_loop or _is_odd(found):
            raise NoSuchThing(f"the link {link.name.decode(errors='replace')!r} is not followed")
        return Place(tuple(way), place.has_crossed or found.is_directory)


def _is_odd(item: Item) -> bool:
    return not (item.is_directory or item.is_file)
