"""All parts of access together, made once for a sidecar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from catalog.ledger import Ledger
from sidecar.access.addresses import Addresses
from sidecar.access.limits import Limits
from sidecar.access.passwords import Passwords
from sidecar.access.registry import Registry
from tapefs.access.settings import HttpSettings, SessionSettings
from tapefs.home import Home

if TYPE_CHECKING:
    from sidecar.access.issuers import Issuers


@dataclass(frozen=True, slots=True)
class Access:
    """The parts; one trio run."""

    settings: HttpSettings
    sessions: SessionSettings
    registry: Registry
    passwords: Passwords
    addresses: Addresses
    limits: Limits
    #: None where the settings name none.
    issuers: Issuers | None

    @classmethod
    def of(cls, home: Home, ledger: Ledger, now_ns: Callable[[], int]) -> Access:
        """Make them. Blocks for the ledger. Raises UsageError when the settings name a user who is not there."""
        settings = home.settings.http
        return cls(
            settings=settings,
            sessions=home.settings.access.sessions,
            registry=Registry(ledger, now_ns),
            passwords=Passwords(),
            addresses=Addresses(settings),
            limits=Limits(settings),
            issuers=_issuers(home),
        )

    def warnings(self) -> list[str]:
        """Return what an operator is to be reminded of, at the start and in the status."""
        return self.addresses.warnings()


def _issuers(home: Home) -> Issuers | None:
    """Return whose tokens count beside ours. What reads them takes 0.15 s to load, a quarter of the sidecar's start."""
    named = home.settings.access.issuers
    if not named:
        return None
    from sidecar.access.issuers import Issuers

    return Issuers(home.path, named)
