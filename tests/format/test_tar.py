"""Tar members, as GNU tar, bsdtar and Python's tarfile understand them."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tapefs.errors import BadStructure
from tapefs.format.tar import (
    END_OF_ARCHIVE,
    PART_KEYWORD,
    TarKind,
    TarNames,
    member_header,
    padding,
    part_extra,
    part_name,
    plain_header,
    plain_owner,
    read_part_extra,
)
from tests.format import examples

MTIME_NS = 1_700_000_000_123_456_789
TOOLS = {
    "tar": ["tar", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-xpf", "-"],
    "bsdtar": ["bsdtar", "--numeric-owner", "-xpf", "-"],
}


class Item(NamedTuple):
    """A member to be written and looked for after extraction."""

    path: bytes
    content: bytes = b""
    kind: TarKind = TarKind.REGULAR
    target: bytes = b""
    mode: int = 0o640
    uid: int = 1000
    gid: int = 1000
    mtime_ns: int = MTIME_NS


def _bytes(item: Item) -> bytes:
    header = member_header(
        item.path,
        item.mode,
        item.uid,
        item.gid,
        len(item.content),
        item.mtime_ns,
        kind=item.kind,
        target=item.target,
        uname=b"ada",
        gname=b"users",
    )
    assert len(header) % 512 == 0
    return header + item.content + bytes(padding(len(item.content)))


def _extract(tool: str, archive: bytes, folder: bytes, locale: str = "C.UTF-8") -> bytes:
    """Extract with a foreign tool and return what it said."""
    environment = {**os.environ, "LC_ALL": locale, "TZ": "UTC"}
    done = subprocess.run(TOOLS[tool], input=archive, cwd=folder, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def _parsed(header: bytes) -> list[tarfile.TarInfo]:
    """Return what Python's tarfile reads from the header of a member without content."""
    found = []
    with tarfile.open(fileobj=io.BytesIO(header + END_OF_ARCHIVE), mode="r|", errors="surrogateescape") as archive:
        while member := archive.next():
            found.append(member)
            # There is no content, whatever size the header says.
            break
    return found


def _check(root: bytes, item: Item) -> None:
    path = root + b"/" + item.path
    status = os.lstat(path)
    assert (status.st_mtime_ns, status.st_uid, status.st_gid) == (item.mtime_ns, item.uid, item.gid)
    if item.kind is TarKind.SYMLINK:
        assert os.readlink(path) == item.target
        return
    assert stat.S_IMODE(status.st_mode) == item.mode
    if item.kind is TarKind.DIRECTORY:
        assert stat.S_ISDIR(status.st_mode)
    else:
        with open(path, "rb") as file:
            assert file.read() == item.content


def _round_trip(tool: str, items: list[Item], locale: str = "C.UTF-8") -> None:
    archive = b"".join(map(_bytes, items)) + END_OF_ARCHIVE
    with tempfile.TemporaryDirectory() as folder:
        root = os.fsencode(folder)
        said = _extract(tool, archive, root, locale)
        # GNU tar remarks on times before 1970 and after now, and restores them.
        assert [line for line in said.splitlines() if b": time stamp " not in line and b"implausibly" not in line] == []
        for item in items:
            _check(root, item)


LONG = b"n" * 255
LATIN = b"gr\xf6\xdfe"
ODD = [
    Item(b"plain", b"x" * 1000),
    Item(b"empty"),
    Item(b"block", b"y" * 512),
    Item(b"a\nb\t \x01\x7f\\", b"control"),
    Item(b"-rf", b"dash"),
    Item("größe".encode(), b"utf-8"),
    Item(LATIN, b"latin-1"),
    Item(bytes(set(range(1, 256)) - {ord("/")})[:100], b"every byte, 100"),
    Item(bytes(set(range(1, 256)) - {ord("/")}), b"every byte"),
    Item(b"h" * 100, b"exactly as long as ustar's name"),
    Item(b"h" * 101, b"one more"),
    Item(LONG, b"component of 255"),
    Item(b"d" * 155 + b"/" + b"f" * 100, b"exactly as long as ustar's prefix and name"),
    Item(b"e" * 156 + b"/" + b"f" * 100, b"one more"),
    Item(b"d" * 155 + b"/" + b"f" * 101, b"or here"),
    Item(b"/".join([b"p" * 255] * 4) + b"/" + "ü".encode() * 100, b"over 1,000"),
    Item(b"/".join([LATIN * 51] * 4) + b"/f", b"over 1,000, not UTF-8"),
    Item(b"dir", kind=TarKind.DIRECTORY, mode=0o750),
    Item(b"g" * 100, kind=TarKind.DIRECTORY, mode=0o1777),
    Item(b"q" * 99 + b"/" + b"r" * 100, kind=TarKind.DIRECTORY, mode=0o755),
    Item(b"s" * 50 + b"/" + LATIN * 30, kind=TarKind.DIRECTORY, mode=0o2755),
    Item(b"link", kind=TarKind.SYMLINK, target=b"plain"),
    Item(b"link100", kind=TarKind.SYMLINK, target=b"t" * 100),
    Item(b"link101", kind=TarKind.SYMLINK, target=b"t" * 101),
    Item(b"link4095", kind=TarKind.SYMLINK, target=b"t/" * 2047 + b"t"),
    Item(b"linklatin", kind=TarKind.SYMLINK, target=LATIN),
    Item(b"linklatin4095", kind=TarKind.SYMLINK, target=LATIN * 819),
    Item(LATIN * 40, kind=TarKind.SYMLINK, target=LATIN * 40),
    Item(b"setuid", b"s", mode=0o4755),
    Item(b"nobits", b"s", mode=0),
    Item(b"owners", b"o", uid=2**21 - 1, gid=2**21),
    Item(b"owners32", b"o", uid=2**32 - 2, gid=2**32 - 2),
    Item(b"young", b"", mtime_ns=2**32 * 10**9 + 1),
    Item(b"early", b"", mtime_ns=1),
    Item(b"epoch", b"", mtime_ns=0),
    Item(b"ninedigits", b"", mtime_ns=999_999_999_999_999_999),
]


