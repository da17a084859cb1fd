"""Fixtures of the catalog's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.lmdb_ledger import LmdbLedger
from tests.catalog.builders import NOW

_PARTS = [each.stem for each in Path(__file__).parent.glob("contract_*.py")]
pytest.register_assert_rewrite("tests.catalog.ledger_contract", *(f"tests.catalog.{part}" for part in _PARTS))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def ledger(folder: Path) -> Iterator[LmdbLedger]:
    with LmdbLedger.create(folder, NOW) as ledger:
        yield ledger
