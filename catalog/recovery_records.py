"""The ledger's records of restores that the sidecar does. Frozen and typed; times are in ns since the epoch, UTC."""

from __future__ import annotations

from enum import Enum

import msgspec

from catalog.ids import SetId
from catalog.records import RawPath, Record


class RecoveryState(Enum):
    """How far a restore is."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        """Does nothing more become of it?"""
        return self not in (RecoveryState.PENDING, RecoveryState.RUNNING)


class NotRestored(Record, frozen=True, kw_only=True):
    """How many files a restore has not brought back, by what a person can do about it."""

    #: On tapes that are not here.
    offline: int = 0
    #: Not what was written, and to be had from no tape here.
    damaged: int = 0
    #: Encrypted, and the key is locked or not here.
    locked: int = 0
    #: Not read for another reason, as a drive that failed.
    unread: int = 0
    #: Left alone, because something of that name was there.
    skipped: int = 0
    #: What else could not be as recorded.
    failed: int = 0

    @property
    def without_content(self) -> int:
        """How many files are not there because their content was not had?"""
        return self.offline + self.damaged + self.locked + self.unread


class Recovery(Record, frozen=True, kw_only=True):
    """Files that somebody wants restored on the host of the sidecar."""

    recovery_id: str
    set_id: SetId
    #: As recorded in the set; none: all of it.
    paths: tuple[RawPath, ...]
    target: RawPath
    #: Who has asked for it, for people.
    created_by: str
    created_at_ns: int
    started_at_ns: int = 0
    finished_at_ns: int = 0
    state: RecoveryState = RecoveryState.PENDING
    #: Set-id bits, capabilities and device nodes come back as well.
    special: bool = False
    #: It stays beneath a folder of `[access] restore_targets`, whatever becomes of the way to the target.
    is_bound: bool = True
    #: Files that are there are replaced.
    overwrites: bool = False
    #: How often it was begun; a sidecar that was killed begins it again.
    attempts: int = 0
    #: Files and bytes of content, written and in all.
    files: int = 0
    files_total: int = 0
    bytes: int = 0
    bytes_total: int = 0
    #: Known at the end.
    not_restored: NotRestored = NotRestored()
    #: Why it failed, for people.
    error: str = ""

    def failed(self, error: str, now_ns: int) -> Recovery:
        """Return the same, which has failed."""
        return msgspec.structs.replace(self, state=RecoveryState.FAILED, error=error, finished_at_ns=now_ns)

    def with_error(self, error: str) -> Recovery:
        """Return the same with another reason."""
        return msgspec.structs.replace(self, error=error)
