"""What the parts of the ledger's contract share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from catalog.ledger import Ledger
from tests.catalog.builders import (
    Stage,
    staged,
)

Again = Callable[[], Ledger]
ODD_TEXTS = ("", "x" * 600, "a\0b", "\udcff", "-1", "é" * 200)


@pytest.fixture
def stage(ledger: Ledger) -> Stage:
    return staged(ledger)


def kinds(ledger: Ledger, after: int = 0) -> list[tuple[str, str]]:
    return [(event.kind, event.detail) for event in ledger.events_since(after)]


def newest(ledger: Ledger) -> int:
    events = ledger.events_since(0)
    return events[-1].number if events else 0
