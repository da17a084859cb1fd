"""Sets of streams come back like others, and their file is whole."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.lmdb_ledger import LmdbLedger
from tapefs.rebuild.records import Method
from tests.backup.rig import Rig
from tests.backup.test_stream import PART, Fed, entry_of, stored, untaped
from tests.rebuild.same import Before, now_indexes, records, reopened
from tests.rebuild.test_rebuild import rebuilt


@pytest.mark.log_warnings
@pytest.mark.parametrize("method", list(Method))
def test_a_stream_comes_back(make_rig: Callable[..., Rig], tmp_path: Path, method: Method) -> None:
    """Three parts and a piece, over two tapes; from payloads the entry and the bytes are the same."""
    rig = make_rig(tapes=2)
    data = random.Random(5).randbytes(3 * PART + 12_345)
    set_id = stored(rig, Fed(tmp_path, data))
    entry = entry_of(rig, set_id)
    rig.close()
    before = Before(rig.home, LmdbLedger.open(rig.home.ledger), tmp_path / "aside")
    report = rebuilt(rig.home, method)
    assert [each.set_id for each in report.outcome.complete] == [set_id]
    reopened(rig)
    assert entry_of(rig, set_id) == entry
    assert untaped(rig, set_id, tmp_path) == data
    if method is not Method.PAYLOADS:
        assert records(rig.ledger) == before.records
        assert now_indexes(rig.home) == before.indexes()
