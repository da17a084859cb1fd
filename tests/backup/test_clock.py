"""Backups while the clock is wrong: nobody is given an older set for the newest."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tapefs.vfs.roster import Roster
from tests.backup.rig import Rig, rigs

YEAR_NS = 365 * 86_400 * 10**9


@pytest.fixture
def make(tmp_path: Path):  # type: ignore[no-untyped-def]
    yield from rigs(tmp_path)


@pytest.mark.log_warnings
def test_the_newest_set_is_the_one_that_was_made_last(
    make: Callable[..., Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, tree = make(), tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_text("first")
    job = rig.queued(tree, type="incremental")
    first = rig.run(job)
    monkeypatch.setattr("tapefs.backup.run.time", SimpleNamespace(time_ns=lambda: time.time_ns() - YEAR_NS))
    (tree / "a").write_text("second")
    second = rig.again(job)
    made = rig.ledger.backup_set(second)
    assert made.started_at_ns < rig.ledger.backup_set(first).started_at_ns < made.order_ns <= made.kept_from_ns
    assert Roster(rig.ledger.backup_sets()).find("job").set_id == second
    (tree / "a").write_text("third")
    third = rig.ledger.backup_set(rig.again(job))
    assert third.parent_id == second
    monkeypatch.undo()
    fourth = rig.ledger.backup_set(rig.again(job))
    assert (fourth.parent_id, fourth.after_ns) == (third.set_id, 0)
    assert Roster(rig.ledger.backup_sets()).find("job").set_id == fourth.set_id
