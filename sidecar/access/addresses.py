"""Where a request comes from, and who may call from there without a token. Pure, but for the look-up of users."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from starlette.datastructures import Headers

from sidecar.http.callers import Caller, Role
from tapefs.access.uids import uid_of
from tapefs.settings.access import HttpSettings, network_of

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Who sends one of these has come through a proxy.
_FORWARDED = ("x-forwarded-for", "forwarded", "via", "x-real-ip", "x-forwarded-host")


@dataclass(frozen=True, slots=True)
class _Trust:
    network: Network
    role: Role
    uid: int | None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from."""

    address: str
    #: Through a proxy that the settings do not name: nobody can tell from where.
    is_hidden: bool
    #: Did the client speak TLS, with us or with a proxy that is named?
    is_encrypted: bool


class Addresses:
    """What the settings say of addresses."""

    def __init__(self, settings: HttpSettings) -> None:
        """Look users up. Raises UsageError."""
        self._proxies = [network_of(address) for address in settings.proxies]
        self._trusted = [
            _Trust(network_of(each.address), Role[each.role.upper()], None if each.uid is None else uid_of(each.uid))
            for each in settings.trusted
        ]
        self._said = [f"{each.address} as {each.role}" for each in settings.trusted]

    def warnings(self) -> list[str]:
        """Return what an operator is to be reminded of."""
        return [
            f"calls from {said} need no token: every program and every user there may do what the role may"
            for said in self._said
        ]

    def origin(self, peer: str, headers: Headers, is_tls: bool) -> Origin:
        """Return where a request comes from. What a proxy says counts only if the settings name it."""
        has_passed = any(name in headers for name in _FORWARDED)
        if not _is_in(peer, self._proxies):
            return Origin(plain(peer), has_passed, is_tls)
        client = self._client(headers.get("x-forwarded-for", ""))
        encrypted = is_tls or headers.get("x-forwarded-proto", "").strip().lower() == "https"
        return Origin(client or plain(peer), not client, encrypted)

    def _client(self, header: str) -> str:
        """Return the last address that is no proxy of ours: each adds the one that it sees behind the others."""
        for part in reversed(header.split(",")):
            address = part.strip().strip("[]")
            if _parsed(address) is None:
                return ""
            if not _is_in(address, self._proxies):
                return plain(address)
        return ""

    def trusted(self, origin: Origin) -> Caller | None:
        """Return who calls from an address that needs no token; the first entry that fits counts."""
        if origin.is_hidden:
            return None
        for each in self._trusted:
            if _is_in(origin.address, [each.network]):
                return Caller(f"trusted {origin.address}", each.role, each.uid, frozenset(), origin.address)
        return None


def plain(address: str) -> str:
    """Return an address as people know it: an IPv4 one that came in over an IPv6 socket without its prefix."""
    parsed = _parsed(address)
    return address if parsed is None else str(parsed)


@lru_cache(1024)
def counted_as(address: str) -> str:
    """Return what tries from an address are counted under: of IPv6 a /64, for each host may choose among its own."""
    parsed = _parsed(address)
    if not isinstance(parsed, ipaddress.IPv6Address):
        return address if parsed is None else str(parsed)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))


@lru_cache(1024)
def _parsed(address: str) -> Address | None:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


def _is_in(address: str, networks: Sequence[Network]) -> bool:
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in networks)
