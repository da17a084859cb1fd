"""The LMDB ledger keeps the ledger's contract."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from catalog.lmdb_ledger import LmdbLedger
from tests.catalog.contract_base import Again
from tests.catalog.contract_base import stage as stage
from tests.catalog.ledger_contract import LedgerContract


@pytest.fixture
def again(folder: Path, ledger: LmdbLedger) -> Iterator[Again]:
    with ExitStack() as opened:
        yield lambda: opened.enter_context(LmdbLedger.open(folder))


@pytest.fixture(autouse=True)
def whole(ledger: LmdbLedger, folder: Path) -> Iterator[None]:
    """After every test all records hang together."""
    yield
    with LmdbLedger.open(folder) as opened:
        assert opened.verify() == []


class TestLmdbLedger(LedgerContract):
    pass
