"""Looks at a tree as the index of a set shows it, in the terms of `look`; content by its checksums."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from catalog.ids import SetId
from catalog.index.reader import IndexReader
from tapefs.vfs.archive import Archive, Found
from tapefs.vfs.nodes import first_name
from tapefs.vfs.residency import pieces_of
from tests.backup.rig import Rig
from tests.compare.look import Seen, Tree

#: Not told by an index in the terms of `look`: those are compared by `checks`.
NOT_SHOWN = ("sha256", "data")


@dataclass(frozen=True)
class Check:
    """Places and lengths of a file's runs that are one checksum, and that, as hex digits."""

    runs: tuple[tuple[int, int], ...]
    sha256: str


#: By path. What is in no run must be zeros.
Checks = dict[bytes, tuple[Check, ...]]


def look_at_set(rig: Rig, set_id: SetId, top: Path) -> tuple[Tree, Checks]:
    """Return what `look(top)` was when the set was made, without what NOT_SHOWN names, and the files' checksums."""
    archive = Archive(rig.home, rig.ledger)
    try:
        reader = archive.index(set_id)
        return _look(reader, list(archive.walk(reader, archive.resolve(reader, os.fsencode(top)[1:]))), top)
    finally:
        archive.close()


def _look(reader: IndexReader, all_found: list[Found], top: Path) -> tuple[Tree, Checks]:
    tree: Tree = {}
    checks: Checks = {}
    names: dict[int, set[bytes]] = {}
    files: dict[bytes, int] = {}
    for found in all_found:
        path = os.path.relpath(found.path, os.fsencode(top)[1:])
        if found.directory is not None:
            tree[path] = _seen_directory(reader, found)
            continue
        assert found.number is not None
        assert found.entry is not None
        number, _entry = first_name(reader, found.number, found.entry)
        files[path] = number
        names.setdefault(number, set()).add(path)
        tree[path] = _seen(reader, found)
        checks[path] = tuple(_checks(reader, found))
    for path, number in files.items():
        tree[path] = replace(tree[path], names=frozenset(names[number]))
    return tree, checks


def _seen_directory(reader: IndexReader, found: Found) -> Seen:
    directory = found.directory
    assert directory is not None
    xattrs = reader.directory_xattrs(directory.number)
    assert found.entry is not None
    assert (found.entry.mode, found.entry.mtime_ns) == (directory.mode, directory.mtime_ns)
    owner = (directory.uid, directory.gid)
    return Seen("d", stat.S_IMODE(directory.mode), owner, directory.mtime_ns, xattrs=_by_name(xattrs))


def _seen(reader: IndexReader, found: Found) -> Seen:
    assert found.number is not None
    assert found.entry is not None
    number, entry = first_name(reader, found.number, found.entry)
    kind = stat.filemode(entry.mode)[0]
    seen = Seen(
        kind=kind,
        mode=0 if kind == "l" else stat.S_IMODE(entry.mode),
        owner=(entry.uid, entry.gid),
        mtime_ns=entry.mtime_ns,
        xattrs=_by_name(reader.xattrs(number)),
    )
    if kind == "l":
        return replace(seen, target=entry.target)
    if kind in "cb":
        return replace(seen, rdev=(os.major(entry.rdev), os.minor(entry.rdev)))
    return replace(seen, size=entry.size) if kind == "-" else seen


def _by_name(xattrs: list[tuple[bytes, bytes]]) -> dict[str, bytes]:
    return {os.fsdecode(name): value for name, value in xattrs}


def _checks(reader: IndexReader, found: Found) -> Iterator[Check]:
    assert found.number is not None
    assert found.entry is not None
    for _, group in groupby(pieces_of(reader, found.number, found.entry), attrgetter("segment_no")):
        pieces = list(group)
        digest = reader.sha256(pieces[0].segment_no, pieces[0].offset)
        assert digest is not None
        yield Check(tuple((piece.file_offset, piece.length) for piece in pieces), digest.hex())


def wrong_content(checks: Checks, top: Path) -> list[bytes]:
    """Return the paths of files below `top` that are not what the checksums say."""
    return [path for path, of_file in checks.items() if not _is_right(os.path.join(os.fsencode(top), path), of_file)]


def _is_right(path: bytes, checks: tuple[Check, ...]) -> bool:
    if not stat.S_ISREG(os.lstat(path).st_mode):
        return not checks
    content = bytearray(Path(os.fsdecode(path)).read_bytes())
    for check in checks:
        data = b"".join(content[at : at + length] for at, length in check.runs)
        if hashlib.sha256(data).hexdigest() != check.sha256:
            return False
    for check in checks:
        for at, length in check.runs:
            content[at : at + length] = bytes(length)
    return not any(content)
