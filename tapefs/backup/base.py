"""The set that an incremental or differential one builds on, as the walk sees it.

Blocking; belongs to the intake thread. Nothing of a listing is kept longer than it takes to compare it.
"""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from itertools import islice
from operator import attrgetter
from pathlib import Path
from stat import S_ISDIR, S_ISLNK, S_ISREG

import structlog

from catalog.errors import Damaged, NotFound, WrongVersion
from catalog.ids import DirectoryNo
from catalog.index.model import Directory, Entry, EntryFlag, content_bytes
from catalog.index.reader import IndexReader
from catalog.ledger import Ledger
from catalog.records import BackupSet, Job, SetState
from tapefs.backup.same import has_same_content
from tapefs.backup.scouts import Scouts
from tapefs.backup.tally import Tally
from tapefs.home import Home
from tapefs.verify.chain import lost_segment

log = structlog.get_logger(__name__)

FULL, INCREMENTAL, DIFFERENTIAL = "full", "incremental", "differential"
#: Sets that may be built on, by the type of the job. Mirrors and archives have a life of their own.
_BASES = {INCREMENTAL: (FULL, INCREMENTAL, DIFFERENTIAL), DIFFERENTIAL: (FULL,)}

#: What must be as it was. Not the device: its number changes over a reboot (btrfs, LVM, NFS). Not the blocks: they
#: change when a file is written back, long after its times.
_FIELDS = ("mode", "ino", "nlink", "uid", "gid", "size", "mtime_ns", "ctime_ns")
Mark = tuple[int, ...]
_status_mark = attrgetter(*(f"st_{name}" for name in _FIELDS))
_row_mark = attrgetter(*_FIELDS)

#: What was not read as it was, and is read again.
_BROKEN = int(EntryFlag.CHANGED | EntryFlag.UNREADABLE)
_FRESH = int(EntryFlag.FRESH)
#: A change within this time of a look may bear the ctime that was seen.
FRESH_NS = 2_000_000_000


class State(IntEnum):
    """What is to be done about a name that is not as in the base."""

    #: The base does not have it.
    NEW = 0
    #: It is not as it was, and is stored.
    CHANGED = 1
    #: Only its content can tell.
    DOUBTFUL = 2


class Verdict(Enum):
    """What to do about a file whose content is as in the base."""

    #: Nothing: all is as it was.
    KEEP = 1
    #: Say again what it is, without its content.
    RESTATE = 2
    #: Store it all the same.
    STORE = 3


@dataclass(slots=True)
class Difference:
    """A directory's names that are not directories, compared with the base's."""

    #: What is to be looked at, in name order, and why.
    names: list[bytes] = field(default_factory=list)
    states: bytearray = field(default_factory=bytearray)
    #: Names of the base that are gone, or are directories now; ascending.
    removed: list[bytes] = field(default_factory=list)
    #: Content of what is in `removed` or `names`, as the base has it.
    base_bytes: int = 0

    @property
    def base_files(self) -> int:
        """Return how many entries of the base are in `removed` or `names`."""
        return len(self.removed) + len(self.states) - self.states.count(State.NEW)


