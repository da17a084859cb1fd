"""Trailers of made-up sets, written as a backup writes them, and beside them what their index must hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from stat import S_IFDIR, S_IFLNK, S_IFREG
from typing import Any

import msgspec

from catalog.ids import DirectoryNo, SegmentId, SetId
from catalog.index.model import Entry, Extent
from catalog.index.reader import IndexReader
from tapefs.format.lines import LineWriter
from tapefs.format.records import (
    DirectoryEntered,
    DirectoryLeft,
    Elsewhere,
    End,
    FrameLine,
    Member,
    TrailerLine,
    as_text,
)

SET = SetId("0b9c5f1e-6d1f-4a53-9d0c-0f6f2f6f0002")
FRAME_BYTES = 100_000
UNREADABLE, SPLIT, CHANGED = 4, 2, 1

#: A tree: names to entries (with their wanted fields) or trees; the entry under b"" is the directory itself.
Tree = dict[bytes, "Entry | Tree"]


def segment_id(number: int) -> SegmentId:
    return SegmentId(f"5e6d0000-0000-4000-8000-{number:012x}")


def file(name: bytes, size: int = 0, **fields: Any) -> Entry:
    values: dict[str, Any] = dict(
        name=name, mode=S_IFREG | 0o644, uid=0, gid=0, size=size, mtime_ns=0, ctime_ns=0, nlink=1, rdev=0, dev=1,
        ino=2, blocks=0, flags=0, segment=0, offset=0, target=b"",
    )  # fmt: skip
    return Entry(**{**values, **fields})


def folder(**fields: Any) -> Entry:
    return file(b"", 4096, **{"mode": S_IFDIR | 0o755, "nlink": 2, **fields})


def link(name: bytes, target: bytes) -> Entry:
    return file(name, len(target), mode=S_IFLNK | 0o777, target=target)


@dataclass
class _Open:
    number: int
    parent: int
    entry: Entry
    here: list[int] = field(default_factory=list)
    #: (name, place) of the member lines in this segment.
    present: list[tuple[bytes, int]] = field(default_factory=list)
    elsewhere: list[Elsewhere] = field(default_factory=list)
    children: list[int] = field(default_factory=list)


@dataclass
class Expected:
    """What the index must hold, without entry numbers."""

    #: Per directory: its fields from parent to blocks, its files, its subdirectories.
    directories: dict[int, tuple[tuple[int, ...], list[Entry], list[Entry]]] = field(default_factory=dict)
    #: By (directory, name).
    extents: dict[tuple[int, bytes], list[Extent]] = field(default_factory=dict)
    #: Per segment.
    hashes: dict[int, dict[int, bytes]] = field(default_factory=dict)
    segments: list[tuple[int, ...]] = field(default_factory=list)


class Walk:
    """Walks a tree as a backup does and writes down its trailers: `segments`, lists of lines."""

    def __init__(self, tree: Tree, *, members: int = 10**9, part_bytes: int = 10**18) -> None:
        """Begin a segment after so many member lines, and split files larger than `part_bytes`."""
        self.segments: list[list[Any]] = [[]]
        self.expected = Expected()
        self._limit, self._part_bytes = members, part_bytes
        self._stack: list[_Open] = []
        self._number = self._members = self._place = 0
        self._directory(tree, b"")
        self._end_segment()

    def _directory(self, tree: Tree, name: bytes) -> Entry:
        entry = tree[b""]
        assert isinstance(entry, Entry)
        entry = entry._replace(name=name, offset=self._number)
        parent = self._stack[-1].number if self._stack else 0
        self._stack.append(_Open(self._number, parent, entry))
        self._number += 1
        self._enter(self._stack[-1], again=False)
        here = self._stack[-1]
        names = sorted(name for name in tree if name)
        files = [self._file(tree[name]) for name in names if isinstance(tree[name], Entry)]  # type: ignore[arg-type]
        folders = []
        for child in names:
            branch = tree[child]
            if isinstance(branch, dict):
                here.children.append(self._number)
                folders.append(self._directory(branch, child))
        self._leave(here)
        fields = (here.parent, *entry[1:8], entry.dev, entry.ino, entry.blocks)
        self.expected.directories[here.number] = (fields, files, folders)
        return entry

    def _enter(self, here: _Open, *, again: bool) -> None:
        entry = here.entry
        text, raw = as_text(entry.name)
        self.segments[-1].append(
            DirectoryEntered(
                n=DirectoryNo(here.number), p=DirectoryNo(here.parent), name=text, name_b64=raw, mode=entry.mode,
                uid=entry.uid, gid=entry.gid, size=entry.size, mtime=entry.mtime_ns, ctime=entry.ctime_ns,
                nlink=entry.nlink, dev=entry.dev, ino=entry.ino, blocks=entry.blocks, again=again,
            )
        )  # fmt: skip

    def _leave(self, here: _Open) -> None:
        runs = [(here.here[0], len(here.here))] if here.here else []
        children = [DirectoryNo(number) for number in here.children]
        line = DirectoryLeft(n=DirectoryNo(here.number), here=runs, elsewhere=here.elsewhere, directories=children)
        self.segments[-1].append(line)
        self._stack.pop()

    def _file(self, entry: Entry) -> Entry:
        content = entry.size if entry.mode & 0o170000 == S_IFREG and not entry.flags & UNREADABLE else 0
        if content > self._part_bytes:
            return self._split(entry)
        number, place = self._member(entry, content)
        return entry if entry.flags & UNREADABLE else entry._replace(segment=number, offset=place)

    def _split(self, entry: Entry) -> Entry:
        extents, done = [], 0
        while done < entry.size:
            length = min(self._part_bytes, entry.size - done)
            number, place = self._member(entry, length, part=len(extents), part_offset=done, part_bytes=length)
            extents.append(Extent(done, length, number, place))  # type: ignore[arg-type]
            done += length
        self.expected.extents[self._stack[-1].number, entry.name] = extents
        first = extents[0]
        return entry._replace(flags=entry.flags | SPLIT, segment=first.segment, offset=first.offset)

    def _member(self, entry: Entry, content: int, **part: int) -> tuple[int, int]:
        """Write one line; return its segment and place."""
        if self._members >= self._limit:
            self._end_segment()
            self.segments.append([])
            for level in self._stack:
                self._enter(level, again=True)
        here, number = self._stack[-1], len(self.segments) - 1
        self._place += 512
        place = self._place
        sha256 = b""
        if content:
            sha256 = Random(f"{number} {place}").randbytes(32)
            self.expected.hashes.setdefault(number, {})[place] = sha256
        text, raw = as_text(entry.name)
        target, raw_target = as_text(entry.target)
        self.segments[-1].append(
            Member(
                d=DirectoryNo(here.number), name=text, name_b64=raw, mode=entry.mode, uid=entry.uid, gid=entry.gid,
                size=entry.size, mtime=entry.mtime_ns, ctime=entry.ctime_ns, nlink=entry.nlink, rdev=entry.rdev,
                dev=entry.dev, ino=entry.ino, blocks=entry.blocks, flags=entry.flags | (SPLIT if part else 0), at=place,
                sha256=sha256, target=target, target_b64=raw_target, **part,
            )
        )  # fmt: skip
        self._place += -(-content // 512) * 512
        here.here.append(self._members)
        here.present.append((entry.name, place))
        self._members += 1
        return number, place

    def _end_segment(self) -> None:
        number, lines = len(self.segments) - 1, self.segments[-1]
        plain, stored, frames = self._place + 1024, 0, 0
        # Frames stand between the other lines, as they were written.
        for start in range(0, plain, FRAME_BYTES):
            length = min(FRAME_BYTES, plain - start)
            line = FrameLine(at=stored, stored=length // 3 + 1, plain=length, sum=frames.to_bytes(16, "big"))
            lines.insert(min(len(lines), 3 * frames), line)
            stored += line.stored
            frames += 1
        lines.append(
            End(
                segment=segment_id(number), number=number, payload_sha256=b"p" * 32, payload_bytes=stored + 17,
                payload_blocks=1, plain_bytes=plain, members=self._members, frames=frames,
            )
        )  # fmt: skip
        self.expected.segments.append((number, plain, stored + 17, frames))
        for level in self._stack:
            for name, place in level.present:
                text, raw = as_text(name)
                level.elsewhere.append(Elsewhere(name=text, name_b64=raw, segment=segment_id(number), at=place))
            level.present, level.here = [], []
        self._members = self._place = 0


def store(folder: Path, segments: Sequence[Sequence[TrailerLine]]) -> list[Path]:
    """Write trailers as they lie in a state folder."""
    paths = []
    for number, lines in enumerate(segments):
        paths.append(folder / f"{segment_id(number)}.zst")
        with paths[-1].open("wb") as out:
            writer = LineWriter(out.write)
            writer.write_many(lines)  # type: ignore[arg-type]
            writer.close()
    return paths


def read_back(path: Path) -> Expected:
    """Read an index as what it was expected to be."""
    found = Expected()
    with IndexReader(path) as reader:
        assert reader.set_id == SET
        todo = [DirectoryNo(0)]
        while todo:
            directory = reader.directory(todo.pop())
            rows = list(reader.list_from(directory, 0))
            for _, number, entry in rows:
                assert reader.lookup(directory, entry.name) == (number, entry)
                if entry.flags & SPLIT:
                    found.extents[directory.number, entry.name] = reader.extents(number)
            entries = [entry for _, _, entry in rows]
            files, folders = entries[: directory.files_count], entries[directory.files_count :]
            found.directories[directory.number] = (directory[1:12], files, folders)
            todo += [DirectoryNo(entry.offset) for entry in folders]
        assert reader.totals.directories == len(found.directories)
        assert reader.totals.entries == sum(len(files) + len(dirs) for _, files, dirs in found.directories.values())
        for row in reader.segments():
            assert row.segment_id == segment_id(row.number)
            found.segments.append((row.number, row.plain_bytes, row.stored_bytes, row.frames))
            frames = [frame.row for frame in reader.frames(row.number)]
            assert sum(frame.plain_bytes for frame in frames) == row.plain_bytes
            assert [frame.checksum for frame in frames] == [n.to_bytes(16, "big") for n in range(row.frames)]
            starts = {file.offset for _, files, _ in found.directories.values() for file in files}
            starts |= {extent.offset for extents in found.extents.values() for extent in extents}
            known = {start: reader.sha256(row.number, start) for start in starts}
            if sums := {start: digest for start, digest in known.items() if digest is not None}:
                found.hashes[row.number] = sums
    return found


def replace(line: Any, **fields: Any) -> Any:
    """Return a changed copy of a line."""
    return msgspec.structs.replace(line, **fields)
