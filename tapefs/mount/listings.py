"""Who has listed which directories of late: by that a file's directory is known, and that somebody goes through a tree.

One thread. Noting costs less than a microsecond; a search goes through the newest notes, a millisecond at most.
"""

from __future__ import annotations

from collections import deque
from time import monotonic
from typing import NamedTuple

from catalog.ids import DirectoryNo, SetNumber
from catalog.index.model import Directory

_KEPT = 16_384
#: Who reads behind this has not listed for reading.
_RECENT_S = 600.0


class _Note(NamedTuple):
    at_s: float
    set_number: SetNumber
    directory: DirectoryNo
    files_first: int
    files_end: int
    thread_id: int


class Listings:
    """The newest notes."""

    def __init__(self) -> None:
        self._notes: deque[_Note] = deque(maxlen=_KEPT)

    def note(self, set_number: SetNumber, directory: Directory, thread_id: int) -> None:
        """Somebody begins to list a directory."""
        first = directory.files_first
        end = first + directory.files_count
        self._notes.append(_Note(monotonic(), set_number, directory.number, first, end, thread_id))

    def directory_of(self, set_number: SetNumber, entry: int) -> DirectoryNo | None:
        """Return the directory in which an entry that is none itself was listed; None if it was not of late."""
        for note in reversed(self._notes):
            if note.files_first <= entry < note.files_end and note.set_number == set_number:
                return note.directory
        return None

    def of_threads(self, set_number: SetNumber) -> dict[int, set[DirectoryNo]]:
        """Return by thread which directories of a set it has listed of late."""
        since_s = monotonic() - _RECENT_S
        found: dict[int, set[DirectoryNo]] = {}
        for note in self._notes:
            if note.set_number == set_number and note.at_s >= since_s:
                found.setdefault(note.thread_id, set()).add(note.directory)
        return found
