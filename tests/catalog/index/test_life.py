"""Files come into being whole or not at all, and are shared by their readers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.crash import known_points
from catalog.errors import Conflict, StorageFailed
from catalog.ids import DirectoryNo, EntryNo, SegmentNo
from catalog.index import storage
from catalog.index.layout import NUMBERS
from catalog.index.model import Extent, FrameRow, SegmentRow
from catalog.index.reader import IndexReader
from catalog.index.writer import IndexWriter
from tests.catalog.index.trees import SET, make_directory, make_entry, segment_id
from tests.forking.client import run


@pytest.fixture
def open_before() -> set[tuple[int, int]]:
    """What other tests of this process have left open."""
    return set(storage._open)


def build(path: Path, count: int = 10) -> None:
    with IndexWriter(path, SET) as writer:
        writer.add_entries([make_entry(b"%09d" % number) for number in range(count)])
        writer.add_directory(make_directory(0, files_count=count))
        writer.finish()


def test_a_finished_file_lies_alone_and_only_for_its_owner(tmp_path: Path) -> None:
    build(tmp_path / "set")
    assert os.listdir(tmp_path) == ["set"]
    assert (tmp_path / "set").stat().st_mode & 0o777 == 0o600


def test_abort_leaves_nothing(tmp_path: Path) -> None:
    writer = IndexWriter(tmp_path / "set", SET)
    writer.add_entries([make_entry(b"a")])
    writer.flush()
    writer.abort()
    writer.abort()
    assert os.listdir(tmp_path) == []
    with pytest.raises(KeyError), IndexWriter(tmp_path / "set", SET):
        raise KeyError
    assert os.listdir(tmp_path) == []


def test_abort_after_finish_keeps_the_file(tmp_path: Path) -> None:
    writer = IndexWriter(tmp_path / "set", SET)
    writer.finish()
    writer.abort()
    assert os.listdir(tmp_path) == ["set"]


@pytest.mark.parametrize(("point", "is_there"), [("index.rename.before", False), ("index.rename.after", True)])
def test_a_crash_leaves_no_file_or_a_whole_one(tmp_path: Path, point: str, is_there: bool) -> None:
    assert point in known_points()
    code = "import sys, pathlib, tests.catalog.index.test_life as life; life.build(pathlib.Path(sys.argv[1]), 5000)"
    child = run("-c", code, tmp_path / "set", env={**os.environ, "TAPEFS_CRASH_AT": point})
    assert child.returncode == -signal.SIGKILL
    assert (tmp_path / "set").exists() == is_there
    if is_there:
        with IndexReader(tmp_path / "set") as reader:
            assert reader.totals.entries == 5000
    build(tmp_path / "set", 3)
    assert os.listdir(tmp_path) == ["set"]
    with IndexReader(tmp_path / "set") as reader:
        assert reader.totals.entries == 3


def test_a_second_builder_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    with IndexWriter(tmp_path / "set", SET) as writer:
        writer.add_entries([make_entry(b"a")])
        with pytest.raises(Conflict):
            IndexWriter(tmp_path / "set", SET)
        writer.finish()
    with IndexReader(tmp_path / "set") as reader:
        assert reader.entries_end == 1


def test_no_folder_is_an_error_of_the_storage(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed):
        IndexWriter(tmp_path / "none" / "set", SET)


def test_a_full_disk_is_an_error_of_the_storage(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    code = (
        "import resource, signal, sys, pathlib; from tests.catalog.index.test_life import build\n"
        "from catalog.errors import StorageFailed\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n    build(pathlib.Path(sys.argv[1]), 20_000)\nexcept StorageFailed:\n    sys.exit(7)\n"
    )
    child = subprocess.run([sys.executable, "-c", code, str(tmp_path / "set")], capture_output=True, text=True)
    assert child.returncode == 7, child.stderr
    assert os.listdir(tmp_path) == []


def test_a_file_is_read_by_many_and_replaced_under_them(tmp_path: Path, open_before: set[tuple[int, int]]) -> None:
    path = tmp_path / "set"
    build(path, 100)
    one, two = IndexReader(path), IndexReader(path)
    build(path, 7)
    three = IndexReader(path)
    one.close()
    one.close()
    assert two.entry(EntryNo(99)).name == b"%09d" % 99
    assert (two.totals.entries, three.totals.entries) == (100, 7)
    two.close()
    assert three.entry(EntryNo(6)).name == b"%09d" % 6
    three.close()
    assert set(storage._open) <= open_before


def test_threads_have_readers_of_their_own(tmp_path: Path, open_before: set[tuple[int, int]]) -> None:
    build(tmp_path / "set", 20_000)
    found: list[int] = []

    def work() -> None:
        for _ in range(5):
            with IndexReader(tmp_path / "set") as reader:
                found.append(sum(1 for _ in reader.list_from(reader.directory(DirectoryNo(0)), 0)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [20_000] * 20
    assert set(storage._open) <= open_before


def test_a_closed_reader_says_so(tmp_path: Path) -> None:
    build(tmp_path / "set", 1000)
    reader = IndexReader(tmp_path / "set")
    rows = reader.list_from(reader.directory(DirectoryNo(0)), 0)
    next(rows)
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.directory(DirectoryNo(0))
    with pytest.raises(ValueError, match="closed"):
        list(rows)


def test_a_failed_open_leaves_no_hold_on_the_file(tmp_path: Path, open_before: set[tuple[int, int]]) -> None:
    (tmp_path / "set").write_bytes(b"x" * 10_000)
    for _ in range(3):
        with pytest.raises(Exception, match="not an index"):
            IndexReader(tmp_path / "set")
    assert set(storage._open) <= open_before


# -- what the writer refuses -------------------------------------------------------------------------------------------


def _frame(place: int) -> FrameRow:
    return FrameRow(place, 1, place, 1, b"x" * 16)


def _with_entry(writer: IndexWriter) -> IndexWriter:
    if not writer._packed + len(writer._entries):
        writer.add_entries([make_entry(b"a"), make_entry(b"b")])
    return writer


@pytest.mark.parametrize(
    "misuse",
    [
        lambda writer: writer.add_entries([make_entry(b"b"), make_entry(b"a")]),
        lambda writer: writer.add_entries([make_entry(b"a"), make_entry(b"a")]),
        lambda writer: writer.add_entries([make_entry(b"a\0b")]),
        lambda writer: writer.add_entries([make_entry(b"a", size=-1)]),
        lambda writer: writer.add_entries([make_entry(b"a", size=2**64)]),
        lambda writer: writer.add_entries([make_entry(b"a", mode=2**32)]),
        lambda writer: writer.add_entries([make_entry(b"a", flags=2**16)]),
        lambda writer: writer.add_entries([make_entry(b"a", mtime_ns=2**96)]),
        lambda writer: writer.add_entries([make_entry(b"a", target=b"t" * 65536)]),
        lambda writer: writer.add_directory(make_directory(NUMBERS)),
        lambda writer: writer.add_directory(make_directory(0, nlink=2**32)),
        lambda writer: [writer.add_directory(make_directory(1)) for _ in range(2)],
        lambda writer: [writer.add_segment(SegmentRow(SegmentNo(1), segment_id(1), 0, 0, 0)) for _ in range(2)],
        lambda writer: writer.add_segment(SegmentRow(SegmentNo(1), segment_id(1), 2**64, 0, 0)),
        lambda writer: writer.add_frames(SegmentNo(0), [_frame(5), _frame(5)]),
        lambda writer: [writer.add_frames(SegmentNo(0), [_frame(place)]) for place in (5, 4)],
        lambda writer: [writer.add_frames(SegmentNo(number), [_frame(5)]) for number in (1, 0)],
        lambda writer: writer.add_frames(SegmentNo(0), [_frame(5)._replace(stored_bytes=2**64)]),
        lambda writer: writer.add_hashes(SegmentNo(0), [(1, b"short")]),
        lambda writer: writer.add_hashes(SegmentNo(0), [(2, b"x" * 32), (1, b"x" * 32)]),
        lambda writer: writer.add_hashes(SegmentNo(0), [(2**64, b"x" * 32)]),
        lambda writer: _with_entry(writer).add_extents(EntryNo(0), [Extent(2**64, 0, SegmentNo(0), 0)]),
        lambda writer: writer.add_extents(EntryNo(0), []),
        lambda writer: _with_entry(writer).add_link(EntryNo(1), EntryNo(1)),
        lambda writer: _with_entry(writer).add_link(EntryNo(2), EntryNo(1)),
        lambda writer: _with_entry(writer).add_xattrs(EntryNo(0), []),
        lambda writer: _with_entry(writer).add_xattrs(EntryNo(0), [(b"", b"x")]),
        lambda writer: _with_entry(writer).add_xattrs(EntryNo(0), [(b"user.a\0", b"x")]),
        lambda writer: _with_entry(writer).add_xattrs(EntryNo(0), [(b"user.b", b""), (b"user.a", b"")]),
        lambda writer: _with_entry(writer).add_xattrs(EntryNo(0), [(b"user.a", b""), (b"user.a", b"")]),
        lambda writer: _with_entry(writer).add_xattrs(EntryNo(0), [(b"a" * 65536, b"")]),
        lambda writer: [_with_entry(writer).add_xattrs(number, [(b"user.a", b"")]) for number in (1, 0)],
        lambda writer: [_with_entry(writer).add_xattrs(number, [(b"user.a", b"")]) for number in (1, 1)],
        lambda writer: writer.add_directory(make_directory(0, flags=32)),
        lambda writer: [writer.add_directory(make_directory(0)), writer.add_directory_xattrs(0, [(b"user.a", b"")])],
        lambda writer: writer.add_directory(make_directory(0, files_count=1)),
        lambda writer: writer.add_directory(make_directory(0, directories_first=5, directories_count=1)),
        lambda writer: writer.add_directory(make_directory(0, files_bytes=2**96)),
    ],
)
def test_what_does_not_fit_is_refused_and_leaves_nothing(
    tmp_path: Path, misuse: Callable[[IndexWriter], object]
) -> None:
    def use() -> None:
        with IndexWriter(tmp_path / "set", SET) as writer:
            misuse(writer)
            writer.finish()

    with pytest.raises(ValueError, match=r".+"):
        use()
    assert os.listdir(tmp_path) == []
