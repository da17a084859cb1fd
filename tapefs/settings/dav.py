"""What tapefs.toml says of WebDAV. See docs/http/webdav.md."""

from __future__ import annotations

from typing import Literal

import msgspec


class DavSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How files are served at /dav."""

    #: A file that is on tape: the answer comes with its bytes, or 503 with Retry-After at once while it is fetched.
    cold: Literal["wait", "retry"] = "wait"
    #: Are passwords taken without TLS from other hosts, too? Whoever is on the way can read them.
    passwords_without_tls: bool = False
