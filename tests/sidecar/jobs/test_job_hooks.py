"""Hooks of jobs through a real socket: before a drive is taken, and behind the run; killed in the middle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog.lmdb_ledger import LmdbLedger
from tests.sidecar.rig import Rig, make_home, running, wait_until
from tests.sidecar.schedules.test_schedules import make_hooks

SOURCE = str(Path(__file__).parent)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = make_home(tmp_path_factory.mktemp("job-hooks") / "home")
    log = home.path / "hooks.log"
    words = "$TAPEFS_JOB_NAME $TAPEFS_ACTION $TAPEFS_OUTCOME"
    home = make_hooks(
        home,
        freeze=f'echo "freeze {words}." >>{log}',
        thaw=f'echo "thaw {words} $TAPEFS_ERROR" >>{log}; [ -z "$TAPEFS_SET" ] || echo has a set',
        fails="echo no room; exit 3",
        hangs="sleep 300",
        waits=f"echo >{log}.waits; while [ ! -e {log}.go ]; do sleep 0.05; done",
    )
    with running(home) as rig:
        yield rig


@pytest.fixture
def log(rig: Rig) -> Path:
    path = rig.home.path / "hooks.log"
    for name in ("hooks.log", "hooks.log.waits", "hooks.log.go"):
        (rig.home.path / name).unlink(missing_ok=True)
    return path


def make(rig: Rig, name: str, **fields: object) -> int:
    answer = rig.unix("POST", "/api/v1/jobs", {"name": name, "sources": [SOURCE]} | fields)
    assert answer.status == 202, answer
    return int(answer.body["number"])


def ended(rig: Rig, number: int, count: int) -> Any:
    """Wait for a job to end, and for so many hooks."""
    rig.wait_job(number, "completed", "failed", "cancelled")
    wait_until(lambda: len(rig.job(number)["hooks"]) == count, f"hooks are {rig.job(number)['hooks']}")
    return rig.job(number)


def test_before_and_behind(rig: Rig, log: Path) -> None:
    job = ended(rig, make(rig, "quick", hooks_before=["freeze"], hooks_after=["thaw"]), 2)
    assert (job["state"], job["hooks_before"], job["hooks_after"]) == ("completed", ["freeze"], ["thaw"])
    assert log.read_text() == "freeze quick backup .\nthaw quick backup completed \n"
    assert [(each["name"], each["is_after"], each["error"]) for each in job["hooks"]] == [
        ("freeze", False, None),
        ("thaw", True, None),
    ]
    assert job["hooks"][1]["output"] == "has a set\n"
    rig.unix("POST", f"/api/v1/jobs/{job['number']}/run")
    wait_until(lambda: rig.job(job["number"])["runs"] == 2, "no second run")
    ended(rig, job["number"], 2)
    assert log.read_text().count("freeze") == 2


def test_a_failing_hook_before_leaves_the_tape_alone(rig: Rig, log: Path) -> None:
    backups = len(rig.commands("backup"))
    job = ended(rig, make(rig, "quick", hooks_before=["fails", "freeze"], hooks_after=["thaw"], retries=3), 2)
    assert (job["state"], job["error"]) == ("failed", "hook fails: it ended with exit code 3")
    assert job["hooks"][0]["output"] == "no room\n"
    assert log.read_text() == "thaw quick backup failed hook fails: it ended with exit code 3\n"
    assert job["set_id"] is None
    assert len(rig.commands("backup")) == backups
    job = ended(rig, make(rig, "quick", hooks_before=["hangs"]), 1)
    assert job["error"] == "hook hangs: it has not ended within 2 s"


def test_a_hook_takes_no_drive(rig: Rig, log: Path) -> None:
    waiting = make(rig, "quick", hooks_before=["waits"], priority=100)
    wait_until((log.parent / "hooks.log.waits").exists, "the hook does not run")
    rig.wait_job(make(rig, "quick"), "completed")
    assert rig.job(waiting)["state"] == "queued"
    (log.parent / "hooks.log.go").touch()
    assert ended(rig, waiting, 1)["state"] == "completed"


def test_cancelled_while_a_hook_runs(rig: Rig, log: Path) -> None:
    number = make(rig, "quick", hooks_before=["waits"], hooks_after=["thaw"])
    wait_until((log.parent / "hooks.log.waits").exists, "the hook does not run")
    rig.unix("POST", f"/api/v1/jobs/{number}/cancel")
    job = ended(rig, number, 2)
    assert (job["state"], job["hooks"][0]["error"]) == ("cancelled", "it was given up")
    assert log.read_text().startswith("thaw quick backup cancelled")


def test_a_hook_behind_that_fails_is_told(rig: Rig, log: Path) -> None:
    job = ended(rig, make(rig, "quick", hooks_after=["fails"]), 1)
    assert (job["state"], job["hooks"][0]["error"]) == ("completed", "it ended with exit code 3")

    def told() -> list[Any]:
        notices = rig.unix("GET", "/api/v1/notices?limit=1000").body
        return [each for each in notices if each["kind"] == "hook.failed"]

    wait_until(lambda: bool(told()), "nobody is told")
    [notice] = told()
    assert (notice["subject"], notice["gravity"]) == (str(job["number"]), "alarm")
    assert notice["facts"]["error"] == "it ended with exit code 3"
    assert "The job itself is completed." in notice["text"]


def test_only_hooks_of_the_settings(rig: Rig) -> None:
    for field in ("hooks_before", "hooks_after"):
        answer = rig.unix("POST", "/api/v1/jobs", {"name": "x", "sources": [SOURCE], field: ["/bin/sh"]})
        assert answer.status == 422
        assert f"{field}: there is no hook /bin/sh" in answer.detail
    number = make(rig, "quick")
    rig.wait_job(number, "completed")
    assert rig.unix("PATCH", f"/api/v1/jobs/{number}", {"hooks_before": ["nowhere"]}).status == 422
    changed = rig.unix("PATCH", f"/api/v1/jobs/{number}", {"hooks_before": ["freeze", "freeze"]}).body
    assert changed["hooks_before"] == ["freeze"]


def test_killed_while_a_hook_runs(tmp_path: Path) -> None:
    """A hook before is not begun again, those behind are."""
    home = make_home(tmp_path / "home")
    log = home.path / "hooks.log"
    home = make_hooks(home, before=f"echo before >>{log}; sleep 300", after=f"echo after $TAPEFS_OUTCOME >>{log}")
    with running(home) as rig:
        number = make(rig, "quick", hooks_before=["before"], hooks_after=["after"])
        wait_until(log.exists, "the hook does not run")
        rig.process.kill()
        rig.process.wait()
    with running(home, "--until-idle") as rig:
        rig.process.wait(60)
    assert log.read_text() == "before\nafter failed\n"
    with LmdbLedger.open(home.ledger) as ledger:
        [job] = ledger.jobs()
        assert (job.number, job.runs, job.error) == (number, 1, "the sidecar ended while hooks ran before the run")
        assert [each.name for each in job.hooks] == ["after"]
        assert ledger.verify() == []