class Base:
    """The tree of the set that is built on. Every method may raise Damaged."""

    def __init__(self, backup_set: BackupSet, index: Path, reader: IndexReader, *, checksum: bool) -> None:
        """`reader` is open on `index`. With `checksum` the content of every file is compared."""
        self._index = index
        self.backup_set = backup_set
        self.reader = reader
        #: Number for the first directory that the base does not have.
        self.next_number = reader.directories_end
        self._checksum = checksum

    def scouts(self, job: Job, sources: list[bytes], began_ns: int) -> Scouts | None:
        """Have others look ahead of the walk; not where every content is compared."""
        if self._checksum:
            return None
        return Scouts(self._index, job, sources, began_ns, self.backup_set.started_at_ns - FRESH_NS)

    def root(self) -> Directory:
        """Return the root directory."""
        return self.reader.directory(DirectoryNo(0))

    def child(self, directory: Directory, name: bytes) -> Directory | None:
        """Return the subdirectory of that name; None when there is none."""
        found = self.reader.lookup(directory, name)
        if found is None or not S_ISDIR(found[1].mode):
            return None
        return self.reader.directory(DirectoryNo(found[1].offset))

    def entry(self, directory: Directory, name: bytes) -> Entry:
        """Return a file of the base that `compare` has named CHANGED or DOUBTFUL."""
        found = self.reader.lookup(directory, name)
        if found is None:
            raise AssertionError(f"the base has no {name!r} any more")
        return found[1]

    def _children(self, directory: Directory) -> Iterator[int]:
        """Yield the numbers of its subdirectories, in name order."""
        for _, _, entry in self.reader.list_from(directory, directory.files_count):
            yield entry.offset

    def is_same_directory(self, directory: Directory, status: os.stat_result) -> bool:
        """Are its own attributes as they were? What was fresh when the base was made is not to be trusted."""
        fresh = directory.ctime_ns + FRESH_NS > self.backup_set.started_at_ns
        return not fresh and _row_mark(directory) == _status_mark(status)

    def compare(self, directory: Directory, names: Sequence[bytes], fd: int) -> Difference:
        """Compare with the sorted `names` of the open directory `fd` that are not directories."""
        difference = Difference()
        replaced: list[Entry] = []
        for name, entry in self._merged(directory, names, difference.removed, replaced):
            state = State.NEW if entry is None else self._state(entry, name, fd)
            if state is None:
                continue
            difference.names.append(name)
            difference.states.append(state)
            if entry is not None:
                difference.base_bytes += content_bytes([entry])
        difference.base_bytes += content_bytes(replaced)
        return difference

    def _merged(
        self, directory: Directory, names: Iterable[bytes], removed: list[bytes], gone: list[Entry]
    ) -> Iterator[tuple[bytes, Entry | None]]:
        """Yield each name with its entry of the base; what only the base has goes to the two lists."""
        rows = islice(self.reader.list_from(directory, 0), directory.files_count)
        entries = (entry for _, _, entry in rows)
        entry = next(entries, None)
        for name in names:
            while entry is not None and entry.name < name:
                removed.append(entry.name)
                gone.append(entry)
                entry = next(entries, None)
            if entry is not None and entry.name == name:
                yield name, entry
                entry = next(entries, None)
            else:
                yield name, None
        while entry is not None:
            removed.append(entry.name)
            gone.append(entry)
            entry = next(entries, None)

    def _state(self, entry: Entry, name: bytes, fd: int) -> State | None:
        """Return what is to be done about a name of the base; None: nothing."""
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if S_ISLNK(status.st_mode) and S_ISLNK(entry.mode) and os.readlink(name, dir_fd=fd) != entry.target:
                return State.CHANGED
        except OSError:
            # Gone since, or worse: whoever takes it will meet it again.
            return State.CHANGED
        is_same = _row_mark(entry) == _status_mark(status) and entry.rdev == status.st_rdev
        if entry.flags & _BROKEN:
            return State.CHANGED
        if S_ISREG(status.st_mode) and S_ISREG(entry.mode) and status.st_size == entry.size:
            if self._checksum or (is_same and entry.flags & _FRESH):
                return State.DOUBTFUL
        elif entry.flags & _FRESH:
            return State.CHANGED
        return None if is_same else State.CHANGED

    def verdict(
        self, directory: Directory, old: Entry, fd: int, status: os.stat_result, look_around: Callable[[], None]
    ) -> Verdict:
        """Say what is to be done about a DOUBTFUL file, open as `fd`: reads it, if its content matters.

        `look_around` is called between reads; what it raises passes through.
        """
        verdict = self._verdict_on_same(old, status)
        if verdict is Verdict.STORE:
            return verdict
        found = self.reader.lookup(directory, old.name)
        try:
            is_same = found is not None and has_same_content(self.reader, *found, fd, look_around)
        except OSError:
            return Verdict.STORE  # Whoever stores it meets this again.
        return verdict if is_same else Verdict.STORE

    def _verdict_on_same(self, old: Entry, status: os.stat_result) -> Verdict:
        """Return the verdict for the case that the content is the same."""
        if status.st_size != old.size:
            return Verdict.STORE
        if _row_mark(old) == _status_mark(status):
            # A name of several stays fresh: to say one of them again would take it from the others.
            cannot_settle = old.nlink > 1 or fresh_flag(status)
            return Verdict.KEEP if cannot_settle or not old.flags & _FRESH else Verdict.RESTATE
        return Verdict.STORE if old.nlink > 1 or status.st_nlink > 1 else Verdict.RESTATE

    def missing(self, directory: Directory, children: Sequence[int]) -> list[DirectoryNo]:
        """Return the subdirectories of the base that are not among `children`, numbers in name order."""
        left = [number for number in children if number < self.next_number]
        if len(left) == directory.directories_count:
            return []
        kept = iter(left)
        expected = next(kept, None)
        missing = []
        for number in self._children(directory):
            if number == expected:
                expected = next(kept, None)
            else:
                missing.append(DirectoryNo(number))
        return missing

    def tally(self) -> Tally:
        """Return what a set shows that differs in nothing."""
        _, directories, files, content = self.reader.totals
        return Tally(files=files, directories=directories, bytes=content)

    def discount(self, number: DirectoryNo, tally: Tally) -> None:
        """Take a directory of the base, with all that is in it, out of the tally."""
        waiting = array("Q", [number])
        while waiting:
            directory = self.reader.directory(DirectoryNo(waiting.pop()))
            tally.directories -= 1
            tally.files -= directory.files_count
            tally.removed_files += directory.files_count
            tally.bytes -= directory.files_bytes
            waiting.extend(self._children(directory))


