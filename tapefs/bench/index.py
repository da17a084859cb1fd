"""The namespace index by itself: writing, size, reading, building from a trailer. Blocking; takes about 20 seconds.

    .venv/bin/python -m tapefs.bench.index [ENTRIES]

Times are of the processor, best of three: all of this is computing, and a busy machine should not look like a slow one.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Container
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from stat import S_IFDIR, S_IFREG
from tempfile import TemporaryDirectory
from time import process_time

from catalog.ids import DirectoryNo, EntryNo, SegmentId, SegmentNo, SetId
from catalog.index.model import Directory, Entry, content_bytes
from catalog.index.reader import IndexReader
from catalog.index.writer import IndexWriter
from tapefs.format.lines import LineWriter
from tapefs.format.records import DirectoryEntered, DirectoryLeft, End, FrameLine, Member, TrailerLine
from tapefs.sets.build import build_index

_SEGMENT = SegmentId("00000000-0000-4000-8000-000000000001")
#: Of the small directories; about what /usr has.
_FILES_PER_DIRECTORY = 9
_CALLS = 50_000
_RUNS = 3
_CHAIN = 100


def main() -> None:
    """Print one line per measurement."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with TemporaryDirectory() as folder:
        path = Path(folder) / "index.lmdb"
        _measure_small_directories(path, count)
        _measure_large_directory(path, count)
        _measure_chain(Path(folder), count)
        _measure_build(Path(folder), 130_000)


def _measure_small_directories(path: Path, count: int) -> None:
    listings = _small_directories(count)
    entries = sum(map(len, listings))
    seconds = _best(lambda: _write(path, listings))
    size = path.stat().st_size / entries
    print(
        f"write, {_FILES_PER_DIRECTORY} files a directory: {entries / seconds:,.0f} entries/s, {size:.1f} bytes/entry"
    )
    with IndexReader(path) as reader:
        seconds = _best(lambda: _walk(reader, len(listings)))
        print(f"walk, {_FILES_PER_DIRECTORY} files a directory: {entries / seconds:,.0f} entries/s")


def _measure_large_directory(path: Path, count: int) -> None:
    listing = [_entry(b"file name %010d" % number, number) for number in range(count)]
    seconds = _best(lambda: _write(path, [listing]))
    print(f"write, one directory: {count / seconds:,.0f} entries/s, {path.stat().st_size / count:.1f} bytes/entry")
    random = Random(1)  # noqa: S311 - no secret
    numbers = random.sample(range(count), _CALLS)
    ordered = list(range(_CALLS))
    with IndexReader(path) as reader:
        directory = reader.directory(DirectoryNo(0))
        calls: list[tuple[str, Callable[[int], object], list[int]]] = [
            ("entry, at random", lambda number: reader.entry(EntryNo(number)), numbers),
            ("entry, in order", lambda number: reader.entry(EntryNo(number)), ordered),
            ("lookup, at random", lambda number: reader.lookup(directory, listing[number].name), numbers),
            ("lookup, in order", lambda number: reader.lookup(directory, listing[number].name), ordered),
        ]
        for what, call, arguments in calls:
            seconds = _best(partial(_call_all, call, arguments))
            print(f"{what}, {count:,} entries: {1e6 * seconds / _CALLS:.1f} us")
        seconds = _best(lambda: sum(1 for _ in reader.list_from(directory, 0)))
        print(f"list, one directory: {count / seconds:,.0f} entries/s")


def _measure_chain(folder: Path, count: int) -> None:
    """A chain in which each set has written another hundredth of the directories anew, and so has the last one's tree
    all over it.
    """
    listings = _small_directories(count)
    left = list(range(len(listings)))
    Random(1).shuffle(left)  # noqa: S311 - no secret
    path = _chained(folder, 0)
    _write(path, listings)
    for number in range(1, _CHAIN + 1):
        changed = frozenset(left[number::_CHAIN])
        with IndexReader(path) as base:
            path = _chained(folder, number)
            _write_on(path, base, listings, changed)
    with IndexReader(path) as reader:
        entries = sum(map(len, listings))
        seconds = _best(lambda: _walk(reader, len(listings)))
        print(f"walk, {_CHAIN} sets one on the other: {entries / seconds:,.0f} entries/s")


def _chained(folder: Path, number: int) -> Path:
    return folder / f"{_set_id(number)}.lmdb"


def _set_id(number: int) -> SetId:
    return SetId(f"00000000-0000-4000-8000-{number:012x}")


