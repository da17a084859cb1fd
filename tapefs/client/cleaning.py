"""The sidecar's calls about cleaning as functions, with typed answers. Pure."""

from __future__ import annotations

from datetime import datetime

import msgspec

from tapefs.client.calling import Ask, Family, WaitingFamily, call, in_path


class _View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the answers; unknown keys are ignored."""


class CleaningView(_View, frozen=True, kw_only=True):
    """One cleaning that was asked for."""

    number: int
    drive: str
    cartridge: str
    is_automatic: bool
    state: str
    error_kind: str = ""
    error: str = ""

    @property
    def is_open(self) -> bool:
        """Has it not come to an end?"""
        return self.state in ("waiting", "running")


class CleaningUseView(_View, frozen=True, kw_only=True):
    """One time that a cartridge has cleaned."""

    drive: str
    began_at: datetime
    ended_at: datetime | None = None


class CartridgeView(_View, frozen=True, kw_only=True):
    """A cleaning cartridge."""

    barcode: str
    place: str | None
    cleanings: int
    most_cleanings: int
    is_used_up: bool
    uses: list[CleaningUseView] = []


class DriveToCleanView(_View, frozen=True, kw_only=True):
    """What a drive says of itself."""

    drive: str
    is_wanted: bool
    is_urgent: bool
    todo: str = ""


class OverviewView(_View, frozen=True, kw_only=True):
    """Everything about cleaning."""

    policy: str
    drives: list[DriveToCleanView]
    cartridges: list[CartridgeView]
    tasks: list[CleaningView]


class CleaningCalls:
    """The sidecar behind a socket. Every call may raise Unreachable, and what it refuses with (see `transport`)."""

    @call
    @staticmethod
    def overview() -> Ask[OverviewView]:
        """Tell what wants to be cleaned, and with what it can be."""
        return Ask("GET", "/api/v1/cleaning", None, OverviewView)

    @call
    @staticmethod
    def clean(drive: str, cartridge: str) -> Ask[CleaningView]:
        """Have a drive cleaned. Raises NoSuchThing, NotNow."""
        path = f"/api/v1/drives/{in_path(drive)}/clean"
        return Ask("POST", path, {"cartridge": cartridge}, CleaningView)

    @call
    @staticmethod
    def cleaning(number: int) -> Ask[CleaningView]:
        """Ask how it stands. Raises NoSuchThing."""
        return Ask("GET", f"/api/v1/cleanings/{number}", None, CleaningView)

    @call
    @staticmethod
    def cancel(number: int) -> Ask[CleaningView]:
        """Give up one that waits. Raises NotNow."""
        return Ask("POST", f"/api/v1/cleanings/{number}/cancel", None, CleaningView)


class CleaningClient(CleaningCalls, Family):
    """The calls, by a blocking client."""


class WaitingCleaningClient(CleaningCalls, WaitingFamily):
    """The calls, by a trio client."""
