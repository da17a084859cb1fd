"""An index that builds on others shows one tree, whoever of them holds the entries."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from random import Random
from stat import S_IFDIR, S_IFREG

import pytest

from catalog.errors import Damaged, NotFound
from catalog.ids import DirectoryNo, EntryNo, FrameNo, SegmentNo, SetId
from catalog.index import layout, storage
from catalog.index.bases import OpenBases
from catalog.index.model import Directory, Entry, Extent, FrameRow, SegmentRow, Totals
from catalog.index.reader import IndexReader
from catalog.index.writer import IndexWriter
from tests.catalog.index.trees import make_directory, make_entry, random_run, run_bytes, segment_id

FOLDERS = 12


def set_id(number: int) -> SetId:
    return SetId(f"0b9c5f1e-6d1f-4a53-9d0c-{number:012x}")


def path_of(folder: Path, number: int) -> Path:
    return folder / f"{set_id(number)}.lmdb"


class Generations:
    """Sets of one job: a root with folders in it; each set writes some folders anew and shares the others."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = Random(seed)
        self.count = 0
        #: Per set, per directory: (number, entry) of its listing.
        self.trees: list[dict[int, list[tuple[EntryNo, Entry]]]] = []
        self.directories: list[dict[int, Directory]] = []
        #: Over all sets, as numbers are never used twice.
        self.frames: dict[int, list[FrameRow]] = {}
        self.hashes: dict[int, list[tuple[int, bytes]]] = {}
        self.extents: dict[EntryNo, list[Extent]] = {}
        self.xattrs: dict[EntryNo, list[tuple[bytes, bytes]]] = {}
        self.links: dict[EntryNo, EntryNo] = {}

    def add(self, changed: set[int], segments: int = 1) -> Totals:
        """Write the next set, on top of the last one if there is one."""
        base = IndexReader(path_of(self.folder, self.count - 1)) if self.count else None
        try:
            with IndexWriter(path_of(self.folder, self.count), set_id(self.count), base) as writer:
                first = 0 if base is None else base.segments_end
                for number in range(first, first + segments):
                    self._add_segment(writer, SegmentNo(number))
                self._add_tree(writer, base, changed)
                self.count += 1
                return writer.finish()
        finally:
            if base is not None:
                base.close()

    def _add_segment(self, writer: IndexWriter, number: SegmentNo) -> None:
        frames = [FrameRow(1000 * n, 1000, 700 * n, 700, bytes([number % 256]) * 16) for n in range(50)]
        writer.add_segment(SegmentRow(number, segment_id(number), 50_000, 35_000, 50))
        writer.add_frames(number, frames)
        self.frames[number] = frames
        self.hashes[number] = [(100 * n, self.random.randbytes(32)) for n in range(60)]
        writer.add_hashes(number, self.hashes[number])

    def _add_tree(self, writer: IndexWriter, base: IndexReader | None, changed: set[int]) -> None:
        tree: dict[int, list[tuple[EntryNo, Entry]]] = {}
        found: dict[int, Directory] = {}
        for number in range(1, FOLDERS + 1):
            if base is None or number in changed:
                run = random_run(self.random, S_IFREG, self.random.randrange(60))
                run = [entry._replace(flags=0) for entry in run]
                first = writer.add_entries(run)
                tree[number] = [(EntryNo(first + at), entry) for at, entry in enumerate(run)]
                found[number] = make_directory(
                    number, files_first=first, files_count=len(run), files_bytes=run_bytes(run), mtime_ns=self.count
                )
            else:
                tree[number] = self.trees[-1][number]
                found[number] = base.directory(DirectoryNo(number))._replace(mtime_ns=self.count)
            writer.add_directory(found[number])
        special = [make_entry(b"linked", flags=8), make_entry(b"sparse", flags=16), make_entry(b"xattrs", flags=32)]
        number = writer.add_entries(special)
        folders = [make_entry(b"d%03d" % at, mode=S_IFDIR | 0o755, offset=at) for at in range(1, FOLDERS + 1)]
        first = writer.add_entries(folders)
        self._add_extras(writer, number)
        tree[0] = [(EntryNo(number + at), entry) for at, entry in enumerate([*special, *folders])]
        found[0] = make_directory(
            0, files_first=number, files_count=3, directories_first=first, directories_count=FOLDERS
        )
        writer.add_directory(found[0])
        self.trees.append(tree)
        self.directories.append(found)

    def _add_extras(self, writer: IndexWriter, number: EntryNo) -> None:
        self.links[number] = EntryNo(self.random.randrange(number))
        writer.add_link(number, self.links[number])
        sparse, last = EntryNo(number + 1), EntryNo(number + 2)
        self.extents[sparse] = [Extent(7, 8, SegmentNo(self.count), 9)]
        writer.add_extents(sparse, self.extents[sparse])
        self.xattrs[last] = [(b"user.a", b"%d" % self.count)]
        writer.add_xattrs(last, self.xattrs[last])

    # -- comparing -------------------------------------------------------------------------------------------------

    def check(self, reader: IndexReader, number: int) -> None:
        """Ask everything of the set, in a random order of directories."""
        tree, directories = self.trees[number], self.directories[number]
        order = list(tree)
        self.random.shuffle(order)
        for at in order:
            directory = reader.directory(DirectoryNo(at))
            assert directory == directories[at]
            assert [(found, entry) for _, found, entry in reader.list_from(directory, 0)] == tree[at]
            assert [(found, entry) for _, found, entry in reader.list_from(directory, 5)] == tree[at][5:]
            for entry_number, entry in tree[at]:
                assert reader.entry(entry_number) == entry
                assert reader.lookup(directory, entry.name) == (entry_number, entry)
            assert reader.lookup(directory, b"no such name") is None
        found = [entry for listing in tree.values() for _, entry in listing]
        files = [entry for entry in found if entry.mode >> 12 != 4]
        assert reader.totals == Totals(len(found), len(tree), len(files), run_bytes(files))
        assert reader.set_id == set_id(number)

    def check_extras(self, reader: IndexReader) -> None:
        """Ask what stands in other tables, also of entries that only older sets show."""
        links = {number: first for number, first in self.links.items() if number < reader.entries_end}
        assert sorted(reader.links()) == sorted(links.items())
        for number, first in self.links.items():
            if number < reader.entries_end:
                assert reader.link(number) == reader.first_name(number) == first
                sparse, last = EntryNo(number + 1), EntryNo(number + 2)
                assert reader.extents(sparse) == self.extents[sparse]
                assert reader.xattrs(last) == self.xattrs[last]
                assert reader.xattrs(sparse) == []
                assert reader.first_name(sparse) == sparse
                with pytest.raises(NotFound):
                    reader.link(last)
        for segment, frames in self.frames.items():
            if segment < reader.segments_end:
                no = SegmentNo(segment)
                assert reader.segment(no) == SegmentRow(no, segment_id(segment), 50_000, 35_000, 50)
                assert [frame.row for frame in reader.frames(no)] == frames
                assert reader.frame(no, FrameNo(43)) == frames[43]
                assert [frame.number for frame in reader.frames_covering(no, 40_500, 1000)] == [40, 41]
                assert all(reader.sha256(no, place) == digest for place, digest in self.hashes[segment])
                assert reader.sha256(no, 50) is None


