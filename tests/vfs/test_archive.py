"""Looking things up in sets, and the tree that is mounted, without FUSE."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import NotFound
from catalog.ids import DirectoryNo, EntryNo, SegmentId, SegmentNo, SetNumber
from catalog.index import storage
from catalog.index.bases import OpenBases
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import BackupSet
from tapefs.errors import BadStructure, NoSuchThing
from tapefs.vfs import archive as archive_module
from tapefs.vfs.archive import Archive
from tapefs.vfs.inodes import ROOT, Inode, directory_inode, entry_inode, split, virtual_inode
from tapefs.vfs.nodes import DirectoryNode, EntryNode, VirtualNode
from tapefs.vfs.residency import Piece, pieces_of, stretches
from tapefs.vfs.totals import Totals
from tapefs.vfs.tree import Owner, Tree, folder_name
from tests.catalog.builders import job_of
from tests.vfs.shelf import LABEL, Shelf


@pytest.fixture(autouse=True)
def _look_at_events_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "EVENTS_AGE_S", 0.0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "b/c").mkdir(parents=True)
    (source / "a").write_bytes(b"a" * 1000)
    (source / "b/c/deep").write_text("deep")
    (source / "b/z").write_bytes(b"z" * 5000)
    (source / "link").symlink_to("a")
    return source


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "home")
    yield shelf
    shelf.close()


@pytest.fixture
def archive(shelf: Shelf) -> Iterator[Archive]:
    archive = Archive(shelf.home, shelf.ledger, open_indexes=2)
    yield archive
    archive.close()


@pytest.fixture
def tree(shelf: Shelf, archive: Archive) -> Tree:
    return Tree(archive, shelf.ledger, Owner(7, 8))


def inside(source: Path) -> bytes:
    return os.fsencode(source).strip(b"/")


# -- Archive ---------------------------------------------------------------------------------------------------------


def test_sets_come_and_are_found(shelf: Shelf, archive: Archive, source: Path) -> None:
    assert archive.complete_sets() == []
    first = shelf.add_set(source)
    assert archive.complete_sets() == [first]
    second = shelf.add_set(source)
    shelf.add_set(source, complete=False)
    assert archive.complete_sets() == [first, second]
    assert archive.find_set("docs") == second
    assert archive.find_set(first.set_id[:13]) == first
    assert archive.time_name(second) == "2026-11-23T020000Z-2"


def test_resolve(shelf: Shelf, archive: Archive, source: Path) -> None:
    reader = archive.index(shelf.add_set(source).set_id)
    root = archive.resolve(reader, b"")
    assert (root.path, root.number, root.entry) == (b"", None, None)
    found = archive.resolve(reader, b"/" + inside(source) + b"//b/./c/deep/")
    assert found.path == inside(source) + b"/b/c/deep"
    assert found.directory is None
    assert found.entry is not None
    assert found.entry.size == 4
    folder = archive.resolve(reader, inside(source) + b"/b")
    assert folder.directory is not None
    assert folder.entry is not None
    for missing in (b"/nothing", b"/a/below", b"/.."):
        with pytest.raises(NoSuchThing):
            archive.resolve(reader, inside(source) + missing)


def test_walk_is_in_tape_order(shelf: Shelf, archive: Archive, source: Path) -> None:
    reader = archive.index(shelf.add_set(source).set_id)
    start = archive.resolve(reader, inside(source))
    paths = [os.path.relpath(found.path, inside(source)) for found in archive.walk(reader, start)]
    assert paths == [b".", b"a", b"link", b"b", b"b/z", b"b/c", b"b/c/deep"]
    file = archive.resolve(reader, inside(source) + b"/a")
    assert [found.path for found in archive.walk(reader, file)] == [file.path]


def test_few_indexes_are_kept_open(shelf: Shelf, archive: Archive, source: Path) -> None:
    sets = [shelf.add_set(source) for _ in range(4)]
    readers = [archive.index(each.set_id) for each in sets]
    with pytest.raises(ValueError, match="closed"):
        readers[0].directory(DirectoryNo(0))
    assert archive.index(sets[3].set_id) is readers[3]
    assert archive.index(sets[0].set_id).directory(DirectoryNo(0)).number == 0


def test_a_missing_index_is_an_error(shelf: Shelf, archive: Archive, source: Path) -> None:
    backup_set = shelf.add_set(source)
    shelf.home.index(backup_set.set_id).unlink()
    with pytest.raises(NotFound):
        archive.index(backup_set.set_id)


def test_totals(shelf: Shelf, archive: Archive, source: Path) -> None:
    totals = Totals(archive)
    assert totals.now() == (0, 0)
    first = shelf.add_set(source)
    assert totals.now() == (first.bytes, first.files + first.directories)


def test_long_chains_take_few_files(shelf: Shelf, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty sets, each with a folder of its own from every set before it; a handful of files are open at a time."""
    sets: list[BackupSet] = []
    for number in range(40):
        (source / f"folder{number:02}").mkdir()
        (source / f"folder{number:02}/file").write_text(f"{number}")
        sets.append(shelf.add_set(source, base=sets[-1] if sets else None))
    before = len(storage._open)
    monkeypatch.setattr(archive_module, "OpenBases", lambda: OpenBases(5))
    archive = Archive(shelf.home, shelf.ledger, open_indexes=3)
    for last in (39, 3, 38, 20, 39):
        reader = archive.index(sets[last].set_id)
        assert len(reader.bases) == last
        for found in archive.walk(reader, archive.resolve(reader, inside(source))):
            if found.path.endswith(b"/file"):
                assert found.entry is not None
                assert found.number is not None
                [piece] = pieces_of(reader, found.number, found.entry)
                content = shelf.segments[piece.segment_id].plain[piece.offset :][: piece.length]
                assert found.path.endswith(b"folder%02d/file" % int(content))
            assert len(storage._open) <= before + 3 + 5
        names = [found.path for found in archive.walk(reader, archive.resolve(reader, inside(source)))]
        assert sum(b"/folder" in name for name in names) == 2 * (last + 1)
    archive.close()
    assert len(storage._open) == before


