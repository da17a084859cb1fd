"""Headers that two programs on the way might read differently, and too many of them. Pure functions."""

from __future__ import annotations

from collections import Counter

from starlette.types import Scope

from sidecar.http.statuses import BadRequest

#: More headers than this nobody needs; the bytes of all are limited by the server.
MOST_HEADERS = 100
#: Headers that must not be there twice: who reads the first and who reads the last would be two different requests.
SINGLE = frozenset(
    {b"host", b"authorization", b"content-length", b"content-type", b"transfer-encoding", b"cookie", b"origin",
     b"range", b"x-csrf-token", b"x-forwarded-for", b"x-forwarded-proto", b"destination", b"depth"}
)  # fmt: skip


def check_headers(scope: Scope) -> None:
    """Raise BadRequest for a request whose end or whose sender is not certain."""
    headers = scope.get("headers", ())
    if len(headers) > MOST_HEADERS:
        raise BadRequest(f"more than {MOST_HEADERS} headers")
    counts = Counter(name.lower() for name, _ in headers)
    for name in SINGLE & counts.keys():
        if counts[name] > 1:
            raise BadRequest(f"the header {name.decode()} is there twice")
    if b"content-length" in counts and b"transfer-encoding" in counts:
        raise BadRequest("Content-Length and Transfer-Encoding together: where the body ends is not certain")
