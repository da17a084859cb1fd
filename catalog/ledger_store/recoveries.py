"""Operations on restores that the sidecar does: functions of a transaction (see `catalog.ledger`)."""

from __future__ import annotations

from catalog.ledger_store.tables import RECOVERIES, text_key
from catalog.ledger_store.transaction import Reader, Writer, plain_text
from catalog.recovery_records import Recovery


def oldest_first(tx: Reader) -> list[Recovery]:
    """Return all restores."""
    return sorted((each for _, each in tx.scan(RECOVERIES)), key=lambda each: (each.created_at_ns, each.recovery_id))


def put(tx: Writer, recovery: Recovery) -> None:
    """Record a restore, or how far it is now."""
    key = text_key(recovery.recovery_id)
    plain = recovery.with_error(plain_text(recovery.error))
    if tx.find(RECOVERIES, key) != plain:
        tx.put(RECOVERIES, key, plain)


def drop(tx: Writer, recovery_id: str) -> None:
    """Forget a restore, if it is there."""
    key = text_key(recovery_id)
    if tx.find(RECOVERIES, key) is not None:
        tx.delete(RECOVERIES, key)