# -- pieces ----------------------------------------------------------------------------------------------------------


def test_pieces(shelf: Shelf, archive: Archive, source: Path) -> None:
    reader = archive.index(shelf.add_set(source, segment_bytes=2000).set_id)
    found = archive.resolve(reader, inside(source) + b"/b/z")
    assert found.entry is not None
    assert found.number is not None
    pieces = pieces_of(reader, found.number, found.entry)
    assert [(piece.file_offset, piece.length) for piece in pieces] == [(0, 2000), (2000, 2000), (4000, 1000)]
    assert len({piece.segment_id for piece in pieces}) == 3
    for piece in pieces:
        assert shelf.segments[piece.segment_id].plain[piece.offset :][: piece.length] == b"z" * piece.length
    with pytest.raises(BadStructure):
        pieces_of(reader, found.number, found.entry._replace(size=5001))


def test_pieces_of_a_file_with_holes(shelf: Shelf, archive: Archive, source: Path) -> None:
    with (source / "sparse").open("wb") as file:
        for number in range(10):
            file.seek(100_000 * number + 20_480)
            file.write(b"%d" % number * 4096)
        file.truncate(2_000_000)
    os.link(source / "sparse", source / "twin")
    reader = archive.index(shelf.add_set(source).set_id)
    found = archive.resolve(reader, inside(source) + b"/sparse")
    twin = archive.resolve(reader, inside(source) + b"/twin")
    assert found.entry is not None
    assert found.number is not None
    assert twin.entry is not None
    assert twin.number is not None
    pieces = pieces_of(reader, found.number, found.entry)
    assert pieces == pieces_of(reader, twin.number, twin.entry)
    content = bytearray(2_000_000)
    for piece in pieces:
        plain = shelf.segments[piece.segment_id].plain
        content[piece.file_offset : piece.file_offset + piece.length] = plain[piece.offset :][: piece.length]
    assert content == (source / "sparse").read_bytes()
    [whole] = stretches(pieces)
    assert (whole.offset, whole.length) == (pieces[0].offset, sum(piece.length for piece in pieces))
    with pytest.raises(BadStructure):
        pieces_of(reader, found.number, found.entry._replace(size=pieces[-1].file_offset))


def test_stretches_end_where_the_stream_has_something_else(shelf: Shelf, archive: Archive, source: Path) -> None:
    one, two = SegmentId("1"), SegmentId("2")
    pieces = [
        Piece(0, 10, SegmentNo(0), one, 100),
        Piece(50, 10, SegmentNo(0), one, 110),
        Piece(60, 10, SegmentNo(0), one, 121),
        Piece(70, 10, SegmentNo(1), two, 131),
    ]
    assert stretches(pieces) == [pieces[0]._replace(length=20), pieces[2], pieces[3]]
    assert stretches([]) == []


