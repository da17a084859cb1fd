"""Where an entry is: the path of its directory, and which sets show it. Blocking; belongs to one thread."""

from __future__ import annotations

import stat
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache

from catalog.errors import Damaged, NotFound
from catalog.ids import DirectoryNo, EntryNo, SetId
from catalog.index.model import Directory
from catalog.index.reader import IndexReader
from catalog.records import BackupSet
from tapefs.vfs.archive import ROOT_DIRECTORY, Archive

#: Paths of directories that are kept, some 150 bytes each.
_PATHS_KEPT = 65_536
_DIRECTORIES_KEPT = 65_536
#: Of directories with new subdirectories: what is kept to find those by number, 16 bytes for each.
_ORDERS_KEPT = 4


class Places:
    """Climbs from directories to the root, by the numbers of the parents."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._paths: OrderedDict[tuple[SetId, DirectoryNo], bytes] = OrderedDict()
        self._order = lru_cache(maxsize=_ORDERS_KEPT)(self._by_number)
        self._runs = lru_cache(maxsize=_DIRECTORIES_KEPT)(self._read_runs)

    def path(self, set_id: SetId, number: DirectoryNo) -> bytes:
        """Return the path of a directory from the set's root, with a slash behind it unless it is empty.

        Raises CatalogError.
        """
        climbed: list[tuple[DirectoryNo, bytes]] = []
        here = number
        while (path := self._known(set_id, here)) is None:
            directory = self._archive.index(set_id).directory(here)
            climbed.append((here, self._name(set_id, directory)))
            here = directory.parent
            if len(climbed) > 1 << 20:
                raise Damaged("directories are within themselves", f"set {set_id}, directory {number}")
        for here, name in reversed(climbed):
            path += name + b"/"
            self._paths[set_id, here] = path
        while len(self._paths) > _PATHS_KEPT:
            self._paths.popitem(last=False)
        return path

    def shows(self, backup_set: BackupSet, directory: DirectoryNo, entry: EntryNo) -> bool:
        """Tell whether an entry of a set's base is still in that directory of the set. Raises CatalogError.

        Directories keep their numbers as long as they stay at their path, so it is at the same path then.
        """
        runs = self._runs(backup_set.set_id, directory)
        return runs is not None and any(first <= entry < first + count for first, count in runs)

    def _known(self, set_id: SetId, number: DirectoryNo) -> bytes | None:
        if number == ROOT_DIRECTORY:
            return b""
        path = self._paths.get((set_id, number))
        if path is not None:
            self._paths.move_to_end((set_id, number))
        return path

    def _read_runs(self, set_id: SetId, number: DirectoryNo) -> tuple[tuple[int, int], ...] | None:
        try:
            found = self._archive.index(set_id).directory(number)
        except NotFound:
            return None
        return (found.files_first, found.files_count), (found.directories_first, found.directories_count)

    def _name(self, set_id: SetId, directory: Directory) -> bytes:
        """Return the name that a directory has in its parent."""
        reader = self._archive.index(set_id)
        parent = reader.directory(directory.parent)
        first, count = parent.directories_first, parent.directories_count
        at = _search(reader, first, count, directory.number)
        if at is None:
            offsets, order = self._order(set_id, parent.number)
            place = bisect_left(order, int(directory.number), key=offsets.__getitem__)
            at = order[place] if place < len(order) and offsets[order[place]] == directory.number else None
        if at is None:
            raise Damaged("a directory is not in its parent", f"set {set_id}, directory {directory.number}")
        return reader.entry(EntryNo(first + at)).name

    def _by_number(self, set_id: SetId, parent: DirectoryNo) -> tuple[Sequence[int], Sequence[int]]:
        """Return the numbers of all subdirectories, and their places in the order of those numbers."""
        reader = self._archive.index(set_id)
        directory = reader.directory(parent)
        offsets = array("Q", (entry.offset for _, _, entry in reader.list_from(directory, directory.files_count)))
        return offsets, array("Q", sorted(range(len(offsets)), key=offsets.__getitem__))


def _search(reader: IndexReader, first: int, count: int, number: DirectoryNo) -> int | None:
    """Search a run for a directory as if numbers ascended: so it is in a full set, and nearly so in others."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        entry = reader.entry(EntryNo(first + middle))
        if entry.offset == number and stat.S_ISDIR(entry.mode):
            return middle
        low, high = (middle + 1, high) if entry.offset < number else (low, middle)
    return None
