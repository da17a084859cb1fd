"""Reading events: functions of a transaction (see `catalog.ledger`)."""

from __future__ import annotations

from itertools import islice

from catalog.ledger_store.tables import COUNTERS, EVENT_COUNTER, EVENTS, event_key
from catalog.ledger_store.transaction import Reader
from catalog.records import Event

_MAX_NUMBER = 2**64 - 1


def since(tx: Reader, number: int, limit: int) -> list[Event]:
    """Return at most `limit` events with a higher number, oldest first."""
    if number >= _MAX_NUMBER:
        return []
    first = event_key(max(number, 0) + 1)
    return [event for _, event in islice(tx.scan(EVENTS, first=first), max(limit, 0))]


def newest(tx: Reader) -> int:
    """Return the number of the newest event; 0: there was none."""
    return tx.find(COUNTERS, EVENT_COUNTER) or 0
