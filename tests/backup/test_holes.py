"""Files with holes: the runs that are found, the parts that are cut, and what becomes of them on tape."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.index.model import EntryFlag
from catalog.index.reader import IndexReader
from tapefs.backup import holes
from tapefs.backup.holes import Run, cut, data_bytes, data_runs, fewer
from tests.backup.rig import Rig
from tests.backup.test_kinds import number_of, shown, sparse_file
from tests.backup.trees import extract, payloads

_KIB = 1024
_MIB = 1024**2


def runs_of(path: Path) -> list[Run] | None:
    with path.open("rb") as file:
        return data_runs(file.fileno(), os.fstat(file.fileno()).st_size, lambda: None)


@pytest.mark.parametrize(
    ("size", "runs"),
    [
        (10 * _MIB, []),
        (10 * _MIB, [(_MIB, 4 * _KIB)]),
        (10 * _MIB + 5, [(0, 8 * _KIB), (10 * _MIB, 5)]),
        (2**43, [(2**42, 4 * _KIB)]),
    ],
    ids=["nothing", "one", "both ends", "far"],
)
def test_data_is_found(tmp_path: Path, size: int, runs: list[Run]) -> None:
    sparse_file(tmp_path / "file", size, runs)
    assert runs_of(tmp_path / "file") == runs


def test_runs_are_whole_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a filesystem knows holes between any two bytes: GNU tar and libarchive pad runs differently."""
    data = [(100, 300), (500, 20), (2000, 1), (5000, 123)]
    sparse_file(tmp_path / "file", 5123, [])

    def seek(_: int, place: int, how: int) -> int:
        for start, length in data:
            if how == os.SEEK_DATA and place < start + length:
                return max(place, start)
            if how == os.SEEK_HOLE and start <= place < start + length:
                return start + length
        raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))

    monkeypatch.setattr(holes.os, "lseek", seek)
    assert runs_of(tmp_path / "file") == [(0, 1024), (1536, 512), (4608, 515)]


def test_no_holes_are_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the filesystem does not tell."""
    (tmp_path / "file").write_bytes(b"x" * 10_000)
    assert runs_of(tmp_path / "file") is None
    (tmp_path / "empty").touch()
    assert runs_of(tmp_path / "empty") == []

    def refuse(*_: object) -> int:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    sparse_file(tmp_path / "hole", _MIB, [])
    monkeypatch.setattr(holes.os, "lseek", refuse)
    assert runs_of(tmp_path / "hole") is None


def test_thousands_of_runs_are_joined_over_the_smallest_holes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces or at once, the same large holes stay."""
    runs, place = [], 0
    for number in range(200):
        place += (4 if number % 7 else 64) * _KIB
        runs.append((place, 4 * _KIB))
        place += 4 * _KIB
    sparse_file(tmp_path / "file", place, runs)
    monkeypatch.setattr(holes, "MOST_RUNS", 20)
    assert runs_of(tmp_path / "file") == fewer(runs, 20)


runs_strategy = st.lists(st.tuples(st.integers(1, 100), st.integers(1, 100)), max_size=30).map(
    lambda pairs: [
        (512 * (sum(hole + length for hole, length in pairs[:n]) + pairs[n][0]), 512 * pairs[n][1])
        for n in range(len(pairs))
    ]
)


@given(runs_strategy, st.integers(1, 12))
def test_fewer_runs_hold_all_data_and_the_largest_holes(runs: list[Run], most: int) -> None:
    found = fewer(runs, most)
    assert len(found) == min(most, len(runs))
    for place, length in runs:
        assert any(start <= place and place + length <= start + size for start, size in found)
    if runs:
        assert (found[0][0], sum(found[-1])) == (runs[0][0], sum(runs[-1]))
    left = sorted(b[0] - sum(a) for a, b in pairwise(found))
    all_holes = sorted(b[0] - sum(a) for a, b in pairwise(runs))
    assert left == all_holes[len(all_holes) - len(left) :]


