"""Lines of names of one file and of files with holes: what they must say of each other, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_IFDIR, S_IFIFO, S_IFREG
from typing import Any

import pytest

from catalog.ids import DirectoryNo, SegmentNo
from catalog.index.model import EntryFlag, Extent
from catalog.index.reader import IndexReader
from tapefs.errors import BadStructure
from tapefs.format.records import DirectoryEntered, DirectoryLeft, Elsewhere, End, FrameLine, Member
from tapefs.sets.build import build_index
from tests.sets.trailers import SET, replace, segment_id, store

CHANGED, SPLIT, UNREADABLE, LINKED, SPARSE, XATTRS = 1, 2, 4, 8, 16, 32
_SUM = b"s" * 32
_ATTRIBUTES: dict[str, Any] = dict(uid=0, gid=0, mtime=1, ctime=2, dev=3, blocks=8)
_PLAIN_BYTES = 100_000


def _member(name: str, ino: int, at: int, size: int = 1000, **fields: Any) -> Member:
    values: dict[str, Any] = dict(d=0, mode=S_IFREG | 0o644, nlink=3, sha256=_SUM, **_ATTRIBUTES)
    return Member(name=name, ino=ino, at=at, size=size, **{**values, **fields})


def _segment(number: int, members: list[Member], before: list[Any], *, last: bool) -> list[Any]:
    root = DirectoryEntered(
        n=DirectoryNo(0), p=DirectoryNo(0), mode=S_IFDIR | 0o755, nlink=2, size=4096, ino=1, again=number > 0,
        **_ATTRIBUTES,
    )  # fmt: skip
    left = [DirectoryLeft(n=DirectoryNo(0), here=[(0, len(members))], elsewhere=before)] if last else []
    end = End(
        segment=segment_id(number), number=number, payload_sha256=_SUM, payload_bytes=50, payload_blocks=1,
        plain_bytes=_PLAIN_BYTES, members=len(members), frames=1,
    )  # fmt: skip
    return [root, *members, *left, FrameLine(at=0, stored=40, plain=_PLAIN_BYTES, sum=b"f" * 16), end]


def _lines() -> list[Member]:
    """One segment: a file with three names, one with holes and a name more, a fifo with two."""
    return [
        _member("a", 10, 512),
        _member("b", 10, 512, flags=LINKED, sha256=b""),
        _member("c", 11, 3072, 50_000, flags=SPARSE, data=[(512, 1024), (4096, 10)]),
        _member("d", 11, 3072, 50_000, flags=LINKED | SPARSE, sha256=b""),
        _member("e", 12, 9216, 0, mode=S_IFIFO | 0o644, sha256=b""),
        _member("f", 12, 9216, 0, mode=S_IFIFO | 0o644, flags=LINKED, sha256=b""),
        _member("g", 10, 512, flags=LINKED, sha256=b"", xattrs=[("user.a", b"1")]),
    ]


def _build(folder: Path, *segments: list[Member]) -> IndexReader:
    before = [
        Elsewhere(name=line.name, segment=segment_id(number), at=line.at)
        for number, members in enumerate(segments[:-1])
        for line in members
    ]
    last = len(segments) - 1
    trailers = [_segment(number, members, before, last=number == last) for number, members in enumerate(segments)]
    build_index(folder / "set", SET, store(folder, trailers))
    return IndexReader(folder / "set")


def _rows(reader: IndexReader) -> dict[bytes, tuple[Any, Any]]:
    return {entry.name: (number, entry) for _, number, entry in reader.list_from(reader.directory(DirectoryNo(0)), 0)}


def test_names_of_one_file_are_one_file(tmp_path: Path) -> None:
    with _build(tmp_path, _lines()) as reader:
        rows = _rows(reader)
        for name, first in ((b"b", b"a"), (b"g", b"a"), (b"d", b"c"), (b"f", b"e")):
            assert reader.link(rows[name][0]) == rows[first][0]
            assert rows[name][1].offset == rows[first][1].offset
        extents = [Extent(512, 1024, SegmentNo(0), 3072), Extent(4096, 10, SegmentNo(0), 4096)]
        assert [reader.extents(rows[name][0]) for name in (b"c", b"d")] == [extents, extents]
        assert reader.xattrs(rows[b"g"][0]) == [(b"user.a", b"1")]
        assert rows[b"g"][1].flags == LINKED | XATTRS
        assert (reader.totals.files, reader.totals.bytes) == (7, 51_000)


def test_a_name_in_another_segment_has_its_content_with_it(tmp_path: Path) -> None:
    """It has a sum, and what comes behind refers to that copy; in the index it is the first one's file all the same."""
    second = [_member("g", 10, 2048, flags=LINKED), _member("h", 13, 4096, nlink=1)]
    first = [_member("a", 10, 512)]
    with _build(tmp_path, first, [*second, _member("i", 10, 2048, flags=LINKED, sha256=b"")]) as reader:
        rows = _rows(reader)
        for name in (b"g", b"i"):
            assert reader.link(rows[name][0]) == rows[b"a"][0]
            assert (rows[name][1].segment, rows[name][1].offset) == (0, 512)
        assert reader.sha256(SegmentNo(1), 2048) == _SUM


