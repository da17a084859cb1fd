"""Trailers that contradict themselves give no index, and the error names the segment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from stat import S_IFDIR, S_IFREG, S_IFSOCK
from typing import Any

import pytest

from tapefs.errors import BadStructure
from tapefs.format.records import DirectoryEntered, DirectoryLeft, End, FrameLine, Member
from tapefs.sets.build import build_index
from tests.sets.trailers import SET, UNREADABLE, Tree, Walk, file, folder, link, replace, segment_id, store

Segments = list[list[Any]]


def _tree() -> Tree:
    return {
        b"": folder(),
        **{b"f%d" % n: file(b"f%d" % n, 100) for n in range(4)},
        b"big": file(b"big", 250_000),
        b"link": link(b"link", b"f0"),
        b"sub": {b"": folder(), b"x": file(b"x", 1), b"y": file(b"y", 2)},
        b"tub": {b"": folder()},
    }


def _segments() -> Segments:
    """Five segments; the root runs over all of them."""
    return Walk(_tree(), members=2, part_bytes=100_000).segments


def _find(lines: list[Any], kind: type, nth: int = 0) -> int:
    return [number for number, line in enumerate(lines) if isinstance(line, kind)][nth]


def _change(segment: int, kind: type, nth: int = 0, **fields: Any) -> Callable[[Segments], object]:
    def change(segments: Segments) -> None:
        lines = segments[segment]
        place = _find(lines, kind, nth)
        lines[place] = replace(lines[place], **fields)

    return change


def _drop(segment: int, kind: type, nth: int = 0) -> Callable[[Segments], object]:
    return lambda segments: segments[segment].pop(_find(segments[segment], kind, nth))


def _swap(segment: int, kind: type) -> Callable[[Segments], object]:
    def swap(segments: Segments) -> None:
        lines = segments[segment]
        one, two = _find(lines, kind), _find(lines, kind, 1)
        places = [lines[one].at, lines[two].at] if kind is Member else None
        lines[one], lines[two] = lines[two], lines[one]
        if places:
            for number, place in zip((one, two), places, strict=True):
                lines[number] = replace(lines[number], at=place)

    return swap


def _double(segment: int, kind: type, nth: int = 0) -> Callable[[Segments], object]:
    def double(segments: Segments) -> None:
        place = _find(segments[segment], kind, nth)
        segments[segment].insert(place, segments[segment][place])

    return double


def _count_again(segments: Segments) -> None:
    """Let the end line agree with the member lines, so that something else must notice."""
    for lines in segments:
        members = sum(isinstance(line, Member) for line in lines)
        lines[-1] = replace(lines[-1], members=members)


def _without_a_member(segments: Segments) -> None:
    _drop(2, Member)(segments)
    _count_again(segments)


def _without_a_segment(segments: Segments) -> None:
    del segments[1]


def _without_a_later_segment(segments: Segments) -> None:
    """A whole segment is lost, and the rest says so nowhere but in the listings."""
    del segments[2]
    for number, lines in enumerate(segments):
        lines[-1] = replace(lines[-1], number=number)


def _same_segment_twice(segments: Segments) -> None:
    segments[1][-1] = replace(segments[1][-1], segment=segment_id(0))


def _file_behind_a_subdirectory(segments: Segments) -> None:
    lines = segments[-1]
    member = next(line for line in segments[0] if isinstance(line, Member))
    last = _find(lines, DirectoryLeft, -1)
    lines.insert(last, replace(member, name="zz", at=10**6, size=0))
    _count_again(segments)


#: Segments hold: 0 two parts of `big`; 1 its last part, f0; 2 f1, f2; 3 f3, link; 4 x, y (both in `sub`), no files.
CASES: dict[str, tuple[Callable[[Segments], object], int, str]] = {
    "no end line": (_drop(0, End), 0, "end line is missing"),
    "end line of another segment": (_change(0, End, number=3), 0, "end line says"),
    "too few members": (_change(0, End, members=1), 0, "end line says"),
    "too few frames": (_change(0, End, frames=77), 0, "end line says"),
    "another plain length": (_change(0, End, plain_bytes=77), 0, "end line says"),
    "payload shorter than its frames": (_change(0, End, payload_bytes=1), 0, "beyond its payload"),
    "line behind the end": (
        lambda segments: segments[1].append(segments[1][_find(segments[1], DirectoryEntered)]),
        1,
        "behind its end line",
    ),
    "two end lines": (_double(0, End), 0, "behind its end line"),
    "member lost": (_drop(3, Member, 1), 3, "end line says"),
    "member lost and not counted": (_without_a_member, 4, "earlier segments"),
    "member twice": (_double(3, Member, 1), 3, "comes after"),
    "members out of order": (_swap(2, Member), 2, "'f1' comes after b'f2'"),
    "segment lost": (_without_a_segment, 1, "does not follow|not whole"),
    "segment lost and not counted": (_without_a_later_segment, 3, "earlier segments"),
    "segment twice": (_same_segment_twice, 1, "was there before"),
    "frame lost": (_drop(0, FrameLine), 0, "overlaps|end line says"),
    "frame empty": (_change(0, FrameLine, plain=0), 0, "empty"),
    "frame without bytes": (_change(0, FrameLine, stored=0), 0, "empty"),
    "frames overlap": (_change(0, FrameLine, 1, at=5), 0, "overlaps"),
    "content beyond the plain stream": (_change(4, Member, 1, at=10**7), 4, "beyond its payload"),
    "contents overlap": (_change(2, Member, size=10**5), 2, "contents of two members overlap"),
    "no SHA-256": (_change(2, Member, sha256=b""), 2, "no SHA-256"),
    "short SHA-256": (_change(2, Member, sha256=b"short"), 2, "no SHA-256"),
    "long SHA-256": (_change(2, Member, sha256=b"x" * 33), 2, "damaged"),
    "socket": (_change(2, Member, mode=S_IFSOCK), 2, "neither a regular file nor"),
    "directory as a member": (_change(2, Member, mode=S_IFDIR), 2, "neither a regular file nor"),
    "huge mode": (_change(2, Member, mode=S_IFREG + 2**40), 2, "does not fit"),
    "huge mode of a part": (_change(0, Member, mode=S_IFREG + 2**40), 1, "does not fit"),
    "huge mode of a directory": (_change(4, DirectoryEntered, -1, mode=S_IFDIR + 2**40), 4, "does not fit"),
    "huge nlink": (_change(2, Member, nlink=2**33), 2, "does not fit"),
    "unreadable part": (_change(0, Member, flags=UNREADABLE | 2), 0, "a part that is not there"),
    "whole file says it is split": (_change(2, Member, flags=2), 2, "that it is split and not"),
    "name with a slash": (_change(2, Member, name="../../etc/passwd"), 2, "not a plain file name"),
    "name is ..": (_change(2, Member, name=".."), 2, "not a plain file name"),
    "name is .": (_change(2, Member, name="."), 2, "not a plain file name"),
    "no name": (_change(2, Member, name=""), 2, "not a plain file name"),
    "name too long": (_change(2, Member, name="x" * 256), 2, "not a plain file name"),
    "name with a NUL": (_change(2, Member, name="f\0b"), 2, "not a plain file name"),
    "directory name with a slash": (_change(4, DirectoryEntered, -1, name="a/b"), 4, "not a plain file name"),
    "directory without a name": (_change(4, DirectoryEntered, -1, name=""), 4, "not a plain file name"),
    "part lost": (_drop(0, Member, 1), 0, "end line says"),
    "last part lost": (_drop(1, Member), 1, "is not whole"),
    "parts swapped": (_swap(0, Member), 0, "does not follow"),
    "part of another length": (_change(0, Member, part_bytes=99_999), 0, "does not follow"),
    "part of nothing": (_change(0, Member, part_bytes=0), 0, "does not follow"),
    "part too long": (_change(1, Member, part_bytes=50_400), 1, "have 250400 bytes, not 250000"),
    "part of a changed size": (_change(0, Member, 1, size=250_001), 0, "does not follow"),
    "part without its SHA-256": (_change(0, Member, 1, sha256=b""), 0, "no SHA-256"),
    "root entered twice": (_double(0, DirectoryEntered), 0, "entered after"),
    "root with a parent": (_change(0, DirectoryEntered, p=1), 0, "outside the root"),
    "root is not 0": (_change(0, DirectoryEntered, n=1, p=1, name="x"), 0, "outside the root"),
    "directory not entered": (_drop(0, DirectoryEntered), 0, "not the one at hand"),
    "directory elsewhere": (_change(4, DirectoryEntered, -1, p=5), 4, "is in 5, but 0 is open"),
    "directory number taken": (_change(4, DirectoryEntered, -1, n=1), 4, "entered after"),
    "directory is a file": (_change(4, DirectoryEntered, -1, mode=S_IFREG), 4, "something else"),
    "closed directory goes on": (_change(4, DirectoryEntered, n=9), 4, "is not open"),
    "directories out of order": (_change(4, DirectoryEntered, -1, name="a"), 4, "'a' comes after b'sub'"),
    "root not left": (_drop(4, DirectoryLeft, -1), 4, "ends inside directory 0"),
    "subdirectory not left": (_drop(4, DirectoryLeft), 4, "is in 0, but 1 is open"),
    "directory left twice": (_double(4, DirectoryLeft), 4, "not the one at hand"),
    "listing without its members": (_change(4, DirectoryLeft, here=[]), 4, "has members"),
    "listing with other members": (_change(4, DirectoryLeft, here=[(0, 1), (5, 1)]), 4, "has members"),
    "listing without the members elsewhere": (_change(4, DirectoryLeft, -1, elsewhere=[]), 4, "earlier segments"),
    "listing without its subdirectories": (_change(4, DirectoryLeft, -1, directories=[]), 4, "its subdirectories"),
    "listing with other subdirectories": (_change(4, DirectoryLeft, -1, directories=[2, 1]), 4, "its subdirectories"),
    "file behind a subdirectory": (_file_behind_a_subdirectory, 4, "files behind its subdirectories"),
    "member of another directory": (_change(4, Member, 1, d=0), 4, "without a line of its own"),
}


def test_the_unbroken_one_is_fine(tmp_path: Path) -> None:
    segments = _segments()
    assert len(segments) == 5
    build_index(tmp_path / "set", SET, store(tmp_path, segments))


@pytest.mark.parametrize("name", CASES)
def test_each_breach_is_refused(tmp_path: Path, name: str) -> None:
    breach, segment, message = CASES[name]
    segments = _segments()
    breach(segments)
    trailers = store(tmp_path, segments)
    with pytest.raises(BadStructure, match=message) as caught:
        build_index(tmp_path / "set", SET, trailers)
    assert f"segment {segment} " in str(caught.value) or message == "ends inside directory 0"
    assert len(os.listdir(tmp_path)) == len(trailers)


@pytest.mark.parametrize("at", range(4))
def test_a_listing_must_name_what_lies_elsewhere(tmp_path: Path, at: int) -> None:
    segments = _segments()
    place = _find(segments[-1], DirectoryLeft, -1)
    line = segments[-1][place]
    rows = list(line.elsewhere)
    changes = (
        rows[1:],
        [replace(rows[0], name="g"), *rows[1:]],
        [replace(rows[0], at=rows[0].at + 1), *rows[1:]],
        [*rows[:-1], replace(rows[-1], segment=segment_id(9))],
    )
    segments[-1][place] = replace(line, elsewhere=changes[at])
    with pytest.raises(BadStructure, match=r"segment 4 .* earlier segments"):
        build_index(tmp_path / "set", SET, store(tmp_path, segments))


def test_no_trailers_make_no_set(tmp_path: Path) -> None:
    with pytest.raises(BadStructure, match="no root"):
        build_index(tmp_path / "set", SET, [])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("cut", [0, 1, 50, -1])
def test_a_cut_trailer_is_refused(tmp_path: Path, cut: int) -> None:
    trailers = store(tmp_path, _segments())
    content = trailers[2].read_bytes()
    trailers[2].write_bytes(content[:cut])
    with pytest.raises(BadStructure, match="segment 2"):
        build_index(tmp_path / "set", SET, trailers)


def test_each_damaged_byte_of_a_trailer_is_refused_or_harmless(tmp_path: Path) -> None:
    trailers = store(tmp_path, _segments())
    build_index(tmp_path / "set", SET, trailers)
    whole, content = (tmp_path / "set").read_bytes(), trailers[1].read_bytes()
    for at in range(0, len(content), 3):
        trailers[1].write_bytes(content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :])
        try:
            build_index(tmp_path / "set", SET, trailers)
        except BadStructure:
            continue
        assert (tmp_path / "set").read_bytes() == whole
