"""What an import has done, for people and programs: between mover, sidecar and command line. Pure; imports little."""

from __future__ import annotations

import msgspec


class ImportedSet(msgspec.Struct, frozen=True, kw_only=True):
    """One of TAF's sets. `set_id`, `number` and `name` are null where nothing of it could be read."""

    #: As TAF calls it; bytes that are no UTF-8 are shown as escapes.
    taf_set: str
    set_id: str | None
    number: int | None
    name: str | None
    started_at_ns: int = 0
    files: int = 0
    bytes: int = 0
    #: It was there before; and was let go.
    known: bool = False
    expired: bool = False
    #: Why it is not whole; null: it is.
    partial: str | None = None
    #: Archives that could not be read to the end.
    problems: list[str] = []
    #: Members that are not shown, and those under another name; and the first of them in words.
    refused: int = 0
    renamed: int = 0
    remarks: list[str] = []
    #: What TAF's catalog says otherwise.
    differences: list[str] = []


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What has come of a volume."""

    tape: str
    sets: list[ImportedSet]
    #: Sets that TAF's catalog has on this tape, but which are not there.
    absent: list[str] = []

    @property
    def broken(self) -> int:
        """How many sets are not whole."""
        return sum(bool(each.problems or each.partial) for each in self.sets)
