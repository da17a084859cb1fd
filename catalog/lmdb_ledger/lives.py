"""The operations on the life of cartridges: mountings, and what their memory told.

See `catalog.lmdb_ledger` for threads and durability.
"""

from __future__ import annotations

from catalog.ledger_store import lives
from catalog.ledger_store.environment import operation
from catalog.life_records import CartridgeLife, MediumFacts, Mounting
from catalog.lmdb_ledger.base import LmdbBase

_NOTE_MOUNTING = operation("note_mounting")
_NOTE_ERASED = operation("note_erased")
_NOTE_USED_UP = operation("note_used_up")


class LifeOperations(LmdbBase):
    """See `catalog.ledger.Ledger` for what they do and raise."""

    def note_mounting(self, mounting: Mounting, medium: MediumFacts | None = None) -> None:
        """Record a mounting as it is by now. Idempotent."""
        self._write(_NOTE_MOUNTING, lives.note_mounting, mounting, medium)

    def mountings(self, code: str) -> list[Mounting]:
        """Return the mountings of a cartridge that are kept, the newest first."""
        return self._read(lives.mountings, code)

    def mountings_since(self, since_ns: int) -> list[Mounting]:
        """Return what is kept of all mountings since then, oldest first."""
        return self._read(lives.all_mountings, since_ns)

    def life(self, code: str) -> CartridgeLife:
        """Return the life of a cartridge."""
        return self._read(lives.life, code)

    def lives(self) -> list[CartridgeLife]:
        """Return all lives that are known, by code."""
        return self._read(lives.lives)

    def note_erased(self, code: str, now_ns: int) -> None:
        """A cartridge was erased. Idempotent."""
        self._write(_NOTE_ERASED, lives.note_erased, code, now_ns)

    def note_used_up(self, code: str, now_ns: int) -> None:
        """A cleaning cartridge does not clean any more. Idempotent."""
        self._write(_NOTE_USED_UP, lives.note_used_up, code, now_ns)