@pytest.fixture
def generations(tmp_path: Path) -> Generations:
    made = Generations(tmp_path, 7)
    made.add(set())
    for changed in ({1, 2}, {2, 5}, set(), {12}, {1, 7}):
        made.add(changed)
    return made


def test_every_set_of_a_chain_shows_its_whole_tree(generations: Generations, tmp_path: Path) -> None:
    for number in range(generations.count):
        with IndexReader(path_of(tmp_path, number)) as reader:
            generations.check(reader, number)
            generations.check_extras(reader)
            assert len(reader.bases) == number
            assert [row.number for row in reader.segments()] == [number]


def test_numbers_go_on_where_the_base_ends(generations: Generations, tmp_path: Path) -> None:
    end, segments_end = EntryNo(0), SegmentNo(0)
    for number in range(generations.count):
        with IndexReader(path_of(tmp_path, number)) as reader:
            assert (reader.entries_first, reader.segments_first) == (end, segments_end)
            assert [base.set_id for base in reader.bases] == [set_id(below) for below in range(number)]
            end, segments_end = reader.entries_end, reader.segments_end
            for past in (end, end + 5):
                with pytest.raises(NotFound):
                    reader.entry(EntryNo(past))


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_few_files_are_open_at_a_time(generations: Generations, tmp_path: Path, limit: int) -> None:
    """Bases are closed and opened again under listings that go on, and nothing is mixed up."""
    before = len(storage._open)
    opened = OpenBases(limit)
    with IndexReader(path_of(tmp_path, 5), opened) as top, IndexReader(path_of(tmp_path, 4), opened) as lower:
        assert len(storage._open) == before + 2
        for reader, number in ((top, 5), (lower, 4)):
            generations.check(reader, number)
            generations.check_extras(reader)
            assert len(storage._open) <= before + 2 + limit
        listings = [top.list_from(top.directory(DirectoryNo(at)), 0) for at in range(1, FOLDERS + 1)]
        frames = [top.frames(SegmentNo(at)) for at in range(6)]
        rows: dict[int, list[tuple[EntryNo, Entry]]] = {at: [] for at in range(1, FOLDERS + 1)}
        for _ in range(60):
            for at, listing in enumerate(listings, 1):
                rows[at] += [(number, entry) for _, number, entry in islice(listing, 1)]
            numbers = {frame.number for each in frames for frame in islice(each, 1)}
            assert len(numbers) <= 1
            assert len(storage._open) <= before + 2 + limit
        assert rows == {at: listing for at, listing in generations.trees[5].items() if at}
    opened.close()
    assert len(storage._open) == before


