"""The index of a set is what its trailers say, wherever the borders of segments lie."""

from __future__ import annotations

import os
import signal
import tracemalloc
from pathlib import Path
from random import Random
from stat import S_IFDIR
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from catalog.errors import StorageFailed
from catalog.index.model import Entry, Totals
from catalog.index.reader import IndexReader
from tapefs.sets import build, spill
from tapefs.sets.build import build_index
from tests.catalog.index.trees import random_name, time_ns
from tests.forking.client import run
from tests.sets.trailers import CHANGED, SET, SPLIT, UNREADABLE, Tree, Walk, file, folder, link, read_back, store


def random_tree(random: Random, depth: int = 3) -> Tree:
    tree: Tree = {b"": folder(mode=S_IFDIR | random.choice([0o755, 0o7777]), mtime_ns=time_ns(random))}
    for _ in range(random.choice([0, 1, 5, 30])):
        name = random_name(random)
        if name not in (b".", b".."):
            tree[name] = random_file(random, name)
    for _ in range(random.choice([0, 1, 3]) if depth else 0):
        name = random_name(random)
        if name not in (b".", b".."):
            tree[name] = random_tree(random, depth - 1)
    return tree


def random_file(random: Random, name: bytes) -> Entry:
    if random.random() < 0.2:
        return link(name, random.choice([b"/", b"\xff" * 4095, "größe".encode()]))
    return file(
        name, random.choice([0, 1, 511, 512, 5000, 70_000]), flags=random.choice([0, 0, 0, CHANGED, UNREADABLE]),
        mtime_ns=time_ns(random), ctime_ns=time_ns(random), uid=random.choice([0, 2**32 - 1]), ino=2**64 - 1,
    )  # fmt: skip


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.integers(0, 2**32),
    members=st.sampled_from([2, 7, 30, 10**6]),
    part_bytes=st.sampled_from([5000, 20_000, 10**6]),
)
@example(seed=1, members=1, part_bytes=5000)
def test_random_trees_come_back(seed: int, members: int, part_bytes: int) -> None:
    walk = Walk(random_tree(Random(seed)), members=members, part_bytes=part_bytes)
    with TemporaryDirectory() as name:
        path = Path(name)
        totals = build_index(path / "set", SET, store(path, walk.segments))
        found = read_back(path / "set")
        assert found.directories == walk.expected.directories
        assert (found.extents, found.segments) == (walk.expected.extents, walk.expected.segments)
        assert found.hashes == walk.expected.hashes
        with IndexReader(path / "set") as reader:
            assert reader.totals == totals


def _some_tree() -> Tree:
    branch: Tree = {b"": folder(), **{b"%02d" % n: file(b"%02d" % n, 1000) for n in range(20)}}
    return {
        b"": folder(),
        b"a": file(b"a", 5000, flags=CHANGED),
        b"b": link(b"b", b"a"),
        b"big": file(b"big", 300_000),
        b"lost": file(b"lost", 10, flags=UNREADABLE),
        b"d1": {b"": folder(), b"deep": branch, b"x": file(b"x", 3)},
        b"d2": {b"": folder()},
    }


def test_the_totals_count_what_is_there(tmp_path: Path) -> None:
    walk = Walk(_some_tree(), members=7, part_bytes=100_000)
    totals = build_index(tmp_path / "set", SET, store(tmp_path, walk.segments))
    assert totals == Totals(entries=28, directories=4, files=25, bytes=5000 + 300_000 + 3 + 20 * 1000)


def test_an_index_is_a_pure_function_of_the_trailers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same trailers give the same file, byte for byte; the size of batches changes nothing in it either."""
    trailers = store(tmp_path, Walk(random_tree(Random(5)), members=30, part_bytes=9000).segments)
    build_index(tmp_path / "one", SET, trailers)
    build_index(tmp_path / "two", SET, trailers)
    monkeypatch.setattr(build, "_BATCH", 3)
    monkeypatch.setattr(spill, "KEPT", 2)
    build_index(tmp_path / "three", SET, trailers)
    one = (tmp_path / "one").read_bytes()
    assert (tmp_path / "two").read_bytes() == one
    assert (tmp_path / "three").read_bytes() == one
    assert len(os.listdir(tmp_path)) == 3 + len(trailers)


def test_waiting_subdirectories_go_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of several levels at once, and with times that need more than 64 bits."""
    monkeypatch.setattr(spill, "KEPT", 2)
    leaf: Tree = {b"": folder(mtime_ns=2**80, ctime_ns=-(2**80))}
    inner: Tree = {b"": folder(), **{b"i%d" % n: leaf for n in range(9)}}
    walk = Walk({b"": folder(), **{b"o%d" % n: inner for n in range(9)}, b"f": file(b"f", 1)})
    build_index(tmp_path / "set", SET, store(tmp_path, walk.segments))
    assert read_back(tmp_path / "set").directories == walk.expected.directories


def test_memory_does_not_grow_with_the_set(tmp_path: Path) -> None:
    def peak(folders: int, files: int) -> int:
        branch: Tree = {b"": folder(), **{b"%05d" % n: file(b"%05d" % n, 10) for n in range(files)}}
        walk = Walk({b"": folder(), **{b"d%05d" % n: branch for n in range(folders)}}, members=2000)
        trailers = store(tmp_path, walk.segments)
        del walk
        tracemalloc.start()
        build_index(tmp_path / "set", SET, trailers)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(1500, 10) < 2 * peak(500, 10)
    assert peak(3, 10_000) < 40_000_000


def test_a_directory_may_run_over_many_segments(tmp_path: Path) -> None:
    walk = Walk(_some_tree(), members=1, part_bytes=50_000)
    assert len(walk.segments) == 20 + 4 + 6
    build_index(tmp_path / "set", SET, store(tmp_path, walk.segments))
    found = read_back(tmp_path / "set")
    assert found.directories == walk.expected.directories
    assert len(found.extents[0, b"big"]) == 6
    assert next(entry for entry in found.directories[0][1] if entry.name == b"big").flags == SPLIT


@pytest.mark.parametrize(("point", "is_there"), [("index.rename.before", False), ("index.rename.after", True)])
def test_a_crash_leaves_no_index_or_a_whole_one(tmp_path: Path, point: str, is_there: bool) -> None:
    walk = Walk(_some_tree(), members=5)
    trailers = store(tmp_path, walk.segments)
    code = (
        "import sys, pathlib; from tapefs.sets.build import build_index;"
        "build_index(pathlib.Path(sys.argv[1]), sys.argv[2], [pathlib.Path(p) for p in sys.argv[3:]])"
    )
    child = run("-c", code, tmp_path / "set", SET, *trailers, env={**os.environ, "TAPEFS_CRASH_AT": point})
    assert child.returncode == -signal.SIGKILL
    assert (tmp_path / "set").exists() == is_there
    if not is_there:
        build_index(tmp_path / "set", SET, trailers)
    assert read_back(tmp_path / "set").directories == walk.expected.directories
    assert len(os.listdir(tmp_path)) == 1 + len(trailers)


def test_a_missing_trailer_is_an_error_of_the_storage(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match=r"none\.zst"):
        build_index(tmp_path / "set", SET, [tmp_path / "none.zst"])
    assert os.listdir(tmp_path) == []
