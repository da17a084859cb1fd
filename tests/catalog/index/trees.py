"""Random sets for the index, as plain dicts and lists, and how to write and read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from random import Random
from stat import S_IFDIR, S_IFLNK, S_IFREG
from typing import Any

from catalog.ids import DirectoryNo, EntryNo, FrameNo, SegmentId, SegmentNo, SetId
from catalog.index.model import Directory, Entry, Extent, FrameRow, SegmentRow, Totals
from catalog.index.reader import IndexReader
from catalog.index.writer import IndexWriter

SET = SetId("0b9c5f1e-6d1f-4a53-9d0c-0f6f2f6f0001")


def segment_id(number: int) -> SegmentId:
    return SegmentId(f"5e6d0000-0000-4000-8000-{number:012x}")


def make_entry(name: bytes, **fields: Any) -> Entry:
    values: dict[str, Any] = dict(
        name=name, mode=S_IFREG | 0o644, uid=0, gid=0, size=0, mtime_ns=0, ctime_ns=0, nlink=1, rdev=0, dev=1, ino=2,
        blocks=0, flags=0, segment=0, offset=0, target=b"",
    )  # fmt: skip
    return Entry(**{**values, **fields})


def make_directory(number: int, **fields: Any) -> Directory:
    values: dict[str, Any] = dict(
        number=number, parent=0, mode=S_IFDIR | 0o755, uid=0, gid=0, size=0, mtime_ns=0, ctime_ns=0, nlink=2, dev=1,
        ino=2, blocks=0, files_first=0, files_count=0, directories_first=0, directories_count=0,
    )  # fmt: skip
    return Directory(**{**values, **fields})


@dataclass
class Model:
    """What an index must give back."""

    directories: dict[int, Directory] = field(default_factory=dict)
    #: Per directory, in the order of listing.
    listings: dict[int, list[tuple[EntryNo, Entry]]] = field(default_factory=dict)
    segments: list[SegmentRow] = field(default_factory=list)
    frames: dict[int, list[FrameRow]] = field(default_factory=dict)
    hashes: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    extents: dict[int, list[Extent]] = field(default_factory=dict)
    links: dict[int, int] = field(default_factory=dict)
    xattrs: dict[int, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    directory_xattrs: dict[int, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    totals: Totals | None = None


# -- random values, biased towards the ends of their ranges; drawing each by Hypothesis would take minutes

#: Any bytes but slash and NUL.
_NAME_BYTES = bytes(set(range(1, 256)) - {0x2F})
_NAMES = [b"x" * 255, b"\xff" * 255, b"a", b"a\x01", b"a ", b"ab", "größe".encode()]
_WORDS = [0, 1, 2**31, 2**32, 2**63 - 1, 2**64 - 1]
_SMALL = [0, 1, 1000, 2**32 - 1]
#: Before 1970, today, beyond 64 bits (the year 9999), and what 64-bit seconds could hold.
_TIMES = [-(2**63) * 10**9, -1, 0, 1_700_000_000_123_456_789, 2**64 - 1, 2**64, 253402300799 * 10**9, 2**93]
_TARGETS = [b"/", b"../x", b"t" * 4095, b"\xff"]


def random_name(random: Random) -> bytes:
    if random.random() < 0.1:
        return random.choice(_NAMES)
    return bytes(random.choices(_NAME_BYTES, k=random.randint(1, 12)))


def word(random: Random) -> int:
    return random.choice(_WORDS) if random.random() < 0.2 else random.randrange(2**40)


def small(random: Random) -> int:
    return random.choice(_SMALL) if random.random() < 0.3 else 1000


def time_ns(random: Random) -> int:
    return random.choice(_TIMES) if random.random() < 0.1 else random.randrange(-(10**18), 10**19)


def random_entry(random: Random, name: bytes, kind: int) -> Entry:
    target = random.choice(_TARGETS) if kind == S_IFREG and random.random() < 0.2 else b""
    return make_entry(
        name,
        mode=(S_IFLNK if target else kind) | random.choice([0o644, 0o7777, 0]),
        uid=small(random), gid=small(random), size=word(random), mtime_ns=time_ns(random), ctime_ns=time_ns(random),
        nlink=small(random), rdev=random.choice([0, 0, 2**64 - 1]), dev=random.choice([1, 2**64 - 1]),
        ino=word(random), blocks=word(random), flags=random.choice([0, 0, 0, 1, 2, 4, 8, 16, 32, 57]),
        segment=random.choice([0, 1, 2**32 - 1]), offset=word(random), target=target,
    )  # fmt: skip


def random_run(random: Random, kind: int, count: int) -> list[Entry]:
    return [random_entry(random, name, kind) for name in sorted({random_name(random) for _ in range(count)})]


def random_xattrs(random: Random) -> list[tuple[bytes, bytes]]:
    names = random.sample([b"user.a", b"user.\xff", b"security.capability", b"system.posix_acl_access"], 2)
    return [(name, random.randbytes(random.choice([0, 1, 44, 70_000]))) for name in sorted(names)]


# -- writing and reading ---------------------------------------------------------------------------------------------


def write(path: Path, model: Model) -> Totals:
    """Write a model whose entry numbers are already right."""
    with IndexWriter(path, SET) as writer:
        for row in model.segments:
            writer.add_segment(row)
        for number, frames in model.frames.items():
            writer.add_frames(SegmentNo(number), frames)
        for number, hashes in model.hashes.items():
            writer.add_hashes(SegmentNo(number), hashes)
        for number, listing in model.listings.items():
            files = model.directories[number].files_count
            for run in (listing[:files], listing[files:]):
                first = writer.add_entries([entry for _, entry in run])
                assert not run or first == run[0][0]
            writer.add_directory(model.directories[number])
        add_extras(writer, model)
        return writer.finish()


def add_extras(writer: IndexWriter, model: Model) -> None:
    """Write what stands in tables of its own, where the order does not matter the highest numbers first."""
    for number, first in reversed(model.links.items()):
        writer.add_link(EntryNo(number), EntryNo(first))
    for number, xattrs in sorted(model.xattrs.items()):
        writer.add_xattrs(EntryNo(number), xattrs)
    for number, xattrs in reversed(model.directory_xattrs.items()):
        writer.add_directory_xattrs(DirectoryNo(number), xattrs)
    for number, extents in reversed(model.extents.items()):
        writer.add_extents(EntryNo(number), extents)


def read_all(path: Path, directories: list[int]) -> Model:
    """Read all that an index holds through every method there is."""
    with IndexReader(path) as reader:
        assert reader.set_id == SET
        model = Model(totals=reader.totals, segments=reader.segments())
        for number in directories:
            directory = model.directories[number] = reader.directory(DirectoryNo(number))
            listing = model.listings[number] = []
            for position, entry_number, entry in reader.list_from(directory, 0):
                assert position == len(listing) + 1
                listing.append((entry_number, entry))
            for entry_number, entry in listing:
                assert reader.entry(entry_number) == entry
                assert reader.lookup(directory, entry.name) == (entry_number, entry)
                read_extras(reader, model, entry_number, entry)
            if xattrs := reader.directory_xattrs(DirectoryNo(number)):
                model.directory_xattrs[number] = xattrs
        for row in model.segments:
            assert reader.segment(row.number) == row
            if row.frames:
                model.frames[row.number] = [frame.row for frame in reader.frames(row.number)]
                found = [reader.frame(row.number, FrameNo(at)) for at in range(row.frames)]
                assert found == model.frames[row.number]
        return model


def read_extras(reader: IndexReader, model: Model, number: EntryNo, entry: Entry) -> None:
    if entry.flags & (2 | 16):
        model.extents[number] = reader.extents(number)
    if entry.flags & 8:
        model.links[number] = reader.link(number)
    if xattrs := reader.xattrs(number):
        model.xattrs[number] = xattrs


def extras(random: Random, listings: list[list[tuple[EntryNo, Entry]]], model: Model) -> None:
    """Give flagged entries what their flags announce."""
    for number, entry in chain.from_iterable(listings):
        if entry.flags & (2 | 16):
            model.extents[number] = [
                Extent(word(random), word(random), SegmentNo(small(random)), word(random))
                for _ in range(random.randrange(1 if entry.flags & 2 else 0, 4))
            ]
        if entry.flags & 8:
            model.links[number] = random.randrange(number)
        if entry.flags & 32:
            model.xattrs[number] = random_xattrs(random)


def run_bytes(entries: list[Entry]) -> int:
    """What a directory says of its files, counted one by one."""
    return sum(entry.size for entry in entries if entry.mode >> 12 == 8 and not entry.flags & (4 | 8))
