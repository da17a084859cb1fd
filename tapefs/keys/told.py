"""Which keys the sidecar has unlocked, for a mount, which has none: a file with their fingerprints. Any thread.

The secrets are in no file. What the file says counts while a sidecar answers: it writes it when it starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec


def tell_unlocked(path: Path, fingerprints: Iterable[str]) -> None:
    """Replace the file; only its owner may read it. Not synced: the next sidecar writes it anew. Raises OSError."""
    temporary = path.with_name(f".{path.name}")
    temporary.unlink(missing_ok=True)  # One that was left keeps its mode.
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(msgspec.json.encode(sorted(fingerprints)))
    temporary.rename(path)


class Unlocked:
    """What the file says now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._fingerprints: frozenset[str] = frozenset()

    def has(self, fingerprint: str) -> bool:
        """Is this key unlocked? Looks at the file's inode and time, and reads it when it is another."""
        try:
            status = self._path.stat()
            seen = (status.st_ino, status.st_mtime_ns)
            if seen != self._seen:
                self._fingerprints = frozenset(msgspec.json.decode(self._path.read_bytes(), type=list[str]))
                self._seen = seen
        except (OSError, msgspec.DecodeError):
            return False
        return fingerprint in self._fingerprints