@pytest.mark.parametrize("tool", TOOLS)
def test_foreign_tools_restore_everything_without_a_warning(tool: str) -> None:
    _round_trip(tool, ODD)


@pytest.mark.parametrize("tool", TOOLS)
def test_names_that_are_not_utf8_need_no_locale(tool: str) -> None:
    _round_trip(tool, [item for item in ODD if b"f" * 101 not in item.path and "ü".encode() not in item.path], "C")


def test_times_before_the_epoch() -> None:
    """GNU tar calls them implausible and restores them; bsdtar 3.6 gets the fraction of negative ones wrong."""
    items = [
        Item(b"half", mtime_ns=-500_000_000),
        Item(b"old", mtime_ns=-1_250_000_000),
        Item(b"older", mtime_ns=-(10**18)),
    ]
    archive = b"".join(map(_bytes, items)) + END_OF_ARCHIVE
    with tempfile.TemporaryDirectory() as folder:
        assert _extract("tar", archive, os.fsencode(folder)).count(b"implausibly old time stamp") == len(items)
        for item in items:
            _check(os.fsencode(folder), item)
    _round_trip("bsdtar", [Item(b"whole", mtime_ns=-(10**18))])
    assert b" mtime=-0.500000000\n" in _bytes(items[0])
    assert b" mtime=-1.250000000\n" in _bytes(items[1])


def test_far_times_are_stated_exactly() -> None:
    """Filesystems clamp such times, so only the header is looked at."""
    for mtime_ns in (253_402_300_799_999_999_999, -(10**20) - 1, 2**33 * 10**9, 10**19):
        header = member_header(b"x", 0o644, 0, 0, 0, mtime_ns)
        seconds, nanoseconds = divmod(abs(mtime_ns), 10**9)
        assert b" mtime=%b%d.%09d\n" % (b"-" * (mtime_ns < 0), seconds, nanoseconds) in header
        (member,) = _parsed(header)
        assert member.mtime == pytest.approx(mtime_ns / 10**9)


@pytest.mark.parametrize("size", [8**11 - 1, 8**11, 2**50])
@pytest.mark.parametrize("tool", ["tar", "bsdtar"])
def test_large_sizes_are_understood(tool: str, size: int) -> None:
    header = member_header(b"large", 0o644, 0, 0, size, MTIME_NS)
    listing = subprocess.run([tool, "-tvf", "-"], input=header, capture_output=True, env={**os.environ, "LC_ALL": "C"})
    assert str(size).encode() in listing.stdout.split()


paths = st.lists(examples.names, min_size=1, max_size=5).map(b"/".join)


@given(
    st.builds(
        Item,
        # Not at the top: bsdtar removes what looks like a drive letter there.
        path=paths.map(lambda path: b"srv/" + path),
        content=st.binary(max_size=1500),
        mode=st.integers(0, 0o7777),
        uid=st.integers(0, 2**32 - 2),
        gid=st.integers(0, 2**32 - 2),
        mtime_ns=st.integers(0, 2**33 * 10**9),
        kind=st.just(TarKind.REGULAR),
        target=st.just(b""),
    )
)
@settings(max_examples=25, deadline=None)
@example(Item(b"a" * 154 + b"/" + b"b" * 101))
def test_any_file_comes_back(item: Item) -> None:
    for tool in TOOLS:
        _round_trip(tool, [item])


@given(paths, paths, st.sampled_from(TarKind), st.integers(-(2**70), 2**70), st.integers(0, 2**60))
def test_headers_are_what_tarfile_reads(path: bytes, target: bytes, kind: TarKind, mtime_ns: int, size: int) -> None:
    """A second opinion, on many more cases: every header parses, its checksum is right, and nothing follows it."""
    target = target if kind is TarKind.SYMLINK else b""
    size = size if kind is TarKind.REGULAR else 0
    header = member_header(path, 0o644, 7, 8, size, mtime_ns, kind=kind, target=target, uname=b"u", gname=b"g" * 32)
    (member,) = _parsed(header)
    assert os.fsencode(member.name) == path
    assert os.fsencode(member.linkname) == target
    assert (member.size, member.uid, member.gid, member.uname, member.gname) == (size, 7, 8, "u", "")
    assert member.offset_data == len(header)


