"""The ledger's records of bulk requests to stage files. Frozen and typed; times are in ns since the epoch, UTC."""

from __future__ import annotations

from enum import Enum

import msgspec


class StageState(Enum):
    """How far one file of a request is. The values are those of the WLCG Tape REST API."""

    #: There is no room for it yet, or nobody has looked.
    SUBMITTED = "SUBMITTED"
    #: Its frames are asked for.
    STARTED = "STARTED"
    CANCELLED = "CANCELLED"
    FAILED = "FAILED"
    #: All of it is staged and pinned.
    COMPLETED = "COMPLETED"

    @property
    def is_over(self) -> bool:
        """Does nothing more become of it?"""
        return self not in (StageState.SUBMITTED, StageState.STARTED)


class StageFile(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a request."""

    #: As the client named it; what is not UTF-8 in it as escapes.
    path: str
    #: Its bytes, where they are not UTF-8.
    raw: bytes = b""
    state: StageState = StageState.SUBMITTED
    #: How long it shall stay staged once it is.
    lifetime_s: int
    #: 0: not yet.
    started_at_ns: int = 0
    finished_at_ns: int = 0
    #: Why it failed, for people.
    error: str = ""
    #: The client may not have it, and is told nothing else about it.
    is_forbidden: bool = False
    #: The client needs it no longer.
    is_released: bool = False

    @property
    def path_bytes(self) -> bytes:
        """Where it is in the tree."""
        return self.raw or self.path.encode("utf-8", "surrogatepass")


class StageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Files that a client wants staged, and kept for a time."""

    request_id: str
    #: What he is called, for people.
    owner: str
    created_at_ns: int
    #: What keeps its files staged; empty: nothing does.
    pin_id: str = ""
    #: Who he is; empty: of an earlier version, or nobody but one is called so.
    owner_id: str = ""
    files: tuple[StageFile, ...]

    @property
    def started_at_ns(self) -> int:
        """When the first file was begun; 0: none was."""
        return min((file.started_at_ns for file in self.files if file.started_at_ns), default=0)

    @property
    def completed_at_ns(self) -> int:
        """When the last one was over; 0: not yet."""
        return 0 if self.is_open else max((file.finished_at_ns for file in self.files), default=self.created_at_ns)

    @property
    def is_open(self) -> bool:
        """Is any file not over yet?"""
        return any(not file.state.is_over for file in self.files)
