"""A drive that is reset in the middle of a backup: the tape is checked, and the work goes on where it is committed."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from catalog.ids import VolumeId
from catalog.records import JobState, SetState, VolumeState
from drivers.errors import PositionLost
from drivers.virtual.faults import FaultyDrive, Reset
from tests.backup.rig import LocalWatcher, Rig
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
@pytest.mark.parametrize(("change", "barcode"), [(1, "TP0001L9"), (2, "TP0001L9"), (2, "TP0002L9")])
def test_a_reset_behind_the_complete_set(tmp_path: Path, change: int, barcode: str) -> None:
    """While the first tape is read back, read for a copy, and while that is written: all is whole in the end."""
    tree = random_files(tmp_path / "tree", 6, 250_000)
    expected = snapshot(tree)
    fields = {"type": "archive", "verify": True, "copies": 2, "keep_sources": True}
    probe = rig_at(tmp_path / "probe")
    probe.backup(tree, **fields)
    end_block = probe.ledger.volume_by_label(barcode).end_block
    probe.close()
    strikes = 0
    for block in range(0, end_block, 3):
        rig = rig_at(tmp_path / str(block))
        rig.drive = faulty = LateFault(rig.drive, [])  # type: ignore[arg-type]
        rig.watcher = LateWatcher(rig, faulty, Reset(block=block, barcode=barcode), change)
        set_id = rig.backup(tree, **fields)
        strikes += faulty.struck
        (job,) = rig.ledger.jobs()
        assert job.state is JobState.COMPLETED
        assert rig.ledger.verify() == []
        copies = [rig.ledger.copies(segment.segment_id) for segment in rig.ledger.segments(set_id)]
        assert all(len(each) == 2 and all(copy.verified_at_ns for copy in each) for each in copies), f"block {block}"
        assert {volume.state for volume in rig.ledger.volumes()} == {VolumeState.APPENDABLE}
        assert snapshot(Path(f"{extract(rig, tmp_path / str(block) / 'out')}{tree}")) == expected, f"block {block}"
        rig.close()
    assert strikes >= 3


class LateFault(FaultyDrive):
    def arm(self, fault: Reset) -> None:
        self._faults, self._left = [fault], [fault.times]

    @property
    def struck(self) -> bool:
        return self._left == [0]


class LateWatcher(LocalWatcher):
    """Arms the fault when a tape is put in to be read for the nth time."""

    def __init__(self, rig: Rig, drive: LateFault, fault: Reset, change: int) -> None:
        super().__init__(rig.home, rig.ledger, drive)
        self._late, self._fault, self._left = drive, fault, change

    def this_volume(self, volume_id: VolumeId) -> None:
        self._left -= 1
        if not self._left:
            self._late.arm(self._fault)
        super().this_volume(volume_id)


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
