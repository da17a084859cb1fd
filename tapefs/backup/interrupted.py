"""A backup that was interrupted and goes on: what its committed segments bring to the engine. Intake thread."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from catalog.errors import NotFound
from catalog.index.model import EntryFlag
from catalog.index.reader import IndexReader
from catalog.ledger import Ledger
from catalog.records import BackupSet, Segment, SegmentCopy, SetTotals
from tapefs.backup.attributes import known_attributes
from tapefs.backup.latecomers import status_of
from tapefs.backup.links import LinkMap
from tapefs.backup.scan import OpenDirectory
from tapefs.backup.segment import CommittedSegment
from tapefs.backup.source import Seen, Source, Vanished
from tapefs.backup.standing import Standing, read_standing
from tapefs.format.records import Member, name_of, xattrs_of
from tapefs.home import Home
from tapefs.sets.build import build_index

_LINKED, _SPARSE = int(EntryFlag.LINKED), int(EntryFlag.SPARSE)
_CHANGED, _UNREADABLE = int(EntryFlag.CHANGED), int(EntryFlag.UNREADABLE)


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The committed segments of a set that goes on."""

    home: Home
    backup_set: BackupSet
    #: By their number.
    segments: Sequence[CommittedSegment]
    #: Those of which no SET INDEX repeats the trailer.
    unindexed: Sequence[CommittedSegment]
    #: Index of the set that this one builds on.
    base: IndexReader | None

    @classmethod
    def of(cls, home: Home, ledger: Ledger, backup_set: BackupSet, base: IndexReader | None) -> Interrupted:
        """Look the segments up. Raises NotFound when a local trailer is missing."""
        indexed = {(each.volume_id, each.end_block) for each in ledger.index_copies(backup_set.set_id)}
        segments, unindexed = [], []
        for segment in ledger.segments(backup_set.set_id):
            # One that lies on several tapes is named by the first; the SET INDEX wants one place.
            copy = _first_copy(ledger, backup_set, segment)
            committed = _committed(home, ledger, segment, copy)
            segments.append(committed)
            if not any(volume == copy.volume_id and end > copy.end_block for volume, end in indexed):
                unindexed.append(committed)
        return cls(home, backup_set, segments, unindexed, base)

    def read(self, links: LinkMap) -> Standing:
        """Return where it stands, having noted files with several names. Raises BadStructure, OSError."""

        def note(segment: int, member: Member, path: bytes) -> None:
            # What changed while it was read is not to be linked to, as when it was backed up.
            status = status_of(member)
            if member.flags & _UNREADABLE:
                return
            if member.flags & _CHANGED:
                links.forget(status)
                return
            known = links.find(status)
            if member.flags & _LINKED and known is not None and (known.segment, known.at) == (segment, member.at):
                links.linked(status, known, segment)
            else:
                links.stored(status, segment, member.at, b"" if member.part >= 0 else path)

        trailers = [(each.segment.segment_id, self.home.trailer(each.segment.segment_id)) for each in self.segments]
        return read_standing(trailers, note)

    def totals(self, counted: SetTotals, segments: Sequence[CommittedSegment]) -> SetTotals:
        """Return what the set of these segments shows, by an index built of them; what that does not tell is `counted`.

        The counts of the interrupted run are gone, and with a base they cannot be told from its lines alone.
        """
        folder = self.home.indexes / f".{self.backup_set.set_id}.totals"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
        try:
            trailers = [self.home.trailer(each.segment.segment_id) for each in segments]
            found = build_index(folder / "index.lmdb", self.backup_set.set_id, trailers, self.base)
        finally:
            shutil.rmtree(folder)
        return msgspec.structs.replace(counted, files=found.files, directories=found.directories, bytes=found.bytes)


def _first_copy(ledger: Ledger, backup_set: BackupSet, segment: Segment) -> SegmentCopy:
    """Return the copy that was written first: on a tape of the set's own pool, if there is one."""

    def rank(copy: SegmentCopy) -> tuple[bool, int]:
        volume = ledger.volume(copy.volume_id)
        label = volume.label
        return volume.pool != backup_set.pool, backup_set.tapes.index(label) if label in backup_set.tapes else -1

    return min(ledger.copies(segment.segment_id), key=rank)


def _committed(home: Home, ledger: Ledger, segment: Segment, copy: SegmentCopy) -> CommittedSegment:
    path = home.trailer(segment.segment_id)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise NotFound(f"{path} is missing: the set cannot go on, run the job anew") from None
    return CommittedSegment(segment, copy, ledger.volume(copy.volume_id).label, size)


def seen_again(directory: OpenDirectory, part: Member, look_around: Callable[[], None]) -> Seen:
    """Return how a file was whose first parts are committed, by the newest of their lines.

    Where its data lies is looked up again if it has not changed; else all that is missing counts as data.
    """
    status = status_of(part)
    attributes = known_attributes(xattrs_of(part))
    flags = part.flags & (_LINKED | _SPARSE)
    runs = [(0, part.size)] if flags & _SPARSE else None
    try:
        source = Source.open(directory, name_of(part), look_around)
    except (OSError, Vanished):
        return Seen(status, attributes, runs, flags)
    try:
        is_same = source.status.st_ino == part.ino and _times(source.status) == _times(status)
        if is_same and flags & _SPARSE and source.runs is not None:
            runs = source.runs
    finally:
        source.close()
    return Seen(status, attributes, runs, flags)


def _times(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
