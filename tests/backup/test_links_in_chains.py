"""Files with several names in sets that build on others: one file stays one file, with its attributes and content."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

from catalog.ids import SetId
from catalog.index.reader import IndexReader
from tapefs.backup import base
from tapefs.vfs.archive import Archive
from tapefs.vfs.nodes import first_name
from tapefs.vfs.residency import pieces_of
from tests.backup.rig import Rig


class File(NamedTuple):
    """What all names of a file have in common."""

    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    nlink: int
    xattrs: tuple[tuple[bytes, bytes], ...]
    sha256: bytes


#: The names of each file, and what they have in common.
Groups = dict[frozenset[bytes], File]


class LinkEditor:
    """Gives files more names, takes some, and changes or moves them, at random."""

    def __init__(self, root: Path, seed: int) -> None:
        self._root = root
        self._random = random.Random(seed)
        self._next = 0
        for name in ("a", "b", "b/c", "d"):
            (root / name).mkdir(parents=True)
        for _ in range(12):
            self._create()
        for _ in range(15):
            self._link()

    def edit(self) -> None:
        for _ in range(self._random.randrange(1, 6)):
            self._random.choice(
                [self._create, self._link, self._link, self._unlink, self._rename, self._move_directory,
                 self._move_directory, self._write, self._mode, self._attribute]
            )()  # fmt: skip

    def _files(self) -> list[Path]:
        return sorted(Path(folder) / name for folder, _, names in os.walk(self._root) for name in names)

    def _file(self) -> Path:
        return self._random.choice(self._files())

    def _fresh(self) -> Path:
        self._next += 1
        folders = sorted(Path(folder) for folder, _, _ in os.walk(self._root))
        return self._random.choice(folders) / f"{self._random.choice('abmyz')}{self._next}"

    def _create(self) -> None:
        self._fresh().write_bytes(self._random.randbytes(self._random.choice([0, 10, 600, 9000])))

    def _link(self) -> None:
        os.link(self._file(), self._fresh())

    def _unlink(self) -> None:
        if len(self._files()) > 8:
            self._file().unlink()

    def _rename(self) -> None:
        self._file().rename(self._fresh())

    def _move_directory(self) -> None:
        """No file in it notices."""
        folders = sorted(path for path in self._root.rglob("*") if path.is_dir())
        folder, to = self._random.choice(folders), self._fresh()
        if not to.is_relative_to(folder):
            folder.rename(to)

    def _write(self) -> None:
        self._file().write_bytes(self._random.randbytes(self._random.choice([10, 600])))

    def _mode(self) -> None:
        self._file().chmod(self._random.choice([0o600, 0o644, 0o4755]))

    def _attribute(self) -> None:
        os.setxattr(self._file(), "user.n", self._random.randbytes(3))


def of_source(root: Path) -> Groups:
    """Look at the source."""
    names: dict[int, set[bytes]] = defaultdict(set)
    files = {}
    for folder, _, found in os.walk(os.fsencode(root)):
        for name in found:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            xattrs = tuple((os.fsencode(each), os.getxattr(path, each)) for each in sorted(os.listxattr(path)))
            digest = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).digest() if status.st_size else b""
            names[status.st_ino].add(path[1:])
            files[status.st_ino] = File(
                status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_nlink, xattrs, digest
            )
    return {frozenset(names[ino]): files[ino] for ino in names}


def of_set(rig: Rig, set_id: SetId) -> Groups:
    """Look at a set as the mount does."""
    archive = Archive(rig.home, rig.ledger)
    reader = archive.index(set_id)
    names: dict[int, set[bytes]] = defaultdict(set)
    files = {}
    for found in archive.walk(reader, archive.resolve(reader, b"")):
        if found.entry is None or found.number is None or stat.S_ISDIR(found.entry.mode):
            continue
        number, entry = first_name(reader, found.number, found.entry)
        names[number].add(found.path)
        files[number] = File(
            entry.mode, entry.size, entry.mtime_ns, entry.ctime_ns, entry.nlink, tuple(reader.xattrs(number)),
            _digest(reader, found.number, found.entry),
        )  # fmt: skip
    archive.close()
    return {frozenset(names[number]): files[number] for number in names}


def _digest(reader: IndexReader, number: int, entry: object) -> bytes:
    pieces = pieces_of(reader, number, entry)  # type: ignore[arg-type]
    if not pieces:
        return b""
    [piece] = pieces
    return reader.sha256(piece.segment_no, piece.offset) or b"none"


@pytest.mark.parametrize("is_trusted", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_names_of_one_file_stay_together(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, is_trusted: bool
) -> None:
    """Whatever is shared, copied, stored again or moved with its directory; also in the older sets, afterwards.

    What was changed just before it was read is not trusted, here all or nothing: then content decides.
    """
    if is_trusted:
        monkeypatch.setattr(base, "FRESH_NS", 0)
    tree = tmp_path / "tree"
    editor = LinkEditor(tree, seed)
    job = rig.queued(tree)
    set_id = rig.run(job)
    expected = {set_id: of_source(tree)}
    for number in range(10):
        editor.edit()
        set_id = rig.again(job, type="differential" if number == 6 else "incremental")
        expected[set_id] = of_source(tree)
        assert of_set(rig, set_id) == expected[set_id], f"step {number}"
    for set_id, groups in expected.items():
        assert of_set(rig, set_id) == groups
    assert any(len(names) > 1 for names in expected[set_id])
