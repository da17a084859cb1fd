"""What is written comes back, whatever it is."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random
from stat import S_IFDIR, S_IFREG, S_ISDIR, S_ISREG
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.errors import NotFound
from catalog.ids import DirectoryNo, EntryNo, FrameNo, SegmentNo
from catalog.index import reader as reader_module
from catalog.index import storage
from catalog.index.attributes import XattrChunks, find_xattrs
from catalog.index.model import Directory, Entry, FrameRow, SegmentRow, Totals
from catalog.index.reader import IndexReader
from catalog.index.writer import IndexWriter
from tests.catalog.index.trees import (
    SET,
    Model,
    extras,
    make_directory,
    make_entry,
    random_run,
    random_xattrs,
    read_all,
    run_bytes,
    segment_id,
    small,
    time_ns,
    word,
    write,
)

UNREADABLE, LINKED = 4, 8


@st.composite
def models(draw: st.DrawFn) -> Model:
    random = Random(draw(st.integers(0, 2**32)))
    model = Model()
    number = 0
    for at, (file_count, folder_count) in enumerate(
        draw(st.lists(st.tuples(st.integers(0, 120), st.integers(0, 20)), min_size=1, max_size=5))
    ):
        files = random_run(random, S_IFREG, file_count)
        taken = {entry.name for entry in files}
        folders = [entry for entry in random_run(random, S_IFDIR, folder_count) if entry.name not in taken]
        if not number:
            # What comes first cannot be another name of something before it.
            for run in (files, folders):
                run[:1] = [entry._replace(flags=entry.flags & ~LINKED) for entry in run[:1]]
        model.directories[at] = make_directory(
            at,
            **{key: word(random) for key in ("parent", "size", "dev", "ino", "blocks")},
            uid=small(random),
            mtime_ns=time_ns(random),
            ctime_ns=time_ns(random),
            files_first=number,
            files_count=len(files),
            directories_first=number + len(files),
            directories_count=len(folders),
            files_bytes=run_bytes(files),
            flags=random.choice([0, 32]),
        )
        if model.directories[at].flags:
            model.directory_xattrs[at] = random_xattrs(random)
        model.listings[at] = [(EntryNo(number + n), entry) for n, entry in enumerate(files + folders)]
        number += len(files) + len(folders)
    extras(random, list(model.listings.values()), model)
    for at, count in enumerate(draw(st.lists(st.integers(0, 150), max_size=3))):
        frames = _frames([random.randint(1, 2**40) for _ in range(count)])
        plain = sum(frame.plain_bytes for frame in frames)
        model.segments.append(SegmentRow(SegmentNo(at), segment_id(at), plain, word(random), len(frames)))
        if frames:
            model.frames[at] = frames
        places = sorted({word(random) for _ in range(count)})
        model.hashes[at] = [(place, random.randbytes(32)) for place in places]
    return model


def _frames(lengths: list[int]) -> list[FrameRow]:
    rows, plain, stored = [], 0, 0
    for number, length in enumerate(lengths):
        rows.append(FrameRow(plain, length, stored, length // 2 + 1, number.to_bytes(16, "little")))
        plain += length
        stored += length // 2 + 1
    return rows


def _totals(model: Model) -> Totals:
    found = [entry for listing in model.listings.values() for _, entry in listing]
    content = sum(entry.size for entry in found if S_ISREG(entry.mode) and not entry.flags & (UNREADABLE | LINKED))
    files = sum(not S_ISDIR(entry.mode) for entry in found)
    return Totals(len(found), len(model.directories), files, content)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(model=models())
def test_everything_comes_back(model: Model) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "set.lmdb"
        totals = write(path, model)
        assert totals == _totals(model)
        found = read_all(path, list(model.directories))
        assert found.totals == totals
        assert (found.directories, found.listings) == (model.directories, model.listings)
        assert (found.segments, found.frames, found.extents) == (model.segments, model.frames, model.extents)
        assert (found.links, found.xattrs) == (model.links, model.xattrs)
        assert found.directory_xattrs == model.directory_xattrs
        with IndexReader(path) as reader:
            _check_hashes(reader, model)
            _check_coverage(reader, model)


def _check_hashes(reader: IndexReader, model: Model) -> None:
    for number, rows in model.hashes.items():
        known = dict(rows)
        for place in [*known, *(place + 1 for place in known), 0, 2**64]:
            if place < 2**64 - 1:  # the last place cannot begin any content
                assert reader.sha256(SegmentNo(number), place) == known.get(place)
    assert reader.sha256(SegmentNo(77), 0) is None


def _check_coverage(reader: IndexReader, model: Model) -> None:
    for number, frames in model.frames.items():
        borders = [frame.plain_offset for frame in frames]
        for offset in {0, *borders, *(border - 1 for border in borders[1:]), borders[-1] + frames[-1].plain_bytes}:
            for length in (0, 1, 2**33):
                wanted = [
                    frame
                    for frame in frames
                    if length
                    and frame.plain_offset < offset + length
                    and frame.plain_offset + frame.plain_bytes > offset
                ]
                found = reader.frames_covering(SegmentNo(number), offset, length)
                assert [numbered.row for numbered in found] == wanted
                assert all(frames[numbered.number] == numbered.row for numbered in found)


# -- a large directory -----------------------------------------------------------------------------------------------

COUNT, FOLDERS = 200_000, 1000


def _large_listing() -> tuple[list[Entry], list[Entry]]:
    files = [make_entry(b"file %07d" % (2 * number), size=number, offset=number) for number in range(COUNT)]
    folders = [make_entry(b"d%05d" % number, mode=S_IFDIR | 0o755, offset=number + 1) for number in range(FOLDERS)]
    return files, folders


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[IndexReader, Directory, list[Entry]]]:
    path = tmp_path_factory.mktemp("large") / "set.lmdb"
    files, folders = _large_listing()
    with IndexWriter(path, SET) as writer:
        for start in range(0, COUNT, 3777):
            writer.add_entries(files[start : start + 3777])
        first = writer.add_entries(folders)
        writer.add_directory(make_directory(0, files_count=COUNT, directories_first=first, directories_count=FOLDERS))
        writer.finish()
    with IndexReader(path) as reader:
        yield reader, reader.directory(DirectoryNo(0)), files + folders


def test_every_name_of_a_large_directory_is_found_and_no_other(
    large: tuple[IndexReader, Directory, list[Entry]],
) -> None:
    reader, directory, entries = large
    for number, entry in list(enumerate(entries))[::7] + list(enumerate(entries))[-3:]:
        assert reader.lookup(directory, entry.name) == (number, entry)
    names = {entry.name for entry in entries}
    for name in [b"", b"\x01", b"\xff" * 255, b"d", b"e", *(b"file %07d" % n for n in range(-1, 2 * COUNT, 999))]:
        assert (reader.lookup(directory, name) is not None) == (name in names)


def test_a_lookup_reads_few_blocks(
    large: tuple[IndexReader, Directory, list[Entry]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, directory, entries = large
    reads = 0
    read = IndexReader._read

    def counted(self: IndexReader, number: int) -> tuple[int, int, bytes]:
        nonlocal reads
        reads += 1
        return read(self, number)

    monkeypatch.setattr(IndexReader, "_read", counted)
    with IndexReader(reader._path) as fresh:
        for entry in entries[5::20011]:
            before = reads
            fresh.lookup(directory, entry.name)
            assert reads - before <= 20


def test_a_listing_goes_on_from_any_position(large: tuple[IndexReader, Directory, list[Entry]]) -> None:
    reader, directory, entries = large
    whole = list(reader.list_from(directory, 0))
    assert [(position, number) for position, number, _ in whole] == [(n + 1, n) for n in range(len(entries))]
    assert [entry for _, _, entry in whole] == entries
    for position in [1, 25, 26, COUNT - 1, COUNT, COUNT + 1, len(entries) - 1, *range(0, len(entries), 9973)]:
        rows = reader.list_from(directory, position)
        assert [next(rows, None) for _ in range(30)] == [*whole[position : position + 30], *[None] * 30][:30]
    assert list(reader.list_from(directory, len(entries))) == []
    assert list(reader.list_from(directory, len(entries) + 10**6)) == []


def test_interleaved_listings_and_lookups_do_not_disturb_each_other(
    large: tuple[IndexReader, Directory, list[Entry]],
) -> None:
    reader, directory, entries = large
    one, two = reader.list_from(directory, 0), reader.list_from(directory, 1000)
    for at in range(300):
        assert next(one)[2] == entries[at]
        assert reader.entry(EntryNo(5 * at)) == entries[5 * at]
        assert next(two)[2] == entries[1000 + at]
        reader.lookup(directory, entries[-at].name)


# -- the layout does not show how the writer was called ---------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 7, 1024, 5000])
def test_files_do_not_depend_on_the_size_of_pieces(tmp_path: Path, piece: int) -> None:
    """The same entries give the same blocks, however they are handed over."""
    entries = [
        make_entry(b"%05d" % number, uid=number % 50 if number % 400 > 300 else 0, mtime_ns=number)
        for number in range(5000)
    ]
    hashes = [(100 * number, number.to_bytes(32, "big")) for number in range(500)]
    frames = _frames(list(range(1, 300)))
    for name, size in (("a", piece), ("b", 999)):
        with IndexWriter(tmp_path / name, SET) as writer:
            for start in range(0, len(entries), size):
                writer.add_entries(entries[start : start + size])
            for start in range(0, len(hashes), size):
                writer.add_hashes(SegmentNo(0), hashes[start : start + size])
            for start in range(0, len(frames), size):
                writer.add_frames(SegmentNo(0), frames[start : start + size])
            writer.finish()
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_map_grows_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MAP_BYTES", 256 * 1024)
    monkeypatch.setattr(storage, "GROUP_BYTES", 100 * 1024)
    entries = [make_entry(b"%06d" % number, target=b"t" * 4000) for number in range(2000)]
    with IndexWriter(tmp_path / "set", SET) as writer:
        writer.add_entries(entries)
        for number in reversed(range(20_000)):
            writer.add_directory(make_directory(number, files_count=len(entries)))
        writer.finish()
    with IndexReader(tmp_path / "set") as reader:
        assert [entry for _, _, entry in reader.list_from(reader.directory(DirectoryNo(7)), 0)] == entries
        assert all(reader.directory(DirectoryNo(number)).number == number for number in range(20_000))


def test_an_entry_takes_less_than_a_hundred_bytes(tmp_path: Path) -> None:
    entries = [make_entry(b"a name of 20 %07d" % n, size=n, ino=n, mtime_ns=n, offset=n) for n in range(100_000)]
    with IndexWriter(tmp_path / "set", SET) as writer:
        for number in range(10_000):
            writer.add_entries(entries[10 * number : 10 * number + 10])
            writer.add_directory(make_directory(number))
        writer.finish()
    assert (tmp_path / "set").stat().st_size < 100 * len(entries)


# -- attributes ------------------------------------------------------------------------------------------------------


def test_attributes_in_chunks(tmp_path: Path) -> None:
    """Some are the same for many entries, some longer than a page, some entries have none; all come back."""
    random = Random(4)
    label = [(b"security.selinux", b"unconfined_u:object_r:user_home_t:s0\0")]
    kinds = [label, label, label, [(b"user.large", b"x" * 5000)], [(b"user.a", b""), (b"user.b", b"\0" * 64)], []]
    xattrs = [random.choice(kinds) if random.random() < 0.9 else [(b"user.n", b"%d" % at)] for at in range(20_000)]
    entries = [make_entry(b"%06d" % at, flags=32 if found else 0) for at, found in enumerate(xattrs)]
    with IndexWriter(tmp_path / "set", SET) as writer:
        writer.add_entries(entries)
        for at, found in enumerate(xattrs):
            if found:
                writer.add_xattrs(EntryNo(at), found)
        writer.finish()
    with IndexReader(tmp_path / "set") as reader:
        for at in [*range(len(xattrs)), *random.sample(range(len(xattrs)), 100)]:
            assert reader.xattrs(EntryNo(at)) == xattrs[at]


def test_a_label_on_every_file_takes_few_bytes(tmp_path: Path) -> None:
    count = 50_000
    with IndexWriter(tmp_path / "set", SET) as writer:
        writer.add_entries([make_entry(b"a name of 20 %07d" % n, flags=32, size=n, ino=n) for n in range(count)])
        for number in range(count):
            writer.add_xattrs(EntryNo(number), [(b"security.selinux", b"unconfined_u:object_r:user_home_t:s0\0")])
        writer.finish()
    assert (tmp_path / "set").stat().st_size < 95 * count


def test_attributes_of_numbers_far_apart_are_in_different_chunks() -> None:
    chunks = XattrChunks()
    xattrs = [(b"user.a", b"1")]
    assert chunks.take(5, xattrs) == []
    assert chunks.take(5 + 2**32 - 1, xattrs) == []
    [(key, value)] = chunks.take(5 + 2**32, xattrs)
    assert key == (5).to_bytes(8, "big")
    assert find_xattrs(5, value, 5 + 2**32 - 1) == xattrs
    assert find_xattrs(5, value, 6) is None
    [(key, value)] = chunks.rest()
    assert find_xattrs(5 + 2**32, value, 5 + 2**32) == xattrs
    assert chunks.rest() == []


# -- what is not there -------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    path = tmp_path / "set"
    with IndexWriter(path, SET) as writer:
        writer.add_entries([make_entry(b"a")])
        writer.add_directory(make_directory(0, files_count=1))
        writer.add_segment(SegmentRow(SegmentNo(0), segment_id(0), 10, 10, 0))
        writer.finish()
    with IndexReader(path) as reader:
        for call in (
            lambda: reader.directory(DirectoryNo(1)),
            lambda: reader.directory(DirectoryNo(-1)),
            lambda: reader.directory(DirectoryNo(2**64)),
            lambda: reader.entry(EntryNo(1)),
            lambda: reader.entry(EntryNo(-1)),
            lambda: reader.entry(EntryNo(2**70)),
            lambda: reader.extents(EntryNo(0)),
            lambda: reader.link(EntryNo(0)),
            lambda: reader.xattrs(EntryNo(1)),
            lambda: reader.directory_xattrs(DirectoryNo(1)),
            lambda: reader.segment(SegmentNo(1)),
            lambda: reader.segment(SegmentNo(-1)),
            lambda: reader.frame(SegmentNo(0), FrameNo(0)),
            lambda: list(reader.frames(SegmentNo(1))),
            lambda: reader.frames_covering(SegmentNo(1), 0, 1),
        ):
            with pytest.raises(NotFound):
                call()
        assert list(reader.frames(SegmentNo(0))) == []
        assert reader.xattrs(EntryNo(0)) == []
        assert reader.directory_xattrs(DirectoryNo(0)) == []


def test_names_sort_as_bytes_beside_targets(tmp_path: Path) -> None:
    """A link's target follows its name in the block, and must not take part in the search."""
    entries = [
        make_entry(b"a", target=b"zzz"),
        make_entry(b"a\x01", target=b"a"),
        make_entry(b"a\x01b"),
        make_entry(b"b", target=b"\x00\xff"),
    ]
    with IndexWriter(tmp_path / "set", SET) as writer:
        writer.add_entries(entries)
        writer.add_directory(make_directory(0, files_count=4))
        writer.finish()
    with IndexReader(tmp_path / "set") as reader:
        directory = reader.directory(DirectoryNo(0))
        assert [reader.lookup(directory, entry.name) for entry in entries] == list(enumerate(entries))
        assert reader.lookup(directory, b"a\x00zzz") is None
        assert all(one[2].name < two[2].name for one, two in pairwise(reader.list_from(directory, 0)))


def test_memory_for_searches_is_bounded(large: tuple[IndexReader, Directory, list[Entry]]) -> None:
    reader, _, _ = large
    assert reader._probe.cache_info().maxsize == reader_module.PROBES
