"""An archive without a tape: a tree as an index, the plain streams of its segments, and somebody who stages frames."""

import hashlib
import os
import stat
import threading
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue

from catalog.errors import Damaged, NotFound
from catalog.ids import DirectoryNo, EntryNo, FrameNo, SegmentId, SegmentNo, SetId
from catalog.index.model import Directory, Entry, EntryFlag, Extent, FrameRow, NumberedFrame, SegmentRow, content_bytes
from catalog.index.writer import IndexWriter
from tapefs.restore import FrameWish
from tapefs.restore.records import NotFetched
from tapefs.staging.stage import SegmentStage

SET = SetId("5b8f1f2e-3f43-4a35-8f0e-8d6a3c1f9d00")
MTIME_NS = 1_600_000_000_123_456_789
ME, MY_GROUP = os.geteuid(), os.getegid()


def segment_id(number: int) -> SegmentId:
    return SegmentId(f"5b8f1f2e-3f43-4a35-8f0e-8d6a3c1f9e{number:02x}")


@dataclass(frozen=True)
class File:
    content: bytes = b""
    mode: int = 0o644
    uid: int = ME
    gid: int = MY_GROUP
    mtime_ns: int = MTIME_NS
    flags: int = 0
    #: Cut into members at these offsets, each in the next segment.
    split_at: tuple[int, ...] = ()
    blocks: int | None = None
    type: int = stat.S_IFREG
    #: What the index says instead of the truth.
    sha256: bytes | None = None
    #: Place and length of the data of a sparse file; what is between must be zeros.
    data: tuple[tuple[int, int], ...] | None = None
    rdev: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    #: Over 1: the same object at several places is one file with several names.
    nlink: int = 1


@dataclass(frozen=True)
class Link:
    target: bytes
    uid: int = ME
    gid: int = MY_GROUP
    mtime_ns: int = MTIME_NS
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    nlink: int = 1


@dataclass(frozen=True)
class Dir:
    children: dict[bytes, "File | Link | Dir"] = field(default_factory=dict)
    mode: int = 0o755
    uid: int = ME
    gid: int = MY_GROUP
    mtime_ns: int = MTIME_NS
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


Node = File | Link | Dir


