"""What a running backup counts. Belongs to the intake thread."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(slots=True)
class Tally:
    """What a set shows so far: at first what its base shows. And what this run has found."""

    files: int = 0
    directories: int = 0
    bytes: int = 0
    troubled_files: int = 0
    #: Of these, the ones of which nothing could be read.
    unread_files: int = 0
    #: Everything but directories: names that the base does not have, names that are not as they were, names that are
    #: gone. Those not as they were include the ones whose content was not stored again.
    new_files: int = 0
    changed_files: int = 0
    removed_files: int = 0
    #: Content that was stored.
    read_bytes: int = 0

    def copy(self) -> Tally:
        """Return a copy to come back to."""
        return replace(self)