@given(runs_strategy, st.integers(0, 5000), st.integers(1, 50_000))
def test_parts_hold_all_data_once(runs: list[Run], tail: int, room: int) -> None:
    """They lie end to end, none holds more than its room, and all but the last are full."""
    size = (sum(runs[-1]) if runs else 0) + tail
    room_in_blocks = max(512, room // 512 * 512)
    offset, taken, parts = 0, [], 0
    while True:
        end, part = cut(runs, offset, size, room)
        assert all(offset <= place and place + length <= end for place, length in part)
        taken += part
        parts += 1
        if end == size:
            break
        assert data_bytes(part) == room_in_blocks
        assert all(length % 512 == 0 for _, length in part)
        assert end > offset
        offset = end
    assert data_bytes(part) <= room_in_blocks
    joined: list[Run] = []
    for place, length in taken:
        if joined and sum(joined[-1]) == place:
            joined[-1] = (joined[-1][0], joined[-1][1] + length)
        else:
            joined.append((place, length))
    assert joined == runs
    assert parts == max(1, -(-data_bytes(runs) // room_in_blocks))


def test_a_terabyte_of_holes_is_one_member(rig: Rig, tmp_path: Path) -> None:
    """Parts go by data: what is stored is what is there."""
    tree = tmp_path / "tree"
    tree.mkdir()
    sparse_file(tree / "huge", 2**40, [(2**39, _MIB)])
    set_id = rig.backup(tree)
    reader = IndexReader(rig.home.index(set_id))
    entry = shown(reader, tree)[b"huge"]
    assert entry.flags & ~EntryFlag.FRESH == EntryFlag.SPARSE
    assert len(payloads(rig)) == 1
    (extent,) = reader.extents(number_of(reader, tree / "huge"))  # type: ignore[arg-type]
    assert (extent.file_offset, extent.length, extent.offset) == (2**39, _MIB, entry.offset)
    expected = sha256(bytes([(2**39) // 4096 % 255 + 1]) * _MIB).digest()
    assert reader.sha256(entry.segment, entry.offset) == expected  # type: ignore[arg-type]


def has_data(descriptor: int, start: int, end: int) -> bool:
    try:
        return os.lseek(descriptor, start, os.SEEK_DATA) < end
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return False


def joins_to(parts: list[Path], whole: Path) -> bool:
    """Is a file what `cat` makes of its parts? Where neither has data both are zeros; the rest is compared."""
    begin = 0
    with whole.open("rb", buffering=0) as expected:
        for part in parts:
            size = part.stat().st_size
            with part.open("rb", buffering=0) as file:
                for place in range(0, size, _MIB):
                    length = min(_MIB, size - place)
                    one, other = file.fileno(), expected.fileno()
                    if not has_data(one, place, place + length) and not has_data(
                        other, begin + place, begin + place + length
                    ):
                        continue
                    if os.pread(one, length, place) != os.pread(other, length, begin + place):
                        return False
            begin += size
    return begin == whole.stat().st_size


@pytest.mark.parametrize("program", ["tar", "bsdtar"])
def test_a_file_with_holes_larger_than_a_segment(make_rig: Callable[..., Rig], tmp_path: Path, program: str) -> None:
    """Its parts have its holes; `cat` joins them; the index has all of its data in order."""
    tree = tmp_path / "tree"
    tree.mkdir()
    runs = [(n * 200 * _MIB + _MIB, 3 * _MIB + 4 * _KIB * n) for n in range(8)]
    sparse_file(tree / "file", 2000 * _MIB, runs)
    (tree / "zz").write_text("behind it")
    rig = make_rig()
    set_id = rig.backup(tree)
    reader = IndexReader(rig.home.index(set_id))
    entry = shown(reader, tree)[b"file"]
    assert entry.flags & ~EntryFlag.FRESH == EntryFlag.SPARSE | EntryFlag.SPLIT
    extents = reader.extents(number_of(reader, tree / "file"))  # type: ignore[arg-type]
    assert sum(extent.length for extent in extents) == data_bytes(runs)
    ends = [extent.file_offset + extent.length for extent in extents]
    assert all(end <= extent.file_offset for end, extent in zip(ends, extents[1:], strict=False))
    out = Path(f"{extract(rig, tmp_path / 'out', program)}{tree}")
    parts = sorted(out.glob("file.tapefs-part-*"))
    assert len(parts) > 3
    assert sum(part.stat().st_size for part in parts) == 2000 * _MIB
    assert sum(part.stat().st_blocks for part in parts) * 512 < data_bytes(runs) + _MIB
    assert joins_to(parts, tree / "file")
    assert (out / "zz").read_text() == "behind it"
