"""Whatever a drive says while a copy is read back: no damage is made up, none is passed over, the next try works."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.records import CopyState, SegmentCopy
from drivers.errors import DriveError
from tapefs.verify.copy import verify_copy
from tests.faults.sense_sweep import FAULTS, ScsiRig
from tests.faults.sweep import prepared
from tests.verify.conftest import Follower

READING = ("read", "locate", "space", "where?")


class ReadBack:
    """A copy on a tape that is loaded in a drive reached by SCSI."""

    def __init__(self, folder: Path) -> None:
        tree, self._home = prepared(folder)
        self.rig = ScsiRig.existing(self._home)
        set_id = self.rig.backup(tree)
        (self.copy, *_) = self.copies = [
            copy for segment in self.rig.ledger.segments(set_id) for copy in self.rig.ledger.copies(segment.segment_id)
        ]

    def verify(self) -> bool:
        """Read the copy back from the beginning of the tape; tell whether it is good."""
        self.rig.drive.rewind()
        return verify_copy(self.rig.home, self.rig.ledger, self.rig.drive, self.copy, Follower()).is_good

    def attempt(self) -> str:
        """Read the copy back; return "good", "damaged", or what the drive's error says."""
        try:
            return "good" if self.verify() else "damaged"
        except DriveError as error:
            return str(error)

    def state(self) -> SegmentCopy:
        return next(iter(self.rig.ledger.copies(self.copy.segment_id)))


@pytest.fixture
def tape(tmp_path: Path) -> Iterator[ReadBack]:
    tape = ReadBack(tmp_path)
    yield tape
    tape.rig.close()
    shutil.rmtree(tmp_path / "home")


@pytest.mark.log_warnings
def test_a_drive_says_something_bad_while_reading_back(tape: ReadBack) -> None:
    way = tape.rig.way
    way.phases.clear()
    assert tape.verify()
    phases = [each for each in way.phases if each.split(" ")[0] in READING]
    cases = [(fault, phase) for fault in FAULTS for phase in phases if phase.split(" ")[0] in fault.to.values()]
    outcomes = set()
    for fault, phase in cases:
        before = tape.state()
        way.arm(fault, phase)
        outcome = tape.attempt()
        way.disarm()
        outcomes.add(outcome if outcome in ("good", "damaged") else "failed")
        if outcome in ("good", "damaged"):
            # Only what says that a block cannot be read, or is not there, is damage.
            assert outcome == "good" or fault.codes[0] in (0x3, 0x8), (fault, phase)
            assert tape.state().state is (CopyState.GOOD if outcome == "good" else CopyState.DAMAGED)
        else:
            assert "[sense" in outcome, (fault, phase)
            # Nobody knows more of the copy than before.
            assert tape.state() == before, (fault, phase)
            tape.rig.drive.load()
        assert tape.verify(), (fault, phase)
        assert tape.state().state is CopyState.GOOD
    assert outcomes == {"good", "damaged", "failed"}
    assert len(cases) > 30
