"""Requests that a page of somebody else has made a browser send: what tells them. Pure functions.

A browser adds what it has got (a cookie, or just the address that it calls from) to requests that foreign pages make.
So whoever does not say who he is by a header that only programs and our own pages can set is looked at more closely:
for anything but reading, a foreign `Origin` or `Sec-Fetch-Site` is refused, and a session needs its CSRF token too.
"""

from __future__ import annotations

from hmac import compare_digest
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from sidecar.access.hosts import host_of
from sidecar.http.statuses import Forbidden

HEADER = "x-csrf-token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "PROPFIND"})
_OWN_SITES = frozenset({"same-origin", "none"})


def check_origin(method: str, headers: Headers) -> None:
    """Raise Forbidden when a foreign page has sent this, and it might change something."""
    if method in SAFE_METHODS:
        return
    check_site(headers)
    origin = headers.get("origin")
    if origin is not None and not _is_own(origin, headers.get("host", "")):
        raise Forbidden("the Origin header names another site: such requests are not served")


def check_site(headers: Headers) -> None:
    """Raise Forbidden when a browser says that a page of another site has it send this, whatever it is."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in _OWN_SITES:
        raise Forbidden("a page of another site has sent this request: it is not served")


def _is_own(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return False
    default = 443 if parts.scheme == "https" else 80
    own_port = host.rpartition(":")[2]
    named = int(own_port) if own_port.isdecimal() and len(own_port) < 6 else default
    return parts.hostname.lower() == host_of(host) and (port or default) == named


def check_csrf(method: str, headers: Headers, wanted: str) -> None:
    """Raise Forbidden when a request with a cookie might change something and lacks the session's CSRF token."""
    if method in SAFE_METHODS:
        return
    given = headers.get(HEADER, "")
    if not compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode()):
        raise Forbidden("the header X-CSRF-Token is missing or wrong: GET /api/v1/session tells it")