def _measure_build(folder: Path, count: int) -> None:
    trailer = folder / "trailer.zst"
    with trailer.open("wb") as out:
        writer = LineWriter(out.write)
        writer.write_many(_trailer_lines(count))
        writer.close()
    seconds = _best(lambda: build_index(folder / "built.lmdb", _set_id(0), [trailer]))
    print(f"build from a trailer of {count:,} members: {seconds:.2f} s, {count / seconds:,.0f} members/s")


def _call_all(call: Callable[[int], object], arguments: list[int]) -> None:
    for argument in arguments:
        call(argument)


def _best(work: Callable[[], object]) -> float:
    # What is there already is the measurement's input: the collector need not go through it again and again.
    gc.freeze()
    seconds = []
    for _ in range(_RUNS):
        begin = process_time()
        work()
        seconds.append(process_time() - begin)
    return min(seconds)


def _write(path: Path, listings: list[list[Entry]]) -> None:
    with IndexWriter(path, _set_id(0)) as writer:
        for number, listing in enumerate(listings):
            first = writer.add_entries(listing)
            writer.add_directory(
                Directory(
                    DirectoryNo(number), DirectoryNo(0), S_IFDIR | 0o755, 0, 0, 4096, 10**18, 10**18, 2, 1, number, 8,
                    first, len(listing), EntryNo(0), 0, content_bytes(listing),
                )
            )  # fmt: skip
        writer.finish()


def _write_on(path: Path, base: IndexReader, listings: list[list[Entry]], changed: Container[int]) -> None:
    with IndexWriter(path, SetId(path.stem), base) as writer:
        for number, listing in enumerate(listings):
            directory = base.directory(DirectoryNo(number))
            if number in changed:
                directory = directory._replace(files_first=writer.add_entries(listing))
            writer.add_directory(directory)
        writer.finish()


def _walk(reader: IndexReader, directories: int) -> None:
    for number in range(directories):
        for _ in reader.list_from(reader.directory(DirectoryNo(number)), 0):
            pass


def _small_directories(count: int) -> list[list[Entry]]:
    names = [b"file name %010d" % number for number in range(_FILES_PER_DIRECTORY)]
    return [
        [_entry(name, number + at) for at, name in enumerate(names)] for number in range(0, count, _FILES_PER_DIRECTORY)
    ]


def _entry(name: bytes, number: int) -> Entry:
    time_ns = 1_700_000_000_000_000_000 + number
    return Entry(
        name, S_IFREG | 0o644, 0, 0, 1000 + number, time_ns, time_ns, 1, 0, 1, number, 8, 0, 0, 4096 * number, b""
    )  # fmt: skip


def _trailer_lines(count: int) -> list[TrailerLine]:
    """Return a set of one segment: directories of nine files below the root."""
    lines: list[TrailerLine] = [_entered(0, "")]
    children = count // _FILES_PER_DIRECTORY
    for child in range(1, children + 1):
        lines.append(_entered(child, f"directory {child:08d}"))
        first = (child - 1) * _FILES_PER_DIRECTORY
        lines += [_member(child, number) for number in range(first, first + _FILES_PER_DIRECTORY)]
        lines.append(DirectoryLeft(n=DirectoryNo(child), here=[(first, _FILES_PER_DIRECTORY)]))
    lines.append(DirectoryLeft(n=DirectoryNo(0), directories=[DirectoryNo(child + 1) for child in range(children)]))
    members = children * _FILES_PER_DIRECTORY
    plain = 4096 * (members + 1)
    lines.append(FrameLine(at=0, stored=plain, plain=plain, sum=bytes(16)))
    lines.append(
        End(
            segment=_SEGMENT, number=SegmentNo(0), payload_sha256=bytes(32), payload_bytes=plain, payload_blocks=1,
            plain_bytes=plain, members=members, frames=1,
        )
    )  # fmt: skip
    return lines


def _entered(number: int, name: str) -> DirectoryEntered:
    return DirectoryEntered(
        n=DirectoryNo(number), p=DirectoryNo(0), name=name, mode=S_IFDIR | 0o755, uid=0, gid=0, size=4096, mtime=10**18,
        ctime=10**18, nlink=2, dev=1, ino=number, blocks=8,
    )  # fmt: skip


def _member(directory: int, number: int) -> Member:
    time_ns = 1_700_000_000_000_000_000 + number
    return Member(
        d=DirectoryNo(directory), name=f"file name {number:010d}", mode=S_IFREG | 0o644, uid=0, gid=0, size=1000,
        mtime=time_ns, ctime=time_ns, nlink=1, dev=1, ino=number, blocks=8, at=4096 * number,
        sha256=sha256(b"%d" % number).digest(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
