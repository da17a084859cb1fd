"""What was found out: one sentence each, with what to do and the plain command that shows the same. Pure."""

from __future__ import annotations

from enum import Enum

import msgspec


class Grade(Enum):
    """How much it matters."""

    #: As it should be.
    GOOD = "good"
    #: Worth to know.
    NOTE = "note"
    #: It works, but slower or less safely than it could.
    WARNING = "warning"
    #: It does not work.
    PROBLEM = "problem"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One of them."""

    grade: Grade
    #: A device, or "host".
    about: str
    says: str
    #: What to do about it.
    fix: str = ""
    #: A command of the system's that shows the same.
    shows: str = ""