def test_closing_one_reader_leaves_the_others_whole(generations: Generations, tmp_path: Path) -> None:
    before = len(storage._open)
    readers = [IndexReader(path_of(tmp_path, number)) for number in (5, 0, 3, 5)]
    for reader, number in zip(readers, (5, 0, 3, 5), strict=True):
        generations.check(reader, number)
    for closed, number in ((0, 3), (1, 2)):
        readers[closed].close()
        generations.check(readers[number], (5, 0, 3, 5)[number])
    generations.check(readers[3], 5)
    for reader in readers:
        reader.close()
    assert len(storage._open) == before


def test_hundreds_of_bases(tmp_path: Path) -> None:
    """Each set is one more file; a look-up goes to the one it needs without opening those between."""
    generations = Generations(tmp_path, 3)
    generations.add(set())
    for number in range(300):
        generations.add({1 + number % FOLDERS})
    before = len(storage._open)
    with IndexReader(path_of(tmp_path, 300)) as reader:
        assert len(storage._open) == before + 1
        assert reader.entry(EntryNo(0)) == generations.trees[0][1][0][1]
        assert len(storage._open) == before + 2
        generations.check(reader, 300)
        assert len(storage._open) <= before + 1 + FOLDERS + 1


def test_a_set_without_an_entry_of_its_own(tmp_path: Path) -> None:
    """A root without folders, in which nothing changed: two ranges begin at the same number."""
    run = [make_entry(b"a", size=5), make_entry(b"b")]
    root = make_directory(0, files_count=2, files_bytes=5)
    with IndexWriter(path_of(tmp_path, 0), set_id(0)) as writer:
        writer.add_entries(run)
        writer.add_directory(root)
        writer.finish()
    for number in range(1, 4):
        with IndexReader(path_of(tmp_path, number - 1)) as base:
            with IndexWriter(path_of(tmp_path, number), set_id(number), base) as writer:
                first = writer.add_entries([make_entry(b"c")] if number == 3 else [])
                assert first == 2
                writer.add_directory(root if number < 3 else root._replace(files_first=first, files_count=1))
                writer.finish()
    with IndexReader(path_of(tmp_path, 2)) as reader:
        assert [entry for _, _, entry in reader.list_from(reader.directory(DirectoryNo(0)), 0)] == run
        assert (reader.entries_first, reader.entries_end, reader.totals) == (2, 2, Totals(2, 1, 2, 5))
    with IndexReader(path_of(tmp_path, 3)) as reader:
        assert [reader.entry(EntryNo(at)).name for at in range(3)] == [b"a", b"b", b"c"]