def test_what_changed_is_no_name_of_another(tmp_path: Path) -> None:
    """LINKED does not count then, and nothing behind it can be its name."""
    lines = [_member("a", 10, 512), _member("b", 10, 2048, flags=LINKED | CHANGED)]
    with _build(tmp_path, lines) as reader:
        entry = _rows(reader)[b"b"][1]
        assert (entry.flags, entry.offset) == (CHANGED, 2048)
        assert reader.totals.bytes == 2000
    lines.append(_member("c", 10, 512, flags=LINKED, sha256=b""))
    with pytest.raises(BadStructure, match="not there before"):
        _build(tmp_path, lines)


def _with(number: int, **fields: Any) -> list[Member]:
    lines = _lines()
    lines[number] = replace(lines[number], **fields)
    return lines


BREACHES: dict[str, tuple[list[Member], str]] = {
    "a name of nothing": (_with(1, ino=99), "not there before"),
    "a name of another device": (_with(1, dev=99), "not there before"),
    "another size": (_with(1, size=999), "not there before"),
    "a link to another place": (_with(1, at=1024), "where its file is not"),
    "a link to what lies behind": (_with(1, at=50_000), "where its file is not"),
    "content in the place of another's": (_with(1, sha256=_SUM), "overlap"),
    "a name of what could not be read": (_with(0, flags=UNREADABLE), "not there before"),
    "more names than the file has": (
        [*_lines(), _member("h", 10, 512, flags=LINKED, sha256=b"")],
        "not there before",
    ),
    "data without holes": (_with(2, flags=0), "has a map"),
    "data beyond the end": (_with(2, data=[(49_990, 11)]), "does not ascend"),
    "data that descends": (_with(2, data=[(4096, 10), (512, 10)]), "does not ascend"),
    "data that overlaps": (_with(2, data=[(512, 10), (520, 10)]), "does not ascend"),
    "empty data": (_with(2, data=[(512, 0)]), "does not ascend"),
    "more data than room": ([*_with(2, data=[(0, 50_000)]), _member("h", 14, 10_240, nlink=1)], "overlap"),
    "data without a sum": (_with(2, sha256=b""), "no SHA-256"),
    "an attribute twice": (_with(0, xattrs=[("user.a", b""), ("user.a", b"1")]), "there twice"),
    "an attribute without a name": (_with(0, xattrs=[("", b"")]), "empty"),
    "an attribute with a NUL": (_with(0, xattrs_b64=[(b"user.\0", b"")]), "empty"),
}


@pytest.mark.parametrize("name", BREACHES)
def test_each_breach_is_refused(tmp_path: Path, name: str) -> None:
    lines, message = BREACHES[name]
    with pytest.raises(BadStructure, match=message):
        _build(tmp_path, lines)
    assert not (tmp_path / "set").exists()
    assert len(os.listdir(tmp_path)) == 1


def test_flags_are_those_of_the_index() -> None:
    flags = EntryFlag
    assert (flags.CHANGED, flags.SPLIT, flags.UNREADABLE, flags.LINKED, flags.SPARSE, flags.XATTRS) == (
        CHANGED, SPLIT, UNREADABLE, LINKED, SPARSE, XATTRS,
    )  # fmt: skip
