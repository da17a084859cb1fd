"""Drives that fail while they work: what they did goes on with another drive, or waits for one."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from catalog.lmdb_ledger import LmdbLedger
from catalog.records import SetState
from tapefs.home import Home
from tests.sidecar.rig import Rig, make_home, running, seed_set, set_states, wait_until, waiter


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


@pytest.fixture
def two(tmp_path: Path) -> Home:
    """A library of two drives."""
    return make_home(tmp_path / "two", drives=2)


def fail_once(home: Home, *commands: str) -> None:
    (home.path / "first-fails").write_text(" ".join(commands))


def failures(rig: Rig) -> dict[str, Any]:
    drives = rig.unix("GET", "/api/v1/status").body["drives"]
    return {drive["name"]: drive["failure"] for drive in drives if drive["failure"] is not None}


def test_a_run_goes_on_with_the_other_drive(two: Home) -> None:
    """At once, with its set and with another tape; the drive that failed rests, and says why."""
    with running(two) as rig:
        rig.wait_job(rig.submit("first"), "completed")  # A tape with room is in one drive or a slot.
        fail_once(two, "Backup")
        job = rig.wait_job(rig.submit("home"), "completed")
        assert (job["runs"], job["error"]) == (1, None)
        (move,) = job["moves"]
        assert move["reason"] == f"{move['drive']}: it has a hardware fault"
        first, second = [command for command in rig.commands("Backup") if command["job"] == job["number"]]
        assert first["job"] == second["job"]
        (name,) = failures(rig)
        assert name == move["drive"]
        assert rig.unix("GET", "/health").body["status"] == "degraded"
    assert set_states(two) == [SetState.COMPLETE, SetState.COMPLETE]


def test_without_another_drive_it_waits(home: Home) -> None:
    """It stays queued and says for what; an operator has the drive tried again at once."""
    fail_once(home, "Backup")
    with running(home) as rig:
        number = rig.submit("home")
        wait_until(lambda: "drive0" in failures(rig), "the drive does not fail")
        job = rig.wait_job(number, "queued")
        assert job["waits_for"].startswith("for a drive that works: drive0 failed: drive0: it has a hardware fault")
        assert len(job["moves"]) == 1
        assert set_states(home) == [SetState.FAILED]
        assert rig.unix("POST", "/api/v1/drives/drive0/retry").status == 202
        job = rig.wait_job(number, "completed")
        assert (job["runs"], job["waits_for"]) == (1, None)
        assert failures(rig) == {}
        assert rig.unix("POST", "/api/v1/drives/drive0/retry").status == 409
        assert rig.unix("POST", "/api/v1/drives/drive9/retry").status == 404
    assert set_states(home) == [SetState.COMPLETE]


def test_who_waits_can_be_cancelled(home: Home) -> None:
    fail_once(home, "Backup")
    with running(home) as rig:
        number = rig.submit("home")
        wait_until(lambda: rig.job(number)["moves"], "the drive does not fail")
        rig.unix("POST", f"/api/v1/jobs/{number}/cancel")
        job = rig.wait_job(number, "cancelled")
        assert (job["waits_for"], job["error"]) == (None, "it was cancelled while it waited for a drive")
        assert rig.unix("POST", f"/api/v1/jobs/{number}/resume").body["moves"] == []


def test_it_waits_beyond_the_end_of_the_sidecar(home: Home) -> None:
    """A job that waits for a drive goes on when the sidecar is started again."""
    fail_once(home, "Backup")
    with running(home) as rig:
        number = rig.submit("home")
        wait_until(lambda: rig.job(number)["moves"], "the drive does not fail")
    with running(home) as rig:
        job = rig.wait_job(number, "completed")
        assert (len(job["moves"]), job["runs"]) == (1, 1)
    assert set_states(home) == [SetState.COMPLETE]


def test_a_run_leaves_only_so_many_drives(home: Home) -> None:
    (home.path / "drive0-fails").write_text("Backup")
    with running(home) as rig:
        number = rig.submit("home")
        for count in (1, 2, 3):
            wait_until(lambda: len(rig.job(number)["moves"]) == count, "it does not fail again")  # noqa: B023
            wait_until(lambda: "drive0" in failures(rig), "the drive does not rest")
            wait_until(lambda: rig.unix("POST", "/api/v1/drives/drive0/retry").status == 202, "it is not tried")
        job = rig.wait_job(number, "failed")
        assert job["error"].startswith("4 times a drive failed within the run: drive0: drive0: it has a hardware fault")
        assert len(rig.commands("Backup")) == 4
        (home.path / "drive0-fails").unlink()
        rig.unix("POST", "/api/v1/drives/drive0/retry")
        assert rig.unix("POST", f"/api/v1/jobs/{number}/resume").status == 202
        assert rig.wait_job(number, "completed")["moves"] == []


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_sidecar_killed_when_a_run_goes_back(home: Home, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run has failed, as when a sidecar is killed anywhere, or goes on by itself: never both, never neither."""
    fail_once(home, "Backup")
    with monkeypatch.context() as patch:
        patch.setenv("TAPEFS_CRASH_AT", f"ledger.requeue_job.{place}")
        with running(home) as rig:
            number = rig.submit("home")
            assert rig.process.wait(60) == -signal.SIGKILL
    with running(home) as rig:
        if place == "before":
            wait_until(lambda: rig.job(number)["tries"][0]["kind"] == "interrupted", "it is not known")
        job = rig.wait_job(number, "completed")
        assert len(job["moves"]) == (0 if place == "before" else 1)
        assert len(rig.commands("Backup")) == 2
    assert set_states(home) == [SetState.COMPLETE]
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        assert ledger.verify() == []


