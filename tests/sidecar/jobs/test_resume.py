"""Going on with an interrupted run, over HTTP; what the mover does of it is tested in tests/backup."""

from __future__ import annotations

from pathlib import Path

from catalog.lmdb_ledger import LmdbLedger
from tests.sidecar.rig import make_home, running


def test_a_failed_run_is_queued_with_its_set(tmp_path: Path) -> None:
    """The mover is told the same job, which still has its set; a cancelled one likewise."""
    home = make_home(tmp_path / "home")
    with running(home) as rig:
        failed = rig.submit("fail")
        set_id = rig.wait_job(failed, "failed")["set_id"]
        assert set_id
        answer = rig.unix("POST", f"/api/v1/jobs/{failed}/resume")
        assert (answer.status, answer.body["set_id"], answer.body["runs"]) == (202, set_id, 1)
        rig.wait_job(failed, "failed")
        assert [each["job"] for each in rig.commands("Backup")] == [failed, failed]
        hanging = rig.submit("hang")
        rig.wait_progress(hanging)
        assert rig.unix("POST", f"/api/v1/jobs/{hanging}/resume").status == 409
        rig.unix("POST", f"/api/v1/jobs/{hanging}/cancel")
        rig.wait_job(hanging, "cancelled")
        assert rig.unix("POST", f"/api/v1/jobs/{hanging}/resume").status == 202


def test_it_survives_the_end_of_the_sidecar(tmp_path: Path) -> None:
    """A job that waits to go on is still that when the sidecar comes back."""
    home = make_home(tmp_path / "home")
    with running(home) as rig:
        failed = rig.submit("fail")
        rig.wait_job(failed, "failed")
        hanging = rig.submit("hang")
        rig.wait_progress(hanging)
        rig.unix("POST", f"/api/v1/jobs/{failed}/resume")
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        job = ledger.jobs()[0]
        assert (job.state.value, job.resume, job.set_id is not None) == ("queued", True, True)


def test_nothing_to_resume(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with running(home) as rig:
        done = rig.submit("docs")
        rig.wait_job(done, "completed")
        assert rig.unix("POST", f"/api/v1/jobs/{done}/resume").status == 409
        assert rig.unix("POST", "/api/v1/jobs/999/resume").status == 404
