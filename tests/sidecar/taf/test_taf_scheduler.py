"""TAF's scheduler group through a real socket: what its clients send, and what they must not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sidecar.rig import Answer, Rig, make_home, running, seed_set, wait_until

URL = "/api/scheduler/tasks"
SOURCE = str(Path(__file__).parent)
#: TAF's, and which task it backs up.
FIELDS = {
    "id", "task_name", "description", "schedule_type", "schedule_config", "action_type", "action_config", "status",
    "enabled", "next_run_time", "last_run_time", "last_success_time", "last_failure_time", "total_runs", "success_runs",
    "failure_runs", "average_duration", "last_error", "tags", "task_metadata", "created_at", "updated_at",
    "backup_task_id",
}  # fmt: skip


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = make_home(tmp_path_factory.mktemp("scheduler") / "home")
    seed_set(home, "seeded")
    zone = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    try:
        with running(home) as rig:
            yield rig
    finally:
        os.environ.pop("TZ") if zone is None else os.environ.update(TZ=zone)


def ask(rig: Rig, **fields: object) -> Answer:
    usual: dict[str, object] = {
        "task_name": "bk1",
        "schedule_type": "daily",
        "schedule_config": {"time": "02:00:00"},
        "action_type": "retention_check",
    }
    return rig.unix("POST", URL, usual | fields)


def make(rig: Rig, **fields: object) -> Any:
    answer = ask(rig, **fields)
    assert answer.status == 200, answer
    return answer.body


def backup(rig: Rig, name: str = "quick", **config: object) -> Any:
    return make(
        rig,
        task_name=name,
        action_type="backup",
        action_config={"source_paths": [SOURCE], "task_type": "full"} | config,
    )


def show(rig: Rig, number: int) -> Any:
    return rig.unix("GET", f"{URL}/{number}").body


def logs(rig: Rig, number: int) -> Any:
    return rig.unix("GET", f"{URL}/{number}/logs").body["logs"]


def wait_log(rig: Rig, number: int, *states: str) -> Any:
    wait_until(lambda: bool(found := logs(rig, number)) and found[0]["status"] in states, f"logs {logs(rig, number)}")
    return logs(rig, number)[0]


def test_a_task_with_tafs_fields(rig: Rig) -> None:
    made = make(
        rig,
        description="every night",
        action_type="backup",
        action_config={
            "source_paths": [SOURCE],
            "task_type": "incremental",
            "exclude_patterns": ["*.tmp"],
            "retention_days": 30,
            "tape_device": "/dev/nst0",
            "volume_label": "X",
            "backup_target": "tape",
            "enable_simple_scan": True,
        },
        tags=["x"],
        task_metadata={"colour": ["red", 1]},
    )
    assert set(made) == FIELDS
    assert (made["task_name"], made["status"], made["enabled"], made["description"]) == (
        "bk1", "active", True, "every night",
    )  # fmt: skip
    assert (made["schedule_type"], made["schedule_config"]) == ("daily", {"time": "02:00:00"})
    assert made["action_type"] == "backup"
    assert made["action_config"] == {
        "source_paths": [SOURCE],
        "task_type": "incremental",
        "exclude_patterns": ["*.tmp"],
        "compression_enabled": True,
        "retention_days": 30,
        "description": "every night",
    }
    assert (made["tags"], made["task_metadata"]) == (["x"], {"colour": ["red", 1]})
    assert "T02:00:00" in made["next_run_time"]
    assert made["next_run_time"][-6:] in ("+01:00", "+02:00")
    assert (made["total_runs"], made["average_duration"], made["last_error"]) == (0, None, None)
    job = rig.job(made["backup_task_id"])
    assert (job["name"], job["type"], job["runs"]) == ("bk1", "incremental", 0)
    assert show(rig, made["id"]) == made
    assert made in rig.unix("GET", URL).body
    assert rig.unix("GET", f"/api/v1/schedules/{made['id']}").body["zone"] == "Europe/Berlin"


RULES: list[tuple[str, dict[str, object], dict[str, object]]] = [
    ("once", {"datetime": "2099-12-24T18:00:00"}, {"kind": "once", "date": "2099-12-24", "time": "18:00:00"}),
    ("once", {"datetime": "2099-12-24 18:00"}, {"kind": "once", "date": "2099-12-24", "time": "18:00:00"}),
    ("once", {"datetime": "2099-12-24T18:00:00Z"}, {"kind": "once", "date": "2099-12-24", "time": "19:00:00"}),
    ("interval", {"interval": 6, "unit": "hours"}, {"kind": "interval", "every": 6, "unit": "hours"}),
    ("daily", {"time": "02:30"}, {"kind": "daily", "time": "02:30"}),
    ("weekly", {"day_of_week": 0, "time": "02:30"}, {"kind": "weekly", "days": [0], "time": "02:30"}),
    ("monthly", {"day_of_month": 31, "time": "02:30"}, {"kind": "monthly", "day": 31, "time": "02:30"}),
    ("yearly", {"month": 12, "day": 31, "time": "02:30"}, {"kind": "yearly", "month": 12, "day": 31, "time": "02:30"}),
    ("cron", {"cron": "30 2 * * 1-5"}, {"kind": "cron", "expression": "30 2 * * 1-5"}),
    ("calendar", {"calendar": "Mon 18:00"}, {"kind": "calendar", "expression": "Mon 18:00"}),
    ("WEEKLY", {"days_of_week": [0, 3], "time": "02:30"}, {"kind": "weekly", "days": [0, 3], "time": "02:30"}),
]


@pytest.mark.parametrize(("kind", "config", "rule"), RULES)
def test_when(rig: Rig, kind: str, config: dict[str, object], rule: dict[str, object]) -> None:
    made = make(rig, schedule_type=kind, schedule_config=config)
    ours = rig.unix("GET", f"/api/v1/schedules/{made['id']}").body
    ours["rule"].pop("anchor_ns", None)
    assert ours["rule"] == rule
    again = {"schedule_type": made["schedule_type"], "schedule_config": made["schedule_config"]}
    changed = rig.unix("PUT", f"{URL}/{made['id']}", again)
    assert changed.body == made, "what is shown may be given back"


def test_another_zone_is_told_and_taken(rig: Rig) -> None:
    made = make(rig, schedule_config={"time": "02:00", "zone": "Asia/Tokyo"})
    assert made["schedule_config"] == {"time": "02:00", "zone": "Asia/Tokyo"}
    answer = rig.unix("PUT", f"{URL}/{made['id']}", {"schedule_config": {"time": "03:00"}})
    assert answer.body["schedule_config"] == {"time": "03:00"}


BAD: list[tuple[dict[str, object], list[object], str]] = [
    ({"task_name": "a/b"}, ["task_name"], "no slash"),
    ({"task_name": None}, ["task_name"], "Expected"),
    ({"schedule_type": "fortnightly"}, ["schedule_type"], "must be one of once"),
    ({"schedule_config": {}}, ["schedule_config", "time"], "Field required"),
    ({"schedule_config": {"time": "25:00"}}, ["schedule_config", "time"], "regex"),
    ({"schedule_config": {"time": 2}}, ["schedule_config", "time"], "Expected"),
    ({"schedule_config": {"time": "02:00", "hour": 2}}, ["schedule_config"], "unknown field `hour`"),
    ({"schedule_config": {"time": "02:00", "zone": "Mars/Olympus"}}, ["schedule_config", "zone"], "no time zone"),
    ({"schedule_type": "weekly"}, ["schedule_config", "day_of_week"], "Field required"),
    (
        {"schedule_type": "weekly", "schedule_config": {"day_of_week": 7, "time": "02:00"}},
        ["schedule_config", "day_of_week"],
        "<= 6",
    ),
    (
        {"schedule_type": "interval", "schedule_config": {"interval": 0, "unit": "days"}},
        ["schedule_config", "interval"],
        ">= 1",
    ),
    (
        {"schedule_type": "interval", "schedule_config": {"interval": 1, "unit": "weeks"}},
        ["schedule_config", "unit"],
        "minutes|hours|days",
    ),
    ({"schedule_type": "once", "schedule_config": {"datetime": "soon"}}, ["schedule_config", "datetime"], "ISO 8601"),
    (
        {"schedule_type": "once", "schedule_config": {"datetime": "2001-01-01T00:00"}},
        ["schedule_config"],
        "nothing to come",
    ),
    ({"schedule_type": "cron", "schedule_config": {"cron": "* *"}}, ["schedule_config"], "five fields"),
    ({"action_type": "custom", "action_config": {"command": "true"}}, ["action_type"], "not run over HTTP"),
    ({"action_type": "shell"}, ["action_type"], "must be one of backup"),
    ({"action_config": {"days": 3}}, ["action_config", "days"], "no such field"),
    ({"backup_task_id": 1}, ["backup_task_id"], "only the action backup"),
    ({"action_type": "backup"}, ["action_config", "source_paths"], "Field required"),
    (
        {"action_type": "backup", "action_config": {"source_paths": ["relative"]}},
        ["action_config", "source_paths", 0],
        "absolute",
    ),
    (
        {"action_type": "backup", "action_config": {"source_paths": [SOURCE], "task_type": "mirror"}},
        ["action_config", "task_type"],
        "must be one of",
    ),
    ({"action_type": "backup", "action_config": {"source_paths": SOURCE}}, ["action_config", "source_paths"], "array"),
    (
        {"action_type": "recovery", "action_config": {"target_path": "/tmp/x"}},
        ["action_config", "backup_set_id"],
        "name one set",
    ),
    (
        {"action_type": "recovery", "action_config": {"target_path": "x", "set_name": "seeded"}},
        ["action_config", "target_path"],
        "regex",
    ),
    ({"tags": "x"}, ["tags"], "array"),
    ({"enabled": "yes"}, ["enabled"], "bool"),
]


@pytest.mark.parametrize(("fields", "place", "words"), BAD)
def test_what_makes_no_sense_is_refused(rig: Rig, fields: dict[str, object], place: list[object], words: str) -> None:
    before = rig.unix("GET", URL).body, rig.unix("GET", "/api/v1/jobs?limit=1000").body
    answer = ask(rig, **fields)
    assert answer.status == 422, answer
    [problem] = answer.detail
    assert problem["loc"] == ["body", *place]
    assert words in problem["msg"]
    assert (rig.unix("GET", URL).body, rig.unix("GET", "/api/v1/jobs?limit=1000").body) == before


def test_what_is_not_there(rig: Rig) -> None:
    for method, tail in (
        ("GET", ""), ("PUT", ""), ("DELETE", ""), ("POST", "/run"), ("POST", "/stop"), ("POST", "/enable"),
        ("POST", "/disable"), ("POST", "/unlock"), ("GET", "/logs"),
    ):  # fmt: skip
        answer = rig.unix(method, f"{URL}/99999{tail}", {} if method == "PUT" else None)
        assert answer.status == 404, tail
        assert "99999" in answer.detail
    for config in ({"source_paths": ["/nonexistent"]}, {}):
        number = None if config else 99_999
        assert ask(rig, action_type="backup", action_config=config, backup_task_id=number).status == 404
    recovery = {"target_path": "/tmp/x", "backup_set_id": 99_999}
    assert ask(rig, action_type="recovery", action_config=recovery).status == 404
    assert rig.unix("GET", f"{URL}/x").status == 422
    assert rig.unix("GET", f"{URL}?enabled_only=maybe").detail[0]["loc"] == ["query", "enabled_only"]
    task = make(rig)["id"]
    assert rig.unix("GET", f"{URL}/{task}/logs?limit=0").status == 422


ACTIONS: list[tuple[str, dict[str, object], str]] = [
    ("cleanup", {}, "sets have gone"),
    ("retention_check", {}, "sets may go"),
    ("verify", {"sample": 1}, "copies of segments"),
    ("cleaning", {}, "no drive asks"),
    ("reclaim", {"pool": "default", "below_percent": 5.0}, "no tape of pool"),
]


@pytest.mark.parametrize(("kind", "config", "words"), ACTIONS)
def test_actions(rig: Rig, kind: str, config: dict[str, object], words: str) -> None:
    made = make(rig, action_type=kind, action_config=config)
    assert made["action_type"] == kind
    assert made["action_config"].items() >= config.items()
    answer = rig.unix("POST", f"{URL}/{made['id']}/run")
    assert answer.body["run_options"] == {"mode": "auto", "force_rescan": False}
    done = wait_log(rig, made["id"], "success", "failed")
    assert (done["status"], done["error_message"]) == ("success", None)
    assert words in done["result"]["message"]
    assert ask(rig, action_type="health_check").status == 200


def test_a_set_is_restored(rig: Rig, tmp_path: Path) -> None:
    [row] = [each for each in rig.unix("GET", "/api/recovery/sets").body["backup_sets"] if each["set_name"] == "seeded"]
    config = {
        "backup_set_id": row["set_id"],
        "target_path": str(tmp_path),
        "files": [{"file_path": "/a", "file_size": 1}],
    }
    made = make(rig, action_type="recovery", action_config=config)
    assert made["action_config"] == config | {"files": [{"file_path": "/a"}], "overwrite": False}
    ours = rig.unix("GET", f"/api/v1/schedules/{made['id']}").body["action"]
    assert (ours["name"], ours["set_id"], ours["paths"]) == ("seeded", row["set_id"], ["/a"])
    by_number = make(rig, action_type="recovery", action_config=config | {"backup_set_id": row["id"]})
    assert by_number["action_config"]["backup_set_id"] == row["set_id"]


def test_a_backup_runs_and_is_told_of(rig: Rig) -> None:
    made = backup(rig)
    number, job = made["id"], made["backup_task_id"]
    answer = rig.unix("POST", f"{URL}/{number}/run", {"mode": "restart", "force_rescan": True})
    assert answer.body["success"] is True
    assert answer.body["run_options"] == {"mode": "restart", "force_rescan": True}
    done = wait_log(rig, number, "success", "failed", "cancelled")
    assert set(done) == {
        "id", "scheduled_task_id", "execution_id", "started_at", "completed_at", "duration", "status", "error_message",
        "result",
    }  # fmt: skip
    assert (done["status"], done["scheduled_task_id"]) == ("success", number)
    assert done["result"]["backup_task_id"] == job
    assert done["duration"] > 0
    task = show(rig, number)
    assert (task["total_runs"], task["success_runs"], task["failure_runs"]) == (1, 1, 0)
    assert task["last_success_time"] is not None
    assert isinstance(task["average_duration"], int)
    page = rig.unix("GET", f"{URL}/{number}/logs?limit=5&offset=1").body
    assert page == {"logs": [], "total": 1, "limit": 5, "offset": 1}
    assert rig.unix("GET", f"{URL}/{number}/logs").body["limit"] == 100
    assert rig.unix("POST", f"{URL}/{number}/run", {"mode": "sometimes"}).detail[0]["loc"] == ["body", "mode"]
    assert rig.unix("DELETE", f"{URL}/{number}").body["success"] is True
    assert rig.job(job)["runs"] == 1, "a task that has run stays"


def test_what_is_at_work_is_stopped(rig: Rig) -> None:
    number = backup(rig, "hang")["id"]
    assert rig.unix("POST", f"{URL}/{number}/stop").status == 409
    rig.unix("POST", f"{URL}/{number}/run")
    wait_log(rig, number, "running")
    assert show(rig, number)["status"] == "running"
    assert rig.unix("GET", "/api/scheduler/scheduler/status").body["running_executions"] == 1
    for method, tail in (("POST", "/run"), ("POST", "/unlock"), ("DELETE", "")):
        answer = rig.unix(method, f"{URL}/{number}{tail}")
        assert answer.status == 409, tail
        assert isinstance(answer.detail, str)
    assert "1 runs are at work" in rig.unix("POST", f"{URL}/unlock-all").body["message"]
    assert rig.unix("POST", f"{URL}/{number}/stop").body["success"] is True
    assert wait_log(rig, number, "success", "failed", "cancelled")["status"] == "cancelled"
    assert rig.unix("POST", f"{URL}/{number}/unlock").body["success"] is True


@pytest.mark.parametrize(("mode", "outcomes"), [("resume", ["running"]), ("auto", ["running"]), ("restart", None)])
def test_a_paused_backup_goes_on_or_begins_anew(rig: Rig, mode: str, outcomes: list[str] | None) -> None:
    made = backup(rig, "hang")
    number, job = made["id"], made["backup_task_id"]
    rig.unix("POST", "/api/v1/queue/pause")
    try:
        rig.unix("POST", f"{URL}/{number}/run")
        rig.wait_job(job, "queued")
        assert rig.unix("POST", f"/api/v1/jobs/{job}/pause").status < 300
        rig.wait_job(job, "paused")
        answer = rig.unix("POST", f"{URL}/{number}/run", {"mode": mode})
        assert answer.status == 200, answer
        rig.wait_job(job, "queued")
        states = [each["status"] for each in logs(rig, number)]
        assert states == (outcomes or ["running", "cancelled"])
    finally:
        rig.unix("POST", f"/api/v1/jobs/{job}/cancel")
        rig.unix("POST", "/api/v1/queue/resume")
    wait_log(rig, number, "cancelled")


def test_only_backups_go_on(rig: Rig) -> None:
    number = make(rig)["id"]
    answer = rig.unix("POST", f"{URL}/{number}/run", {"mode": "resume"})
    assert (answer.status, "only those go on" in answer.detail) == (409, True)


def test_a_task_is_changed(rig: Rig) -> None:
    made = backup(rig, "first")
    number, job = made["id"], made["backup_task_id"]
    path = f"{URL}/{number}"
    changed = rig.unix("PUT", path, {"action_config": {"retention_days": 7, "exclude_patterns": ["*.o"]}}).body
    assert changed["backup_task_id"] == job, "the task's own job is changed"
    assert (changed["action_config"]["retention_days"], changed["action_config"]["source_paths"]) == (7, [SOURCE])
    changed = rig.unix(
        "PUT",
        path,
        {"task_name": "second", "tags": [], "task_metadata": {"a": 1}, "enabled": False, "description": "d"},
    ).body
    assert (changed["task_name"], changed["task_metadata"], changed["status"]) == ("second", {"a": 1}, "inactive")
    assert changed["next_run_time"] is None
    assert changed["backup_task_id"] == job
    other = rig.submit("quick")
    changed = rig.unix("PUT", path, {"backup_task_id": other}).body
    assert changed["backup_task_id"] == other
    assert rig.unix("GET", f"/api/v1/jobs/{job}").status == 404, "nobody wants it, and it never ran"
    refused = rig.unix("PUT", path, {"backup_task_id": other, "action_config": {"retention_days": 12_345}})
    assert refused.status == 422
    changed = rig.unix("PUT", path, {"action_type": "cleanup"}).body
    assert (changed["action_type"], changed["action_config"], changed["backup_task_id"]) == (
        "cleanup", {"failed": False}, None,
    )  # fmt: skip
    assert rig.job(other)["name"] == "quick"
    assert changed["task_metadata"] == {"a": 1}
    assert rig.unix("PUT", path, {"schedule_type": "weekly"}).status == 422
    assert rig.unix("PUT", path, {"action_type": "backup"}).status == 422
    assert show(rig, number) == changed


def test_a_task_of_its_own_that_never_ran_goes_with_it(rig: Rig) -> None:
    made = backup(rig, "never ran")
    assert rig.unix("DELETE", f"{URL}/{made['id']}").status == 200
    assert rig.unix("GET", f"/api/v1/jobs/{made['backup_task_id']}").status == 404
    assert rig.unix("DELETE", f"{URL}/{made['id']}").status == 404


def test_an_existing_task_is_run(rig: Rig) -> None:
    job = rig.submit("quick")
    made = make(rig, action_type="backup", backup_task_id=job, action_config={"task_type": "incremental"})
    assert (made["backup_task_id"], made["action_config"]["task_type"]) == (job, "incremental")
    assert rig.job(job)["type"] == "full"
    refused = ask(rig, action_type="backup", backup_task_id=job, action_config={"exclude_patterns": ["*.x"]})
    assert (refused.status, refused.detail[0]["loc"]) == (422, ["body", "action_config"])


def test_switched_on_and_off(rig: Rig) -> None:
    number = make(rig, enabled=False)["id"]
    before = rig.unix("GET", "/api/scheduler/scheduler/status").body
    assert number not in [each["id"] for each in rig.unix("GET", f"{URL}?enabled_only=true").body]
    assert rig.unix("POST", f"{URL}/{number}/enable").body["success"] is True
    assert number in [each["id"] for each in rig.unix("GET", f"{URL}?enabled_only=true").body]
    after = rig.unix("GET", "/api/scheduler/scheduler/status").body
    assert after == before | {"enabled_tasks": before["enabled_tasks"] + 1}
    assert after["running"] is True
    assert rig.unix("POST", f"{URL}/{number}/disable").body["success"] is True
    assert show(rig, number)["status"] == "inactive"
    assert rig.unix("GET", "/api/system/health").body["checks"]["scheduler"] == "healthy"


def test_nobody_runs_schedules_in_a_sidecar_that_ends_by_itself(tmp_path: Path) -> None:
    with running(make_home(tmp_path / "home"), "--until-idle") as rig:
        assert rig.unix("GET", "/api/system/health").body["checks"]["scheduler"] == "healthy"
        number = make(rig)["id"]
        assert rig.unix("GET", "/api/system/health").body["checks"]["scheduler"] == "degraded"
        assert rig.unix("GET", "/api/scheduler/scheduler/status").body["running"] is False
        assert rig.unix("POST", f"{URL}/{number}/run").status == 409
        rig.process.wait(60)


def test_the_list_of_backups_tells_what_schedules_run(rig: Rig) -> None:
    """TAF mixes its scheduled tasks into the list; here the task that they run is marked, and ids stay apart."""
    by_hand = rig.unix("POST", "/api/backup/tasks", {"task_name": "by-hand", "source_paths": [SOURCE]}).body["task_id"]
    made = make(rig, action_type="backup", backup_task_id=by_hand)
    scheduled = backup(rig, "nightly")
    job = scheduled["backup_task_id"]
    assert rig.unix("DELETE", f"{URL}/{made['id']}").status == 200

    def marks() -> dict[int, tuple[bool, bool]]:
        found = rig.unix("GET", "/api/backup/tasks?limit=1000").body
        shown = {each["task_id"]: (each["from_scheduler"], each["enabled"]) for each in found}
        assert shown[job] == tuple(
            rig.unix("GET", f"/api/backup/tasks/{job}").body[name] for name in ("from_scheduler", "enabled")
        )
        return {number: shown[number] for number in (by_hand, job)}

    assert marks() == {by_hand: (False, True), job: (True, True)}
    assert rig.unix("POST", f"{URL}/{scheduled['id']}/disable").status == 200
    assert marks() == {by_hand: (False, True), job: (True, False)}
    again = make(rig, action_type="backup", backup_task_id=job)
    assert marks()[job] == (True, True), "one of two that run it is enabled"
    for each in (scheduled, again):
        assert rig.unix("DELETE", f"{URL}/{each['id']}").status == 200
