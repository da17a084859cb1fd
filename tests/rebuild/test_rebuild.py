"""The catalog comes back from the tapes alone, as it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.lmdb_ledger import LmdbLedger
from catalog.records import SetState
from tapefs.home import Home
from tapefs.rebuild.loading import Loading
from tapefs.rebuild.records import Method
from tapefs.rebuild.run import Report, rebuild
from tests.backup.rig import Rig
from tests.backup.trees import random_files
from tests.compare.every_kind import every_kind
from tests.rebuild.same import Before, now_indexes, now_trailers, records, reopened


def nobody(_: str) -> bool:
    return False


def silence(_text: str, _done: int, _of: int) -> None:
    return None


def rebuilt(home: Home, method: Method = Method.INDEX, *tapes: str) -> Report:
    """Rebuild as the command does."""
    ledger = LmdbLedger.open(home.ledger) if home.ledger.exists() else LmdbLedger.create(home.ledger, time.time_ns())
    with ledger, Loading(home, nobody) as loading:
        return rebuild(home, ledger, loading, method, tapes, silence)


def chain(rig: Rig, tmp_path: Path) -> None:
    """Make a full set, two that build on it and a mirror, with all that a tree can have; a set in a 7z; some copies."""
    tree = every_kind(tmp_path / "tree")
    rig.backup(tree, name="nightly", type="incremental", retention_days=30, excludes=("*.o",), description="all of it")
    job = rig.ledger.jobs()[0]
    for number in range(2):
        (tree / f"new-{number}").write_bytes(bytes(range(256)) * 40 * number)
        (tree / "changed").write_text(f"as of {number}")
        rig.again(job)
    rig.backup(random_files(tmp_path / "mirrored", 30, 40_000), name="mirrored", type="mirror", verify=True)
    rig.backup(random_files(tmp_path / "packed", 5, 9_000), name="packed", codec="py7zr", level=1)
    rig.backup(
        random_files(tmp_path / "kept", 9, 30_000),
        name="kept",
        type="archive",
        copies=2,
        keep_sources=True,
        verify=True,
        codec="pgzip",
        level=5,
    )


@pytest.mark.parametrize("method", [Method.INDEX, Method.TRAILERS])
def test_the_catalog_is_as_it_was(make_rig: Callable[..., Rig], tmp_path: Path, method: Method) -> None:
    """Every record, every byte of every index and trailer is as before; the next backup builds on what was rebuilt."""
    rig = make_rig(tapes=4, backup_settings="segment_bytes = 1048576")
    chain(rig, tmp_path)
    rig.close()
    before = Before(rig.home, LmdbLedger.open(rig.home.ledger), tmp_path / "aside")
    assert sum(name.startswith("set ") for name in before.records) == 6

    report = rebuilt(rig.home, method)
    reopened(rig)
    assert report.ignored == []
    assert not report.is_open
    assert len(report.outcome.complete) == 6
    assert records(rig.ledger) == before.records
    assert rig.ledger.installation().installation_id == before.installation
    assert now_indexes(rig.home) == before.indexes()
    assert now_trailers(rig.home) == before.trailers()
    assert rig.ledger.verify() == []
    assert not rig.home.rebuild.exists()

    job = rig.ledger.jobs()[0]
    (tmp_path / "tree" / "later").write_text("later")
    again = rig.ledger.backup_set(rig.again(job))
    assert (again.type, again.state) == ("incremental", SetState.COMPLETE)
    assert again.number == 7
