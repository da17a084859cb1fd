"""TAF's calls over a real socket: its shapes, its spellings, and what is refused how."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tapefs.home import open_home
from tests.sidecar.rig import ROOT, Rig, make_home, running

TASK_FIELDS = {
    *("task_id", "task_name", "task_type", "status", "progress_percent", "total_files", "processed_files"),
    *("total_bytes", "total_bytes_actual", "processed_bytes", "compressed_bytes", "compression_ratio", "created_at"),
    *("started_at", "completed_at", "error_message", "source_paths", "tape_device", "tape_id", "is_template"),
    *("from_scheduler", "enabled", "description", "estimated_archive_count", "operation_status", "operation_stage"),
    *("operation_stage_label", "stage_steps", "current_compression_progress"),
}
SET_FIELDS = {
    *("id", "set_id", "set_name", "backup_group", "backup_type", "backup_time", "total_files", "total_bytes"),
    *("compressed_bytes", "compression_ratio", "tape_id", "status", "created_at"),
}
TAPE_FIELDS = {
    *("tape_id", "label", "status", "media_type", "generation", "serial_number", "location", "capacity_bytes"),
    *("used_bytes", "usage_percent", "write_count", "read_count", "load_count", "health_score", "first_use_date"),
    *("last_erase_date", "expiry_date", "retention_months", "backup_set_count", "notes"),
}
SOURCE = str(ROOT / "tests")


def create(rig: Rig, name: str, **more: Any) -> int:
    answer = rig.unix("POST", "/api/backup/tasks", {"task_name": name, "source_paths": [SOURCE]} | more)
    assert answer.status == 200, answer
    return int(answer.body["task_id"])


def complete(rig: Rig, name: str) -> int:
    number = create(rig, name)
    assert rig.unix("POST", f"/api/backup/tasks/{number}/run").status == 202
    rig.wait_job(number, "completed")
    return number


def test_create_run_and_see(rig: Rig) -> None:
    answer = rig.tcp("POST", "/api/backup/tasks", {"task_name": "每日", "source_paths": [SOURCE], "description": "all"})
    assert answer.status == 200
    assert set(answer.body) == {"success", "task_id", "message", "task_name", "is_template"}
    number = answer.body["task_id"]
    task = rig.tcp("GET", f"/api/backup/tasks/{number}").body
    assert set(task) == TASK_FIELDS
    assert (task["status"], task["progress_percent"], task["is_template"]) == ("pending", 0.0, True)
    assert datetime.fromisoformat(task["created_at"]).tzinfo is not None

    started = rig.tcp("POST", f"/api/backup/tasks/{number}/run")
    assert started.status == 202
    assert started.body["success"] is True
    rig.wait_job(number, "completed")
    task = rig.tcp("GET", f"/api/backup/tasks/{number}").body
    assert (task["status"], task["progress_percent"], task["total_files"]) == ("completed", 100.0, 5)
    assert (task["compressed_bytes"], task["compression_ratio"], task["tape_id"]) == (20_000, 0.25, "TP0001L9")
    assert {step["status"] for step in task["stage_steps"]} == {"completed"}
    assert [step["code"] for step in task["stage_steps"]] == ["scan", "prefetch", "compress", "copy", "finalize"]


@pytest.mark.parametrize(("enabled", "codec"), [(True, "zstd"), (False, "tar")])
def test_compression_can_be_off(rig: Rig, enabled: bool, codec: str) -> None:
    number = create(rig, "plain", compression_enabled=enabled)
    assert (rig.job(number)["codec"], rig.job(number)["level"]) == (codec, -1 if enabled else 0)
    for wanted, expected in ((not enabled, "tar" if enabled else "zstd"), (enabled, codec)):
        assert rig.unix("PUT", f"/api/backup/tasks/{number}", {"compression_enabled": wanted}).status == 200
        assert rig.job(number)["codec"] == expected
        templates = rig.unix("GET", "/api/backup/templates").body
        assert next(each for each in templates if each["task_id"] == number)["compression_enabled"] is wanted


def test_a_codec_that_taf_does_not_name_stays(rig: Rig) -> None:
    number = create(rig, "packed")
    assert rig.unix("PATCH", f"/api/v1/jobs/{number}", {"codec": "pgzip"}).body["level"] == 4
    assert rig.unix("PUT", f"/api/backup/tasks/{number}", {"compression_enabled": True}).status == 200
    assert rig.job(number)["codec"] == "pgzip"


def test_list_is_filtered_and_paged(rig: Rig) -> None:
    numbers = [create(rig, f"paged-{n}", description="Needle" if n == 1 else "") for n in range(3)]
    found = rig.unix("GET", "/api/backup/tasks?q=PAGED").body
    assert [task["task_id"] for task in found] == numbers[::-1]
    assert [t["task_id"] for t in rig.unix("GET", "/api/backup/tasks?q=paged&limit=1&offset=1").body] == [numbers[1]]
    assert [t["task_id"] for t in rig.unix("GET", "/api/backup/tasks?q=needle").body] == [numbers[1]]
    assert rig.unix("GET", "/api/backup/tasks?q=paged&status=running").body == []
    assert len(rig.unix("GET", "/api/backup/tasks?q=paged&status=PENDING&task_type=FULL").body) == 3
    assert rig.unix("GET", "/api/backup/tasks?q=paged&task_type=incremental").body == []
    assert rig.unix("GET", "/api/backup/tasks?limit=100000").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_cancel_a_running_task(rig: Rig, method: str) -> None:
    number = create(rig, "hang")
    assert rig.unix("POST", f"/api/backup/tasks/{number}/run").status == 202
    rig.wait_progress(number)
    task = rig.unix("GET", f"/api/backup/tasks/{number}").body
    assert (task["status"], task["operation_stage"], task["processed_files"]) == ("running", "copy", 3)
    again = rig.unix("POST", f"/api/backup/tasks/{number}/run")
    assert again.status == 409
    assert "already" in again.detail
    assert rig.unix(method, f"/api/backup/tasks/{number}/cancel").body["success"] is True
    assert rig.wait_job(number, "cancelled")["error"] == "it was cancelled"
    refused = rig.unix(method, f"/api/backup/tasks/{number}/cancel")
    assert refused.status == 409


def test_a_waiting_task_is_pending_and_can_be_cancelled(rig: Rig) -> None:
    running = rig.submit("hang")
    rig.wait_progress(running)
    waiting = rig.submit("waits")
    assert rig.job(waiting)["state"] == "queued"
    assert rig.unix("GET", f"/api/backup/tasks/{waiting}").body["status"] == "pending"
    assert rig.unix("POST", f"/api/backup/tasks/{waiting}/run").status == 409
    assert rig.unix("POST", f"/api/backup/tasks/{waiting}/cancel").status == 200
    assert rig.job(waiting)["state"] == "cancelled"
    assert rig.unix("POST", f"/api/backup/tasks/{running}/cancel").status == 200
    rig.wait_job(running, "cancelled")
    assert rig.unix("POST", f"/api/backup/tasks/{waiting}/run").status == 202
    rig.wait_job(waiting, "completed")


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"source_paths": [SOURCE]}, ["body", "task_name"]),
        ({"task_name": "x"}, ["body", "source_paths"]),
        ({"task_name": "x", "source_paths": []}, ["body", "source_paths"]),
        ({"task_name": "x", "source_paths": ["etc"]}, ["body", "source_paths", 0]),
        ({"task_name": "x", "source_paths": ["/usr/../etc"]}, ["body", "source_paths", 0]),
        ({"task_name": "x", "source_paths": [SOURCE, 7]}, ["body", "source_paths", 1]),
        ({"task_name": "a/b", "source_paths": [SOURCE]}, ["body", "task_name"]),
        ({"task_name": "..", "source_paths": [SOURCE]}, ["body", "task_name"]),
        ({"task_name": "a\nb", "source_paths": [SOURCE]}, ["body", "task_name"]),
        ({"task_name": "x" * 201, "source_paths": [SOURCE]}, ["body", "task_name"]),
        ({"task_name": "x", "source_paths": [SOURCE], "task_type": "snapshot"}, ["body", "task_type"]),
        ({"task_name": "x", "source_paths": [SOURCE], "task_type": None}, ["body", "task_type"]),
        ({"task_name": "x", "source_paths": [SOURCE], "encryption_enabled": True}, ["body", "encryption_enabled"]),
        ({"task_name": "x", "source_paths": [SOURCE], "retention_days": -1}, ["body", "retention_days"]),
    ],
)
def test_bad_tasks_are_422_with_the_place(rig: Rig, body: object, place: list[str | int]) -> None:
    answer = rig.unix("POST", "/api/backup/tasks", body)
    assert answer.status == 422
    assert [problem["loc"] for problem in answer.detail] == [place]
    assert set(answer.detail[0]) == {"type", "loc", "msg", "input"}


def test_encryption_is_what_the_pool_says(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with (home.path / "tapefs.toml").open("a") as settings:
        settings.write('\n[encryption]\nkey = "main"\npools = { open = "" }\n')
    with running(open_home(home.path)) as rig:
        assert rig.unix("POST", "/api/v1/pools", {"name": "open"}).status == 201
        asked, silent = create(rig, "asked", encryption_enabled=True), create(rig, "silent", encryption_enabled=False)
        fields = {"name": "plain", "sources": [SOURCE], "pool": "open", "run": False}
        plain = rig.unix("POST", "/api/v1/jobs", fields).body["number"]
        shown = {each["task_id"]: each["encryption_enabled"] for each in rig.unix("GET", "/api/backup/templates").body}
        assert shown == {asked: True, silent: True, plain: False}

        assert rig.unix("PUT", f"/api/backup/tasks/{silent}", {"encryption_enabled": True}).status == 200
        refused = rig.unix("PUT", f"/api/backup/tasks/{plain}", {"encryption_enabled": True, "description": "new"})
        assert (refused.status, refused.detail[0]["loc"]) == (422, ["body", "encryption_enabled"])
        assert "new tapes of pool open are not encrypted" in refused.detail[0]["msg"]
        assert rig.job(plain)["description"] == ""

        body = {"task_name": "nightly", "schedule_type": "daily", "schedule_config": {"time": "02:00"}}
        body |= {"action_type": "backup", "action_config": {"encryption_enabled": True}}
        refused = rig.unix("POST", "/api/scheduler/tasks", body | {"backup_task_id": plain})
        assert (refused.status, refused.detail[0]["loc"]) == (422, ["body", "action_config", "encryption_enabled"])
        assert rig.unix("POST", "/api/scheduler/tasks", body | {"backup_task_id": asked}).status == 200


def test_other_refusals(rig: Rig) -> None:
    assert rig.unix("POST", "/api/backup/tasks", {"task_name": "x", "source_paths": ["/no/such"]}).status == 404
    assert rig.unix("POST", "/api/backup/tasks", raw=b"{").detail[0]["type"] == "json_invalid"
    assert rig.unix("POST", "/api/backup/tasks", raw=b"\xff\xfe").status == 422
    assert rig.unix("POST", "/api/backup/tasks", raw=b'{"task_name":"\\ud800","source_paths":["/"]}').status == 422
    assert rig.unix("GET", "/api/backup/tasks/999999").status == 404
    assert rig.unix("GET", "/api/backup/tasks/x").detail[0]["loc"] == ["path", "task_id"]
    assert rig.unix("POST", "/api/backup/tasks/999999/run").status == 404
    assert rig.unix("POST", "/api/backup/tasks/999999/cancel").status == 404
    assert rig.unix("GET", "/api/backup/tasks?limit=x").detail[0]["loc"] == ["query", "limit"]
    assert rig.unix("GET", "/api/backup/tasks?limit=0").status == 422
    assert rig.unix("GET", "/api/backup/tasks?offset=-1").status == 422
    assert rig.unix("GET", "/api/backup/tasks?status=odd").status == 422
    assert rig.unix("DELETE", "/api/backup/tasks").status == 405
    assert rig.unix("GET", "/api/nothing").status == 404


def test_monthly_full_is_full_and_unknown_keys_are_ignored(rig: Rig) -> None:
    number = create(rig, "m", task_type="monthly_full", tape_device="/dev/nst0", enable_simple_scan=False, mood="good")
    assert rig.unix("GET", f"/api/backup/tasks/{number}").body["task_type"] == "full"


def test_sets_in_both_spellings(rig: Rig) -> None:
    complete(rig, "shown")
    failed = rig.submit("fail")
    assert rig.wait_job(failed, "failed")["error"] == "/srv is gone: mount it"
    sets = rig.tcp("GET", "/api/recovery/sets").body["backup_sets"]
    assert rig.tcp("GET", "/api/recovery/backup-sets").body["backup_sets"] == sets
    assert set(sets[0]) == SET_FIELDS
    assert "fail" not in {each["set_name"] for each in sets}
    assert (sets[0]["status"], sets[0]["compression_ratio"], sets[0]["backup_type"]) == ("active", 0.25, "full")
    ids = [each["id"] for each in sets]
    assert ids == sorted(ids, reverse=True)


def test_sets_are_filtered(rig: Rig) -> None:
    complete(rig, "filtered")

    def count(query: str) -> int:
        return len(rig.unix("GET", f"/api/recovery/sets?{query}").body["backup_sets"])

    everything = count("")
    today = datetime.now().astimezone()
    tomorrow, yesterday = today + timedelta(days=1), today - timedelta(days=1)
    assert count(f"backup_group={today:%Y-%m}") + count(f"backup_group={yesterday:%Y-%m}") >= everything > 0
    assert count("backup_group=1999-01") == 0
    assert count("tape_id=TP0001L9") == everything
    assert count("tape_id=TP0003L9") == 0
    assert count(f"date_from={yesterday:%Y-%m-%d}&date_to={tomorrow:%Y-%m-%d}") == everything
    assert count(f"date_from={tomorrow:%Y-%m-%dT%H:%M:%S}") == 0
    assert count(f"date_to={yesterday:%Y-%m-%d}") == 0
    assert count("limit=1") == 1
    assert rig.unix("GET", "/api/recovery/sets?date_from=yesterday").status == 422
    assert rig.unix("GET", "/api/recovery/sets?date_from=0001-01-01").status in (200, 422)
    assert rig.unix("GET", "/api/recovery/sets?date_to=9999-12-31").status in (200, 422)
    assert rig.unix("GET", "/api/recovery/sets?backup_group=2026").status == 422


def test_tapes(rig: Rig) -> None:
    complete(rig, "taped")
    answer = rig.tcp("GET", "/api/tape/list").body
    assert (answer["success"], answer["count"]) == (True, 3)
    assert [tape["tape_id"] for tape in answer["tapes"]] == ["TP0001L9", "TP0002L9", "TP0003L9"]
    used, blank = answer["tapes"][0], answer["tapes"][2]
    assert set(used) == set(blank) == TAPE_FIELDS
    assert (used["status"], used["location"], used["generation"]) == ("in_use", "drive 0", 9)
    assert used["backup_set_count"] >= 1
    assert 0 < used["used_bytes"] < used["capacity_bytes"] == 4 * 1024**2
    assert (blank["status"], blank["location"], blank["usage_percent"]) == ("available", "slot 2", 0.0)


def test_months_of_tapes_are_those_of_their_pool(rig: Rig) -> None:
    """TAF's rule: to the end of a month, counted from the one in which the tape was begun."""
    complete(rig, "kept for months")
    known = {tape["tape_id"]: (tape["retention_months"], tape["expiry_date"]) for tape in _tapes(rig)}
    assert set(known.values()) == {(None, None)}
    assert rig.unix("PATCH", "/api/v1/pools/default", {"retention": "6 tape-months"}).status == 200
    try:
        begun, blank = _tapes(rig)[0], _tapes(rig)[2]
        assert (begun["retention_months"], blank["retention_months"], blank["expiry_date"]) == (6, 6, None)
        first, expires = datetime.fromisoformat(begun["first_use_date"]), datetime.fromisoformat(begun["expiry_date"])
        assert (expires.day, expires.hour, expires.minute) == (1, 0, 0)
        assert (expires.year * 12 + expires.month) - (first.year * 12 + first.month) == 7
    finally:
        assert rig.unix("PATCH", "/api/v1/pools/default", {"retention": "job"}).status == 200


def _tapes(rig: Rig) -> list[Any]:
    tapes = rig.tcp("GET", "/api/tape/list").body["tapes"]
    assert isinstance(tapes, list)
    return tapes