# -- Tree ------------------------------------------------------------------------------------------------------------


def node_at(tree: Tree, *names: str) -> VirtualNode | DirectoryNode | EntryNode:
    node = tree.node(ROOT)
    for name in names:
        node = tree.lookup(node.inode, name.encode())
    return node


def test_inode_numbers() -> None:
    number = SetNumber(2**24 - 1)
    assert split(entry_inode(number, EntryNo(2**39 - 1))) == (number, False, 2**39 - 1)
    assert split(directory_inode(number, DirectoryNo(5))) == (number, True, 5)
    assert directory_inode(number, DirectoryNo(2**39 - 1)) == 2**64 - 1
    for path in ("/jobs", "jobs/docs", "\udcff"):
        assert split(virtual_inode(path))[:2] == (0, False)
        assert virtual_inode(path) > 2**38


def test_the_way_down_and_up(shelf: Shelf, tree: Tree, source: Path) -> None:
    backup_set = shelf.add_set(source)
    way = ["jobs", "docs", "2026-11-23T020000Z", *str(source).strip("/").split("/"), "b"]
    folder = node_at(tree, *way)
    assert isinstance(folder, DirectoryNode)
    file = tree.lookup(folder.inode, b"z")
    assert isinstance(file, EntryNode)
    assert file.inode >> 40 == backup_set.number
    assert tree.node(file.inode).inode == file.inode
    assert tree.lookup(file.inode, b".").inode == file.inode
    inodes = [node_at(tree, *way[:depth]).inode for depth in range(len(way) + 1)]
    climbed = [folder.inode]
    while climbed[-1] != ROOT:
        climbed.append(tree.lookup(climbed[-1], b"..").inode)
    assert climbed == inodes[::-1]
    assert tree.lookup(ROOT, b"..").inode == ROOT


def test_virtual_nodes(shelf: Shelf, tree: Tree, source: Path) -> None:
    backup_set = shelf.add_set(source)
    latest = node_at(tree, "jobs", "docs", "latest")
    by_id = node_at(tree, "sets", backup_set.set_id)
    assert isinstance(latest, VirtualNode)
    assert isinstance(by_id, VirtualNode)
    assert latest.content == b"2026-11-23T020000Z"
    assert by_id.content == b"../jobs/docs/2026-11-23T020000Z"
    tapes = node_at(tree, "tapes")
    assert isinstance(tapes, VirtualNode)
    assert stat.S_IMODE(tapes.mode) == 0o700
    assert (tapes.uid, tapes.gid) == (7, 8)
    contents = node_at(tree, "tapes", LABEL, "CONTENTS.txt")
    assert isinstance(contents, VirtualNode)
    assert backup_set.set_id.encode() in contents.content
    assert re.search(rb" [0-9,]+ bytes of zstd \([0-9,]+ unpacked\), [0-9,]+ members, ", contents.content)
    for missing in (["nothing"], ["jobs", "nothing"], ["README.txt", "nothing"], ["tapes", "nothing"]):
        with pytest.raises(NoSuchThing):
            node_at(tree, *missing)


def test_inode_numbers_outlive_the_process(shelf: Shelf, tree: Tree, archive: Archive, source: Path) -> None:
    shelf.add_set(source)
    ways = (["jobs"], ["jobs", "docs"], ["tapes", LABEL, "CONTENTS.txt"], ["jobs", "docs", "latest"])
    before = [node_at(tree, *way).inode for way in ways]
    shelf.add_set(source, name="another")
    fresh = Tree(archive, shelf.ledger, Owner(0, 0))
    # By number first: the kernel, or an NFS client, remembers it from an earlier mount.
    assert [fresh.node(inode).inode for inode in before] == before
    assert [node_at(fresh, *way).inode for way in ways] == before


def test_the_tree_follows_the_ledger(shelf: Shelf, tree: Tree, source: Path) -> None:
    def names(*way: str) -> list[bytes]:
        folder = node_at(tree, *way)
        assert isinstance(folder, VirtualNode)
        return [name for _, name, _ in tree.children(folder)]

    assert names("jobs") == []
    shelf.add_set(source, complete=False)
    assert names("jobs") == []
    shelf.add_set(source)
    assert names("jobs") == [b"docs"]
    assert names("jobs", "docs") == [b"2026-11-23T020000Z-2", b"latest"]
    assert b"docs-2026-11-23T020000Z-2" in names("tapes", LABEL)


