"""A small archive with all that is special about it, as it lies in golden/: the payload's contents and its trailer."""

from __future__ import annotations

import stat
from hashlib import sha256
from typing import Any

from catalog.ids import DirectoryNo
from tapefs.format.records import DirectoryEntered, DirectoryLeft, FrameLine, Member, TrailerLine, as_text
from tests.format.examples import SEGMENT

MTIME_NS = 1_700_000_000_123_456_789
ATTRIBUTES: dict[str, Any] = {
    "uid": 1000,
    "gid": 100,
    "mtime": MTIME_NS,
    "ctime": MTIME_NS + 1_000_000_000,
    "nlink": 1,
    "dev": 64_769,
    "blocks": 8,
}

HELLO = b"hello, tape\n"
LATIN_NAME = b"caf\xe9 \n" + b"x" * 150
NUMBERS = b"".join(b"%d\n" % number for number in range(2000))
TARGET = b"../elsewhere/gr\xc3\xb6\xc3\x9fe"

#: Path in the archive -> content, in the order of the members; bytes of a file, or None for the directory.
FILES = {b"srv/hello": HELLO, b"srv/" + LATIN_NAME: NUMBERS}
LINK = b"srv/zlink"


def _member(name: bytes, mode: int, content: bytes, at: int, target: bytes = b"") -> Member:
    text, raw = as_text(name)
    return Member(
        d=DirectoryNo(1),
        name=text,
        name_b64=raw,
        mode=mode,
        size=len(target or content),
        ino=100 + at,
        at=at,
        sha256=b"" if target else sha256(content).digest(),
        target=as_text(target)[0],
        **ATTRIBUTES,
    )


def _directory(number: int, name: str) -> DirectoryEntered:
    attributes = ATTRIBUTES | {"nlink": 3, "size": 4096, "ino": number + 2, "mode": stat.S_IFDIR | 0o755}
    return DirectoryEntered(n=DirectoryNo(number), p=DirectoryNo(0), name=name, **attributes)


def trailer_without_end(hello_at: int, numbers_at: int, link_at: int, frames: list[FrameLine]) -> list[TrailerLine]:
    """Return the trailer's lines but the last; the places are those in the plain tar stream."""
    return [
        _directory(0, ""),
        _directory(1, "srv"),
        _member(b"hello", stat.S_IFREG | 0o640, HELLO, hello_at),
        _member(LATIN_NAME, stat.S_IFREG | 0o4755, NUMBERS, numbers_at),
        _member(b"zlink", stat.S_IFLNK | 0o777, b"", link_at, TARGET),
        DirectoryLeft(n=DirectoryNo(1), here=[(0, 3)]),
        DirectoryLeft(n=DirectoryNo(0), directories=[DirectoryNo(1)]),
        *frames,
    ]


__all__ = ["FILES", "HELLO", "LATIN_NAME", "LINK", "MTIME_NS", "NUMBERS", "SEGMENT", "TARGET", "trailer_without_end"]