def test_leading_slashes_go_and_the_root_has_a_name() -> None:
    plain = member_header(b"etc/passwd", 0o644, 0, 0, 5, MTIME_NS)
    assert member_header(b"//etc/passwd", 0o644, 0, 0, 5, MTIME_NS) == plain
    root = member_header(b"", 0o755, 0, 0, 0, MTIME_NS, kind=TarKind.DIRECTORY)
    assert [member.name for member in _parsed(root)] == ["."]


def test_further_records_are_written_as_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    header = member_header(b"x", 0o644, 0, 0, 0, MTIME_NS, extra=[(b"SCHILY.xattr.user.colour", b"r\0e\nd=")])
    assert _extract("tar", header + END_OF_ARCHIVE, os.fsencode(folder)) == b""
    assert os.getxattr(folder / "x", "user.colour") == b"r\0e\nd="


@pytest.mark.parametrize("length", range(85, 110))
def test_records_count_their_own_length(length: int) -> None:
    """Around 100 bytes the length itself gets a digit longer."""
    header = member_header(b"x", 0o644, 0, 0, 0, MTIME_NS, extra=[(b"TAPEFS.x", b"v" * length)])
    records = header[512:1024].rstrip(b"\0")
    while records:
        size = int(records.split(b" ")[0])
        assert records[size - 1 : size] == b"\n"
        records = records[size:]


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511), (2**40, 0)])
def test_padding(size: int, expected: int) -> None:
    assert padding(size) == expected


@given(examples.names, st.integers(0, 9999))
def test_part_names_fit_and_stay_distinct(name: bytes, index: int) -> None:
    part = part_name(name, index)
    assert len(part) <= 255
    assert part.endswith(b".tapefs-part-%04d" % index)
    assert part != part_name(name, index + 1)
    assert part != part_name(name[:-1] + bytes([name[-1] ^ 1]), index)
    assert part_name(name, index)[:1] == name[:1] or len(name) < 5


def test_part_names_are_cut_between_characters() -> None:
    assert part_name(b"disk.img", 1) == b"disk.img.tapefs-part-0001"
    part_name("ü".encode() * 127, 3).decode("utf-8")
    assert part_name(LATIN * 51, 3).startswith(LATIN * 40)


@given(examples.names, st.integers(0, 2**40), st.integers(0, 2**60))
def test_part_records_come_back(name: bytes, index: int, offset: int) -> None:
    keyword, value = part_extra(name, index, offset)
    assert keyword == PART_KEYWORD
    assert read_part_extra(value) == (name, index, offset)


@pytest.mark.parametrize(
    "value", [b"", b";;", b"eA==;1", b"eA==;1;2;3", b"eA=;1;2", b"eA==;-1;2", b"eA==;1;x", b"\xff;1;2"]
)
def test_damaged_part_records_are_refused(value: bytes) -> None:
    with pytest.raises(BadStructure):
        read_part_extra(value)


def test_parts_join_with_cat(tmp_path: Path) -> None:
    """GNU tar says that it does not know the record, and extracts the parts all the same."""
    content = bytes(range(256)) * 10
    archive = b""
    for index, start in enumerate(range(0, len(content), 1000)):
        piece = content[start : start + 1000]
        extra = [part_extra(b"disk", index, start)]
        archive += member_header(part_name(b"disk", index), 0o644, 0, 0, len(piece), MTIME_NS, extra=extra)
        archive += piece + bytes(padding(len(piece)))
    for tool in TOOLS:
        folder = tmp_path / tool
        folder.mkdir()
        said = _extract(tool, archive + END_OF_ARCHIVE, os.fsencode(folder))
        assert said.count(b"unknown extended header keyword 'TAPEFS.part'") == (3 if tool == "tar" else 0)
        assert subprocess.run("cat disk.tapefs-part-*", shell=True, cwd=folder, capture_output=True).stdout == content


def test_owner_names() -> None:
    names = TarNames()
    assert (names.user(0), names.group(0)) == (b"root", b"root")
    assert (names.user(2**32 - 5), names.group(2**32 - 5)) == (b"", b"")
    assert names.user(2**40) == b""


@given(
    path=st.binary(min_size=1, max_size=300).map(lambda path: path.replace(b"\0", b"x").lstrip(b"/") or b"x"),
    mode=st.integers(0, 0o177777),
    owner=st.tuples(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2)) | st.just((0, 1000)),
    size=st.integers(0, 2**35),
    mtime_ns=st.integers(-(2**60), 2**66) | st.integers(10**18, 2 * 10**18),
)
def test_headers_of_plain_files_made_the_short_way(
    path: bytes, mode: int, owner: tuple[int, int], size: int, mtime_ns: int
) -> None:
    """They are those that the long way makes."""
    long = member_header(path, mode, *owner, size, mtime_ns, uname=b"u", gname=b"g" * 32)
    assert plain_header(path, size, mtime_ns, plain_owner(mode, *owner, b"u", b"g" * 32)) == long
