"""A damaged, foreign or cut file is refused, never read as something else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from stat import S_IFDIR

import lmdb
import pytest

from catalog.errors import CatalogError, Damaged, NotFound, StorageFailed, WrongVersion
from catalog.ids import DirectoryNo, EntryNo, FrameNo, SegmentNo
from catalog.index import layout
from catalog.index.layout import Table
from catalog.index.model import Extent, FrameRow, SegmentRow
from catalog.index.reader import IndexReader
from catalog.index.writer import IndexWriter
from tests.catalog.index.trees import SET, make_directory, make_entry, segment_id

FILES, FOLDERS = 40, 3


def build(path: Path) -> None:
    """An index with something in every table."""
    random = Random(1)
    with IndexWriter(path, SET) as writer:
        writer.add_segment(SegmentRow(SegmentNo(0), segment_id(0), 45_000, 50_000, 45))
        frames = [FrameRow(1000 * n, 1000, 800 * n, 800, random.randbytes(16)) for n in range(45)]
        writer.add_frames(SegmentNo(0), frames)
        writer.add_hashes(SegmentNo(0), [(1000 * n, random.randbytes(32)) for n in range(52)])
        files = [make_entry(b"%03d" % n, ino=random.getrandbits(64), target=b"t" * (n % 2)) for n in range(FILES)]
        files[3:6] = [file._replace(flags=flag) for file, flag in zip(files[3:6], (16, 8, 32), strict=True)]
        folders = [make_entry(b"d%d" % n, mode=S_IFDIR | 0o700, offset=1) for n in range(FOLDERS)]
        writer.add_entries(files)
        first = writer.add_entries(folders)
        counts = {"files_count": FILES, "directories_first": first, "directories_count": FOLDERS}
        writer.add_directory(make_directory(0, **counts, mtime_ns=-5))
        writer.add_directory(make_directory(1, flags=32))
        writer.add_extents(EntryNo(3), [Extent(0, 5, SegmentNo(0), 512), Extent(5, 6, SegmentNo(0), 9_000)])
        writer.add_link(EntryNo(4), EntryNo(2))
        writer.add_xattrs(EntryNo(5), [(b"user.a", b"value"), (b"user.b", b"")])
        writer.add_directory_xattrs(DirectoryNo(1), [(b"user.c", b"value")])
        writer.finish()


def dump(path: Path) -> list[object]:
    """Everything that can be asked."""
    with IndexReader(path) as reader:
        root = reader.directory(DirectoryNo(0))
        listing = list(reader.list_from(root, 0))
        return [
            reader.set_id,
            reader.totals,
            root,
            reader.directory(DirectoryNo(1)),
            listing,
            [reader.entry(number) for _, number, _ in listing],
            [reader.lookup(root, entry.name) for _, _, entry in listing],
            reader.extents(EntryNo(3)),
            reader.link(EntryNo(4)),
            [reader.xattrs(number) for _, number, _ in listing],
            [reader.directory_xattrs(DirectoryNo(number)) for number in (0, 1)],
            reader.segments(),
            reader.segment(SegmentNo(0)),
            list(reader.frames(SegmentNo(0))),
            [reader.frame(SegmentNo(0), FrameNo(n)) for n in range(45)],
            reader.frames_covering(SegmentNo(0), 0, 45_000),
            [reader.sha256(SegmentNo(0), 1000 * n) for n in range(52)],
        ]


def _stored(path: Path) -> list[tuple[Table, bytes, bytes]]:
    environment = lmdb.open(str(path), subdir=False, readonly=True, lock=False, max_dbs=len(Table), lib_version=0)
    with environment.begin() as transaction:
        rows = [
            (table, key, value)
            for table in Table
            for key, value in transaction.cursor(environment.open_db(table.value, transaction, create=False))
        ]
    environment.close()
    return rows


@pytest.mark.parametrize("table", Table)
def test_each_flipped_byte_of_a_value_is_noticed(tmp_path: Path, table: Table) -> None:
    """One of a key, too: it is an error, or (for a SHA-256) nothing is found."""
    path = tmp_path / "set"
    build(path)
    whole = dump(path)
    content = path.read_bytes()
    rows = [(key, value) for owner, key, value in _stored(path) if owner is table]
    assert rows
    random = Random(2)
    with path.open("r+b", buffering=0) as file:
        for key, value in rows[:1] + rows[1:][-1:]:
            assert content.count(key + value) == 1
            begin = content.index(key + value)
            for at in range(begin, begin + len(key) + len(value)):
                os.pwrite(file.fileno(), bytes([content[at] ^ 1 << random.randrange(8)]), at)
                if at >= begin + len(key):
                    with pytest.raises(Damaged) as caught:
                        dump(path)
                    assert str(path) in caught.value.where
                else:
                    assert _answers_or_refuses(path, whole)
                os.pwrite(file.fileno(), content[at : at + 1], at)
    assert dump(path) == whole


def _answers_or_refuses(path: Path, whole: list[object]) -> bool:
    try:
        found = dump(path)
    except CatalogError:
        return True
    # A lost row of SHA-256 is all that the index cannot notice; its reader does, who knows that there must be one.
    hashes = zip(found[-1], whole[-1], strict=True)  # type: ignore[call-overload]
    return found[:-1] == whole[:-1] and all(one in (None, two) for one, two in hashes)


def test_flipped_bytes_anywhere_never_give_another_answer(tmp_path: Path) -> None:
    """LMDB's own pages have no checksums. What it makes of them may be an error, or a crash of the process, no lie."""
    path = tmp_path / "set"
    build(path)
    code = (
        "import sys, pathlib; from tests.catalog.index.test_damage import flip_and_compare;"
        "flip_and_compare(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"
    )
    for seed in range(4):
        child = subprocess.run([sys.executable, "-c", code, str(path), str(seed)], capture_output=True, text=True)
        assert child.returncode <= 0, child.stderr


