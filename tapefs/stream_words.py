"""What those who fill a stream and those who store it say to each other of it. Plain records."""

from __future__ import annotations

import msgspec


class StreamTask(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that a backup is to store."""

    #: Path of the file that it comes through.
    file: str
    #: So long is a part at most; whoever fills the file has room for more than that.
    part_bytes: int
    uid: int
    gid: int


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """How far a stream has come."""

    bytes: int = 0
    #: When it ended, properly; 0: it has not.
    ended_ns: int = 0
    #: Why there will be no more, and no end; empty: there may be.
    broken: str = ""
