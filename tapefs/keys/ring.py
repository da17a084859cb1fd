"""The secrets that are unlocked in this process: in memory only. Any thread may use it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tapefs.errors import KeyMissing

if TYPE_CHECKING:
    # With `cryptography` behind it, which most commands do not need.
    from tapefs.keys.identity import Identity


class Keyring:
    """Identities by fingerprint."""

    def __init__(self) -> None:
        self._identities: dict[str, Identity] = {}

    def __len__(self) -> int:
        return len(self._identities)

    def add(self, identity: Identity) -> None:
        """Unlock a key; harmless twice."""
        self._identities[identity.fingerprint] = identity

    def remove(self, fingerprint: str) -> bool:
        """Lock a key again; False when it was not unlocked."""
        return self._identities.pop(fingerprint, None) is not None

    def replace(self, identities: Iterable[Identity]) -> None:
        """Have these and no others."""
        self._identities = {identity.fingerprint: identity for identity in identities}

    def identities(self) -> list[Identity]:
        """Return all."""
        return list(self._identities.values())

    def has(self, fingerprint: str) -> bool:
        """Is this key unlocked?"""
        return fingerprint in self._identities

    def get(self, fingerprint: str) -> Identity:
        """Return the secret of a key. Raises KeyMissing."""
        identity = self._identities.get(fingerprint)
        if identity is None:
            raise KeyMissing(f"it is encrypted with key {fingerprint}, which is locked", fingerprint)
        return identity