def test_more_links_than_are_read_at_a_time(tmp_path: Path) -> None:
    count = 2500
    for number in range(2):
        base = IndexReader(path_of(tmp_path, 0)) if number else None
        with IndexWriter(path_of(tmp_path, number), set_id(number), base) as writer:
            first = writer.add_entries([make_entry(b"%06d" % at, flags=8 if at else 0) for at in range(count)])
            for at in range(1, count):
                writer.add_link(EntryNo(first + at), first)
            writer.finish()
        if base is not None:
            base.close()
    with IndexReader(path_of(tmp_path, 1), OpenBases(1)) as reader:
        links = list(reader.links())
    assert dict(links) == {at: at // count * count for at in range(2 * count) if at % count}
    assert len(links) == 2 * count - 2


# -- damage ------------------------------------------------------------------------------------------------------------


def _shared_folder(generations: Generations) -> DirectoryNo:
    """One whose files are the oldest set's."""
    tree = generations.trees[5]
    return DirectoryNo(next(at for at in tree if at and tree[at] and tree[at] == generations.trees[0][at]))


def test_a_missing_base_is_named(generations: Generations, tmp_path: Path) -> None:
    path_of(tmp_path, 0).unlink()
    with IndexReader(path_of(tmp_path, 5)) as reader:
        directory = reader.directory(_shared_folder(generations))
        for call in (
            lambda: reader.entry(EntryNo(0)),
            lambda: list(reader.list_from(directory, 0)),
            lambda: reader.lookup(directory, b"a"),
            lambda: reader.xattrs(EntryNo(0)),
            lambda: reader.segment(SegmentNo(0)),
            lambda: reader.sha256(SegmentNo(0), 0),
        ):
            with pytest.raises(Damaged, match="missing") as caught:
                call()
            assert str(path_of(tmp_path, 0)) in caught.value.where
        # What needs nothing of it is still there.
        assert reader.entry(generations.trees[5][0][0][0]) == generations.trees[5][0][0][1]


@pytest.mark.parametrize("other", ["another set", "shorter", "damaged"])
def test_another_file_in_place_of_a_base_is_refused(generations: Generations, tmp_path: Path, other: str) -> None:
    path = path_of(tmp_path, 0)
    if other == "another set":
        os.replace(path_of(tmp_path, 1), path)
    elif other == "shorter":
        with IndexWriter(path, set_id(0)) as writer:
            writer.add_entries([make_entry(b"x")])
            writer.finish()
    else:
        path.write_bytes(b"x" * 10_000)
    before = len(storage._open)
    with IndexReader(path_of(tmp_path, 5)) as reader:
        for _ in range(2):
            with pytest.raises(Damaged) as caught:
                reader.entry(EntryNo(0))
            assert str(path) in caught.value.where
    assert len(storage._open) == before


def test_each_flipped_byte_of_the_list_of_bases_is_noticed(generations: Generations, tmp_path: Path) -> None:
    path = path_of(tmp_path, 3)
    with IndexReader(path) as reader:
        bases = reader.bases
    key, value = layout.encode_bases(bases)
    content = path.read_bytes()
    assert content.count(key + value) == 1
    begin = content.index(key + value)
    with path.open("r+b", buffering=0) as file:
        for at in range(begin, begin + len(key) + len(value)):
            os.pwrite(file.fileno(), bytes([content[at] ^ 1 << generations.random.randrange(8)]), at)
            with pytest.raises(Damaged):
                IndexReader(path)
            os.pwrite(file.fileno(), content[at : at + 1], at)
    with IndexReader(path) as reader:
        generations.check(reader, 3)


@pytest.mark.parametrize(
    "misuse",
    [
        lambda writer, base: writer.add_segment(SegmentRow(SegmentNo(0), segment_id(0), 0, 0, 0)),
        lambda writer, base: writer.add_hashes(SegmentNo(0), [(0, bytes(32))]),
        lambda writer, base: writer.add_frames(SegmentNo(0), [FrameRow(0, 1, 0, 1, bytes(16))]),
        lambda writer, base: writer.add_xattrs(EntryNo(0), [(b"user.a", b"")]),
        # A run over the border of two indexes, one that reaches into ours, both also of subdirectories.
        lambda writer, base: writer.add_directory(make_directory(0, files_first=base.entries_first - 1, files_count=2)),
        lambda writer, base: writer.add_directory(make_directory(0, files_first=base.entries_end - 1, files_count=2)),
        lambda writer, base: writer.add_directory(
            make_directory(0, directories_first=base.entries_first - 1, directories_count=2)
        ),
        lambda writer, base: writer.add_directory(make_directory(0, files_first=-1, files_count=1)),
    ],
)
def test_what_does_not_fit_the_base_is_refused(
    generations: Generations, tmp_path: Path, misuse: Callable[[IndexWriter, IndexReader], None]
) -> None:
    def use(base: IndexReader) -> None:
        with IndexWriter(path_of(tmp_path, 6), set_id(6), base) as writer:
            writer.add_entries([make_entry(b"a")])
            misuse(writer, base)
            writer.finish()

    names = sorted(os.listdir(tmp_path))
    with IndexReader(path_of(tmp_path, 5)) as base, pytest.raises(ValueError, match=r".+"):
        use(base)
    assert sorted(os.listdir(tmp_path)) == names
