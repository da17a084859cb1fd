"""A names file: every name with every entry that bears it, whole or not there, the same bytes each time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from stat import S_IFDIR, S_IFREG

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.crash import known_points
from catalog.errors import Conflict, Damaged, NotFound, WrongVersion
from catalog.ids import EntryNo, SetId
from catalog.index.model import Directory
from catalog.index.storage import claim_file
from catalog.index.writer import IndexWriter
from catalog.names import layout
from catalog.names.builder import build_names, nameless_names
from catalog.names.reader import NamesReader
from catalog.names.sorting import Sorter
from tests.catalog.index.trees import make_directory, make_entry
from tests.forking.client import run

SET = SetId("0b9c5f1e-6d1f-4a53-9d0c-000000000001")
FOLDERS = 1000


def make_index(path: Path, seed: int = 1) -> dict[bytes, list[tuple[int, int]]]:
    """Write an index of many folders with common and rare names; return entries and directories by name."""
    random = Random(seed)
    found: dict[bytes, list[tuple[int, int]]] = {}

    def note(first: int, directory: int, names: list[bytes]) -> None:
        for number, name in enumerate(names, first):
            found.setdefault(name, []).append((number, directory))

    with IndexWriter(path, SET) as writer:
        listings: list[Directory] = []
        for number in range(1, FOLDERS + 1):
            rare = {b"%06x.dat" % random.randrange(1 << 24) for _ in range(random.randrange(20))}
            names = sorted({b"index.html", b"\xff\n", *rare})
            first = writer.add_entries([make_entry(name, mode=S_IFREG | 0o644) for name in names])
            listings.append(make_directory(number, files_first=first, files_count=len(names)))
            note(first, number, names)
        folders = [b"d%06d" % number for number in range(1, FOLDERS + 1)]
        entries = [make_entry(name, mode=S_IFDIR | 0o755, offset=at) for at, name in enumerate(folders, 1)]
        first = writer.add_entries(entries)
        listings.append(make_directory(0, directories_first=first, directories_count=FOLDERS))
        note(first, 0, folders)
        for listing in listings:
            writer.add_directory(listing)
        writer.finish()
    return found


def content(reader: NamesReader) -> dict[bytes, list[tuple[int, int]]]:
    found = {}
    for number in range(reader.blocks):
        block = reader.block(number)
        names = block.text[1:-1].split(b"\0")
        assert names[0] == reader.first_name(number)
        assert names == sorted(names)
        for ordinal, name in enumerate(names):
            numbers = list(block.numbers(ordinal))
            assert block.count(ordinal) == len(numbers)
            found[name] = [(entry, reader.run_of(entry)[1]) for entry in numbers]
    assert reader.names == len(found)
    return found


def test_all_names_with_all_their_entries(tmp_path: Path) -> None:
    expected = make_index(tmp_path / "i")
    build_names(tmp_path / "i", tmp_path / "n")
    reader = NamesReader(tmp_path / "n")
    assert reader.blocks > 1
    assert content(reader) == expected
    assert len(expected[b"index.html"]) == FOLDERS
    with pytest.raises(NotFound):
        reader.run_of(EntryNo(reader.entries_end))
    nameless = NamesReader(tmp_path / "none", nameless_names(tmp_path / "i"))
    assert content(nameless) == expected
    nameless.close()
    reader.close()
    assert sorted(os.listdir(tmp_path)) == ["i", "n"]
    assert (tmp_path / "n").stat().st_mode & 0o777 == 0o600


def test_names_are_asked_in_any_order(tmp_path: Path) -> None:
    expected = make_index(tmp_path / "i")
    build_names(tmp_path / "i", tmp_path / "n")
    reader = NamesReader(tmp_path / "n")
    block = reader.block(0)
    names = block.text[1:-1].split(b"\0")
    for ordinal in Random(1).choices(range(len(names)), k=500):
        assert list(block.numbers(ordinal)) == [entry for entry, _ in expected[names[ordinal]]]
    reader.close()


def test_a_set_without_entries(tmp_path: Path) -> None:
    with IndexWriter(tmp_path / "i", SET) as writer:
        writer.add_directory(make_directory(0))
        writer.finish()
    build_names(tmp_path / "i", tmp_path / "n")
    reader = NamesReader(tmp_path / "n")
    assert (reader.blocks, reader.names) == (0, 0)
    with pytest.raises(NotFound):
        reader.run_of(EntryNo(0))
    reader.close()


def test_the_same_index_gives_the_same_bytes(tmp_path: Path) -> None:
    make_index(tmp_path / "i")
    build_names(tmp_path / "i", tmp_path / "n")
    before = (tmp_path / "n").read_bytes()
    build_names(tmp_path / "i", tmp_path / "n")
    assert (tmp_path / "n").read_bytes() == before


def test_entries_in_no_directory_are_damage(tmp_path: Path) -> None:
    with IndexWriter(tmp_path / "i", SET) as writer:
        first = writer.add_entries([make_entry(b"a"), make_entry(b"b")])
        writer.add_directory(make_directory(0, files_first=first, files_count=1))
        writer.finish()
    with pytest.raises(Damaged, match="1 of 2 entries"):
        build_names(tmp_path / "i", tmp_path / "n")
    assert os.listdir(tmp_path) == ["i"]


def test_a_second_builder_is_refused(tmp_path: Path) -> None:
    make_index(tmp_path / "i")
    descriptor = claim_file(tmp_path / "n.new")
    with pytest.raises(Conflict):
        build_names(tmp_path / "i", tmp_path / "n")
    assert sorted(os.listdir(tmp_path)) == ["i", "n.new"]
    os.close(descriptor)
    build_names(tmp_path / "i", tmp_path / "n")
    assert sorted(os.listdir(tmp_path)) == ["i", "n"]


def test_another_version_is_refused(tmp_path: Path) -> None:
    make_index(tmp_path / "i")
    build_names(tmp_path / "i", tmp_path / "n")
    data = bytearray((tmp_path / "n").read_bytes())
    data[-len(layout.MAGIC) - 4] += 1
    (tmp_path / "n").write_bytes(data)
    with pytest.raises(WrongVersion):
        NamesReader(tmp_path / "n")


@pytest.mark.parametrize(("point", "is_there"), [("names.rename.before", False), ("names.rename.after", True)])
def test_a_crash_leaves_no_file_or_a_whole_one(tmp_path: Path, point: str, is_there: bool) -> None:
    assert point in known_points()
    expected = make_index(tmp_path / "i")
    code = (
        "import sys, pathlib; from catalog.names.builder import build_names\n"
        "build_names(*map(pathlib.Path, sys.argv[1:]))"
    )
    child = run("-c", code, tmp_path / "i", tmp_path / "n", env={**os.environ, "TAPEFS_CRASH_AT": point})
    assert child.returncode == -signal.SIGKILL
    assert (tmp_path / "n").exists() == is_there
    build_names(tmp_path / "i", tmp_path / "n")
    reader = NamesReader(tmp_path / "n")
    assert content(reader) == expected
    reader.close()
    assert sorted(os.listdir(tmp_path)) == ["i", "n"]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    make_index(tmp_path / "i")
    code = (
        "import resource, signal, sys, pathlib; from catalog.names.builder import build_names\n"
        "from catalog.errors import StorageFailed\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try:\n    build_names(*map(pathlib.Path, sys.argv[1:]))\nexcept StorageFailed:\n    sys.exit(7)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "i"), str(tmp_path / "n")]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.returncode == 7, child.stderr
    assert os.listdir(tmp_path) == ["i"]


@given(st.lists(st.lists(st.binary(max_size=4), max_size=8), max_size=8), st.integers(1, 9), st.integers(1, 5))
def test_sorting_in_runs_is_sorting(pieces: list[list[bytes]], run_records: int, batch: int) -> None:
    with Sorter(None, run_records) as sorter:
        for piece in pieces:
            sorter.add(piece)
        batches = list(sorter.sorted(batch))
    assert [record for each in batches for record in each] == sorted(record for piece in pieces for record in piece)
    assert all(0 < len(each) <= batch for each in batches)
