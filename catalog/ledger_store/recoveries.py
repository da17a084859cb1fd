"""Operations on restores that the sidecar does: functions of a transaction (see `catalog.ledger`)."""

from __future__ import annotations

from catalog.errors import NotFound
from catalog.ledger_store import unreadable
from catalog.ledger_store.tables import RECOVERIES, text_key
from catalog.ledger_store.transaction import Reader, Writer, plain_text
from catalog.recovery_records import Recovery


def oldest_first(tx: Reader) -> list[Recovery]:
    """Return all restores that can be read."""
    return sorted(
        (each for _, each in unreadable.readable(tx, RECOVERIES)),
        key=lambda each: (each.created_at_ns, each.recovery_id),
    )


def get(tx: Reader, recovery_id: str) -> Recovery:
    """Return a restore. Raises NotFound."""
    recovery = tx.find(RECOVERIES, text_key(recovery_id))
    if recovery is None:
        raise NotFound(f"there is no restore {recovery_id}")
    return recovery


def put(tx: Writer, recovery: Recovery) -> None:
    """Record a restore, or how far it is now."""
    key = text_key(recovery.recovery_id)
    plain, known = recovery.with_error(plain_text(recovery.error)), tx.find(RECOVERIES, key)
    if known == plain:
        return
    tx.put(RECOVERIES, key, plain)
    if known is None or known.state is not plain.state:
        at_ns = plain.finished_at_ns or plain.started_at_ns or plain.created_at_ns
        tx.tell("restore.state", plain.recovery_id, plain.state.value, at_ns)


def drop(tx: Writer, recovery_id: str) -> None:
    """Forget a restore, if it is there."""
    key = text_key(recovery_id)
    if tx.find(RECOVERIES, key) is not None:
        tx.delete(RECOVERIES, key)
