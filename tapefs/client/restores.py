"""Restores on the sidecar's host, as the sidecar tells them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from catalog.ids import SetId
from catalog.recovery_records import NotRestored
from tapefs.client.calling import Ask, Family, Steps, WaitingFamily, call, every, in_path
from tapefs.client.waits import until

_URL = "/api/v1/restores"


class RestoreView(msgspec.Struct, frozen=True, kw_only=True):
    """How far a restore on the sidecar's host is; unknown keys are ignored."""

    id: str
    set_id: SetId
    #: `pending`, `running`, `completed`, `failed` or `cancelled`.
    state: str
    target: str
    files: int = 0
    files_total: int = 0
    bytes: int = 0
    bytes_total: int = 0
    #: Files that are not there as recorded, by what can be done about it; known at the end.
    not_restored: NotRestored = NotRestored()
    error: str | None = None
    created_by: str = ""

    @property
    def is_open(self) -> bool:
        """Has it not come to an end?"""
        return self.state in ("pending", "running")


#: `list` is a call there.
_Restores = list[RestoreView]


class RestoreCalls:
    """The calls. Each may raise Unreachable, NoSuchThing, NotNow and UsageError."""

    @call
    @staticmethod
    def begin(set_id: str, target: str, paths: Sequence[str] = (), *, overwrite: bool = False) -> Ask[RestoreView]:
        """Have files of a set restored beneath a folder of the sidecar's host; without `paths` all."""
        body = {"set_id": set_id, "target": target, "paths": [*paths], "overwrite": overwrite}
        return Ask("POST", _URL, body, RestoreView)

    @call
    @staticmethod
    def list() -> Steps[_Restores]:
        """Ask for restores, the newest first."""
        return every(_URL, RestoreView)

    @call
    @staticmethod
    def show(restore_id: str) -> Ask[RestoreView]:
        """Ask how far one is."""
        return Ask("GET", f"{_URL}/{in_path(restore_id)}", None, RestoreView)

    @call
    @staticmethod
    def cancel(restore_id: str) -> Ask[RestoreView]:
        """Give one up; what it has written stays."""
        return Ask("POST", f"{_URL}/{in_path(restore_id)}/cancel", None, RestoreView)

    @call
    @staticmethod
    def wait(restore_id: str, on_progress: Callable[[RestoreView], object] | None = None) -> Steps[RestoreView]:
        """Wait until one has ended, good or bad."""
        ask = Ask("GET", f"{_URL}/{in_path(restore_id)}", None, RestoreView)
        return until(ask, lambda view: not view.is_open, on_progress)


class RestoreClient(RestoreCalls, Family):
    """The calls, by a blocking client."""


class WaitingRestoreClient(RestoreCalls, WaitingFamily):
    """The calls, by a trio client."""
