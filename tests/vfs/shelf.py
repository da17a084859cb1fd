"""A state folder with sets in it, made from local trees without any tape: ledger, indexes, plain streams."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import accumulate, count
from pathlib import Path

from catalog.ids import (
    BlockNo,
    DirectoryNo,
    EntryNo,
    FileNo,
    JobNumber,
    SegmentId,
    SegmentNo,
    SetId,
    VolumeId,
    new_uuid,
)
from catalog.index.model import Directory, Entry, EntryFlag, Extent, FrameRow, SegmentRow, content_bytes
from catalog.index.reader import IndexReader
from catalog.index.writer import IndexWriter
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import (
    BackupSet,
    IndexCopy,
    Job,
    Segment,
    SegmentCopy,
    SetState,
    SetTotals,
    Volume,
    VolumeEnd,
    VolumeState,
)
from tapefs.home import Home, open_home
from tapefs.staging.stage import SegmentStage
from tapefs.vfs.nodes import first_name

FRAME_BYTES = 64 * 1024
BLOCK_BYTES = 256 * 1024
STARTED_NS = 1_795_399_200_000_000_000  # 2026-11-23T020000Z
LABEL = "TAP001L9"


@dataclass
class PlainSegment:
    """A segment as it is before compression."""

    segment_id: SegmentId
    number: int
    plain: bytearray = field(default_factory=bytearray)
    hashes: list[tuple[int, bytes]] = field(default_factory=list)
    members: int = 0

    def add(self, content: bytes) -> int:
        """Append a member and return where its content begins."""
        self.plain += b"\xee" * 512
        offset = len(self.plain)
        self.plain += content + bytes(-len(content) % 512)
        self.hashes.append((offset, hashlib.sha256(content).digest()))
        self.members += 1
        return offset

    def frames(self) -> list[FrameRow]:
        """Return its frames; they are stored in half their length."""
        plain = self.plain
        return [
            FrameRow(at, min(FRAME_BYTES, len(plain) - at), at // 2, FRAME_BYTES // 2, bytes(16))
            for at in range(0, len(plain), FRAME_BYTES)
        ]


class Shelf:
    """A state folder that grows by `add_set`."""

    def __init__(self, path: Path, settings: str = "") -> None:
        path.mkdir()
        (path / "tapefs.toml").write_text("format = 1\n" + settings)
        self.home: Home = open_home(path)
        for folder in (self.home.indexes, self.home.staging):
            folder.mkdir()
        self.ledger = LmdbLedger.create(self.home.ledger, 1)
        self.segments: dict[SegmentId, PlainSegment] = {}
        self._clock = count(1)
        self._add_volume(LABEL)

    def close(self) -> None:
        self.ledger.close()

    def _add_volume(self, label: str) -> None:
        self.volume_id = VolumeId(new_uuid())
        self.ledger.add_volume(
            Volume(
                volume_id=self.volume_id,
                label=label,
                pool="default",
                installation_id=self.ledger.installation().installation_id,
                generation=9,
                capacity_bytes=10**9,
                block_size=BLOCK_BYTES,
                state=VolumeState.BLANK,
            )
        )
        claim = self.ledger.claim_volume(self.volume_id)
        self.ledger.label_volume(self.volume_id, claim, VolumeEnd(block=BlockNo(4), file=FileNo(2), used_bytes=2), 1)

    def add_set(
        self,
        source: Path,
        *,
        name: str = "docs",
        started_at_ns: int = STARTED_NS,
        segment_bytes: int = 1 << 30,
        unreadable: Collection[bytes] = (),
        complete: bool = True,
        base: BackupSet | None = None,
    ) -> BackupSet:
        """Record what is at `source` as a set, at its path without the leading slash; on top of `base` if there is
        one.
        """
        backup_set = self._begin(source, name, started_at_ns)
        reader = None if base is None else IndexReader(self.home.index(base.set_id))
        builder = _Builder(self.home.index(backup_set.set_id), backup_set.set_id, segment_bytes, unreadable, reader)
        builder.add_root(os.fsencode(source))
        totals = builder.finish()
        if reader is not None:
            reader.close()
        self._commit(backup_set, builder.segments)
        if complete:
            self._seal(backup_set, totals)
        return self.ledger.backup_set(backup_set.set_id)

    def add_long(self, counts: dict[str, int], *, name: str = "long") -> BackupSet:
        """Record a set that was never on a disk: directories at its root with so many empty files in each."""
        backup_set = self._begin(Path("/"), name, STARTED_NS)
        writer = IndexWriter(self.home.index(backup_set.set_id), backup_set.set_id)
        entries = []
        for number, (folder, count_) in enumerate(sorted(counts.items()), 1):
            first = EntryNo(0)
            for start in range(0, count_, 10_000):
                names = [b"file-%07d" % ordinal for ordinal in range(start, min(count_, start + 10_000))]
                at = writer.add_entries([_empty(each, stat.S_IFREG | 0o644, 0) for each in names])
                first = first if start else at
            writer.add_directory(_empty_directory(number, first, count_, EntryNo(0), 0))
            entries.append(_empty(folder.encode(), stat.S_IFDIR | 0o755, number))
        first = writer.add_entries(entries)
        writer.add_directory(_empty_directory(0, EntryNo(0), 0, first, len(entries)))
        totals = writer.finish()
        self._seal(
            backup_set,
            SetTotals(files=totals.files, directories=totals.directories, bytes=0, stored_bytes=0, troubled_files=0),
        )
        return self.ledger.backup_set(backup_set.set_id)

    def _begin(self, source: Path, name: str, started_at_ns: int) -> BackupSet:
        job = Job(number=JobNumber(0), job_id=new_uuid(), name=name, sources=(os.fsencode(source),))  # type: ignore[arg-type]
        job = self.ledger.add_job(job)
        self.ledger.queue_job(job.number, next(self._clock))
        return self.ledger.begin_set(
            BackupSet(
                set_id=SetId(new_uuid()),
                number=0,  # type: ignore[arg-type]
                job_id=job.job_id,
                job_number=job.number,
                name=name,
                type="full",
                codec="zstd",
                level=3,
                sources=job.sources,
                state=SetState.RUNNING,
                started_at_ns=started_at_ns,
            )
        )

    def _commit(self, backup_set: BackupSet, segments: list[PlainSegment]) -> None:
        claim = self.ledger.claim_volume(self.volume_id)
        for each in segments:
            self.segments[each.segment_id] = each
            volume = self.ledger.volume(self.volume_id)
            stored = len(each.frames()) * FRAME_BYTES // 2
            payload = volume.end_block + 2
            trailer = BlockNo(payload + -(-stored // BLOCK_BYTES) + 1)
            copy = SegmentCopy(
                segment_id=each.segment_id,
                volume_id=self.volume_id,
                header_file=volume.end_file,
                header_block=volume.end_block,
                payload_block=BlockNo(payload),
                trailer_block=trailer,
                end_block=BlockNo(trailer + 2),
                block_size=BLOCK_BYTES,
            )
            segment = Segment(
                segment_id=each.segment_id,
                set_id=backup_set.set_id,
                number=each.number,
                codec="zstd",
                plain_bytes=len(each.plain),
                stored_bytes=stored,
                members=each.members,
                frames=len(each.frames()),
                payload_sha256=bytes(32),
                committed_at_ns=next(self._clock),
            )
            end = VolumeEnd(
                block=copy.end_block, file=FileNo(copy.header_file + 3), used_bytes=volume.used_bytes + stored
            )
            self.ledger.commit_segment(segment, copy, claim, end, volume.label)

    def _seal(self, backup_set: BackupSet, totals: SetTotals) -> None:
        claim = self.ledger.claim_volume(self.volume_id)
        volume = self.ledger.volume(self.volume_id)
        index = IndexCopy(
            index_id=new_uuid(),
            set_id=backup_set.set_id,
            volume_id=self.volume_id,
            file=volume.end_file,
            block=volume.end_block,
            end_block=BlockNo(volume.end_block + 2),
        )
        end = VolumeEnd(block=index.end_block, file=FileNo(index.file + 1), used_bytes=volume.used_bytes)
        self.ledger.seal_set(backup_set.set_id, totals, index, claim, end, next(self._clock))
        self.ledger.complete_set(backup_set.set_id, next(self._clock))

    # -- staging -----------------------------------------------------------------------------------------------------

    def stage_frames(self, segment_id: SegmentId, first: int, last: int) -> None:
        """Do what a mover does when frames come from tape. Any thread."""
        segment = self.segments[segment_id]
        rows = segment.frames()
        stage = SegmentStage.create(self.home.staging, segment_id, rows)
        try:
            for number in range(first, last + 1):
                row = rows[number]
                stage.publish(number, bytes(segment.plain[row.plain_offset : row.plain_offset + row.plain_bytes]))
        finally:
            stage.close()

    def stage_all(self) -> None:
        """Stage every frame of every segment."""
        for segment_id, segment in self.segments.items():
            if segment.plain:
                self.stage_frames(segment_id, 0, len(segment.frames()) - 1)


@dataclass
class _Found:
    """What is in a directory beside its subdirectories, with what belongs into tables of its own, by ordinal."""

    entries: list[Entry] = field(default_factory=list)
    extents: dict[int, list[Extent]] = field(default_factory=dict)
    xattrs: dict[int, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    #: The number of the first name, or the ordinal of one in this directory as ~ordinal.
    links: dict[int, int] = field(default_factory=dict)
    #: ~ordinal by device and inode.
    here: dict[tuple[int, int], int] = field(default_factory=dict)


class _Builder:
    """Writes an index as the backup does: directory numbers on entering, listings on leaving.

    On a base, a directory in which no file has changed shares its run; else all its files are stored again.
    """

    def __init__(
        self,
        path: Path,
        set_id: SetId,
        segment_bytes: int,
        unreadable: Collection[bytes],
        base: IndexReader | None = None,
    ) -> None:
        self._base = base
        self._first_segment = 0 if base is None else base.segments_end
        self.segments = [PlainSegment(SegmentId(new_uuid()), 0)]
        self._index = IndexWriter(path, set_id, base)
        self._segment_bytes = segment_bytes
        self._unreadable = unreadable
        self._numbers = count()
        #: First names by device and inode.
        self._firsts: dict[tuple[int, int], int] = {}

    def finish(self) -> SetTotals:
        for each in self.segments:
            rows = each.frames()
            stored = len(rows) * FRAME_BYTES // 2
            number = SegmentNo(self._first_segment + each.number)
            self._index.add_segment(SegmentRow(number, each.segment_id, len(each.plain), stored, len(rows)))
            self._index.add_frames(number, rows)
            self._index.add_hashes(number, each.hashes)
        totals = self._index.finish()
        return SetTotals(
            files=totals.files,
            directories=totals.directories,
            bytes=totals.bytes,
            stored_bytes=totals.bytes // 2,
            troubled_files=len(self._unreadable),
        )

    def add_root(self, source: bytes) -> None:
        root = None if self._base is None else self._base.directory(DirectoryNo(0))
        self._enter(b"/", None, source.strip(b"/").split(b"/"), root)

    def _enter(self, path: bytes, parent: DirectoryNo | None, way: list[bytes], base: Directory | None) -> DirectoryNo:
        """Add a directory: along `way` only the next name of it, then everything."""
        number = DirectoryNo(next(self._numbers))
        names = [way[0]] if way else sorted(os.listdir(path))
        found = [(name, os.lstat(os.path.join(path, name))) for name in names]
        first, files = self._files(path, [pair for pair in found if not stat.S_ISDIR(pair[1].st_mode)], base)
        directories = [
            _entry(name, status, offset=self._enter(os.path.join(path, name), number, way[1:], self._below(base, name)))
            for name, status in found
            if stat.S_ISDIR(status.st_mode)
        ]
        first_directory = self._index.add_entries(directories)
        status = os.lstat(path)
        xattrs = _xattrs(path)
        self._index.add_directory(
            Directory(
                number, number if parent is None else parent, status.st_mode, status.st_uid, status.st_gid,
                status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_nlink, status.st_dev,
                status.st_ino, status.st_blocks,
                first, len(files), first_directory, len(directories),
                content_bytes(files), EntryFlag.XATTRS if xattrs else 0,
            )
        )  # fmt: skip
        if xattrs:
            self._index.add_directory_xattrs(number, xattrs)
        return number

    def _below(self, base: Directory | None, name: bytes) -> Directory | None:
        found = self._base.lookup(base, name) if self._base is not None and base is not None else None
        if found is None or self._base is None or not stat.S_ISDIR(found[1].mode):
            return None
        return self._base.directory(DirectoryNo(found[1].offset))

    def _files(
        self, path: bytes, named: list[tuple[bytes, os.stat_result]], base: Directory | None
    ) -> tuple[EntryNo, list[Entry]]:
        """Add the files of a directory, or find them in the base; return the run."""
        if self._base is not None and base is not None:
            run = list(self._base.list_from(base, 0))[: base.files_count]
            if [_identity(entry) for _, _, entry in run] == [_identity(_entry(*pair)) for pair in named]:
                return base.files_first, [entry for _, _, entry in run]
            # What other directories may share has a number already, and must not get another.
            for _, number, entry in run:
                same = [status for name, status in named if _identity(_entry(name, status)) == _identity(entry)]
                if entry.nlink > 1 and same:
                    self._firsts.setdefault((entry.dev, entry.ino), first_name(self._base, number, entry)[0])
        found = _Found()
        for name, status in named:
            self._add_file(found, os.path.join(path, name), name, status)
        first = self._index.add_entries(found.entries)
        for ordinal, extents in found.extents.items():
            self._index.add_extents(EntryNo(first + ordinal), extents)
        for ordinal, xattrs in found.xattrs.items():
            self._index.add_xattrs(EntryNo(first + ordinal), xattrs)
        for ordinal, link in found.links.items():
            self._index.add_link(EntryNo(first + ordinal), EntryNo(first + ~link if link < 0 else link))
        for ordinal, entry in enumerate(found.entries):
            self._firsts.setdefault((entry.dev, entry.ino), first + ordinal)
        return first, found.entries

    def _add_file(self, found: _Found, path: bytes, name: bytes, status: os.stat_result) -> None:
        ordinal = len(found.entries)
        inode = (status.st_dev, status.st_ino)
        link = self._firsts.get(inode, found.here.get(inode))
        if link is None:
            entry, extents = self._file(path, name, status)
            if extents or entry.flags & EntryFlag.SPARSE:
                found.extents[ordinal] = extents
        else:
            entry = _entry(name, status, flags=EntryFlag.LINKED)
            found.links[ordinal] = link
        if xattrs := _xattrs(path):
            entry = entry._replace(flags=entry.flags | EntryFlag.XATTRS)
            found.xattrs[ordinal] = xattrs
        found.here.setdefault(inode, ~ordinal)
        found.entries.append(entry)

    def _file(self, path: bytes, name: bytes, status: os.stat_result) -> tuple[Entry, list[Extent]]:
        if stat.S_ISLNK(status.st_mode):
            return _entry(name, status, target=os.readlink(path)), []
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return _entry(name, status), []
        if name in self._unreadable:
            return _entry(name, status, flags=EntryFlag.UNREADABLE), []
        data = _data(path, status.st_size)
        if data != [(0, status.st_size)]:
            return self._sparse(path, name, status, data)
        content = Path(os.fsdecode(path)).read_bytes()
        if len(content) <= self._segment_bytes:
            segment = self._room_for(len(content))
            return _entry(name, status, segment=self._number(segment), offset=segment.add(content)), []
        extents = []
        for at in range(0, len(content), self._segment_bytes):
            part = content[at : at + self._segment_bytes]
            segment = self._room_for(len(part))
            extents.append(Extent(at, len(part), self._number(segment), segment.add(part)))
        return _entry(
            name, status, flags=EntryFlag.SPLIT, segment=extents[0].segment, offset=extents[0].offset
        ), extents

    def _sparse(
        self, path: bytes, name: bytes, status: os.stat_result, data: list[tuple[int, int]]
    ) -> tuple[Entry, list[Extent]]:
        """Store the data without the holes, one run behind the other."""
        with open(path, "rb") as file:
            runs = [os.pread(file.fileno(), length, at) for at, length in data]
        content = b"".join(runs)
        segment = self._room_for(len(content))
        offset = segment.add(content) if content else 0
        extents = []
        for (at, length), place in zip(data, accumulate([offset, *map(len, runs)]), strict=False):
            extents.append(Extent(at, length, self._number(segment), place))
        number = self._number(segment) if content else SegmentNo(0)
        return _entry(name, status, flags=EntryFlag.SPARSE, segment=number, offset=offset), extents

    def _number(self, segment: PlainSegment) -> SegmentNo:
        return SegmentNo(self._first_segment + segment.number)

    def _room_for(self, length: int) -> PlainSegment:
        if self.segments[-1].plain and len(self.segments[-1].plain) + length > self._segment_bytes:
            self.segments.append(PlainSegment(SegmentId(new_uuid()), len(self.segments)))
        return self.segments[-1]


def _entry(
    name: bytes, status: os.stat_result, *, flags: int = 0, segment: int = 0, offset: int = 0, target: bytes = b""
) -> Entry:
    return Entry(
        name, status.st_mode, status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
        status.st_nlink, status.st_rdev, status.st_dev, status.st_ino, status.st_blocks, flags, segment, offset, target,
    )  # fmt: skip


def _empty(name: bytes, mode: int, offset: int) -> Entry:
    return Entry(name, mode, 0, 0, 0, STARTED_NS, STARTED_NS, 1, 0, 0, 0, 0, 0, 0, offset, b"")


def _empty_directory(
    number: int, files_first: EntryNo, files: int, directories_first: EntryNo, directories: int
) -> Directory:
    return Directory(
        DirectoryNo(number), DirectoryNo(0), stat.S_IFDIR | 0o755, 0, 0, 4096, STARTED_NS, STARTED_NS, 2, 0, 0, 8,
        files_first, files, directories_first, directories, 0, 0,
    )  # fmt: skip


def _identity(entry: Entry) -> tuple[object, ...]:
    """What tells whether a file is as it was."""
    return entry[:12]


def _xattrs(path: bytes) -> list[tuple[bytes, bytes]]:
    names = sorted(os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False))
    return [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]


def _data(path: bytes, size: int) -> list[tuple[int, int]]:
    """Return the runs of data (place, length) of a file."""
    runs = []
    with open(path, "rb") as file:
        at = 0
        while at < size:
            try:
                begin = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break  # nothing but a hole is left
            at = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            runs.append((begin, at - begin))
    return runs
