"""Takes TAF's archives on a volume into the catalog: each of its sets becomes a set with a tree. Blocking; one thread.

The caller owns the state folder. Order: notes of what was read, index in place, ledger (the set is SEALED, with tape,
segments and copies), then it is completed as every set. All ids follow from what is on the volume, so that after a
crash anywhere, and any other time, the same command finds what is done.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from catalog.crash import crash_point
from catalog.ids import BlockNo, FileNo, JobNumber, SetId, SetNumber
from catalog.index.model import Totals
from catalog.ledger import Ledger
from catalog.records import (
    FOREIGN_CODEC,
    Adoption,
    BackupSet,
    ForeignArchive,
    Segment,
    SegmentCopy,
    SetState,
    Volume,
    VolumeState,
)
from drivers.ltfs.drive import generation_of
from tapefs.home import Home
from tapefs.search.names import write_names
from tapefs.sets.finish import finish_set
from tapefs.taf.catalog import ToldCatalog, ToldSet
from tapefs.taf.identity import TAF, Identity, segment_id
from tapefs.taf.notes import Notes, ReadArchive
from tapefs.taf.survey import survey_archive
from tapefs.taf.tree import Planted, Tree
from tapefs.taf.volume import Archive, TafVolume

_after_archive = crash_point("taf.archive.after")
_after_index = crash_point("taf.index.after")
_after_adopt = crash_point("taf.adopt.after")
_after_set = crash_point("taf.set.after")

#: Blocks as the catalog counts them: places of archives one behind the other, in the order of the tape.
_BLOCK_BYTES = 256 * 1024
#: What `Volume.foreign` and the pool say.
FOREIGN = "taf"
_TIME = re.compile(r"_(\d{8}_\d{6})(?:\D|$)")
_NS_PER_S = 1_000_000_000
#: Shorter than a folder's may be: other programs put something behind it.
_NAME_BYTES = 200
_CODECS = {".tar.gz": "pgzip", ".tar.zst": "zstd", ".tar": "tar", ".7z": "7z"}
_CONTROL = re.compile(r"[\x00-\x1f\x7f/]")

#: Is told what is at hand, bytes that were done of it, and of how many.
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Entered:
    """What has become of one of TAF's sets."""

    taf_id: bytes
    #: None: nothing of it could be read, and nothing is entered.
    backup_set: BackupSet | None
    #: It was there before.
    is_known: bool = False
    #: Archives that are not whole, and why.
    problems: tuple[tuple[bytes, str], ...] = ()
    planted: Planted = field(default_factory=Planted)
    #: How it differs from what TAF's catalog says of it.
    differences: tuple[str, ...] = ()

    @property
    def is_expired(self) -> bool:
        """Was it here, and let go?"""
        return self.backup_set is not None and self.backup_set.state is SetState.EXPIRED


