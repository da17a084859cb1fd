"""What a running backup counts. Belongs to the intake thread."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b

_MARKS = 2**63


@dataclass(slots=True)
class Tally:
    """What a set shows so far: at first what its base shows. And what this run has found."""

    files: int = 0
    directories: int = 0
    bytes: int = 0
    troubled_files: int = 0
    #: Of these, the ones of which something could not be read, and the sum of the marks of their paths.
    unread_files: int = 0
    unread_mark: int = 0
    #: Everything but directories: names that the base does not have, names that are not as they were, names that are
    #: gone. Those not as they were include the ones whose content was not stored again.
    new_files: int = 0
    changed_files: int = 0
    removed_files: int = 0
    #: Content that was stored.
    read_bytes: int = 0

    def note_unread(self, mark: int) -> None:
        """Count a file that could not be read; `mark` is that of its path."""
        self.unread_files += 1
        self.unread_mark = joined(self.unread_mark, mark)

    def copy(self) -> Tally:
        """Return a copy to come back to."""
        return replace(self)


def mark_of(path: bytes) -> int:
    """Return what tells a path from others, in 63 bits."""
    return int.from_bytes(blake2b(path, digest_size=8).digest(), "big") % _MARKS


def joined(one: int, other: int) -> int:
    """Return the mark of what two marks stand for, whatever its order."""
    return (one + other) % _MARKS
