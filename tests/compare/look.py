"""Looks at a tree attribute by attribute, and tells in words how two trees differ. Nothing of the product is used."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple

#: Labels that a security module gives of its own accord, and what our mount tells about a file.
_NOT_OURS = ("security.selinux", "security.apparmor", "user.tapefs.")
_BLOCK_BYTES = 64 * 1024
_ZEROS = bytes(_BLOCK_BYTES)
#: ext4 counts the blocks in which it notes the pieces of a file: none for up to four, one for so many.
_NOTES_BYTES, _PIECES_NOTED = 4096, 340


@dataclass(frozen=True)
class Seen:
    """All that a backup has to keep of one name. What its kind does not have is empty."""

    #: As `ls` shows it: `-`, `d`, `l`, `p`, `c`, `b`, `s`.
    kind: str
    #: Permissions, set-id and sticky bits.
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    size: int = 0
    #: Of what is not zeros, and where.
    sha256: str = ""
    #: Place and length of what is no hole.
    data: tuple[tuple[int, int], ...] = ()
    #: Of a device.
    rdev: tuple[int, int] = (0, 0)
    target: bytes = b""
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    #: All names in the tree that are the same file, this one too.
    names: frozenset[bytes] = frozenset()


Tree = dict[bytes, Seen]


def look(top: Path | bytes) -> Tree:
    """Return everything below a folder by relative path, and the folder itself as b"."."""
    root = os.fsencode(top)
    found: Tree = {}
    files: dict[tuple[int, int], set[bytes]] = {}
    for path, relative in _walk(root):
        status = os.lstat(path)
        found[relative] = _seen(path, status)
        if not stat.S_ISDIR(status.st_mode):
            files.setdefault((status.st_dev, status.st_ino), set()).add(relative)
    for names in files.values():
        for name in names:
            found[name] = replace(found[name], names=frozenset(names))
    return found


def _walk(root: bytes) -> Iterator[tuple[bytes, bytes]]:
    yield root, b"."
    for folder, directories, files in os.walk(root, onerror=_fail):
        for name in directories + files:
            path = os.path.join(folder, name)
            yield path, path[len(root) + 1 :]


def _fail(error: OSError) -> None:
    raise error


def _seen(path: bytes, status: os.stat_result) -> Seen:
    kind = stat.filemode(status.st_mode)[0]
    seen = Seen(
        kind=kind,
        mode=0 if kind == "l" else stat.S_IMODE(status.st_mode),
        owner=(status.st_uid, status.st_gid),
        mtime_ns=status.st_mtime_ns,
        xattrs=_xattrs(path),
    )
    if kind == "l":
        return replace(seen, target=os.readlink(path))
    if kind in "cb":
        return replace(seen, rdev=(os.major(status.st_rdev), os.minor(status.st_rdev)))
    if kind == "-":
        digest, data = _content(path, status.st_size)
        return replace(seen, size=status.st_size, sha256=digest, data=data)
    return seen


def _xattrs(path: bytes) -> dict[str, bytes]:
    names = os.listxattr(path, follow_symlinks=False)
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in names if not name.startswith(_NOT_OURS)}


def _content(path: bytes, size: int) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Return a checksum that does not depend on holes, nor needs time for them, and the runs of data."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        data = tuple(_runs(file.fileno(), size))
        for at in _blocks(data):
            block = os.pread(file.fileno(), _BLOCK_BYTES, at)
            if block != _ZEROS[: len(block)]:
                digest.update(b"%d:" % at + block)
    return digest.hexdigest(), data


def _blocks(data: tuple[tuple[int, int], ...]) -> Iterator[int]:
    """Yield the places of all blocks that hold data, each once."""
    behind = 0
    for start, length in data:
        first = max(behind, start // _BLOCK_BYTES * _BLOCK_BYTES)
        behind = max(behind, -(-(start + length) // _BLOCK_BYTES) * _BLOCK_BYTES)
        yield from range(first, behind, _BLOCK_BYTES)


def _runs(fd: int, size: int) -> Iterator[tuple[int, int]]:
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:
            # ENXIO: no data from here to the end.
            break
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end - start


class Difference(NamedTuple):
    """One thing that is not the same in two trees."""

    path: bytes
    #: A field of `Seen`; `missing` or `not expected` for a name.
    what: str
    is_so: object = None
    should: object = None

    def __str__(self) -> str:
        if self.what in ("missing", "not expected"):
            return f"{self.path!r}: {self.what}"
        return f"{self.path!r}: {self.what} is {self.is_so!r}, should be {self.should!r}"


def compare(is_so: Tree, should: Tree) -> Iterator[Difference]:
    """Yield each difference of two trees, ordered by path; none: they are equal."""
    for path in sorted(is_so.keys() | should.keys()):
        one, other = is_so.get(path), should.get(path)
        if one is None or other is None:
            yield Difference(path, "missing" if one is None else "not expected")
            continue
        for each in fields(Seen):
            values = getattr(one, each.name), getattr(other, each.name)
            if each.name == "names":
                # A part of a tree has a part of the names.
                values = values[0] & should.keys(), values[1] & is_so.keys()
            if values[0] != values[1]:
                yield Difference(path, each.name, *values)


def differences(
    is_so: Tree, should: Tree, *, ignore: tuple[str, ...] = (), keep: Callable[[bytes], bool] = lambda _: True
) -> list[str]:
    """Return a line for each difference of two trees; none: they are equal.

    `ignore` names fields of `Seen` that may differ, `keep` the paths that count.
    """
    return [str(each) for each in compare(is_so, should) if each.what not in ignore and keep(each.path)]


def same_blocks(shown: os.stat_result, was: os.stat_result) -> bool:
    """Does `shown` have the blocks of the source `was`, apart from those the file system has for its own notes?"""
    most_pieces = was.st_blocks * 512 // 4096
    most_notes = _NOTES_BYTES * (1 + most_pieces // _PIECES_NOTED) if most_pieces > 4 else 0
    return 0 <= (was.st_blocks - shown.st_blocks) * 512 <= most_notes