class Entering:
    """The import of one volume."""

    def __init__(
        self, home: Home, ledger: Ledger, volume: TafVolume, identity: Identity, *, again: bool, now_ns: int
    ) -> None:
        """`again`: archives that were not whole are read once more."""
        self._home = home
        self._ledger = ledger
        self._volume = volume
        self._identity = identity
        self._again = again
        self._now_ns = now_ns

    def run(self, archives: Sequence[Archive], told: ToldCatalog | None, tell: Tell) -> list[Entered]:
        """Take in these archives' sets, by what TAF's catalog has `told` of them.

        Raises UsageError when the volume goes away, StorageFailed, Conflict.
        """
        by_set: dict[bytes, list[Archive]] = {}
        for archive in archives:
            by_set.setdefault(archive.set_id, []).append(archive)
        entered = {taf_id: found for taf_id, some in by_set.items() if (found := self._known(taf_id, some))}
        to_read = {taf_id: some for taf_id, some in by_set.items() if taf_id not in entered}
        with Notes(self._home.path / "import" / f"taf-{self._identity.volume_id}.sqlite") as notes:
            for archive in archives:  # In the order of the tape, which is not that of the sets.
                if archive.set_id in to_read:
                    self._read(archive, notes, tell)
            for taf_id, some in to_read.items():
                tell(f"set {os.fsdecode(taf_id)}", 0, 0)
                entered[taf_id] = self._enter(taf_id, some, notes, told)
            notes.forget()
        return [entered[taf_id] for taf_id in by_set]

    def _known(self, taf_id: bytes, archives: Sequence[Archive]) -> Entered | None:
        """Return a set that has just these archives, if the catalog has it."""
        wanted = {(each.path, each.size_bytes, each.mtime_ns) for each in archives}
        on_volume = {copy.segment_id for copy in self._ledger.copies_on(self._identity.volume_id)}
        for backup_set in reversed(self._ledger.backup_sets()):
            is_over = backup_set.state in (SetState.COMPLETE, SetState.EXPIRED)
            if not is_over or backup_set.foreign_name != os.fsdecode(taf_id).encode(errors="backslashreplace").decode():
                continue
            segments = self._ledger.segments(backup_set.set_id)
            found = {
                (each.archive.path, each.stored_bytes, each.archive.mtime_ns)
                for each in segments
                if each.archive is not None and each.segment_id in on_volume
            }
            has_index = backup_set.state is SetState.EXPIRED or self._home.index(backup_set.set_id).exists()
            if found == wanted and has_index and not (self._again and backup_set.partial):
                return Entered(taf_id, backup_set, is_known=True)
        return None

    def _read(self, archive: Archive, notes: Notes, tell: Tell) -> None:
        noted = notes.find(archive)
        if noted is None or (self._again and noted.problem):
            name = os.fsdecode(archive.path)
            survey_archive(self._volume, archive, notes, lambda done, _: tell(name, done, archive.size_bytes))
            _after_archive()

    def _enter(self, taf_id: bytes, archives: Sequence[Archive], notes: Notes, catalog: ToldCatalog | None) -> Entered:
        read = [each for each in map(notes.find, archives) if each is not None]
        problems = tuple((each.path, each.problem) for each in read if each.problem)
        if not any(each.members for each in read) and problems:
            return Entered(taf_id, None, problems=problems)
        set_id = self._identity.set_id(taf_id, ((each.path, each.size_bytes, each.plain_bytes) for each in read))
        segments = [_segment(set_id, number, each, notes) for number, each in enumerate(read)]
        with Tree(notes, read) as tree:
            planted = tree.plant()
            self._home.names(set_id).unlink(missing_ok=True)
            totals = tree.write(self._home.index(set_id), set_id, [each.segment_id for each in segments])
        told = catalog.find(taf_id) if catalog is not None else None
        differences = () if catalog is None else tuple(catalog.differences(taf_id, notes, read))
        _after_index()
        backup_set = self._set(set_id, taf_id, read, totals, told)
        self._adopt(backup_set, segments, {each.path: each for each in archives})
        _after_adopt()
        finish_set(self._home, self._ledger, set_id, backup_set.finished_at_ns)
        if not self._home.names(set_id).exists():
            write_names(self._home, set_id)  # The set was complete, and only its index was lost.
        _after_set()
        return Entered(taf_id, self._ledger.backup_set(set_id), False, problems, planted, differences)

    def _set(
        self, set_id: SetId, taf_id: bytes, read: Sequence[ReadArchive], totals: Totals, told: ToldSet | None
    ) -> BackupSet:
        taf_name = os.fsdecode(taf_id).encode(errors="backslashreplace").decode()
        name = _job_name(told.name if told is not None else "", taf_name)
        broken = [each for each in read if each.problem]
        written_ns = max(each.mtime_ns for each in read)
        started_ns = (told.time_ns if told is not None else 0) or min(map(_started_ns, read))
        return BackupSet(
            set_id=set_id,
            number=SetNumber(0),
            job_id=self._identity.job_id(name),
            job_number=JobNumber(0),
            name=name,
            type=(told.type if told is not None else "") or "full",
            codec=_CODECS[read[0].suffix],
            level=-1,
            sources=told.sources if told is not None else (),
            state=SetState.SEALED,
            started_at_ns=started_ns,
            finished_at_ns=max(written_ns, started_ns),
            pool=FOREIGN,
            files=totals.files,
            directories=totals.directories,
            bytes=totals.bytes,
            stored_bytes=sum(each.size_bytes for each in read),
            unread_files=0,
            segments=len(read),
            tapes=(self._identity.label,),
            is_adopted=True,
            is_imported=True,
            foreign_name=taf_name,
            partial=_partial(broken, len(read)),
        )

    def _adopt(self, backup_set: BackupSet, segments: Sequence[Segment], archives: dict[bytes, Archive]) -> None:
        """Have the ledger take in the set, its segments, and where they lie."""
        copies = self._ledger.copies_on(self._identity.volume_id)
        end, file = max((copy.end_block for copy in copies), default=0), len(copies)
        known = {copy.segment_id: copy for copy in copies}
        new = []
        order = list(archives)
        for segment in sorted(segments, key=lambda each: order.index(each.archive.path) if each.archive else 0):
            copy = known.get(segment.segment_id)
            if copy is None:
                copy = self._copy(segment, end, file)
                end, file = copy.end_block, file + 1
            new.append(copy)
        volume = self._record(end, file, backup_set.finished_at_ns)
        adoption = Adoption(volumes=(volume,), sets=(backup_set,), segments=tuple(segments), copies=tuple(new))
        self._ledger.adopt(adoption, self._now_ns)

    def _copy(self, segment: Segment, block: int, file: int) -> SegmentCopy:
        end = BlockNo(block + max(1, -(-segment.stored_bytes // _BLOCK_BYTES)))
        return SegmentCopy(
            segment_id=segment.segment_id,
            volume_id=self._identity.volume_id,
            header_file=FileNo(file),
            header_block=BlockNo(block),
            payload_block=BlockNo(block),
            trailer_block=end,
            end_block=end,
            block_size=_BLOCK_BYTES,
        )

    def _record(self, end_block: int, end_file: int, written_ns: int) -> Volume:
        label = self._identity.label
        return Volume(
            volume_id=self._identity.volume_id,
            label=label,
            pool=FOREIGN,
            installation_id=TAF,
            generation=generation_of(label),
            capacity_bytes=0,
            block_size=_BLOCK_BYTES,
            state=VolumeState.FULL,
            end_block=BlockNo(end_block),
            end_file=FileNo(end_file),
            used_bytes=end_block * _BLOCK_BYTES,
            created_at_ns=self._now_ns,
            written_at_ns=written_ns,
            foreign=FOREIGN,
        )


def _job_name(told: str, taf_name: str) -> str:
    """Return a name for the job that can be one of a folder in the mount."""
    name = _CONTROL.sub("_", told or taf_name).strip()
    name = name.encode(errors="backslashreplace")[:_NAME_BYTES].decode(errors="ignore")
    return taf_name if name in ("", ".", "..") else name


def _segment(set_id: SetId, number: int, read: ReadArchive, notes: Notes) -> Segment:
    return Segment(
        segment_id=segment_id(set_id, read.path),
        set_id=set_id,
        number=number,
        codec=FOREIGN_CODEC,
        plain_bytes=read.plain_bytes,
        stored_bytes=read.size_bytes,
        members=read.members,
        frames=sum(1 for _ in notes.frames(read.number)),
        payload_sha256=read.sha256,
        committed_at_ns=read.mtime_ns,
        archive=ForeignArchive(
            path=read.path, suffix=read.suffix, mtime_ns=read.mtime_ns, checkpoints=read.checkpoints
        ),
    )


def _partial(broken: Sequence[ReadArchive], count: int) -> str:
    if not broken:
        return ""
    first = broken[0]
    told = f"{os.fsdecode(first.path)}: {first.problem}".encode(errors="backslashreplace").decode()
    return f"{len(broken)} of {count} archives could not be read to the end ({told})"


def _started_ns(read: ReadArchive) -> int:
    """Return when TAF began an archive, by its name, which has the local time; else when it was written."""
    found = _TIME.search(os.fsdecode(read.path.rpartition(b"/")[2]))
    if found is None:
        return read.mtime_ns
    try:
        return int(datetime.strptime(found[1], "%Y%m%d_%H%M%S").timestamp()) * _NS_PER_S
    except (ValueError, OverflowError, OSError):
        return read.mtime_ns
