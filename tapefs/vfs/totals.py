"""The size of everything that is shown, for statfs."""

from __future__ import annotations

from tapefs.vfs.archive import Archive
from tapefs.vfs.roster import Roster


class Totals:
    """Adds up the complete sets. One thread."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._roster: Roster | None = None
        self._sums = (0, 0)

    def now(self) -> tuple[int, int]:
        """Return the bytes of all complete sets, and how many files and directories they have.

        Programs that walk a tree ask this in every directory, so it is added up anew only after a change.
        """
        roster = self._archive.roster()
        if roster is not self._roster:
            self._sums = (
                sum(each.bytes for each in roster.complete),
                sum(each.files + each.directories for each in roster.complete),
            )
            self._roster = roster
        return self._sums
