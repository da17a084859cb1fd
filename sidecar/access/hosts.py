"""Which Host headers mean us: others were made to point here, so that a browser believes to be at home (DNS rebinding).

Pure functions.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable

from sidecar.http.statuses import WrongHost

LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})
_WILDCARDS = ("0.0.0.0", "::", "")  # noqa: S104 - compared with, not bound to


class Hosts:
    """The names that we go by."""

    def __init__(self, listen_host: str, more: Iterable[str]) -> None:
        self._is_wildcard = listen_host in _WILDCARDS
        own = {socket.gethostname().lower()} if self._is_wildcard else set()
        self._names = {*LOOPBACK_NAMES, listen_host.lower(), *own, *(name.lower().rstrip(".") for name in more)}

    def check(self, header: str) -> None:
        """Raise WrongHost, unless the header names us."""
        name = host_of(header)
        if name in self._names or is_loopback(name) or (self._is_wildcard and is_address(name)):
            return
        raise WrongHost("the Host header names another host: use the address that the sidecar listens on")


def host_of(header: str) -> str:
    """Return the name in a Host header without port and brackets, in lower case; empty when it is none."""
    found = re.fullmatch(r"\[([^\]]*)\](?::\d*)?|([^:]*)(?::\d*)?", header.strip())
    return ((found[1] or found[2] or "") if found else "").lower().rstrip(".")


def is_address(name: str) -> bool:
    """Is it an IP address, no name?"""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(name: str) -> bool:
    """Is it an address of loopback?"""
    return is_address(name) and ipaddress.ip_address(name).is_loopback
