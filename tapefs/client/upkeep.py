"""Checks and copies of the catalog, as the sidecar tells them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import msgspec

from catalog.ids import SetId
from tapefs.client.calling import Ask, Family, Steps, WaitingFamily, call, every
from tapefs.client.waits import until

_URL = "/api/v1/upkeep"


class _View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the answers; unknown keys are ignored."""


class FindingView(_View, frozen=True, kw_only=True):
    """Something that is not as it should be."""

    check: str
    subject: str
    problem: str
    advice: str = ""
    repairable: bool = False
    repaired: bool = False
    error: str = ""


class CheckView(_View, frozen=True, kw_only=True):
    """What a check has found so far."""

    checks: list[str]
    repair: bool
    findings_total: int
    repaired: int
    findings: list[FindingView] = []


class CopyView(_View, frozen=True, kw_only=True):
    """A copy that is made."""

    folder: str
    keep: int
    #: `tape`, or its path; None until it is whole.
    where: str | None = None


class UpkeepView(_View, frozen=True, kw_only=True):
    """A check or a copy that was asked for: one of the two is None."""

    number: int
    #: `waiting`, `running`, `done`, `failed`, `cancelled` or `interrupted`.
    state: str
    progress: str = ""
    error: str | None = None
    asked_at: datetime | None = None
    began_at: datetime | None = None
    finished_at: datetime | None = None
    check: CheckView | None = None
    copy: CopyView | None = None

    @property
    def is_open(self) -> bool:
        """Has it not come to an end?"""
        return self.state in ("waiting", "running")


class CatalogCopy(_View, frozen=True, kw_only=True):
    """A copy of the catalog: on tape, then it has a set, or a file on the sidecar's host."""

    made_at: datetime | None = None
    set_id: SetId | None = None
    tapes: list[str] = []
    path: str | None = None
    bytes: int = 0


class UpkeepCalls:
    """The calls. Each may raise Unreachable, NoSuchThing, NotNow and UsageError."""

    @call
    @staticmethod
    def check(checks: Sequence[str] = (), *, repair: bool = False) -> Ask[UpkeepView]:
        """Have the catalog checked; without `checks` all of it."""
        return Ask("POST", "/api/v1/check", {"checks": list(checks), "repair": repair}, UpkeepView)

    @call
    @staticmethod
    def copy_catalog(folder: str = "", keep: int = 0) -> Ask[UpkeepView]:
        """Have the catalog copied to a folder of the sidecar's host where `keep` copies stay, or to tape for days."""
        return Ask("POST", "/api/v1/catalog/copies", {"folder": folder, "keep": keep}, UpkeepView)

    @call
    @staticmethod
    def copies() -> Steps[list[CatalogCopy]]:
        """Ask for the copies that are known of, the newest first."""
        return every("/api/v1/catalog/copies", CatalogCopy)

    @call
    @staticmethod
    def tasks() -> Steps[list[UpkeepView]]:
        """Ask for what was asked for, oldest first, without what was found."""
        return every(_URL, UpkeepView)

    @call
    @staticmethod
    def task(number: int) -> Ask[UpkeepView]:
        """Ask how one stands."""
        return Ask("GET", f"{_URL}/{number}", None, UpkeepView)

    @call
    @staticmethod
    def cancel(number: int) -> Ask[UpkeepView]:
        """Give one up."""
        return Ask("POST", f"{_URL}/{number}/cancel", None, UpkeepView)

    @call
    @staticmethod
    def wait(number: int, on_progress: Callable[[UpkeepView], object] | None = None) -> Steps[UpkeepView]:
        """Wait until one has ended."""
        return until(Ask("GET", f"{_URL}/{number}", None, UpkeepView), lambda task: not task.is_open, on_progress)


class UpkeepClient(UpkeepCalls, Family):
    """The calls, by a blocking client."""


class WaitingUpkeepClient(UpkeepCalls, WaitingFamily):
    """The calls, by a trio client."""
