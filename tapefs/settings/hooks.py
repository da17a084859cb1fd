"""[hooks]: commands that schedules and jobs may run."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class HookSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A command that schedules may run before and behind what they do."""

    #: Program, by its whole path, and arguments; no shell looks at them.
    argv: Annotated[tuple[str, ...], Meta(min_length=1)]
    #: It is killed when it takes longer.
    timeout_s: Annotated[float, Meta(gt=0, le=7 * 86_400)] = 600.0
    #: Variables beside PATH, LANG and those that say what runs.
    environment: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if not self.argv[0].startswith("/"):
            raise ValueError(f"the program of a hook is named by its whole path, not {self.argv[0]!r}")