def flip_and_compare(path: Path, seed: int) -> None:
    """Flip 150 bytes of the file, one at a time; each time the answers must be right or refused."""
    whole, content, random = dump(path), path.read_bytes(), Random(seed)
    mine = path.with_suffix(f".{seed}")
    for _ in range(150):
        at = random.randrange(len(content))
        mine.write_bytes(content[:at] + bytes([content[at] ^ 1 << random.randrange(8)]) + content[at + 1 :])
        assert _answers_or_refuses(mine, whole)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        IndexReader(tmp_path / "set")


@pytest.mark.parametrize("keep", [0, 1, 100, 4096, 8192, 12_000, -4096, -1])
def test_a_cut_file_is_damaged(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "set"
    build(path)
    os.truncate(path, keep if keep >= 0 else path.stat().st_size + keep)
    with pytest.raises(Damaged):
        IndexReader(path)


@pytest.mark.parametrize("content", [b"\0" * 20_000, b"hello\n" * 5000, Random(3).randbytes(40_960), b"%PDF-1.4"])
def test_a_foreign_file_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "set").write_bytes(content)
    with pytest.raises(Damaged, match="not an index"):
        IndexReader(tmp_path / "set")


def _lmdb_file(path: Path, fill: Callable[[lmdb.Environment], None], version: int = 0) -> None:
    environment = lmdb.open(str(path), subdir=False, lock=False, max_dbs=20, lib_version=version)
    fill(environment)
    environment.close()


def test_an_lmdb_file_of_something_else_is_damaged(tmp_path: Path) -> None:
    def other(environment: lmdb.Environment) -> None:
        environment.open_db(b"users")

    def same_names(environment: lmdb.Environment) -> None:
        for table in Table:
            environment.open_db(table.value)

    def other_meta(environment: lmdb.Environment) -> None:
        same_names(environment)
        with environment.begin(write=True) as transaction:
            key = layout.META_KEY
            transaction.put(
                key, layout.seal(key, b"cooking book and so on"), db=environment.open_db(b"meta", transaction)
            )

    for number, fill in enumerate((other, same_names, other_meta)):
        _lmdb_file(tmp_path / str(number), fill)
        with pytest.raises(Damaged, match="not an index"):
            IndexReader(tmp_path / str(number))


def test_another_version_of_the_layout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(layout, "VERSION", layout.VERSION + 1)
        build(tmp_path / "set")
    with pytest.raises(WrongVersion, match=f"layout {layout.VERSION + 1}, this program knows {layout.VERSION}"):
        IndexReader(tmp_path / "set")


def test_another_version_of_lmdb_is_refused(tmp_path: Path) -> None:
    _lmdb_file(tmp_path / "set", lambda environment: None, version=1)
    with pytest.raises((WrongVersion, Damaged)):
        IndexReader(tmp_path / "set")


def test_a_folder_in_its_place_is_an_error_of_the_storage(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises((StorageFailed, Damaged)):
        IndexReader(tmp_path / "set")


@pytest.mark.parametrize("table",
    [
        Table.ENTRIES, Table.FRAMES, Table.FRAME_NUMBERS, Table.EXTENTS, Table.LINKS, Table.XATTRS,
        Table.DIRECTORY_XATTRS,
    ],
)  # fmt: skip
def test_a_missing_record_is_noticed(tmp_path: Path, table: Table) -> None:
    path = tmp_path / "set"
    build(path)
    rows = [key for owner, key, _ in _stored(path) if owner is table]
    for at, key in enumerate(rows):
        copy = tmp_path / f"copy{at}"
        copy.write_bytes(path.read_bytes())
        environment = lmdb.open(str(copy), subdir=False, lock=False, max_dbs=len(Table), lib_version=0)
        with environment.begin(write=True) as transaction:
            assert transaction.delete(key, db=environment.open_db(table.value, transaction, create=False))
        environment.close()
        with pytest.raises(Damaged, match="missing"):
            dump(copy)
