"""Two drives and one begun tape: whichever drive a job gets, no other tape is begun."""

from __future__ import annotations

from pathlib import Path

from catalog.lmdb_ledger import LmdbLedger
from catalog.records import VolumeState
from tests.sidecar.rig import make_home, running

#: A drive takes a job at random: that all get the one with the tape in it would be one in 2 ** 7.
JOBS = 8


def test_a_begun_tape_that_lies_idle_in_the_other_drive_is_used(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", drives=2)
    with running(home) as rig:
        used = set()
        for number in range(JOBS):
            assert rig.wait_job(rig.submit(f"job {number}"), "completed", "failed")["state"] == "completed"
            used |= {drive["name"] for drive in rig.unix("GET", "/api/v1/status").body["drives"] if drive["tape"]}
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        states = [volume.state for volume in ledger.volumes()]
        assert {label for each in ledger.backup_sets() for label in each.tapes} == {"TP0001L9"}
    assert states.count(VolumeState.BLANK) == 2
    # Else nothing was shown: the same drive had all jobs.
    assert used == {"drive0", "drive1"}


def test_a_tape_that_another_job_is_about_to_write_is_not_waited_for(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", drives=2)
    with running(home) as rig:
        assert rig.wait_job(rig.submit("first"), "completed", "failed")["state"] == "completed"
        # One drive hangs before it asks for a tape; the next job has the other drive, whichever has the tape.
        rig.submit("hang")
        rig.wait_progress(2)
        assert rig.wait_job(rig.submit("third"), "completed", "failed")["state"] == "completed"
