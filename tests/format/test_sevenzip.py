"""The container of a `.7z`, read by 7z and by libarchive."""

from __future__ import annotations

import os
import random
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapefs.codecs import codec
from tapefs.format.sevenzip import dictionary_property, name_text, number
from tests.codecs.archives import MTIME_NS, archive

_ENCODE = codec("py7zr").encoder(1)


def _members(count: int, seed: int) -> list[tuple[bytes, int, bytes]]:
    """Return directories, empty files, links and files with content in a random order that tar would have, too."""
    source = random.Random(seed)
    members: list[tuple[bytes, int, bytes]] = [(b"d", stat.S_IFDIR | 0o750, b"")]
    for place in range(count):
        kind = source.choice(("file", "file", "file", "empty", "link", "directory"))
        path = b"d/%s-%03d" % (kind.encode(), place)
        if kind == "directory":
            members.append((path, stat.S_IFDIR | 0o711, b""))
        elif kind == "link":
            members.append((path, stat.S_IFLNK | 0o777, b"file-%03d" % place))
        else:
            size = source.choice((1, 500, 40_000)) if kind == "file" else 0
            members.append((path, stat.S_IFREG | 0o600 + source.randrange(0o177), source.randbytes(size)))
    return members


def _expected(members: list[tuple[bytes, int, bytes]]) -> dict[bytes, tuple[int, bytes]]:
    return {path: (stat.S_IFMT(mode) if stat.S_ISLNK(mode) else mode, content) for path, mode, content in members}


def _found(root: Path) -> dict[bytes, tuple[int, bytes]]:
    found: dict[bytes, tuple[int, bytes]] = {}
    for folder, directories, files in os.walk(bytes(root)):
        for name in directories + files:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                found[os.path.relpath(path, bytes(root))] = (stat.S_IFLNK, os.readlink(path))
                continue
            content = b""
            if stat.S_ISREG(mode):
                with open(path, "rb") as file:
                    content = file.read()
                assert os.lstat(path).st_mtime_ns == MTIME_NS
            found[os.path.relpath(path, bytes(root))] = (mode, content)
    return found


@pytest.mark.parametrize("program", ["7z", "bsdtar"])
@pytest.mark.parametrize(("in_block", "cut"), [(1, 0), (4, 0), (4, 10_000), (1000, 65_536)])
def test_other_programs_extract_it(tmp_path: Path, program: str, in_block: int, cut: int) -> None:
    """Members with and without content, alone in a block or many, blocks of one frame or several: all come out."""
    members = _members(60, in_block + cut)
    (tmp_path / "a.7z").write_bytes(archive(members, _ENCODE, in_block=in_block, cut=cut))
    out = tmp_path / "out"
    out.mkdir()
    command = ["7z", "x", "-y", f"-o{out}"] if program == "7z" else ["bsdtar", "-C", out, "-xpf"]
    subprocess.run([*command, tmp_path / "a.7z"], check=True, capture_output=True, umask=0)
    assert _found(out) == _expected(members)


@pytest.mark.parametrize("members", [[], [(b"d", stat.S_IFDIR | 0o755, b"")], [(b"f", stat.S_IFREG | 0o644, b"")]])
def test_archives_without_content(tmp_path: Path, members: list[tuple[bytes, int, bytes]]) -> None:
    (tmp_path / "a.7z").write_bytes(archive(members, _ENCODE))
    done = subprocess.run(["7z", "l", "-slt", tmp_path / "a.7z"], check=True, capture_output=True, text=True)
    assert done.stdout.count("\nPath = ") == 1 + len(members)


def test_more_members_than_a_byte_counts(tmp_path: Path) -> None:
    """Numbers of two bytes and more, in blocks and in the list of files."""
    members = [(b"%05d" % n, stat.S_IFREG | 0o644, b"%d" % n) for n in range(20_000)]
    (tmp_path / "a.7z").write_bytes(archive(members, _ENCODE, in_block=300))
    done = subprocess.run(["7z", "x", "-so", tmp_path / "a.7z"], check=True, capture_output=True)
    assert done.stdout == b"".join(content for _, _, content in members)


def test_a_changed_byte_is_noticed_by_7z(tmp_path: Path) -> None:
    """The CRCs in the archive are right: 7z sees what is not."""
    whole = archive([(b"f", stat.S_IFREG | 0o644, random.Random(3).randbytes(5000))], _ENCODE)
    for place in (5, 20, 300, len(whole) - 40, len(whole) - 2):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        (tmp_path / "a.7z").write_bytes(damaged)
        assert subprocess.run(["7z", "t", tmp_path / "a.7z"], capture_output=True).returncode != 0


def test_names_that_7z_cannot_hold() -> None:
    assert name_text(b"caf\xc3\xa9/plain") == "café/plain"
    assert name_text(b"latin-\xe9/b\\c") == "latin-%E9/b%5Cc"


@given(value=st.integers(0, 2**64 - 1))
def test_numbers_are_as_short_as_they_can_be(value: int) -> None:
    written = number(value)
    extra = 8 if written[0] == 0xFF else f"{written[0]:08b}".index("0")
    high = written[0] & (0x7F >> extra) if extra < 8 else 0
    assert len(written) == 1 + extra
    assert high << 8 * extra | int.from_bytes(written[1:], "little") == value
    assert extra == 0 or value >= 1 << 7 * extra


def test_dictionaries_are_large_enough() -> None:
    assert [dictionary_property(size) for size in (4096, 4097, 6144, 1 << 22, (1 << 22) + 1)] == [0, 1, 1, 20, 21]