def test_what_has_nothing_to_do_with_sets_has_none_read(
    shelf: Shelf, tree: Tree, archive: Archive, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs come and go while people look around, and reading 10,000 sets takes 40 ms."""
    shelf.add_set(source)
    tree.node(ROOT)
    roster = archive.roster()
    reads: list[int] = []
    original = type(shelf.ledger).readable_sets

    def counting(ledger: LmdbLedger) -> list[BackupSet]:
        reads.append(1)
        return original(ledger)

    monkeypatch.setattr(type(shelf.ledger), "readable_sets", counting)
    shelf.ledger.add_job(job_of("other", job_id="11111111-1111-4111-8111-111111111111"))
    tree.node(ROOT)
    assert archive.roster() is roster
    assert not reads
    shelf.add_set(source, name="more")
    assert {each.name for each in archive.roster().complete} == {"docs", "more"}
    assert reads


def test_sets_are_read_by_another_thread(shelf: Shelf, tree: Tree, source: Path) -> None:
    """What has happened meanwhile is not lost, and what is the same is not made anew."""
    shelf.add_set(source)
    assert not tree.is_current()
    seen = tree.seen()
    found = to_thread(tree.read, seen)
    shelf.add_set(source, name="more")
    tree.take(found)
    assert tree.is_current() is False
    tree.take(to_thread(tree.read, tree.seen()))
    assert tree.is_current()
    assert set(virtual(tree, b"jobs").children) == {b"docs", b"more"}
    top = tree.node(ROOT)
    tree.take(to_thread(tree.read, tree.seen()))
    assert tree.node(ROOT) is top


def virtual(tree: Tree, name: bytes) -> VirtualNode:
    node = tree.lookup(ROOT, name)
    assert isinstance(node, VirtualNode)
    return node


def to_thread(work: Callable[..., Any], *arguments: object) -> Any:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work, *arguments).result()


def test_numbers_of_nothing(shelf: Shelf, tree: Tree, source: Path) -> None:
    backup_set = shelf.add_set(source)
    for inode in (
        Inode(99),
        entry_inode(SetNumber(backup_set.number + 1), EntryNo(0)),
        entry_inode(backup_set.number, EntryNo(10**6)),
        directory_inode(backup_set.number, DirectoryNo(10**6)),
    ):
        with pytest.raises(NoSuchThing):
            tree.node(inode)


def test_more_sets_than_indexes_may_be_open(shelf: Shelf, tree: Tree, source: Path) -> None:
    sets = [shelf.add_set(source, name=f"job{number}") for number in range(5)]
    for _ in range(2):
        for each in sets:
            node = tree.node(directory_inode(each.number, DirectoryNo(1)))
            assert isinstance(node, DirectoryNode)
            assert node.view.reader.lookup(node.directory, b"nothing") is None


def test_odd_names_become_folders(shelf: Shelf, tree: Tree, source: Path) -> None:
    assert [folder_name(name) for name in ("a", ".", "..", "", "a/b")] == ["a", "%.", "%..", "%", "a%2Fb"]
    backup_set: BackupSet = shelf.add_set(source, name="..")
    assert isinstance(node_at(tree, "jobs", "%..", "2026-11-23T020000Z"), DirectoryNode)
    by_id = node_at(tree, "sets", backup_set.set_id)
    assert isinstance(by_id, VirtualNode)
    assert by_id.content == b"../jobs/%../2026-11-23T020000Z"


def test_a_damaged_set_does_not_hide_the_others(
    shelf: Shelf, tree: Tree, source: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged, missing, _ = (shelf.add_set(source) for _ in range(3))
    shelf.home.index(damaged.set_id).write_bytes(b"nothing")
    shelf.home.index(missing.set_id).unlink()
    folder = node_at(tree, "jobs", "docs")
    assert isinstance(folder, VirtualNode)
    found = list(tree.children(folder))
    assert [(position, name) for position, name, _ in found] == [(3, b"2026-11-23T020000Z-3"), (4, b"latest")]
    assert list(tree.children(folder, 3)) == found[1:]
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 2
