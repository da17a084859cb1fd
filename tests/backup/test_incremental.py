"""Sets that build on others: what they show is what was there, and what they store is what has changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.ids import SetId
from catalog.index.reader import IndexReader
from catalog.records import Job, SetState
from tests.backup.edits import Editor, looks, shown
from tests.backup.rig import Rig


def first(rig: Rig, *sources: Path) -> tuple[Job, SetId]:
    """Run a full backup; return its job too."""
    job = rig.queued(*sources)
    return job, rig.run(job)


def shown_by(rig: Rig, set_id: SetId, tree: Path) -> dict[bytes, object]:
    with IndexReader(rig.home.index(set_id)) as reader:
        return dict(shown(reader, tree))


def check_totals(rig: Rig, set_id: SetId) -> None:
    backup_set = rig.ledger.backup_set(set_id)
    assert backup_set.state is SetState.COMPLETE
    with IndexReader(rig.home.index(set_id)) as reader:
        assert reader.totals[1:] == (backup_set.directories, backup_set.files, backup_set.bytes)


@pytest.mark.parametrize("seed", range(6))
def test_every_set_of_a_chain_shows_its_own_time(rig: Rig, tmp_path: Path, seed: int) -> None:
    """After each of many random changes an incremental or differential set shows the tree as it is then, for ever."""
    tree = tmp_path / "tree"
    editor = Editor(tree, seed)
    job, set_id = first(rig, tree)
    expected = {set_id: looks(tree)}
    for number in range(8):
        editor.edit(1 + 2 * number)
        set_id = rig.again(job, type="differential" if number in (3, 6) else "incremental")
        expected[set_id] = looks(tree)
        check_totals(rig, set_id)
        assert shown_by(rig, set_id, tree) == expected[set_id], f"step {number}"
    for set_id, look in expected.items():
        assert shown_by(rig, set_id, tree) == look


def test_nothing_changed(rig: Rig, tmp_path: Path) -> None:
    """A set in which nothing changed stores nothing, has a trailer of a few lines, and shows everything."""
    tree = tmp_path / "tree"
    Editor(tree, 1)
    job, full = first(rig, tree)
    again = rig.again(job, type="incremental")
    backup_set = rig.ledger.backup_set(again)
    assert (backup_set.type, backup_set.parent_id) == ("incremental", full)
    (segment,) = rig.ledger.segments(again)
    assert segment.members == 0
    assert shown_by(rig, again, tree) == looks(tree)
    assert backup_set.files == rig.ledger.backup_set(full).files
