"""Replacing small files atomically, with or without waiting for the disk. Blocking; no state, any thread."""

from __future__ import annotations

import os
from pathlib import Path


def replace_file(path: Path, data: bytes, *, sync: bool) -> None:
    """Put `data` in place of `path` so that a reader sees the old or the new content, never a part.

    With `sync` it also survives a power cut once this returns. Raises OSError; the old content then stays.
    """
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_fully(descriptor, data, 0)
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(temporary, path)
    if sync:
        sync_folder(path.parent)


def write_fully(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` (a memoryview of bytes) at byte `offset`. Raises OSError; a part may then be written."""
    written = os.pwrite(descriptor, data, offset)
    if written == len(data):
        return
    rest = memoryview(data)
    while written < len(rest):
        written += os.pwrite(descriptor, rest[written:], offset + written)


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on the disk. Raises OSError."""
    _sync(path, os.O_RDONLY)


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on the disk. Raises OSError."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
