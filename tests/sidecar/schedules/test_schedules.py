"""Schedules through a real socket: made, changed, run, stopped, killed in the middle of each step."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from catalog.lmdb_ledger import LmdbLedger
from catalog.schedule_records import Once
from tapefs.home import Home, open_home
from tests.sidecar.rig import Rig, make_home, running, seed_set, wait_until

URL = "/api/v1/schedules"
YEARLY = {"kind": "yearly", "month": 1, "day": 1}


def make_hooks(home: Home, **scripts: str) -> Home:
    """Shell scripts as hooks; they append to HOME/hooks.log."""
    lines = []
    for name, text in scripts.items():
        script = home.path / f"{name}.sh"
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        lines += [f"[hooks.{name}]", f'argv = ["{script}", "with one argument"]', "timeout_s = 2.0"]
    settings = home.path / "tapefs.toml"
    settings.write_text(settings.read_text() + "\n" + "\n".join(lines) + "\n")
    return open_home(home.path)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = make_home(tmp_path_factory.mktemp("schedules") / "home")
    log = home.path / "hooks.log"
    home = make_hooks(
        home,
        before=f'echo "before $1 $TAPEFS_SCHEDULE $TAPEFS_ACTION $TAPEFS_OUTCOME." >>{log}',
        after=f'echo "after $TAPEFS_OUTCOME $TAPEFS_JOB $TAPEFS_ERROR" >>{log}; env',
        fails="echo no room; exit 3",
        hangs=f"sleep 301 & echo $! >{log}.pid; sleep 302",
    )
    seed_set(home, "seeded")
    with running(home, listen=True) as rig:
        yield rig


def make(rig: Rig, **fields: object) -> Any:
    usual: dict[str, object] = {"name": "s", "rule": YEARLY, "zone": "Europe/Berlin", "action": {"kind": "retention"}}
    answer = rig.unix("POST", URL, usual | fields)
    assert answer.status == 201, answer
    return answer.body


def template(rig: Rig, name: str) -> int:
    body = {"name": name, "sources": [str(Path(__file__).parent)], "run": False}
    return int(rig.unix("POST", "/api/v1/jobs", body).body["number"])


def newest(rig: Rig, number: int) -> Any:
    runs = rig.unix("GET", f"{URL}/{number}/runs").body
    return runs[0] if runs else {"state": "none"}


def wait_run(rig: Rig, number: int, *states: str) -> Any:
    wait_until(lambda: newest(rig, number)["state"] in states, f"run is {newest(rig, number)}")
    return newest(rig, number)


ENDED = ("completed", "failed", "cancelled", "skipped")


def run(rig: Rig, number: int) -> Any:
    answer = rig.unix("POST", f"{URL}/{number}/run")
    assert answer.status == 202, answer
    return wait_run(rig, number, *ENDED)


def once(at: datetime) -> dict[str, Any]:
    date = {"kind": "once", "date": f"{at:%Y-%m-%d}", "time": f"{at:%H:%M:%S}"}
    return {"rule": date, "zone": "UTC"}


def make_soon(rig: Rig, **fields: object) -> Any:
    """A schedule for the next seconds; for later ones where the machine is so busy that these have passed."""
    for seconds in (2, 4, 8, 16, 32):
        body = {"name": "s", "action": {"kind": "retention"}, **once(datetime.now(UTC) + timedelta(seconds=seconds))}
        made = make(rig, **(body | fields))
        if made["state"] != "over" or newest(rig, made["number"])["state"] != "none":
            return made
        assert rig.unix("DELETE", f"{URL}/{made['number']}").status == 204
    raise AssertionError(made)


def test_a_schedule_is_made_shown_changed_and_forgotten(rig: Rig) -> None:
    made = make(
        rig,
        name="nightly",
        rule={"kind": "cron", "expression": "30 2 * * *"},
        blackouts=[{"begins": "22:00", "ends": "06:00", "days": [0]}],
        tags=["x"],
    )
    path = f"{URL}/{made['number']}"
    assert rig.unix("GET", path).body == made
    assert made in rig.unix("GET", f"{URL}?limit=1000").body
    assert (made["state"], made["missed"], made["overlap"], made["enabled"]) == ("waiting", "once", "skip", True)
    assert made["when"] == "cron 30 2 * * *"
    assert made["what"] == "tells which sets may go"
    changed = rig.unix("PATCH", path, {"rule": {"kind": "calendar", "expression": "*-*-* 02:30"}, "jitter_s": 9}).body
    assert changed["rule"] == {"kind": "calendar", "expression": "*-*-* 02:30"}
    assert "left out" in changed["remark"]
    assert changed["name"] == "nightly"
    to_come = rig.unix("GET", f"{path}/next?count=20").body
    assert len(to_come) == 20
    mondays = [each for each in to_come if each["begins_at"][11:13] == "06"]
    assert len(mondays) in (2, 3)
    assert rig.unix("POST", f"{path}/disable").body["state"] == "disabled"
    assert rig.unix("POST", f"{path}/enable").body["state"] == "waiting"
    assert rig.unix("DELETE", path).status == 204
    assert rig.unix("DELETE", path).status == 204
    for method, tail in (
        ("GET", ""),
        ("PATCH", ""),
        ("POST", "/run"),
        ("POST", "/stop"),
        ("GET", "/runs"),
        ("GET", "/next"),
    ):
        assert rig.unix(method, path + tail, {} if method == "PATCH" else None).status == 404, tail


BAD: list[tuple[dict[str, object], str]] = [
    ({"rule": {"kind": "cron", "expression": "* * *"}}, "rule: "),
    ({"rule": {"kind": "calendar", "expression": "never"}}, "rule: "),
    ({"rule": {"kind": "once", "date": "2001-01-01"}}, "rule: "),
    ({"rule": {"kind": "fortnightly"}}, "rule"),
    ({"rule": {"kind": "daily", "time": "24:00"}}, "rule.time"),
    ({"rule": {"kind": "daily", "at": "02:00"}}, "rule.at: there is no such field"),
    ({"zone": "Mars/Olympus"}, "zone: "),
    ({"action": {"kind": "shell", "command": "true"}}, "action"),
    ({"action": {"kind": "expire", "all": True}}, "action.all"),
    ({"action": {"kind": "restore", "name": "x", "target": "relative"}}, "action.target"),
    ({"before": ["unknown"]}, "before: there is no hook unknown"),
    ({"after": ["after", "after"]}, "after: names a hook twice"),
    ({"before": [["/bin/sh", "-c", "true"]]}, "before"),
    ({"name": "a/b"}, "name: "),
    ({"missed": "maybe"}, "missed"),
    ({"blackouts": [{"begins": "00:00", "ends": "00:00"}]}, "blackouts: "),
    ({"blackouts": [{"begins": "00:00", "ends": "01:00", "on": 3}]}, "blackouts.0.on"),
    ({"rule": {"kind": "interval", "every": 5, "unit": "minutes"}, "jitter_s": 600}, "jitter_s: "),
    ({"argv": ["/bin/true"]}, "argv"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_what_makes_no_sense_is_refused(rig: Rig, fields: dict[str, object], message: str) -> None:
    usual = {"name": "s", "rule": YEARLY, "action": {"kind": "retention"}}
    before = rig.unix("GET", f"{URL}?limit=1000").body
    answer = rig.unix("POST", URL, usual | fields)
    assert answer.status == 422, answer
    assert message in str(answer.detail)
    assert rig.unix("GET", f"{URL}?limit=1000").body == before


def test_jobs_tapes_and_pools_must_be_there(rig: Rig) -> None:
    for action in (
        {"kind": "backup", "job": 99_999},
        {"kind": "verify", "tapes": ["NOWHERE"]},
        {"kind": "reclaim", "pool": "nowhere"},
    ):
        assert rig.unix("POST", URL, {"name": "s", "rule": YEARLY, "action": action}).status == 404, action


def test_a_backup_runs_with_its_hooks(rig: Rig) -> None:
    log = rig.home.path / "hooks.log"
    log.unlink(missing_ok=True)
    job = template(rig, "quick")
    made = make(rig, name="nightly docs", action={"kind": "backup", "job": job}, before=["before"], after=["after"])
    done = run(rig, made["number"])
    assert (done["state"], done["job"], done["by_hand"], done["error"]) == ("completed", job, True, None), done
    assert rig.job(job)["state"] == "completed"
    assert log.read_text() == f"before with one argument nightly docs backup .\nafter completed {job} \n"
    environment = done["hooks"][1]["output"].splitlines()
    assert {line.partition("=")[0] for line in environment} >= {"PATH", "TAPEFS_SET", "TAPEFS_RUN", "TAPEFS_HOME"}
    assert not any("TOKEN" in line or "READY_FD" in line or line.startswith("USER=") for line in environment)
    shown = rig.unix("GET", f"{URL}/{made['number']}").body["statistics"]
    assert (shown["runs"], shown["successes"], shown["failures"], shown["last_error"]) == (1, 1, 0, None)
    assert shown["average_s"] > 0
    assert rig.unix("DELETE", f"/api/v1/jobs/{job}").status == 409


def test_a_failing_hook_before_stops_the_job(rig: Rig) -> None:
    log = rig.home.path / "hooks.log"
    log.unlink(missing_ok=True)
    job = template(rig, "never")
    made = make(rig, action={"kind": "backup", "job": job}, before=["fails", "before"], after=["after"])
    done = run(rig, made["number"])
    assert (done["state"], done["error"]) == ("failed", "hook fails: it ended with exit code 3")
    assert [(hook["name"], hook["output"] == "no room\n") for hook in done["hooks"]] == [
        ("fails", True),
        ("after", False),
    ]
    assert rig.job(job)["runs"] == 0
    assert log.read_text() == "after failed  hook fails: it ended with exit code 3\n"
    assert rig.unix("GET", f"{URL}/{made['number']}").body["statistics"]["failures"] == 1


def test_a_hook_that_hangs_is_killed_with_its_children(rig: Rig) -> None:
    made = make(rig, before=["hangs"])
    done = run(rig, made["number"])
    assert done["error"] == "hook hangs: it has not ended within 2 s"
    child = int((rig.home.path / "hooks.log.pid").read_text())
    wait_until(lambda: not Path(f"/proc/{child}").exists(), "the child of the hook lives")
    made = make(rig, after=["fails"])
    assert (run(rig, made["number"])["state"], newest(rig, made["number"])["result"][:2]) == ("failed", "0 ")


def test_what_is_due_runs_by_itself(rig: Rig) -> None:
    made = make_soon(rig)
    done = wait_run(rig, made["number"], *ENDED)
    assert (done["state"], done["by_hand"]) == ("completed", False)
    assert done["planned_at"] == done["due_at"]
    assert rig.unix("GET", f"{URL}/{made['number']}").body["state"] == "over"


def test_a_run_is_stopped_and_its_job_cancelled(rig: Rig) -> None:
    job = template(rig, "hang")
    made = make(rig, action={"kind": "backup", "job": job})
    assert rig.unix("POST", f"{URL}/{made['number']}/stop").status == 409
    rig.unix("POST", f"{URL}/{made['number']}/run")
    rig.wait_job(job, "running")
    assert rig.unix("POST", f"{URL}/{made['number']}/run").status == 409
    assert rig.unix("DELETE", f"{URL}/{made['number']}").status == 409
    assert rig.unix("POST", f"{URL}/{made['number']}/stop").status == 202
    assert wait_run(rig, made["number"], *ENDED)["state"] == "cancelled"
    assert rig.job(job)["state"] == "cancelled"


def test_the_older_run_makes_way(rig: Rig) -> None:
    job = template(rig, "hang")
    made = make(rig, action={"kind": "backup", "job": job}, overlap="cancel")
    number = made["number"]
    rig.unix("POST", f"{URL}/{number}/run")
    rig.wait_job(job, "running")
    rig.unix("POST", f"{URL}/{number}/run")
    wait_until(
        lambda: [each["state"] for each in rig.unix("GET", f"{URL}/{number}/runs").body] == ["running", "cancelled"],
        "no change",
    )
    rig.unix("POST", f"{URL}/{number}/stop")
    wait_run(rig, number, *ENDED)


def test_runs_queue_behind_a_job_that_somebody_else_runs(rig: Rig) -> None:
    job = template(rig, "hang")
    queueing = make(rig, action={"kind": "backup", "job": job}, overlap="queue")["number"]
    skipping = make(rig, action={"kind": "backup", "job": job})["number"]
    rig.unix("POST", f"/api/v1/jobs/{job}/run")
    rig.wait_job(job, "running")
    rig.unix("POST", f"{URL}/{queueing}/run")
    assert run(rig, skipping)["state"] == "skipped"
    assert newest(rig, queueing)["state"] == "waiting"
    rig.unix("POST", f"/api/v1/jobs/{job}/cancel")
    wait_run(rig, queueing, "running")
    assert rig.job(job)["runs"] == 2
    rig.unix("POST", f"{URL}/{queueing}/stop")
    wait_run(rig, queueing, *ENDED)


ACTIONS: list[tuple[dict[str, object], str, str]] = [
    ({"kind": "retention"}, "completed", "sets may go"),
    ({"kind": "expire"}, "completed", "sets have gone"),
    ({"kind": "verify", "sample": 1}, "completed", "copies of segments"),
    ({"kind": "cleaning"}, "completed", "no drive asks"),
    ({"kind": "cleaning", "drives": ["nowhere"]}, "failed", "there is no drive nowhere"),
    ({"kind": "reclaim", "pool": "default"}, "completed", "no tape of pool default"),
    ({"kind": "restore", "name": "nothing of that name", "target": "/tmp/x"}, "failed", "there is no complete set"),
]


@pytest.mark.parametrize(("action", "state", "words"), ACTIONS)
def test_actions(rig: Rig, action: dict[str, object], state: str, words: str) -> None:
    done = run(rig, make(rig, action=action)["number"])
    assert done["state"] == state, done
    assert words in f"{done['result']} {done['error']}"


def test_copies_of_the_catalog_go_to_a_folder(rig: Rig, tmp_path: Path) -> None:
    old = [tmp_path / f"catalog-2001010{day}T000000Z.tar.zst" for day in (1, 2)]
    for file in (*old, tmp_path / "catalog-of-mine.tar.zst"):
        file.write_bytes(b"")
    number = make(rig, action={"kind": "catalog", "folder": str(tmp_path), "keep": 2})["number"]
    done = run(rig, number)
    assert done["state"] == "completed", done
    assert not old[0].exists()
    assert old[1].exists()
    assert len(list(tmp_path.iterdir())) == 3
    assert [each["text"] for each in told(rig, "catalog.copied")][-1].startswith(
        f"the catalog was copied to {tmp_path}"
    )
    missing = rig.unix("PATCH", f"{URL}/{number}", {"action": {"kind": "catalog", "folder": "/nonexistent"}})
    assert missing.status == 200
    assert run(rig, number)["state"] == "failed"
    assert told(rig, "schedule.failed")[-1]["facts"]["schedule"] == number


def test_restores_are_told_of(rig: Rig, tmp_path: Path) -> None:
    """What the set holds is not on the tapes of this library: the restore begins, and fails."""
    for name, kinds in (("nowhere", {"restore.failed"}), ("seeded", {"restore.started", "restore.failed"})):
        made = make(rig, action={"kind": "restore", "name": name, "target": str(tmp_path / name)})
        assert run(rig, made["number"])["state"] == "failed"
        assert {each["kind"] for each in told(rig, "restore.") if each["subject"] == name} == kinds
    assert not [each for each in told(rig, "schedule.failed") if each["facts"]["schedule"] == made["number"]]


def told(rig: Rig, kind: str) -> list[Any]:
    """Return the notices whose kind begins so, oldest first."""
    with LmdbLedger.open(rig.home.ledger) as ledger:
        found = [msgspec.to_builtins(each) for each in ledger.notices_since(0, 10_000)]
    return [each for each in found if each["kind"].startswith(kind)]


# -- killed ----------------------------------------------------------------------------------------------------------


@contextmanager
def killed(home: Home, point: str, act: Any) -> Iterator[None]:
    """A sidecar that kills itself at a point of the ledger."""
    os.environ["TAPEFS_CRASH_AT"] = point
    try:
        with running(home) as rig:
            act(rig)
            rig.process.wait(60)
    finally:
        del os.environ["TAPEFS_CRASH_AT"]
    yield


POINTS = [
    "ledger.plan_schedule_runs.before",
    "ledger.change_schedule_run.after",
    "ledger.queue_scheduled_job.before",
    "ledger.queue_scheduled_job.after",
]


@pytest.mark.parametrize("point", POINTS)
def test_a_sidecar_that_is_killed_forgets_nothing_and_runs_nothing_twice(tmp_path: Path, point: str) -> None:
    """Killed around every step of a run that is due, and started again."""
    home = make_home(tmp_path / "home")
    numbers: list[int] = []

    def act(rig: Rig) -> None:
        numbers.append(template(rig, "quick"))
        numbers.append(make_soon(rig, action={"kind": "backup", "job": numbers[0]})["number"])

    with killed(home, point, act), running(home) as rig:
        job, number = numbers
        done = wait_run(rig, number, *ENDED)
        assert (done["state"], done["job"]) == ("completed", job), done
        time.sleep(0.2)
        assert len(rig.unix("GET", f"{URL}/{number}/runs").body) == 1
        assert rig.job(job)["runs"] == 1
        assert rig.unix("GET", f"{URL}/{number}").body["statistics"]["runs"] == 1
    with LmdbLedger.open(home.ledger) as ledger:
        assert ledger.verify() == []


def test_a_hook_that_was_interrupted_is_not_run_again_but_those_behind_are(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    log = home.path / "hooks.log"
    home = make_hooks(home, before=f"echo before >>{log}; sleep 300", after=f"echo after $TAPEFS_OUTCOME >>{log}")
    with running(home) as rig:
        job = template(rig, "quick")
        number = make(rig, action={"kind": "backup", "job": job}, before=["before"], after=["after"])["number"]
        rig.unix("POST", f"{URL}/{number}/run")
        wait_until(log.exists, "the hook does not run")
        rig.process.kill()
        rig.process.wait()
    with running(home) as rig:
        done = wait_run(rig, number, *ENDED)
        assert (done["state"], done["error"]) == ("failed", "the sidecar ended while hooks ran before it")
        assert rig.job(job)["runs"] == 0
    assert log.read_text() == "before\nafter failed\n"


def test_a_sidecar_that_ends_by_itself_runs_no_schedules(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with running(home) as rig:
        number = make(rig)["number"]
    with LmdbLedger.open(home.ledger) as ledger:
        known, now_ns = ledger.schedule(number), time.time_ns()
        at = datetime.now(UTC) - timedelta(seconds=2)
        due = Once(date=f"{at:%Y-%m-%d}", time=f"{at:%H:%M:%S}")
        course = replace(known.course, decided_ns=now_ns - 10 * 10**9)
        missed = replace(known, rule=due, zone="UTC", course=course)
        ledger.put_schedule(known, missed, now_ns)
    with running(home, "--until-idle") as rig:
        assert rig.unix("POST", f"{URL}/{number}/run").status == 409
        assert newest(rig, number)["state"] == "none"
        rig.process.wait(60)
