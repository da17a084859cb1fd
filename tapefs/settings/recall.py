"""[recall]: who may have tapes moved by reading, and how long readers wait."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

_Natural = Annotated[int, Meta(ge=0)]
_Count = Annotated[int, Meta(ge=1)]


class RecallRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of a read that has to wait for tape; a rule matches when all that it names does."""

    action: Literal["allow", "deny", "nonblock", "ask"]
    #: Any of these users, by number or name; empty for all.
    users: tuple[int | str, ...] = ()
    #: Any of these groups, by number or name.
    groups: tuple[int | str, ...] = ()
    #: Any of these programs, with wildcards as in a shell.
    commands: tuple[Annotated[str, Meta(min_length=1)], ...] = ()
    #: Size of the file; 0 means no bound.
    min_bytes: _Natural = 0
    max_bytes: _Natural = 0

    def __post_init__(self) -> None:
        """Refuse what can never match."""
        if 0 < self.max_bytes < self.min_bytes:
            raise ValueError("max_bytes is less than min_bytes: no file has such a size")
        if any("/" in command for command in self.commands):
            raise ValueError("commands are names of programs, without a path")


class RecallSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long readers wait for tape, and which may."""

    #: A blocking read gives up after this; the recall goes on. 0 means never.
    deadline_s: Annotated[float, Meta(ge=0)] = 3600.0
    #: What readers get that no rule names; `off` is for all, whatever the rules say. See `tapefs recall`.
    mode: Literal["on", "off", "ask"] = "on"
    #: The first that matches counts.
    rules: tuple[RecallRule, ...] = ()
    #: What a user may have fetched within an hour; 0 means no limit.
    user_hourly_bytes: _Natural = 0
    user_hourly_tapes: _Natural = 0
    #: Do these two limits hold for root as well?
    limit_root: bool = False
    #: A backup leaves its drive at the end of a segment when a reader has waited so long for it; 0 means never.
    backup_yields_after_s: Annotated[float, Meta(ge=0)] = 60.0
    #: Reads of one user that may wait in a mount; it has room for 4,936 in all.
    user_waiting_reads: _Count = 2400
