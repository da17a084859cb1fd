"""Counts what a restore does, for its progress and its report. One thread."""

from __future__ import annotations

import time
from collections.abc import Callable

from tapefs.restore.records import RestoreProgress, RestoreReport, Trouble

TROUBLES_KEPT = 1000
_PROGRESS_EVERY_S = 0.1


class Tally:
    """The running counts; `progress` is called a few times a second at most, and whenever the stage changes."""

    def __init__(self, progress: Callable[[RestoreProgress], None]) -> None:
        self._progress = progress
        self._told_at_s = 0.0
        self._troubles: list[Trouble] = []
        self._trouble_count = 0
        self.stage = "plan"
        self.files = self.files_total = self.bytes = self.bytes_total = 0
        self.directories = self.symlinks = self.skipped = self.damaged = self.failed = 0
        self.owners_kept = self.changed = 0
        self.stopped = ""

    def skip(self, path: bytes) -> None:
        """Something of that name is there already."""
        self.skipped += 1
        self._trouble(path, "exists already, left alone")

    def damage(self, path: bytes, reason: str) -> None:
        """The content cannot be had."""
        self.damaged += 1
        self._trouble(path, reason)

    def fail(self, path: bytes, reason: str) -> None:
        """Something else went wrong."""
        self.failed += 1
        self._trouble(path, reason)

    def keep_owner(self, path: bytes) -> None:
        """The owner could not be set; said once, counted always."""
        if not self.owners_kept:
            self._trouble(path, "its owner could not be set, nor those of others: only root can do that")
        self.owners_kept += 1

    def _trouble(self, path: bytes, reason: str) -> None:
        self._trouble_count += 1
        if len(self._troubles) < TROUBLES_KEPT:
            self._troubles.append(Trouble(path, reason))

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
            skipped=self.skipped,
            damaged=self.damaged,
            failed=self.failed,
            owners_kept=self.owners_kept,
            changed=self.changed,
            troubles=tuple(self._troubles),
            trouble_count=self._trouble_count,
            stopped=self.stopped,
        )
