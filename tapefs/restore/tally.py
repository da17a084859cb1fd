"""Counts what a restore does, for its progress and its report. One thread."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from tapefs.restore.attributes import OWNERS, SET_ID_BITS, Refused
from tapefs.restore.records import Refusal, RestoreProgress, RestoreReport, Trouble

TROUBLES_KEPT = 1000
_PROGRESS_EVERY_S = 0.1


class Tally:
    """The running counts.

    `progress` is called a few times a second at most, and whenever the stage changes; `note` for all that goes wrong.
    """

    def __init__(self, progress: Callable[[RestoreProgress], None], note: Callable[[Trouble], None]) -> None:
        self._progress = progress
        self._note = note
        self._told_at_s = 0.0
        self._troubles: list[Trouble] = []
        self._trouble_count = 0
        self.stage = "plan"
        self.files = self.files_total = self.bytes = self.bytes_total = 0
        self._refused: dict[Refused, tuple[int, bytes]] = {}
        self.directories = self.symlinks = self.links = self.specials = 0
        self.skipped = self.failed = self.changed = 0
        self.offline = self.damaged = self.locked = self.unread = 0
        self.stopped = ""

    def skip(self, path: bytes) -> None:
        """Something of that name is there already."""
        self.skipped += 1
        self._trouble(path, "exists already, left alone")

    def miss(self, path: bytes, reason: str) -> None:
        """The content lies on a tape that is not here."""
        self.offline += 1
        self._trouble(path, reason)

    def leave_unread(self, path: bytes, reason: str) -> None:
        """The content was not read this time."""
        self.unread += 1
        self._trouble(path, reason)

    def damage(self, path: bytes, reason: str) -> None:
        """The content is not what was written, or is nowhere."""
        self.damaged += 1
        self._trouble(path, reason)

    def lock_out(self, path: bytes, reason: str) -> None:
        """The content is encrypted, and its key is locked or not here."""
        self.locked += 1
        self._trouble(path, reason)

    def fail(self, path: bytes, reason: str) -> None:
        """Something else went wrong."""
        self.failed += 1
        self._trouble(path, reason)

    def refuse(self, path: bytes, refused: Sequence[Refused]) -> None:
        """The file system or the privileges did not allow something about this name; counted by kind."""
        for each in refused:
            count, first = self._refused.get(each, (0, path))
            self._refused[each] = (count + 1, first)
            self._note(Trouble(path, f"{each.what}: {each.reason}"))

    def _trouble(self, path: bytes, reason: str) -> None:
        self._trouble_count += 1
        trouble = Trouble(path, reason)
        self._note(trouble)
        if len(self._troubles) < TROUBLES_KEPT:
            self._troubles.append(trouble)

    def enter_stage(self, stage: str) -> None:
        """Begin another part of the work, and say so."""
        self.stage = stage
        self._tell(b"", is_waiting=False)

    def tell(self, path: bytes, *, is_waiting: bool = False) -> None:
        """Report progress, unless that was done just now."""
        if time.monotonic() - self._told_at_s >= _PROGRESS_EVERY_S:
            self._tell(path, is_waiting=is_waiting)

    def _tell(self, path: bytes, *, is_waiting: bool) -> None:
        self._told_at_s = time.monotonic()
        self._progress(
            RestoreProgress(self.stage, self.files, self.files_total, self.bytes, self.bytes_total, path, is_waiting)
        )

    def report(self) -> RestoreReport:
        """Return the counts as they are now."""
        return RestoreReport(
            files=self.files,
            bytes=self.bytes,
            directories=self.directories,
            symlinks=self.symlinks,
            links=self.links,
            specials=self.specials,
            skipped=self.skipped,
            offline=self.offline,
            damaged=self.damaged,
            locked=self.locked,
            unread=self.unread,
            failed=self.failed,
            changed=self.changed,
            refusals=self._refusals(),
            troubles=tuple(self._troubles),
            trouble_count=self._trouble_count,
            stopped=self.stopped,
        )

    def _refusals(self) -> tuple[Refusal, ...]:
        expected = () if os.geteuid() == 0 else (OWNERS, SET_ID_BITS)
        return tuple(
            Refusal(*refused, count, path, refused in expected) for refused, (count, path) in self._refused.items()
        )
