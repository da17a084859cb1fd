"""A drive that is reset in the middle of a backup: the tape is checked, and the work goes on where it is committed."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from catalog.records import SetState, VolumeState
from drivers.errors import PositionLost
from drivers.virtual.faults import FaultyDrive, Reset
from tests.backup.rig import Rig
from tests.backup.trees import extract, random_files, snapshot

SETTINGS = "segment_bytes = 1048576\nframe_bytes = 65536\nthreads = 1"


def rig_at(folder: Path) -> Rig:
    return Rig(folder, tapes=2, tape_bytes=64 * 1024**2, backup_settings=SETTINGS)


@pytest.mark.log_warnings
def test_a_reset_at_any_block_costs_no_more_than_a_segment(tmp_path: Path) -> None:
    tree = random_files(tmp_path / "tree", 6, 250_000)
    expected = snapshot(tree)
    probe = rig_at(tmp_path / "probe")
    probe.backup(tree)
    end_block = max(volume.end_block for volume in probe.ledger.volumes())
    probe.close()
    for block in range(0, end_block, 2):
        rig = rig_at(tmp_path / str(block))
        rig.drive = FaultyDrive(rig.drive, [Reset(block=block)])  # type: ignore[arg-type]
        rig.watcher._drive = rig.drive
        set_id = rig.backup(tree)
        assert rig.ledger.backup_set(set_id).state is SetState.COMPLETE
        assert rig.ledger.verify() == []
        assert snapshot(Path(f"{extract(rig, tmp_path / str(block) / 'out')}{tree}")) == expected, f"block {block}"
        # On one tape, which nobody suspects.
        assert {volume.state for volume in rig.ledger.volumes()} == {VolumeState.APPENDABLE, VolumeState.BLANK}
        rig.close()


@pytest.mark.log_warnings
def test_a_drive_that_is_reset_again_and_again_is_given_up(tmp_path: Path) -> None:
    tree = random_files(tmp_path / "tree", 2, 100_000)
    rig = rig_at(tmp_path)
    rig.drive = FaultyDrive(rig.drive, [Reset(block=4, times=9)])  # type: ignore[arg-type]
    rig.watcher._drive = rig.drive
    with capture_logs() as logged, pytest.raises(PositionLost):
        rig.backup(tree)
    assert sum("gone on with" in each["event"] for each in logged) == 3
    rig.close()
