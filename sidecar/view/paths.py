"""Paths of the archive in URLs: the bytes behind the percent signs. Pure functions, and a kind of parameter
of routes.
"""

from __future__ import annotations

from urllib.parse import quote, unquote_to_bytes

from starlette.convertors import StringConvertor, register_url_convertor
from starlette.types import Scope

#: In a route: what `path` means, and names that hold a line break, too.
ANY = "anypath"


class _AnyPath(StringConvertor):
    regex = r"[\s\S]*"


register_url_convertor(ANY, _AnyPath())


def path_in(scope: Scope, prefix: str) -> bytes:
    """Return what stands behind a prefix in the URL, byte for byte: names need not be UTF-8."""
    raw = scope.get("raw_path") or quote(scope["path"]).encode()
    whole = unquote_to_bytes(raw.partition(b"?")[0])
    return whole.removeprefix(prefix.encode()).strip(b"/")


def url_of(path: bytes) -> str:
    """Return the same for a URL: slashes stay, everything that is not plain is escaped."""
    return quote(path, safe="/~")
