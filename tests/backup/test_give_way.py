"""A backup that leaves its drive to recalls at the end of a segment, and goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.ids import VolumeId
from catalog.records import SetState, VolumeState
from tapefs.errors import NoTape
from tests.backup.rig import Rig
from tests.backup.trees import extract, odd_tree, random_files, snapshot


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """More than three segments, one file of which is split over several."""
    tree = odd_tree(tmp_path)
    random_files(tree / "files", 12, 1_500_000)
    random_files(tree / "large", 1, 12_000_000)
    return tree


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    # Small frames: what is on its way to the tape is less than a segment.
    return make_rig(backup_settings=f"segment_bytes = {5 * 1024**2}\nframe_bytes = {256 * 1024}")


def assert_same(rig: Rig, tree: Path, tmp_path: Path) -> None:
    """What comes from tape is the source, the large file in its parts."""
    made = Path(f"{extract(rig, tmp_path / 'out')}{tree}")
    parts = sorted((made / "large").iterdir())
    assert len(parts) > 2
    assert b"".join(part.read_bytes() for part in parts) == (tree / "large/file-00000").read_bytes()
    found, wanted = snapshot(made), snapshot(tree)
    for names in (found, wanted):
        for name in [name for name in names if name.startswith(b"large/")]:
            del names[name]
    assert found == wanted


def use_another_tape(rig: Rig) -> None:
    """What recalls do: thread another tape, read, take it out."""
    rig.watcher.put_in("TP0004L9")
    rig.drive.load()
    rig.drive.rewind()
    rig.watcher.put_in("TP0003L9")


@pytest.mark.parametrize("spool", [False, True])
def test_it_goes_on_where_it_was(rig: Rig, tree: Path, tmp_path: Path, spool: bool) -> None:
    """At every border of segments, also within a large file; nothing is written twice or lost."""
    rig.watcher.wanted = lambda: True
    rig.watcher.meanwhile = lambda: use_another_tape(rig)
    set_id = rig.backup(tree, spool=spool)
    segments = rig.ledger.segments(set_id)
    assert len(segments) >= 5
    assert rig.watcher.gave_way == len(segments)
    assert rig.ledger.backup_set(set_id).state is SetState.COMPLETE
    copies = [copy for segment in segments for copy in rig.ledger.copies(segment.segment_id)]
    assert len({copy.volume_id for copy in copies}) == 1
    assert sorted(copies, key=lambda copy: copy.header_block) == copies
    assert_same(rig, tree, tmp_path)


def test_it_keeps_its_drive_if_nobody_wants_it(rig: Rig, tree: Path) -> None:
    rig.backup(tree)
    assert rig.watcher.gave_way == 0


@pytest.mark.log_warnings
def test_a_tape_that_does_not_come_back(rig: Rig, tree: Path, tmp_path: Path) -> None:
    """Somebody has taken it out: the rest goes to another, and the set is whole."""

    def gone(volume_id: VolumeId) -> None:
        rig.drive.unload()
        rig.watcher.gave_way += 1
        raise NoTape("somebody has taken it out")

    rig.watcher.wanted = lambda: rig.watcher.gave_way < 1 and rig.watcher.asked == 1 and _written(rig) > 1
    rig.watcher.give_way = gone  # type: ignore[method-assign]
    set_id = rig.backup(tree)
    assert rig.watcher.gave_way == 1
    copies = [copy for segment in rig.ledger.segments(set_id) for copy in rig.ledger.copies(segment.segment_id)]
    assert len({copy.volume_id for copy in copies}) == 2
    assert rig.ledger.backup_set(set_id).state is SetState.COMPLETE
    assert all(volume.state is not VolumeState.SUSPECT for volume in rig.ledger.volumes())
    assert_same(rig, tree, tmp_path)


@pytest.mark.log_warnings
def test_a_tape_that_has_changed_meanwhile(rig: Rig, tree: Path, tmp_path: Path) -> None:
    """Somebody else has written to it: it is not touched, and the rest goes to another."""

    def write_behind() -> None:
        rig.watcher.put_in("TP0001L9")
        rig.drive.load()
        rig.drive.seek_end()
        rig.drive.write_block(b"not ours" * 1000)
        rig.drive.write_filemarks(1, sync=True)
        rig.watcher.put_in("TP0003L9")

    rig.watcher.wanted = lambda: rig.watcher.gave_way < 1 and _written(rig) > 1
    rig.watcher.meanwhile = write_behind
    set_id = rig.backup(tree)
    assert rig.ledger.volume_by_label("TP0001L9").state is VolumeState.SUSPECT
    assert rig.ledger.backup_set(set_id).state is SetState.COMPLETE
    assert_same(rig, tree, tmp_path)


def _written(rig: Rig) -> int:
    return sum(len(rig.ledger.segments(each.set_id)) for each in rig.ledger.backup_sets())