class Archive:
    """A tree laid out over segments. Answers like an IndexReader, also for trees that an IndexWriter would refuse."""

    def __init__(self, root: Dir, *, frame_bytes: int = 10_000, segment_bytes: int = 1 << 40) -> None:
        self._frame_bytes = frame_bytes
        self._segment_bytes = segment_bytes
        self.streams: list[bytearray] = [bytearray()]
        self._entries: list[Entry] = []
        self._directories: dict[int, Directory] = {}
        self._extents: dict[int, list[Extent]] = {}
        self._xattrs: dict[int, list[tuple[bytes, bytes]]] = {}
        self._directory_xattrs: dict[int, list[tuple[bytes, bytes]]] = {}
        self._links: dict[int, EntryNo] = {}
        #: Node of each entry, and first entry of each node that has several.
        self._firsts: dict[int, EntryNo] = {}
        self._stored: dict[int, tuple[Entry, list[Extent]]] = {}
        self.hashes: dict[tuple[int, int], bytes] = {}
        self._directories_seen = 0
        self._lay_out(root, DirectoryNo(0))

    # -- making ------------------------------------------------------------------------------------------------------

    def _lay_out(self, node: Dir, parent: DirectoryNo) -> DirectoryNo:
        number = DirectoryNo(self._directories_seen)
        self._directories_seen += 1
        files, directories = [], []
        for name, child in sorted(node.children.items()):
            if isinstance(child, Dir):
                inner = self._lay_out(child, number)
                directories.append(self._entry(name, stat.S_IFDIR | child.mode, child, 0, segment=0, offset=inner))
            else:
                files.append((child, *self._no_directory(name, child)))
        files_first = len(self._entries)
        for child, entry, extents in files:
            self._number(child, entry, extents)
        self._entries += directories
        if node.xattrs:
            self._directory_xattrs[number] = list(node.xattrs)
        mode = stat.S_IFDIR | node.mode
        run = (EntryNo(files_first), len(files), EntryNo(files_first + len(files)), len(directories))
        times = (node.mtime_ns, node.mtime_ns)
        self._directories[number] = Directory(number, parent, mode, node.uid, node.gid, 0, *times, 2, 1, 1, 0, *run)
        return number

    def _no_directory(self, name: bytes, child: File | Link) -> tuple[Entry, list[Extent]]:
        """Return what becomes of it, the same for all its names."""
        if id(child) in self._stored:
            entry, extents = self._stored[id(child)]
            return entry._replace(name=name), extents
        if isinstance(child, Link):
            found = self._entry(name, stat.S_IFLNK | 0o777, child, len(child.target), target=child.target), []
        else:
            found = self._file(name, child)
        if child.nlink > 1:
            self._stored[id(child)] = found
        return found

    def _number(self, child: File | Link, entry: Entry, extents: list[Extent]) -> None:
        number = EntryNo(len(self._entries))
        if id(child) in self._firsts:
            self._links[number] = self._firsts[id(child)]
            entry = entry._replace(flags=entry.flags | EntryFlag.LINKED)
        elif child.nlink > 1:
            self._firsts[id(child)] = number
        if extents or entry.flags & EntryFlag.SPARSE:
            self._extents[number] = extents
        if child.xattrs:
            self._xattrs[number] = list(child.xattrs)
            entry = entry._replace(flags=entry.flags | EntryFlag.XATTRS)
        self._entries.append(entry)

    def _entry(
        self, name: bytes, mode: int, node: Node, size: int, *, segment: int = 0, offset: int = 0, target: bytes = b""
    ) -> Entry:
        flags = getattr(node, "flags", 0)
        blocks = getattr(node, "blocks", None)
        times = (node.mtime_ns, node.mtime_ns)
        blocks = -(-size // 512) if blocks is None else blocks
        ids = (getattr(node, "nlink", 1), getattr(node, "rdev", 0), 1, 1)
        return Entry(name, mode, node.uid, node.gid, size, *times, *ids, blocks, flags, segment, offset, target)

    def _file(self, name: bytes, node: File) -> tuple[Entry, list[Extent]]:
        size = len(node.content)
        if not size or node.flags & EntryFlag.UNREADABLE:
            return self._entry(name, node.type | node.mode, node, size), []
        extents: list[Extent] = []
        first = None
        for begin, end in pairwise((0, *node.split_at, size)):
            if begin:
                self.streams.append(bytearray())
            runs = [(begin, end)] if node.data is None else _clipped(node.data, begin, end)
            segment, at = self._store(b"".join(node.content[start:stop] for start, stop in runs), node.sha256)
            first = first or (segment, at)
            for start, stop in runs:
                extents.append(Extent(start, stop - start, SegmentNo(segment), at))
                at += stop - start
        segment, offset = first or (0, 0)
        entry = self._entry(name, node.type | node.mode, node, size, segment=segment, offset=offset)
        flags = EntryFlag.SPARSE * (node.data is not None) | EntryFlag.SPLIT * bool(node.split_at)
        return entry._replace(flags=entry.flags | flags), extents if flags else []

    def _store(self, content: bytes, claimed: bytes | None) -> tuple[int, int]:
        if len(self.streams[-1]) + len(content) > self._segment_bytes and self.streams[-1]:
            self.streams.append(bytearray())
        stream = self.streams[-1]
        # In place of a tar header; no zeros, to be noticed in a wrong read.
        stream += b"H" * 512
        offset = len(stream)
        stream += content
        stream += b"P" * (-len(stream) % 512)
        self.hashes[len(self.streams) - 1, offset] = claimed or hashlib.sha256(content).digest()
        return len(self.streams) - 1, offset

    def write(self, path: Path) -> None:
        """Write it as a real index."""
        with IndexWriter(path, SET) as writer:
            for segment in range(len(self.streams)):
                number = SegmentNo(segment)
                writer.add_segment(self.segment(number))
                writer.add_frames(number, [frame.row for frame in self.frames(number)])
                hashes = sorted((at, digest) for (owner, at), digest in self.hashes.items() if owner == segment)
                writer.add_hashes(number, hashes)
            for directory in sorted(self._directories.values(), key=lambda found: found.files_first):
                middle = directory.directories_first
                end = middle + directory.directories_count
                for run in (self._entries[directory.files_first : middle], self._entries[middle:end]):
                    if run:
                        writer.add_entries(run)
                content = content_bytes(self._entries[directory.files_first : middle])
                writer.add_directory(directory._replace(files_bytes=content))
            for number, extents in sorted(self._extents.items()):
                writer.add_extents(EntryNo(number), extents)
            writer.finish()

    # -- an index ----------------------------------------------------------------------------------------------------

    def directory(self, number: DirectoryNo) -> Directory:
        try:
            return self._directories[number]
        except KeyError:
            raise NotFound(f"no directory {number}") from None

    def entry(self, number: EntryNo) -> Entry:
        return self._entries[number]

    def lookup(self, directory: Directory, name: bytes) -> tuple[EntryNo, Entry] | None:
        for _, number, entry in self.list_from(directory, 0):
            if entry.name == name:
                return number, entry
        return None

    def list_from(self, directory: Directory, position: int) -> Iterator[tuple[int, EntryNo, Entry]]:
        count = directory.files_count + directory.directories_count
        for place in range(position, count):
            number = EntryNo(directory.files_first + place)
            yield place + 1, number, self._entries[number]

    def extents(self, number: EntryNo) -> list[Extent]:
        return self._extents[number]

    def first_name(self, number: EntryNo) -> EntryNo:
        return self._links.get(number, number)

    def xattrs(self, number: EntryNo) -> list[tuple[bytes, bytes]]:
        return self._xattrs.get(number, [])

    def directory_xattrs(self, number: DirectoryNo) -> list[tuple[bytes, bytes]]:
        return self._directory_xattrs.get(number, [])

    def segment(self, number: SegmentNo) -> SegmentRow:
        length = len(self.streams[number])
        return SegmentRow(number, segment_id(number), length, length // 2, -(-length // self._frame_bytes))

    def frames(self, segment: SegmentNo) -> Iterator[NumberedFrame]:
        length = len(self.streams[segment])
        for number, at in enumerate(range(0, length, self._frame_bytes)):
            plain = min(self._frame_bytes, length - at)
            yield NumberedFrame(FrameNo(number), FrameRow(at, plain, at // 2, plain // 2, bytes(16)))

    def sha256(self, segment: SegmentNo, offset: int) -> bytes | None:
        return self.hashes.get((segment, offset))

    # -- ways to be damaged ------------------------------------------------------------------------------------------

    def change_entry(self, old_name: bytes, **values: object) -> None:
        """Replace fields of the entry of that name, unchecked."""
        for number, entry in enumerate(self._entries):
            if entry.name == old_name:
                self._entries[number] = entry._replace(**values)
                return
        raise AssertionError(old_name)

    def change_link(self, number: int) -> None:
        """Let all further names belong to that entry."""
        self._links = dict.fromkeys(self._links, EntryNo(number))

    def change_extents(self, extents: list[Extent]) -> None:
        for number in self._extents:
            self._extents[number] = extents


class UnlistableArchive(Archive):
    """One of its directories has a damaged block in the middle."""

    def list_from(self, directory: Directory, position: int) -> Iterator[tuple[int, EntryNo, Entry]]:
        for found in super().list_from(directory, position):
            if found[2].name == b"unlistable":
                raise Damaged("a block does not match its checksum", "block 7")
            yield found


class Mover(threading.Thread):
    """Stages what is wished for, in the order of the wishes."""

    def __init__(self, archive: Archive, staging: Path) -> None:
        super().__init__()
        self._archive = archive
        self._staging = staging
        self._wishes: SimpleQueue[FrameWish | None] = SimpleQueue()
        self.asked: list[FrameWish] = []
        #: Frames that the tape does not give.
        self.unreadable: set[tuple[SegmentId, int]] = set()
        #: What arrivals would call that.
        self.refusal = "damaged"
        #: Frames that come damaged so many times.
        self.damaged: dict[tuple[SegmentId, int], int] = {}
        #: Frames that are staged only when asked a second time, as if evicted again at once.
        self.lost_once: set[tuple[SegmentId, int]] = set()
        self.failures: dict[tuple[SegmentId, int], NotFetched] = {}
        self.error: BaseException | None = None

    def fetch(self, wishes: Sequence[FrameWish]) -> None:
        self.asked += wishes
        for wish in wishes:
            self._wishes.put(wish)

    def failed(self) -> dict[tuple[SegmentId, int], NotFetched]:
        return self.failures

    def __enter__(self) -> "Mover":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._wishes.put(None)
        self.join()
        assert self.error is None

    def run(self) -> None:
        try:
            while (wish := self._wishes.get()) is not None:
                self._stage(wish)
        except BaseException as error:
            self.error = error

    def _stage(self, wish: FrameWish) -> None:
        number = next(n for n in range(len(self._archive.streams)) if segment_id(n) == wish.segment_id)
        rows = [frame.row for frame in self._archive.frames(SegmentNo(number))]
        stage = SegmentStage.create(self._staging, wish.segment_id, rows)
        for frame in range(wish.first, wish.last + 1):
            key = (wish.segment_id, frame)
            if key in self.unreadable:
                self.failures[key] = NotFetched("the tape cannot be read there", self.refusal)
            elif key in self.lost_once:
                self.lost_once.discard(key)
            else:
                stage.publish(frame, self._plain(number, rows[frame], key))
        stage.close()

    def _plain(self, number: int, row: FrameRow, key: tuple[SegmentId, int]) -> bytes:
        plain = bytes(self._archive.streams[number][row.plain_offset : row.plain_offset + row.plain_bytes])
        if self.damaged.get(key, 0):
            self.damaged[key] -= 1
            return bytes(value ^ 0xFF for value in plain)
        return plain


def _clipped(data: tuple[tuple[int, int], ...], begin: int, end: int) -> list[tuple[int, int]]:
    """Return begin and end of the runs within a part."""
    runs = [(max(begin, at), min(end, at + length)) for at, length in data]
    return [(start, stop) for start, stop in runs if start < stop]


def noise(length: int, seed: object = 0) -> bytes:
    """Bytes that do not repeat."""
    block = hashlib.sha256(repr(seed).encode()).digest()
    return b"".join(hashlib.sha256(block + at.to_bytes(8, "big")).digest() for at in range(-(-length // 32)))[:length]


def seen(folder: Path) -> dict[bytes, tuple[object, ...]]:
    """Return what is in a folder: type and mode, owner, time, and content or target, by path."""
    found: dict[bytes, tuple[object, ...]] = {}
    top = os.fsencode(folder)
    for above, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(above, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = (status.st_size, zlib.crc32(Path(os.fsdecode(path)).read_bytes()))
            owner = (status.st_uid, status.st_gid)
            found[path[len(top) + 1 :]] = (status.st_mode, owner, status.st_mtime_ns, content)
    return found


def expected(node: Dir, above: bytes = b"") -> dict[bytes, tuple[object, ...]]:
    """Return what `seen` must return for a tree."""
    result: dict[bytes, tuple[object, ...]] = {}
    for name, child in node.children.items():
        path = above + name
        owner = (child.uid, child.gid)
        if isinstance(child, Dir):
            result[path] = (stat.S_IFDIR | child.mode, owner, child.mtime_ns, None)
            result |= expected(child, path + b"/")
        elif isinstance(child, Link):
            result[path] = (stat.S_IFLNK | 0o777, owner, child.mtime_ns, child.target)
        else:
            content = (len(child.content), zlib.crc32(child.content))
            is_file = child.type == stat.S_IFREG
            result[path] = (child.type | child.mode, owner, child.mtime_ns, content if is_file else None)
    return result