def fresh_flag(status: os.stat_result) -> int:
    """Return FRESH if a change from now on may bear the ctime that was seen; else nothing."""
    return _FRESH if status.st_ctime_ns > fresh_from_ns() else 0


def fresh_from_ns() -> int:
    """Return the ctime behind which a file is FRESH."""
    return time.time_ns() - FRESH_NS


@dataclass(frozen=True, slots=True)
class Choice:
    """What a run builds on, and what its set is therefore."""

    #: The set's type: `full` where there is nothing to build on.
    type: str
    backup_set: BackupSet | None = None
    index: Path | None = None
    reader: IndexReader | None = None
    #: Why it is not what was asked for; empty when it is.
    reason: str = ""

    def base(self, *, checksum: bool) -> Base | None:
        """Return what to compare with; it is good until `close`."""
        if self.backup_set is None or self.index is None or self.reader is None:
            return None
        return Base(self.backup_set, self.index, self.reader, checksum=checksum)

    def close(self) -> None:
        """Let go of the index."""
        if self.reader is not None:
            self.reader.close()


def choose_base(home: Home, ledger: Ledger, job: Job) -> Choice:
    """Find the newest set that the job's next one builds on, and open its index. Raises StorageFailed.

    An incremental one builds on the job's newest complete set, a differential one on its newest complete full set;
    newest is the one that was begun last: one that came back from tape later may have a higher number. If its index
    cannot be read, or it stands on content that was found lost when it was read back, the set becomes a full one:
    better too much on tape than a backup that does not happen, or one that shows what nobody can read.
    """
    wanted = job.run_type or job.type
    if wanted not in _BASES:
        return Choice(wanted)
    found = [
        each
        for each in ledger.sets_of(job.job_id)
        if each.state is SetState.COMPLETE and each.type in _BASES[wanted] and not each.is_imported
    ]
    if not found:
        return Choice(FULL, reason=f"the job has no complete set that a set of type {wanted} could build on")
    newest = max(found, key=lambda each: (each.order_ns, each.number))
    if lost := lost_segment(home, ledger, newest):
        log.warning("a full set instead of an incremental one", base=newest.set_id, damaged_segment=lost)
        return Choice(
            FULL, reason=f"segment {lost}, on which set {newest.set_id} stands, was read back and has lost content"
        )
    try:
        index = home.index(newest.set_id)
        return Choice(wanted, newest, index, IndexReader(index))
    except (NotFound, Damaged, WrongVersion) as error:
        log.warning("a full set instead of an incremental one", base=newest.set_id, error=str(error))
        return Choice(
            FULL, reason=f"the index of set {newest.set_id}, which it would build on, cannot be read: {error}"
        )


def same_base(home: Home, ledger: Ledger, backup_set: BackupSet) -> Choice:
    """Return what a set was begun on, to go on with it. Raises NotFound, Damaged, WrongVersion when that is gone."""
    if backup_set.parent_id is None:
        return Choice(backup_set.type)
    parent = ledger.backup_set(backup_set.parent_id)
    if parent.state is not SetState.COMPLETE:
        raise NotFound(f"set {parent.set_id}, which it builds on, is {parent.state.value}: run the job anew")
    index = home.index(parent.set_id)
    return Choice(backup_set.type, parent, index, IndexReader(index))
