"""TAF's `encryption_enabled`, where the pool of a task's tapes decides. Pure.

Whether tapes are encrypted, and with which key, is a matter of `[encryption]` and not of a task: a task that asks for
it must not get plain tapes, and one that does not ask is encrypted all the same where its pool is.
"""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.http.requests import Invalid
from tapefs.home import Home


def is_encrypted(home: Home, pool: str) -> bool:
    """Tell whether new tapes of a pool, "" for the usual one, are encrypted."""
    return bool(home.settings.encryption.key_of(pool or home.settings.backup.pool))


def check_encryption(home: Home, wanted: bool | None, pool: str, place: Sequence[str | int] = ("body",)) -> None:
    """Raise Invalid when a task asks for encryption that the tapes of its pool do not get."""
    if wanted and not is_encrypted(home, pool):
        message = (
            f"new tapes of pool {pool or home.settings.backup.pool} are not encrypted: make a key with "
            "`tapefs key create`, and name it in [encryption] of tapefs.toml"
        )
        raise Invalid("value_error", [*place, "encryption_enabled"], message, wanted)