def test_two_killed_movers(two: Home) -> None:
    """The run goes from one drive to the other and back."""
    with running(two) as rig:
        number = rig.submit("hang")
        rig.wait_progress(number)
        for count in (2, 3):
            # Not the other one as well: the run may reach that before its end is noticed, and has one more move.
            os.kill(int((two.path / "backup.pid").read_text()), signal.SIGKILL)
            wait_until(lambda: rig.job(number)["trouble_count"] == 120 * count, "it does not go on")  # noqa: B023
        assert {move["drive"] for move in rig.job(number)["moves"]} == {"drive0", "drive1"}
        assert len(rig.job(number)["moves"]) == 2
        rig.unix("POST", f"/api/v1/jobs/{number}/cancel")
        rig.wait_job(number, "cancelled")


def mover_pids(rig: Rig) -> list[int]:
    children = Path(f"/proc/{rig.process.pid}/task/{rig.process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"tests.sidecar.fake_mover" in Path(f"/proc/{pid}/cmdline").read_bytes()]


# -- tapes -------------------------------------------------------------------------------------------------------------


def test_the_tape_is_taken_out_of_the_drive(two: Home) -> None:
    """What waits for it can have it; that it was there is noted with it until it is written to."""
    segment, _ = seed_set(two)
    fail_once(two, "Recall")
    with running(two) as rig, rig.arrivals() as lines:
        rig.unix("POST", "/api/v1/recalls", {"waiters": [waiter(segment, 0, 3)]})
        assert {next(lines)["first"] for _ in range(4)} == {0, 1, 2, 3}
        (name,) = failures(rig)
        assert failures(rig)[name]["stuck_tape"] is None
        with LmdbLedger.open(two.ledger, readonly=True) as ledger:
            (reason,) = [volume.reason for volume in ledger.volumes() if volume.reason]
        assert reason == f"was in {name} when that failed: {name}: it has a hardware fault"
        assert len(rig.commands("Recall")) == 2


def test_a_noted_tape_is_the_last_choice(home: Home) -> None:
    """Another is written while there is one; when there is none, it is, and the note is gone with the first commit."""
    with running(home) as rig:
        rig.wait_job(rig.submit("first"), "completed")
        fail_once(home, "Backup")
        rig.submit("second")
        wait_until(lambda: "drive0" in failures(rig), "the drive does not fail")
        wait_until(lambda: any(noted(home)), "nothing is noted")
        rig.unix("POST", "/api/v1/drives/drive0/retry")
        rig.wait_job(2, "completed")
        with LmdbLedger.open(home.ledger, readonly=True) as ledger:
            by_set = {backup_set.job_number: backup_set.tapes for backup_set in ledger.backup_sets()}
        assert noted(home) == list(by_set[1])
        assert set(by_set[1]).isdisjoint(by_set[2])


def noted(home: Home) -> list[str]:
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        return [volume.label for volume in ledger.volumes() if volume.reason]


def test_the_only_tape_is_idle_in_another_drive(tmp_path: Path) -> None:
    """Whichever drive runs the next job waits for it, and has it as soon as the other one is free."""
    with running(make_home(tmp_path / "one", tapes=1, drives=2)) as rig:
        for _ in range(4):
            rig.wait_job(rig.submit("ok"), "completed")
            busy = rig.submit("hang")
            wait_until(lambda: rig.job(busy)["state"] == "running", "it does not begin")  # noqa: B023
            other = rig.submit("ok")
            wait_until(lambda: rig.job(other)["state"] != "queued", "it does not begin")  # noqa: B023
            rig.unix("POST", f"/api/v1/jobs/{busy}/cancel")
            rig.wait_job(busy, "cancelled")
            assert rig.wait_job(other, "completed", "failed")["error"] is None


def test_a_tape_that_is_stuck(two: Home) -> None:
    """It is said, and another tape is written."""
    for name in ("drive0", "drive1"):
        (two.path / f"{name}-fails").write_text("Unload")
    fail_once(two, "Recall")
    segment, _ = seed_set(two)
    with running(two) as rig:
        rig.unix("POST", "/api/v1/recalls", {"waiters": [waiter(segment, 0, 3)]})
        wait_until(lambda: any(each["stuck_tape"] for each in failures(rig).values()), "nothing is stuck")
        (failure,) = failures(rig).values()
        assert f"tape {failure['stuck_tape']} is stuck in it" in failure["sentence"]
        (name,) = failures(rig)
        wait_until(
            lambda: "is stuck in it" in (two.drives / f"{name}.json").read_text(), "`tapefs drives` does not know"
        )
        rig.wait_job(rig.submit("home"), "completed")
        used = {rig.commands("VolumeReady")[0]["volume_id"]}
        with LmdbLedger.open(two.ledger, readonly=True) as ledger:
            assert failure["stuck_tape"] not in {ledger.volume(each).label for each in used}


def test_a_tape_in_a_drive_that_is_gone(two: Home) -> None:
    """Who waits for it is told where it is, though the other drive works; when the drive is back, it is read."""
    segment, _ = seed_set(two)
    (two.path / "fake.json").write_text('{"slow_s": 0.3}')
    with running(two) as rig, rig.arrivals() as lines:
        rig.unix("POST", "/api/v1/recalls", {"waiters": [waiter(segment, 0, 3)]})
        assert next(lines)["first"] == 0
        (name,) = [each["name"] for each in rig.unix("GET", "/api/v1/status").body["drives"] if each["tape"]]
        (two.path / f"{name}-gone").touch()
        for pid in mover_pids(rig):
            os.kill(pid, signal.SIGKILL)
        refused = next(line for line in lines if "error" in line)
        assert f"is stuck in {name}, which does not work" in refused["message"]
        (two.path / f"{name}-gone").unlink()
        assert rig.unix("POST", f"/api/v1/drives/{name}/retry").status == 202
        wait_until(lambda: name not in failures(rig), "the drive does not come back")
        rig.unix("POST", "/api/v1/recalls", {"waiters": [waiter(segment, 3, 3)]})
        assert next(line for line in lines if "error" not in line and line["first"] == 3)


def test_a_tape_that_fails_drives_is_left_alone(two: Home) -> None:
    """It is to blame rather than they: who waits for it is told."""
    for name in ("drive0", "drive1"):
        (two.path / f"{name}-fails").write_text("Load")
    segment, _ = seed_set(two)
    with running(two) as rig, rig.arrivals() as lines:
        rig.unix("POST", "/api/v1/recalls", {"waiters": [waiter(segment, 0, 0)]})
        line = next(lines)
        assert line["error"] == "offline"
        assert "hardware fault" in line["message"]
        assert len(rig.commands("Load")) == 2


def test_what_is_read_back_goes_on(two: Home) -> None:
    seed_set(two)
    fail_once(two, "Verify")
    with running(two) as rig:
        number = rig.unix("POST", "/api/v1/verify", {"all": True}).body["number"]
        wait_until(lambda: rig.unix("GET", f"/api/v1/verify/{number}").body["state"] != "running", "it does not end")
        view = rig.unix("GET", f"/api/v1/verify/{number}").body
        assert (view["state"], view["good"]) == ("completed", 2)
        assert len(rig.commands("Verify")) == 3
