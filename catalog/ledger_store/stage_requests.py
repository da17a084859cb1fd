"""Operations on bulk requests to stage files: functions of a transaction (see `catalog.ledger`)."""

from __future__ import annotations

from catalog.ledger_store import unreadable
from catalog.ledger_store.tables import STAGE_REQUESTS, text_key
from catalog.ledger_store.transaction import Reader, Writer
from catalog.stage_records import StageRequest


def oldest_first(tx: Reader) -> list[StageRequest]:
    """Return all requests."""
    return sorted(
        (each for _, each in unreadable.readable(tx, STAGE_REQUESTS)),
        key=lambda each: (each.created_at_ns, each.request_id),
    )


def put(tx: Writer, request: StageRequest) -> None:
    """Record a request, or how far it is now."""
    key = text_key(request.request_id)
    if tx.find(STAGE_REQUESTS, key) != request:
        tx.put(STAGE_REQUESTS, key, request)


def drop(tx: Writer, request_id: str) -> None:
    """Forget a request, if it is there."""
    key = text_key(request_id)
    if tx.find(STAGE_REQUESTS, key) is not None:
        tx.delete(STAGE_REQUESTS, key)
