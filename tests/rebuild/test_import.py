"""Tapes of another installation come into a catalog with all their sets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.lmdb_ledger import LmdbLedger
from catalog.records import SetState, VolumeState
from tapefs.home import Home
from tapefs.rebuild.loading import Loading
from tapefs.rebuild.records import Method
from tapefs.rebuild.run import Report, import_tapes
from tests.backup.rig import Rig
from tests.backup.trees import random_files
from tests.rebuild.same import index_rows, reopened
from tests.rebuild.test_rebuild import nobody, silence


def imported(home: Home, *tapes: str, method: Method = Method.INDEX) -> Report:
    with LmdbLedger.open(home.ledger) as ledger, Loading(home, nobody) as loading:
        return import_tapes(home, ledger, loading, method, tapes, silence)


def hand_over(source: Home, target: Home, label: str, barcode: str) -> None:
    """Carry a virtual cartridge from one library to the other, where it gets another barcode."""
    shutil.copytree(source.library / "cartridges" / label, target.library / "cartridges" / barcode)
    state = json.loads((target.library / "library.json").read_text())
    state["slots"].append(barcode)
    (target.library / "library.json").write_text(json.dumps(state))


@pytest.fixture
def theirs(tmp_path: Path) -> Rig:
    """Return an installation with a full set and one that builds on it."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    rig = Rig(folder, tapes=1)
    tree = random_files(folder / "tree", 5, 3000)
    rig.backup(tree, name="nightly", type="incremental", retention_days=40)
    (tree / "new").write_text("new")
    rig.again(rig.ledger.jobs()[0])
    return rig


@pytest.mark.log_warnings
@pytest.mark.parametrize("method", list(Method))
def test_another_installation_s_tape(theirs: Rig, make_rig: Callable[..., Rig], tmp_path: Path, method: Method) -> None:
    """Sets get other numbers where theirs are taken, keep the names of their jobs, and nobody builds on them; the tape
    is not written to."""
    sets = theirs.ledger.backup_sets()
    theirs.close()
    rig = make_rig(tapes=2)
    own_tree = random_files(tmp_path / "own", 3, 2000)
    own = rig.backup(own_tree, name="nightly", type="incremental")
    own_set, own_job = rig.ledger.backup_set(own), rig.ledger.jobs()[0]
    rig.close()
    hand_over(theirs.home, rig.home, "TP0001L9", "XX0001L9")

    report = imported(rig.home, "XX0001L9", method=method)
    assert len(report.outcome.complete) == 2
    reopened(rig)
    tape = next(volume for volume in rig.ledger.volumes() if volume.code == "XX0001L9")
    assert tape.label.startswith("TP0001L9-")
    assert tape.state is VolumeState.FULL
    adopted = [rig.ledger.backup_set(each.set_id) for each in sets]
    assert [each.number for each in adopted] == [2, 3]
    for each, was in zip(adopted, sets, strict=True):
        assert (each.name, each.parent_id, each.files) == (was.name, was.parent_id, was.files)
        assert (each.state, each.is_imported, each.tapes) == (SetState.COMPLETE, True, (tape.label,))
    if method is Method.INDEX:
        assert [each.retention_days for each in adopted] == [40, 40]
        for each in sets:
            assert index_rows(rig.home.index(each.set_id)) == index_rows(theirs.home.index(each.set_id))
    assert rig.ledger.backup_set(own) == own_set
    assert rig.ledger.jobs() == [own_job]
    assert rig.ledger.verify() == []
    assert not (rig.home.path / "import").exists()

    again = rig.ledger.backup_set(rig.again(own_job))
    assert again.parent_id == own
    assert again.tapes == own_set.tapes


@pytest.mark.log_warnings
def test_a_tape_that_is_known_is_left_as_it_is(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    rig = make_rig(tapes=2)
    rig.backup(random_files(tmp_path / "own", 3, 2000), name="own")
    before = rig.ledger.backup_sets(), rig.ledger.volumes()
    rig.close()
    report = imported(rig.home, "TP0001L9")
    reopened(rig)
    assert report.passed_over == {}
    assert list(report.notes.values()) == ["nothing new"]
    assert (rig.ledger.backup_sets(), rig.ledger.volumes()) == before
