"""Real trees to measure with: what the machine has, so that nothing need be copied or made up. Blocking."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FILES = 130_000

#: Folders whose children are candidates: programs and documents, which lie still while we read them.
_SHELVES = ("/usr", "/usr/lib", "/usr/local", "/opt")
#: A few huge files would hide what many small ones cost.
_LEAST_FILES_PER_MB = 5


@dataclass(frozen=True, slots=True)
class Tree:
    """Folders that are backed up together."""

    sources: tuple[Path, ...]
    files: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.files:,} files, {self.bytes / 1e9:.2f} GB: {' '.join(map(str, self.sources))}"


def measure(source: Path) -> Tree:
    """Count the regular files below a folder and their bytes, on its own file system."""
    files = count_bytes = 0
    for status in _statuses(source):
        files += 1
        count_bytes += status.st_size
    return Tree((source,), files, count_bytes)


def _statuses(source: Path) -> Iterator[os.stat_result]:
    device = source.lstat().st_dev
    for folder, names, files in os.walk(source):
        names[:] = [name for name in names if os.lstat(os.path.join(folder, name)).st_dev == device]
        for name in files:
            status = os.lstat(os.path.join(folder, name))
            if stat.S_ISREG(status.st_mode):
                yield status


def join(trees: Sequence[Tree]) -> Tree:
    """Return several trees as one."""
    return Tree(
        tuple(source for tree in trees for source in tree.sources),
        sum(tree.files for tree in trees),
        sum(tree.bytes for tree in trees),
    )


def real_tree(files: int = FILES) -> Tree:
    """Return folders of this machine with about so many files or more, those with the smallest files first."""
    measured = sorted((measure(path) for path in _candidates()), key=_density, reverse=True)
    chosen: list[Tree] = []
    for tree in measured:
        if sum(each.files for each in chosen) >= files or _density(tree) < _LEAST_FILES_PER_MB:
            break
        chosen.append(tree)
    return join(sorted(chosen, key=lambda tree: tree.sources))


def _density(tree: Tree) -> float:
    return tree.files / max(1.0, tree.bytes / 1e6)


def _candidates() -> Iterator[Path]:
    for shelf in map(Path, _SHELVES):
        for path in shelf.iterdir() if shelf.is_dir() else ():
            if path.is_dir() and not path.is_symlink() and str(path) not in _SHELVES:
                yield path
