"""Searches the names of all sets at once. Blocking; everything belongs to one thread, memory is bounded.

Every set has a file of the names that it has written itself (`catalog/names/`); those of the sets asked for, and of
what they build on, are read side by side in the order of names. So whatever has the same name comes together, and
which version of a path is the newest is known without remembering what was found before. The newest is the one that is
shown by the newest of the sets asked for, which need not be the one that was written last: differential sets that
follow one another do not build on one another.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from catalog.errors import Damaged
from catalog.ids import DirectoryNo, EntryNo, SetId
from catalog.index.model import Entry
from catalog.names.reader import Block
from catalog.records import BackupSet
from tapefs.errors import NoSuchThing
from tapefs.home import Home
from tapefs.search.content import attributes_of, content_of
from tapefs.search.names import SetNames
from tapefs.search.patterns import NamePattern, search_block
from tapefs.search.places import Places
from tapefs.search.query import Match, Query
from tapefs.vfs.archive import Archive
from tapefs.vfs.nodes import first_name
from tapefs.vfs.roster import Roster

#: Entries of one name that are looked at in one go. A name with more is gone through several times.
GROUP_ENTRIES = 250_000
#: Runs of which is kept who shows them.
RUNS_KEPT = 65_536
#: For an Archive that is searched: each name may ask every set.
OPEN_INDEXES = 400

#: Name, rank of the set (0 is the newest), ordinal in the block or -1 before a block, number of the block, block.
_Row = tuple[bytes, int, int, int, Block | None]


class _Hit(NamedTuple):
    """An entry that fits."""

    #: The set that is shown, and the one that wrote the entry.
    backup_set: BackupSet
    writer: SetId
    number: EntryNo
    path: bytes
    #: Stands for job and path.
    key: int
    entry: Entry | None


@dataclass(slots=True)
class _Seen:
    """What is known of a path while its name is at hand."""

    newest: _Hit
    versions: set[object]


def find(home: Home, archive: Archive, query: Query, look_around: Callable[[], None] = lambda: None) -> Iterator[Match]:
    """Yield what fits, by name; of a path the newest version, or with `query.every` each, the newest first.

    `look_around` is called for every block of names, and may raise. Raises UsageError, NoSuchThing, CatalogError.
    """
    patterns, paths = query.name_patterns(), query.path_matchers()
    scope = _Scope(archive.roster(), query)
    with ExitStack() as stack:
        names = []
        for backup_set in scope.searched:
            look_around()
            names.append(SetNames(home, backup_set.set_id, look_around))
            stack.callback(names[-1].close)
        finder = _Finder(archive, query, scope, names, paths)
        rows = heapq.merge(*(_rows(each, rank, patterns, look_around) for rank, each in enumerate(names)))
        for name, group in groupby(rows, key=itemgetter(0)):
            found = [row for row in group if row[4] is not None]
            if found:
                yield from finder.matches(name, found)


def _rows(names: SetNames, rank: int, patterns: list[NamePattern], look_around: Callable[[], None]) -> Iterator[_Row]:
    """Yield what matches in one set; and before each block a row that tells how far the search has come."""
    for number in names.blocks_with(pattern.prefix for pattern in patterns):
        yield names.first_name(number), rank, -1, number, None
        look_around()
        block = names.block(number)
        for ordinal, name in search_block(patterns, block.text):
            yield name, rank, ordinal, number, block


class _Scope:
    """The sets asked for, and those that they build on."""

    def __init__(self, roster: Roster, query: Query) -> None:
        """Raises NoSuchThing for a job without sets."""
        unknown = query.jobs - set(roster.by_name)
        if unknown:
            raise NoSuchThing(f"no job named {min(unknown)!r} has a complete set; `tapefs sets` lists them")
        wanted = {each.set_id: each for each in reversed(roster.complete) if _is_wanted(each, query)}
        searched: dict[SetId, BackupSet] = {}
        #: By set: lines of sets asked for, each building on the one before, and where in a line begin those that have
        #: that set below them, or are it. The line whose last set is the newest comes first.
        self._lines: dict[SetId, list[tuple[list[BackupSet], int]]] = {}
        for tip in wanted.values():
            if tip.set_id in searched:
                continue  # Another one builds on it.
            chain = _chain(roster, tip)
            line = [each for each in chain if each.set_id in wanted]
            start = 0
            for each in chain:
                searched[each.set_id] = each
                self._lines.setdefault(each.set_id, []).append((line, start))
                start += each.set_id in wanted
        #: The newest first.
        self.searched = sorted(searched.values(), key=lambda each: each.number, reverse=True)

    def newest(self, writer: BackupSet, shows: Callable[[BackupSet], bool]) -> BackupSet | None:
        """Return the newest set asked for that shows what that one has written; None if none does.

        What a set does not show any more, none that builds on it does.
        """
        best: BackupSet | None = None
        for line, start in self._lines[writer.set_id]:
            if best is not None and line[-1].number < best.number:
                break
            low, high = start, len(line)
            # Most things stay as they are, so the last set is asked first.
            at = high - 1
            while low < high:
                low, high = (at + 1, high) if line[at].set_id == writer.set_id or shows(line[at]) else (low, at)
                at = (low + high) // 2
            if low > start and (best is None or line[low - 1].number > best.number):
                best = line[low - 1]
        return best


def _chain(roster: Roster, backup_set: BackupSet) -> list[BackupSet]:
    """Return all that a set builds on, the oldest first, and itself."""
    chain = [backup_set]
    while chain[-1].parent_id is not None:
        below = roster.known(chain[-1].parent_id)
        if below is None:
            raise NoSuchThing(f"set {chain[-1].set_id} builds on {chain[-1].parent_id}, which is not known")
        chain.append(below)
    return chain[::-1]


def _is_wanted(backup_set: BackupSet, query: Query) -> bool:
    if query.jobs and backup_set.name not in query.jobs:
        return False
    if query.set_id is not None and backup_set.set_id != query.set_id:
        return False
    is_late = query.since_ns is None or backup_set.started_at_ns >= query.since_ns
    return is_late and (query.until_ns is None or backup_set.started_at_ns <= query.until_ns)


class _Finder:
    """From names to versions of paths."""

    def __init__(
        self,
        archive: Archive,
        query: Query,
        scope: _Scope,
        names: list[SetNames],
        paths: list[Callable[[bytes], bool]],
    ) -> None:
        self._archive = archive
        self._query = query
        self._scope = scope
        self._names = names
        self._paths = paths
        self._places = Places(archive)
        # Of a run all entries or none are shown.
        self._shown = lru_cache(maxsize=RUNS_KEPT)(self._newest_of)
        self._asks_versions = query.every or query.count_versions
        self._asks_entries = query.asks_entries or query.attributes or self._asks_versions

    def matches(self, name: bytes, rows: list[_Row]) -> Iterator[Match]:
        """Yield what fits of the entries with one name; `rows` has a row for each set, the newest first."""
        loaded = [(row[1], row[2], self._names[row[1]].with_numbers(row[3], row[4])) for row in rows if row[4]]
        total = sum(block.count(ordinal) for _, ordinal, block in loaded)
        passes = -(-total // GROUP_ENTRIES)
        for number in range(passes):
            hits = [
                hit
                for rank, ordinal, block in loaded
                for entry in block.numbers(ordinal)
                if (hit := self._hit(name, rank, entry)) is not None and (passes == 1 or hit.key % passes == number)
            ]
            yield from self._versions(hits) if self._asks_versions else self._newest(hits)

    def _newest(self, hits: list[_Hit]) -> Iterator[Match]:
        """Yield one hit of every path."""
        hits.sort(key=_age)
        seen: set[int] = set()
        for hit in hits:
            if hit.key not in seen:
                seen.add(hit.key)
                yield _match(hit, None)

    def _versions(self, hits: list[_Hit]) -> Iterator[Match]:
        """Yield one hit of every version, or one of every path with the number of versions."""
        hits.sort(key=_age)
        paths: dict[int, _Seen] = {}
        for hit in hits:
            version = self._version(hit)
            seen = paths.setdefault(hit.key, _Seen(hit, set()))
            if self._query.every and version not in seen.versions:
                yield _match(hit, None)
            seen.versions.add(version)
        if not self._query.every:
            yield from (_match(seen.newest, len(seen.versions)) for seen in paths.values())

    def _hit(self, name: bytes, rank: int, number: EntryNo) -> _Hit | None:
        """Return an entry if it fits, and is shown by a set asked for."""
        writer = self._scope.searched[rank]
        first, directory = self._names[rank].run_of(number)
        shown = self._shown(rank, first, directory)
        if shown is None:
            return None
        path = self._places.path(writer.set_id, directory) + name
        if self._paths and not any(matches(b"/" + path) for matches in self._paths):
            return None
        # A digest, for paths may be long; nobody finds two that collide.
        digest = blake2b(shown.name.encode() + b"\0" + path, digest_size=16).digest()
        key = int.from_bytes(digest, "little")
        if not self._asks_entries:
            return _Hit(shown, writer.set_id, number, path, key, None)
        entry = self._entry(writer.set_id, number, name)
        return _Hit(shown, writer.set_id, number, path, key, entry) if self._query.accepts(entry) else None

    def _newest_of(self, rank: int, first: EntryNo, directory: DirectoryNo) -> BackupSet | None:
        """Return the newest set asked for that shows a run of entries."""
        writer = self._scope.searched[rank]
        return self._scope.newest(writer, lambda each: self._places.shows(each, directory, first))

    def _entry(self, set_id: SetId, number: EntryNo, name: bytes) -> Entry:
        reader = self._archive.index(set_id)
        entry = reader.entry(number)
        if entry.name != name:
            raise Damaged("the names file and the index disagree", f"set {set_id}, entry {number}")
        return first_name(reader, number, entry)[1]

    def _version(self, hit: _Hit) -> object:
        reader = self._archive.index(hit.writer)
        number, entry = first_name(reader, hit.number, reader.entry(hit.number))
        return attributes_of(entry), content_of(reader, number, entry).identity


def _age(hit: _Hit) -> int:
    return -hit.backup_set.number


def _match(hit: _Hit, versions: int | None) -> Match:
    return Match(hit.backup_set, hit.path, hit.number, hit.entry, versions)
