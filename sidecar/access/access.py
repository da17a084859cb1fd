"""All parts of access together, made once for a sidecar.

Some take long to import and are of use over TCP only, which most sidecars that a command starts for itself do not have:
they are made when they are asked for first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from catalog.ledger import Ledger
from sidecar.access.addresses import Addresses
from sidecar.access.registry import Registry
from tapefs.home import Home

if TYPE_CHECKING:
    from sidecar.access.basic import BasicLogins
    from sidecar.access.issuers import Issuers
    from sidecar.access.limits import Limits
    from sidecar.access.passwords import Passwords


class Access:
    """The parts; one trio run."""

    def __init__(self, home: Home, ledger: Ledger, now_ns: Callable[[], int]) -> None:
        """Blocks for the ledger. Raises UsageError when the settings name a user who is not there."""
        self._home = home
        self.settings = home.settings.http
        self.sessions = home.settings.access.sessions
        self.registry = Registry(ledger, now_ns)
        self.addresses = Addresses(self.settings)

    @cached_property
    def passwords(self) -> Passwords:
        """Hashes and compares passwords."""
        from sidecar.access.passwords import Passwords

        return Passwords()

    @cached_property
    def basic(self) -> BasicLogins:
        """Names and passwords that come with every request."""
        from sidecar.access.basic import BasicLogins

        return BasicLogins(self, without_tls=self._home.settings.dav.passwords_without_tls)

    @cached_property
    def limits(self) -> Limits:
        """Counts requests."""
        from sidecar.access.limits import Limits

        return Limits(self.settings)

    @cached_property
    def issuers(self) -> Issuers | None:
        """Those whose tokens are believed; None when there are none. Raises HomeError when their keys are not safe."""
        known = self._home.settings.access.issuers
        if not known:
            return None
        from sidecar.access.issuers import Issuers

        return Issuers(self._home.path, known)

    def warnings(self) -> list[str]:
        """Return what an operator is to be reminded of, at the start and in the status."""
        said = self.addresses.warnings()
        if self._home.settings.dav.passwords_without_tls:
            said.append("WebDAV takes passwords without TLS: whoever is on the way can read them")
        return said
