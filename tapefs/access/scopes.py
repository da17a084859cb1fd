"""Scopes of tokens, as the WLCG token profile writes them: `storage.stage:/some/path`. Pure functions.

A scope holds for its path and everything below. `storage.stage` includes `storage.read` and `storage.poll` of the same
path; the other way round nothing is included: who may ask where a file lies may not move a tape for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from tapefs.errors import UsageError

READ, STAGE, POLL = "storage.read", "storage.stage", "storage.poll"
NAMES = (READ, STAGE, POLL)
_IMPLIED = {STAGE: (STAGE, READ, POLL), READ: (READ,), POLL: (POLL,)}
LONGEST_BYTES = 4096


def check_scope(text: str) -> str:
    """Return a scope in its plain form. Raises UsageError."""
    name, colon, path = text.partition(":")
    if name not in NAMES:
        raise UsageError(f"{text!r} is no scope: write one of {', '.join(NAMES)}, a colon and a path")
    if not colon or not path.startswith("/"):
        raise UsageError(f"{text!r} has no path: write {name}:/ for everything")
    if len(text.encode("utf-8", "surrogatepass")) > LONGEST_BYTES or not path.isprintable():
        raise UsageError("the path of a scope is too long, or has characters that cannot be printed")
    parts = parts_of(path)
    if parts is None:
        raise UsageError(f"{text!r}: a path without `..` is needed")
    return f"{name}:/{'/'.join(parts)}"


def implied(scopes: Iterable[str]) -> frozenset[str]:
    """Return the scopes with those that they include."""
    pairs = (scope.partition(":") for scope in scopes)
    return frozenset(f"{each}:{path}" for name, _, path in pairs for each in _IMPLIED.get(name, ()))


def covers(scopes: Iterable[str], name: str, path: str) -> bool:
    """Does one of the scopes, as `implied` returns them, hold for a path? A path with `..` is in none."""
    wanted = parts_of(path)
    if wanted is None or not path.startswith("/"):
        return False
    for scope in scopes:
        held, _, top = scope.partition(":")
        parts = parts_of(top)
        if held == name and parts is not None and wanted[: len(parts)] == parts:
            return True
    return False


def parts_of(path: str) -> list[str] | None:
    """Return the names in a path without needless parts; None when one is `..`."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return None if ".." in parts else parts
