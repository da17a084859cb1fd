"""The documentation names what there is."""

from __future__ import annotations

import re

import pytest

from catalog.ledger_store import tables
from catalog.ledger_store.tables import DATABASES
from tests.catalog.lmdb_tools import ROOT

TEXTS = {
    "docs/ledger.md": (ROOT / "docs/ledger.md").read_text(),
    "catalog/ledger_store/tables.py": tables.__doc__ or "",
}


@pytest.mark.parametrize("where", TEXTS)
def test_every_database_and_counter_is_described(where: str) -> None:
    text = TEXTS[where]
    for name in DATABASES:
        assert re.search(rf"^(\| `|    ){name}\b", text, re.MULTILINE), f"{name} is missing in {where}"
    for counter in (tables.JOB_COUNTER, tables.SET_COUNTER, tables.INTENT_COUNTER, tables.EVENT_COUNTER):
        assert counter.decode().removeprefix("counter.") in text


def test_every_table_is_a_database() -> None:
    named = {table.name for table in vars(tables).values() if isinstance(table, tables.Table)}
    assert named == set(DATABASES)
