"""Names of one file: found again wherever the borders of segments lie, whatever is lost, and however little is kept."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.index.model import EntryFlag
from catalog.index.reader import IndexReader
from drivers.virtual.faults import EarlyEnd
from tapefs.backup.links import LinkMap
from tapefs.sets.links import Links
from tests.backup.rig import Rig
from tests.backup.test_kinds import number_of, shown
from tests.backup.test_trouble import with_faults
from tests.backup.trees import extract, payloads, random_files, snapshot

_MIB = 1024**2


def status(inode: int, nlink: int = 3, ctime_ns: int = 1) -> os.stat_result:
    found = SimpleNamespace(
        st_dev=1, st_ino=inode, st_nlink=nlink, st_size=10, st_mtime_ns=1, st_ctime_ns=ctime_ns,
        st_mode=stat.S_IFREG,
    )  # fmt: skip
    return found  # type: ignore[return-value]


class Model:
    """What the map must know, from the whole history of the names that count."""

    def __init__(self) -> None:
        #: (segment, inode, was it stored with content)
        self.names: list[tuple[int, int, bool]] = []

    def first(self, inode: int) -> int | None:
        return next((segment for segment, each, _ in self.names if each == inode), None)

    def copy(self, inode: int) -> int | None:
        return next((segment for segment, each, stored in reversed(self.names) if each == inode and stored), None)

    def seen(self, inode: int) -> int:
        return sum(each == inode for _, each, _ in self.names)


@given(
    steps=st.lists(st.tuples(st.sampled_from(["name"] * 8 + ["segment", "commit", "lose"]), st.integers(0, 6))),
    kept=st.integers(0, 4),
)
@settings(max_examples=100, deadline=None)
def test_going_back_forgets_what_did_not_come_to_be(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]], kept: int
) -> None:
    """After any history of segments, commits and losses the map is as if the lost ones had never been."""
    links, model, names = LinkMap(tmp_path_factory.getbasetemp(), kept), Model(), 4
    segment = 0
    for step, number in steps:
        if step == "segment":
            segment += 1
        elif step == "commit":
            links.committed = min(segment, links.committed + number)
        elif step == "lose":
            segment = max(links.committed, segment - number)
            links.go_back(segment)
            model.names = [name for name in model.names if name[0] < segment]
        elif model.seen(number) < names:
            of = status(number, names)
            link = links.find(of)
            first, copy = model.first(number), model.copy(number)
            assert (link is None) == (first is None)
            if link is not None:
                assert link.first_segment == first
                # A copy in a lost segment is none; one in an earlier segment is of no use to this one either way.
                assert (link.segment == segment) == (copy == segment)
            if link is not None and link.segment == segment:
                links.linked(of, link, segment)
                model.names.append((segment, number, False))
            else:
                links.stored(of, segment, 512, b"path")
                model.names.append((segment, number, True))
    for number in range(7):
        found = links.find(status(number, names))
        if 0 < model.seen(number) < names:
            assert found is not None
            assert sum(found.met[1::2]) == model.seen(number)
    links.close()


def test_files_go_when_all_their_names_are_safe(tmp_path: Path) -> None:
    """The map holds what is still to come, not the whole set."""
    links = LinkMap(tmp_path, 10)
    for segment in range(50):
        for inode in range(100):
            of = status(1000 * segment + inode, 2)
            links.stored(of, segment, 512, b"path")
            link = links.find(of)
            assert link is not None
            links.linked(of, link, segment)
        links.committed = segment
    assert len(links) <= 2 * 100
    links.close()


def test_a_file_that_has_changed_is_another(tmp_path: Path) -> None:
    links = LinkMap(tmp_path)
    links.stored(status(1), 0, 512, b"path")
    assert links.find(status(1)) is not None
    assert links.find(status(1, ctime_ns=2)) is None
    links.forget(status(1))
    assert links.find(status(1)) is None
    links.close()


def linked_tree(root: Path, groups: int, size: int) -> Path:
    """Make directories in which every file has a name in each."""
    tree = root / "tree"
    random_files(tree / "a", groups, size)
    for name in "bcd":
        (tree / name).mkdir()
        for number in range(groups):
            os.link(tree / f"a/file-{number:05}", tree / f"{name}/file-{number:05}")
    return tree


def check_links(rig: Rig, set_id: str, tree: Path, groups: int) -> None:
    """Every name is one of its group, with the place of the first, and the sum of its content."""
    reader = IndexReader(rig.home.index(set_id))  # type: ignore[arg-type]
    found = shown(reader, tree)
    for number in range(groups):
        name = f"file-{number:05}"
        first = found[f"a/{name}".encode()]
        assert not first.flags & EntryFlag.LINKED
        for folder in "bcd":
            entry = found[f"{folder}/{name}".encode()]
            assert entry.flags & EntryFlag.LINKED
            assert (entry.segment, entry.offset) == (first.segment, first.offset)
            of = number_of(reader, tree / folder / name)
            assert reader.link(of) == number_of(reader, tree / "a" / name)  # type: ignore[arg-type]
    assert rig.ledger.backup_set(set_id).bytes == sum(  # type: ignore[arg-type]
        (tree / f"a/file-{number:05}").stat().st_size for number in range(groups)
    )


@pytest.fixture(params=[None, 2], ids=["in memory", "spilled"])
def few_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have backup and builder keep two files in memory."""
    if request.param is not None:
        monkeypatch.setattr("tapefs.backup.engine.LinkMap", partial(LinkMap, kept=request.param))
        monkeypatch.setattr("tapefs.sets.build.Links", partial(Links, kept=request.param))


