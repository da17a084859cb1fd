"""The complete sets and their trees, read only: what the mount, the command line and HTTP look things up in.

One thread uses an Archive. Everything is looked up in the ledger and the indexes; nothing is fetched from tape.
"""

from __future__ import annotations

import stat
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic

from catalog.ids import DirectoryNo, EntryNo, SetId, SetNumber
from catalog.index.bases import OpenBases
from catalog.index.model import Directory, Entry
from catalog.index.reader import IndexReader
from catalog.ledger import Ledger
from catalog.records import BackupSet
from tapefs.errors import NoSuchThing
from tapefs.home import Home
from tapefs.vfs.roster import Roster

#: An open index is a file, an address range and a few pages. What others build on is counted apart, by OpenBases.
OPEN_INDEXES = 64
#: A walk asks thousands of times a second, and a look at the ledger's events costs more than a look-up in a tree.
EVENTS_AGE_S = 0.01
#: Events tell of changes at once; this is for a change that left none.
ROSTER_AGE_S = 5.0

ROOT_DIRECTORY = DirectoryNo(0)


#: What events tell of by their first word that changes neither sets nor what is on tapes. Others may.
ELSEWHERE = frozenset({"job", "queue", "schedule", "user", "token", "session", "login", "pin", "restore", "intent"})


@dataclass(frozen=True, slots=True)
class Seen:
    """What an archive knew before it read all sets."""

    event: int
    #: What needs not be made anew if it is the same; None: something has changed.
    roster: Roster | None


@dataclass(frozen=True, slots=True)
class Reading:
    """All sets, and the newest event that was known before they were read."""

    event: int
    roster: Roster


@dataclass(frozen=True, slots=True)
class Found:
    """A name in a set."""

    #: From the set's root, without slashes at the ends; empty for the root itself.
    path: bytes
    #: None for the root, which is in no directory.
    number: EntryNo | None
    entry: Entry | None
    #: None unless it is a directory.
    directory: Directory | None


class Archive:
    """What can be seen of a state folder."""

    def __init__(self, home: Home, ledger: Ledger, *, open_indexes: int = OPEN_INDEXES) -> None:
        self._home = home
        self._ledger = ledger
        self._limit = open_indexes
        self._bases = OpenBases()
        self._readers: OrderedDict[SetId, IndexReader] = OrderedDict()
        self._roster: Roster | None = None
        self._roster_at_s = 0.0
        self._news_at_s = 0.0
        self._event = 0
        #: Something has happened that may concern sets or tapes since the roster was made.
        self._is_stale = False

    # -- sets --------------------------------------------------------------------------------------------------------

    def roster(self) -> Roster:
        """Return the sets as they are now; the same object as long as nothing has changed."""
        if self.is_current() and self._roster is not None:
            return self._roster
        return self.take(self.read(self.seen()))

    def is_current(self) -> bool:
        """Would `roster` answer without reading all sets? That takes 80 ms for 10,000; this looks at what is new."""
        now_s = monotonic()
        if now_s >= self._news_at_s + EVENTS_AGE_S:
            self._news_at_s = now_s
            self._look_at_news()
        return self._roster is not None and not self._is_stale and now_s < self._roster_at_s + ROSTER_AGE_S

    @property
    def known_roster(self) -> Roster | None:
        """The sets as they were known last; None before that."""
        return self._roster

    def seen(self) -> Seen:
        """Return what is known before all sets are read."""
        return Seen(self._event, None if self._is_stale else self._roster)

    def read(self, seen: Seen) -> Reading:
        """Read all sets, in whatever thread; `take` has them count."""
        sets = self._ledger.readable_sets()
        if seen.roster is not None and seen.roster.sets == sets:
            return Reading(seen.event, seen.roster)
        return Reading(seen.event, Roster(sets))

    def take(self, reading: Reading) -> Roster:
        """Have what was read count from now on; what has happened meanwhile is read the next time."""
        self._roster, self._roster_at_s = reading.roster, monotonic()
        self._is_stale = self._event != reading.event
        return reading.roster

    def _look_at_news(self) -> None:
        if self._roster is None:
            self._event = self._ledger.newest_event()  # The sets are read behind it.
            return
        while events := self._ledger.events_since(self._event):
            self._event = events[-1].number
            self._is_stale |= any(event.kind.partition(".")[0] not in ELSEWHERE for event in events)

    def complete_sets(self) -> list[BackupSet]:
        """Return the complete sets, oldest first."""
        return list(self.roster().complete)

    def find_set(self, text: str) -> BackupSet:
        """Return the set that an operator names: id, at least 4 characters of it, NAME (its newest), or NAME/TIME.

        Raises NoSuchThing with what to do.
        """
        return self.roster().find(text)

    def set_by_number(self, number: SetNumber) -> BackupSet:
        """Return a complete set. Raises NoSuchThing."""
        return self.roster().by_number(number)

    def time_name(self, backup_set: BackupSet) -> str:
        """Return the set's name in its job's folder: 2026-11-23T020000Z, the second one of a second with -2."""
        return self.roster().time_name(backup_set.set_id)

    # -- trees -------------------------------------------------------------------------------------------------------

    def index(self, set_id: SetId) -> IndexReader:
        """Return the set's index, open. It is closed after as many others were asked for as are kept open, so ask again
        rather than keep it for long. Raises as IndexReader.
        """
        reader = self._readers.get(set_id)
        if reader is not None:
            self._readers.move_to_end(set_id)
            return reader
        reader = self._readers[set_id] = IndexReader(self._home.index(set_id), self._bases)
        if len(self._readers) > self._limit:
            self._readers.popitem(last=False)[1].close()
        return reader

    def resolve(self, reader: IndexReader, path: bytes) -> Found:
        """Return what is at `path`, counted from the set's root; slashes at the ends do not matter.

        Raises NoSuchThing.
        """
        here = Found(b"", None, None, reader.directory(ROOT_DIRECTORY))
        for name in path.split(b"/"):
            if name in (b"", b"."):
                continue
            here = self._child(reader, here, name)
        return here

    def _child(self, reader: IndexReader, parent: Found, name: bytes) -> Found:
        path = parent.path + b"/" + name if parent.path else name
        found = reader.lookup(parent.directory, name) if parent.directory is not None else None
        if found is None:
            raise NoSuchThing(f"the set has no {path.decode(errors='replace')!r}: see `tapefs ls SET`")
        return _found(reader, path, *found)

    def children(self, reader: IndexReader, parent: Found) -> Iterator[Found]:
        """Return what is in a directory: its files in name order, then its directories; nothing for anything else."""
        if parent.directory is None:
            return
        for _, number, entry in reader.list_from(parent.directory, 0):
            yield _found(reader, parent.path + b"/" + entry.name if parent.path else entry.name, number, entry)

    def walk(self, reader: IndexReader, start: Found) -> Iterator[Found]:
        """Return `start` and everything below it, a directory before what is in it.

        The order is that of a full set on tape: of each directory the files by name, then its directories by name.
        """
        yield start
        levels = [self.children(reader, start)]
        while levels:
            child = next(levels[-1], None)
            if child is None:
                levels.pop()
                continue
            yield child
            if child.directory is not None:
                levels.append(self.children(reader, child))

    def close(self) -> None:
        """Close all indexes. Harmless twice."""
        while self._readers:
            self._readers.popitem()[1].close()
        self._bases.close()


def _found(reader: IndexReader, path: bytes, number: EntryNo, entry: Entry) -> Found:
    is_directory = stat.S_ISDIR(entry.mode)
    directory = reader.directory(DirectoryNo(entry.offset)) if is_directory else None
    return Found(path, number, entry, directory)
