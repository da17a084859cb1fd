"""A source tree that changes at random, and what it looks like."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from catalog.ids import DirectoryNo, EntryNo
from catalog.index.model import Directory, Entry, EntryFlag
from catalog.index.reader import IndexReader

#: Type and mode, owner, group, size, mtime, target, SHA-256 of the content.
Look = tuple[int, int, int, int, int, bytes, bytes]


def looks(root: Path) -> dict[bytes, Look]:
    """Return what the tree below `root` looks like, itself included, by path without the leading slash."""
    found = {bytes(root)[1:]: _look(bytes(root))}
    for folder, directories, files in os.walk(bytes(root)):
        for name in directories + files:
            path = os.path.join(folder, name)
            found[path[1:]] = _look(path)
    return found


def _look(path: bytes) -> Look:
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    digest = b""
    if kind == stat.S_IFREG and status.st_size:
        digest = _digest(Path(os.fsdecode(path)).read_bytes(), status.st_blocks * 512 < status.st_size)
    target = os.readlink(path) if kind == stat.S_IFLNK else b""
    size = 0 if kind == stat.S_IFDIR else status.st_size
    return status.st_mode, status.st_uid, status.st_gid, size, status.st_mtime_ns, target, digest


def _digest(content: bytes, is_sparse: bool) -> bytes:
    """Return the SHA-256, without the holes that `Editor` makes: of those only what lies between them is summed."""
    if is_sparse and (data := content.strip(b"\0")):
        start = content.index(data) // 4096 * 4096
        content = content[start : start + -(-(content.index(data) + len(data) - start) // 4096) * 4096]
    return hashlib.sha256(content).digest()


def shown(reader: IndexReader, root: Path, *, parts_links: bool = False) -> dict[bytes, Look]:
    """Return the same as an index has it; also checks that the totals are those of the tree.

    With `parts_links` the names of one file need not have a number in common: some were made during an interruption.
    """
    found: dict[bytes, Look] = {}
    counts = [0, 0, 0]
    names: dict[tuple[int, int], int] = {}
    owners: dict[int, int] = {}

    def visit(directory: Directory, prefix: bytes) -> None:
        counts[0] += 1
        for _, number, entry in list(reader.list_from(directory, 0)):
            path = prefix + entry.name
            found[path] = _shown(reader, number, entry)
            if entry.nlink > 1 and not stat.S_ISDIR(entry.mode):
                # All names of a file have a number in common, and no other file has it. An inode seen at two times,
                # around an interruption, is two files.
                first = reader.first_name(number)
                assert names.setdefault((entry.ino, entry.ctime_ns), first) == first or parts_links
                assert owners.setdefault(first, entry.ino) == entry.ino
            if stat.S_ISDIR(entry.mode):
                child = reader.directory(DirectoryNo(entry.offset))
                assert child.parent == directory.number
                assert (child.mode, child.mtime_ns, child.ino) == (entry.mode, entry.mtime_ns, entry.ino)
                visit(child, path + b"/")
            else:
                counts[1] += 1
                is_counted = stat.S_ISREG(entry.mode) and not entry.flags & EntryFlag.LINKED
                counts[2] += entry.size * is_counted

    visit(reader.directory(DirectoryNo(0)), b"")
    assert (reader.totals.directories, reader.totals.files, reader.totals.bytes) == tuple(counts)
    top = bytes(root)[1:]
    return {path: look for path, look in found.items() if path == top or path.startswith(top + b"/")}


def _shown(reader: IndexReader, number: EntryNo, entry: Entry) -> Look:
    digest = b""
    if stat.S_ISREG(entry.mode) and entry.size:
        place = (entry.segment, entry.offset)
        if entry.flags & EntryFlag.SPARSE:
            place = reader.extents(number)[0][2:]
        digest = reader.sha256(*place) or b"none"  # type: ignore[arg-type]
    size = 0 if stat.S_ISDIR(entry.mode) else entry.size
    return entry.mode, entry.uid, entry.gid, size, entry.mtime_ns, entry.target, digest


class Editor:
    """Changes a tree at random, the same way for the same seed."""

    def __init__(self, root: Path, seed: int) -> None:
        self._root = root
        self._random = random.Random(seed)
        self._next = 0
        root.mkdir()
        for _ in range(40):
            self._create()

    def edit(self, count: int) -> None:
        """Make some changes."""
        choices: list[Callable[[], None]] = [
            self._create, self._create, self._write, self._write, self._rewrite, self._touch, self._mode, self._own,
            self._rename, self._rename, self._remove, self._remove, self._remove_directory, self._rename_directory,
            self._link, self._hard_link, self._hard_link, self._sparse,
            self._file_to_directory, self._directory_to_file, self._swap, self._directory_mode,
        ]  # fmt: skip
        for _ in range(count):
            self._random.choice(choices)()

    def _files(self) -> list[Path]:
        found = [Path(folder) / name for folder, _, names in os.walk(self._root) for name in names]
        return sorted(found)

    def _directories(self) -> list[Path]:
        return sorted(Path(folder) for folder, _, _ in os.walk(self._root))

    def _file(self) -> Path | None:
        files = [path for path in self._files() if not path.is_symlink()]
        return self._random.choice(files) if files else None

    def _directory(self) -> Path | None:
        directories = self._directories()[1:]
        return self._random.choice(directories) if directories else None

    def _fresh_path(self) -> Path:
        self._next += 1
        name = self._random.choice(["a", "B", "é", "z z", "~"]) + str(self._next)
        return self._random.choice(self._directories()) / name

    def _content(self) -> bytes:
        return self._random.randbytes(self._random.choice([0, 1, 100, 511, 512, 5000, 70_000]))

    def _create(self) -> None:
        path = self._fresh_path()
        if self._random.random() < 0.3:
            path.mkdir()
        else:
            path.write_bytes(self._content())

    def _write(self) -> None:
        if path := self._file():
            path.write_bytes(self._content())

    def _rewrite(self) -> None:
        """Other content, all else as it was but the ctime."""
        if path := self._file():
            status = path.stat()
            path.write_bytes(self._random.randbytes(status.st_size))
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _touch(self) -> None:
        if path := self._file():
            os.utime(path, ns=(self._random.getrandbits(60), self._random.getrandbits(60)))

    def _mode(self) -> None:
        if path := self._file():
            path.chmod(self._random.choice([0o600, 0o644, 0o755, 0o4711]))

    def _own(self) -> None:
        if path := self._file():
            os.chown(path, self._random.randrange(3000), self._random.randrange(3000))

    def _directory_mode(self) -> None:
        if path := self._directory():
            path.chmod(self._random.choice([0o700, 0o755, 0o1777]))

    def _rename(self) -> None:
        if path := self._file():
            path.rename(self._fresh_path())

    def _rename_directory(self) -> None:
        path, to = self._directory(), self._fresh_path()
        if path and not to.is_relative_to(path):
            path.rename(to)

    def _remove(self) -> None:
        if path := self._file():
            path.unlink()

    def _remove_directory(self) -> None:
        if self._random.random() < 0.3 and (path := self._directory()):
            shutil.rmtree(path)

    def _link(self) -> None:
        links = [path for path in self._files() if path.is_symlink()]
        path = self._random.choice(links) if links and self._random.random() < 0.5 else self._fresh_path()
        path.unlink(missing_ok=True)
        path.symlink_to("target-" * self._random.randrange(1, 4))

    def _hard_link(self) -> None:
        if path := self._file():
            os.link(path, self._fresh_path())

    def _sparse(self) -> None:
        if path := self._file():
            with path.open("wb") as file:
                file.truncate(300_000)
                os.pwrite(file.fileno(), self._random.randbytes(5000), 100_000)

    def _file_to_directory(self) -> None:
        if path := self._file():
            path.unlink()
            path.mkdir()
            (path / "inside").write_bytes(self._content())

    def _directory_to_file(self) -> None:
        if path := self._directory():
            shutil.rmtree(path)
            path.write_bytes(self._content())

    def _swap(self) -> None:
        one, other = self._file(), self._file()
        if one and other and one != other:
            aside = self._root / "aside"
            one.rename(aside)
            other.rename(one)
            aside.rename(other)
