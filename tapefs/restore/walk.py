"""Walks the chosen part of an index: makes directories, and gives all other names to the maker. One thread.

The whole recorded path is kept beneath the target, as tar does: `usr/share/doc` becomes `TARGET/usr/share/doc`, with
the recorded owner and mode of `usr` and `usr/share`, too. Memory grows with the depth of the tree and the number of
chosen paths only.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from catalog.errors import CatalogError, NotFound
from catalog.ids import DirectoryNo, EntryNo
from catalog.index.model import Directory, Entry
from tapefs.errors import NoSuchThing, UsageError
from tapefs.restore.making import Maker, join, reason_of
from tapefs.restore.plan import TARGET, Directories
from tapefs.restore.records import Index
from tapefs.restore.tally import Tally
from tapefs.restore.writer import BadName, SafeWriter, check_name

_ROOT = DirectoryNo(0)


class _Place(NamedTuple):
    """A directory that was entered."""

    directory: Directory
    path: bytes
    place: int
    #: Something can be in it that is not ours.
    is_new: bool


class Walk:
    """Takes what is chosen. `TargetFull` ends it."""

    def __init__(self, index: Index, writer: SafeWriter, directories: Directories, maker: Maker, tally: Tally) -> None:
        self._index = index
        self._writer = writer
        self._directories = directories
        self._maker = maker
        self._tally = tally
        #: Ancestors of chosen paths, made once for all of them.
        self._ancestors: dict[bytes, _Place] = {}

    def take(self, paths: Sequence[bytes]) -> None:
        """Plan everything beneath the chosen paths; of none, everything.

        Raises UsageError or NoSuchThing for a path that is not in the set, before anything is made.
        """
        root = _Place(self._index.directory(_ROOT), b"", TARGET, False)
        chosen = [_components(path) for path in paths]
        for components in chosen:
            self._find(root.directory, components)
        for components in _without_nested(chosen):
            self._take_one(root, components)
        if not paths:
            self._take_tree(root)
        self._maker.take_linked()

    def _find(self, directory: Directory, components: Sequence[bytes]) -> None:
        for depth, name in enumerate(components):
            found = self._index.lookup(directory, name)
            is_last = depth == len(components) - 1
            if found is None or not (is_last or stat.S_ISDIR(found[1].mode)):
                text = b"/".join(components[: depth + 1]).decode("utf-8", "backslashreplace")
                raise NoSuchThing(f"the set has no {text!r}: see `tapefs ls SET`")
            if not is_last:
                directory = self._index.directory(DirectoryNo(found[1].offset))

    def _take_one(self, root: _Place, components: Sequence[bytes]) -> None:
        above: _Place | None = root
        for depth, name in enumerate(components):
            if above is None:
                return
            number, entry = self._looked_up(above.directory, name)
            is_last = depth == len(components) - 1
            path = join(above.path, name)
            if is_last and not stat.S_ISDIR(entry.mode):
                self._take_entry(above, number, entry)
            elif is_last:
                inner = self._enter(above, entry)
                if inner is not None:
                    self._take_tree(inner)
            else:
                above = self._ancestors.get(path) or self._enter(above, entry)
                if above is not None:
                    self._ancestors[path] = above
        if not components:
            self._take_tree(root)

    def _looked_up(self, directory: Directory, name: bytes) -> tuple[EntryNo, Entry]:
        found = self._index.lookup(directory, name)
        if found is None:
            raise NotFound(f"directory {directory.number} has no {name!r} any more")
        return found

    def _take_tree(self, top: _Place) -> None:
        """Take all that is beneath a directory that was entered. No recursion: trees can be thousands deep."""
        stack = [(top, self._entries(top))]
        entered = {top.directory.number}
        while stack:
            place, entries = stack[-1]
            found = next(entries, None)
            if found is None:
                stack.pop()
                entered.discard(place.directory.number)
                continue
            number, entry = found
            if not stat.S_ISDIR(entry.mode):
                self._take_entry(place, number, entry)
            elif entry.offset in entered:
                self._tally.fail(join(place.path, entry.name), "the index is damaged: the directory contains itself")
            elif (inner := self._enter(place, entry)) is not None:
                entered.add(inner.directory.number)
                stack.append((inner, self._entries(inner)))

    def _entries(self, place: _Place) -> Iterator[tuple[EntryNo, Entry]]:
        try:
            for _, number, entry in self._index.list_from(place.directory, 0):
                yield number, entry
        except CatalogError as error:
            self._tally.fail(place.path, f"what is missing here cannot be listed: {error}")

    def _enter(self, above: _Place, entry: Entry) -> _Place | None:
        """Make a directory; None if that is not possible, then nothing beneath it is restored."""
        path = join(above.path, entry.name)
        try:
            check_name(entry.name)
            directory = self._index.directory(DirectoryNo(entry.offset))
            made = self._writer.make_directory(path)
            place = self._directories.add(path, directory.number, made)
        except (OSError, BadName, CatalogError) as error:
            self._tally.fail(path, f"nothing in it is restored: {_why_not_entered(error)}")
            return None
        self._tally.directories += made.is_new
        self._tally.tell(path)
        return _Place(directory, path, place, made.is_new)

    def _take_entry(self, above: _Place, number: EntryNo, entry: Entry) -> None:
        path = join(above.path, entry.name)
        try:
            check_name(entry.name)
        except (OSError, BadName) as error:
            self._tally.fail(path, reason_of(error))
            return
        self._maker.take(path, number, entry, above.place, is_new=above.is_new)


def _components(path: bytes) -> tuple[bytes, ...]:
    """Cut a chosen path. Slashes at its ends and doubled ones do not matter; `.` and `..` are refused."""
    components = tuple(part for part in path.split(b"/") if part)
    if b"." in components or b".." in components:
        raise UsageError(
            f"{path.decode('utf-8', 'backslashreplace')}: write the path as it was recorded, without . or .."
        )
    return components


def _without_nested(chosen: Sequence[tuple[bytes, ...]]) -> list[tuple[bytes, ...]]:
    """Drop what lies beneath another chosen path, and what is there twice."""
    kept: list[tuple[bytes, ...]] = []
    for components in sorted(chosen):
        if not kept or components[: len(kept[-1])] != kept[-1]:
            kept.append(components)
    return kept


def _why_not_entered(error: Exception) -> str:
    """Return why a directory cannot be entered. Raises TargetFull."""
    if isinstance(error, NotADirectoryError) or (isinstance(error, OSError) and error.errno == errno.ELOOP):
        return "a link, or a file, stands where the directory belongs; links at the target are not followed"
    return reason_of(error)