@pytest.mark.usefixtures("few_links")
def test_links_within_and_over_segments(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """Content is stored once in each segment that names the file; tar restores it everywhere."""
    tree = linked_tree(tmp_path, 20, 20_000)
    rig = make_rig(backup_settings="segment_members = 50")
    set_id = rig.backup(tree)
    assert rig.ledger.backup_set(set_id).segments == 2
    check_links(rig, set_id, tree, 20)
    assert snapshot(Path(f"{extract(rig, tmp_path / 'out')}{tree}")) == snapshot(tree)
    assert sum(payload.stat().st_size for payload in payloads(rig)) < 2.2 * 20 * 20_000


@pytest.mark.usefixtures("few_links")
def test_each_name_in_a_segment_of_its_own(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """Then each has the content with it, and in the index they are one file all the same."""
    tree = linked_tree(tmp_path, 10, 20_000)
    rig = make_rig(backup_settings="segment_members = 3")
    check_links(rig, rig.backup(tree), tree, 10)
    assert snapshot(Path(f"{extract(rig, tmp_path / 'out')}{tree}")) == snapshot(tree)


@pytest.mark.usefixtures("few_links")
@pytest.mark.parametrize("block", [40, 90, 130])
def test_links_after_a_lost_segment(make_rig: Callable[..., Rig], tmp_path: Path, block: int) -> None:
    """The walk goes back; what was a link into the lost segment is stored again, and nothing is a link to nowhere."""
    tree = linked_tree(tmp_path, 30, 1_000_000)
    rig = make_rig(tapes=3)
    with_faults(rig, EarlyEnd(block=block, barcode="TP0001L9", warning_blocks=0))
    set_id = rig.backup(tree)
    assert rig.ledger.backup_set(set_id).tapes == ("TP0001L9", "TP0002L9")
    check_links(rig, set_id, tree, 30)
    assert snapshot(Path(f"{extract(rig, tmp_path / 'out')}{tree}")) == snapshot(tree)


def test_names_of_a_file_that_is_split(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """Each name has its parts on tape, for tar; in the index all have the extents of the first."""
    tree = linked_tree(tmp_path, 1, 20_000_000)
    rig = make_rig()
    set_id = rig.backup(tree)
    check_links(rig, set_id, tree, 1)
    reader = IndexReader(rig.home.index(set_id))
    extents = [reader.extents(number_of(reader, tree / f"{name}/file-00000")) for name in "abcd"]  # type: ignore[arg-type]
    assert extents[0] == extents[1] == extents[2] == extents[3]
    assert sum(extent.length for extent in extents[0]) == 20_000_000
    out = extract(rig, tmp_path / "out")
    for name in "abcd":
        parts = sorted(Path(f"{out}{tree}/{name}").iterdir())
        assert b"".join(part.read_bytes() for part in parts) == (tree / "a/file-00000").read_bytes()


def test_a_name_whose_file_has_changed_since_is_a_file_of_its_own(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two names the file is written to: both are on tape as they were, and no link joins them."""
    tree = linked_tree(tmp_path, 1, 1000)
    before = (tree / "a/file-00000").read_bytes()
    real = os.preadv
    done: list[bool] = []

    def meddle(fd: int, buffers: list[memoryview], offset: int) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("c/file-00000") and not done:
            done.append(True)
        return real(fd, buffers, offset)

    class Meddling(LinkMap):
        def linked(self, *arguments: object) -> None:
            super().linked(*arguments)  # type: ignore[arg-type]
            if not done:
                done.append(True)
                (tree / "a/file-00000").write_bytes(b"other")

    monkeypatch.setattr(os, "preadv", meddle)
    monkeypatch.setattr("tapefs.backup.engine.LinkMap", Meddling)
    set_id = rig.backup(tree)
    monkeypatch.undo()
    reader = IndexReader(rig.home.index(set_id))
    found = shown(reader, tree)
    linked = {path for path, entry in found.items() if entry.flags & EntryFlag.LINKED}
    assert linked == {b"b/file-00000", b"d/file-00000"}
    number = number_of(reader, tree / "d/file-00000")
    assert reader.link(number) == number_of(reader, tree / "c/file-00000")  # type: ignore[arg-type]
    assert rig.watcher.troubles == []
    out = Path(f"{extract(rig, tmp_path / 'out')}{tree}")
    contents = [(out / f"{name}/file-00000").read_bytes() for name in "abcd"]
    assert contents == [before, before, b"other", b"other"]
    assert os.stat(out / "c/file-00000").st_ino == os.stat(out / "d/file-00000").st_ino
