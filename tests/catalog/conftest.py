"""Fixtures of the catalog's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.lmdb_ledger import LmdbLedger
from tests.catalog.builders import NOW

pytest.register_assert_rewrite("tests.catalog.ledger_contract")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def ledger(folder: Path) -> Iterator[LmdbLedger]:
    with LmdbLedger.create(folder, NOW) as ledger:
        yield ledger
