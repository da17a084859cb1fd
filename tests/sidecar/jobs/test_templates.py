"""Jobs as templates over HTTP: ours and TAF's calls lead to the same record and the same refusals."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sidecar.rig import ROOT, Rig

SOURCE = str(ROOT / "tests")


def create(rig: Rig, name: str, **more: Any) -> int:
    answer = rig.unix("POST", "/api/v1/jobs", {"name": name, "sources": [SOURCE], "run": False} | more)
    assert answer.status == 201, answer
    assert answer.body["state"] == "pending"
    return int(answer.body["number"])


def test_a_template_is_changed_run_and_deleted(rig: Rig) -> None:
    number = create(rig, "template", retention_days=5, excludes=["*.o"])
    changed = rig.unix("PATCH", f"/api/v1/jobs/{number}", {"level": 9, "name": " other "})
    assert changed.status == 200
    # The single job also tells what its last run had from the drive.
    assert changed.body.items() <= rig.job(number).items()
    assert {key: changed.body[key] for key in ("name", "level", "retention_days", "excludes", "sources", "runs")} == {
        "name": "other",
        "level": 9,
        "retention_days": 5,
        "excludes": ["*.o"],
        "sources": [SOURCE],
        "runs": 0,
    }
    assert rig.unix("POST", f"/api/v1/jobs/{number}/run").status == 202
    done = rig.wait_job(number, "completed")
    assert rig.unix("DELETE", f"/api/v1/jobs/{number}").status == 204
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/run"), ("POST", "/cancel"), ("PATCH", "")):
        body = {} if method == "PATCH" else None
        assert rig.unix(method, f"/api/v1/jobs/{number}{path}", body).status == 404
    sets = rig.unix("GET", "/api/recovery/sets").body["backup_sets"]
    assert done["set_id"] in {each["set_id"] for each in sets}
    assert create(rig, "next") > number


def test_tafs_update_and_delete(rig: Rig) -> None:
    body = {"task_name": "taf", "source_paths": [SOURCE], "description": "before"}
    number = rig.unix("POST", "/api/backup/tasks", body).body["task_id"]
    change = {"task_name": "taf 2", "exclude_patterns": ["*/tmp/*", ""], "task_type": None, "description": None}
    assert rig.unix("PUT", f"/api/backup/tasks/{number}", change).body["success"] is True
    template = next(each for each in rig.unix("GET", "/api/backup/templates").body if each["task_id"] == number)
    assert {key: template[key] for key in ("task_name", "task_type", "description", "retention_days")} == {
        "task_name": "taf 2",
        "task_type": "full",
        "description": "before",
        "retention_days": 180,
    }
    assert (template["exclude_patterns"], template["source_paths"]) == (["**/tmp/*"], [SOURCE])
    assert rig.job(number)["name"] == "taf 2"
    assert rig.unix("PUT", f"/api/backup/tasks/{number}", {"source_paths": []}).detail[0]["loc"] == [
        "body",
        "source_paths",
    ]
    assert rig.unix("DELETE", f"/api/backup/tasks/{number}").body["success"] is True
    assert rig.unix("DELETE", f"/api/backup/tasks/{number}").status == 404
    assert rig.unix("PUT", f"/api/backup/tasks/{number}", {}).status == 404


def test_an_active_job_is_left_alone(rig: Rig) -> None:
    """`hang` runs until it is cancelled."""
    number = rig.submit("hang")
    rig.wait_progress(number)
    for method in ("PATCH", "DELETE"):
        refused = rig.unix(method, f"/api/v1/jobs/{number}", {"level": 4} if method == "PATCH" else None)
        assert refused.status == 409
        assert "cancel" in refused.detail
    assert rig.unix("POST", f"/api/v1/jobs/{number}/cancel").status == 202
    rig.wait_job(number, "cancelled")
    assert rig.unix("PATCH", f"/api/v1/jobs/{number}", {"level": 4}).body["level"] == 4
    assert rig.unix("DELETE", f"/api/v1/jobs/{number}").status == 204


def test_a_mirror_is_tar_and_is_verified(rig: Rig) -> None:
    number = create(rig, "mirror", type="mirror", codec="tar")
    job = rig.job(number)
    assert (job["codec"], job["verify"], job["type"]) == ("tar", True, "mirror")
    for change in ({"codec": "zstd"}, {"verify": False}, {"level": 3}):
        assert rig.unix("PATCH", f"/api/v1/jobs/{number}", change).status == 422
    refused = rig.unix("POST", f"/api/v1/jobs/{number}/run", {"type": "full"})
    assert (refused.status, "make another job" in refused.detail) == (422, True)
    chain = create(rig, "chain")
    assert rig.unix("POST", f"/api/v1/jobs/{chain}/run", {"type": "mirror"}).status == 422
    task = {"task_name": "x", "source_paths": [SOURCE], "task_type": "mirror"}
    assert rig.unix("POST", "/api/backup/tasks", task).detail[0]["loc"] == ["body", "task_type"]


def test_sources_named_again_find_the_job_of_their_kind(rig: Rig) -> None:
    """A mirror is not a run of the chain that has the same name and sources."""
    body = {"name": "again", "sources": [SOURCE], "reuse": True}
    numbers = []
    for kind in ("full", "mirror", "incremental", "mirror"):
        answer = rig.unix("POST", "/api/v1/jobs", body | {"type": kind})
        assert answer.status == 202, answer
        numbers.append(answer.body["number"])
        rig.wait_job(numbers[-1], "completed", "failed")
    assert numbers[0] == numbers[2] != numbers[1] == numbers[3]


@pytest.mark.parametrize(
    "change",
    [
        {"number": 3},
        {"state": "completed"},
        {"level": 0},
        {"codec": "rar"},
        {"type": "sometimes"},
        {"name": ""},
        {"name": "a/b"},
        {"sources": []},
        {"sources": ["relative"]},
        {"sources": [{"b64": "?"}]},
        {"excludes": [""]},
        {"excludes": ["a", "[b"]},
        {"copies": 2},
        {"keep_sources": True},
        {"type": "archive", "copies": 9},
        {"type": "archive", "verify": False},
        {"type": "archive", "retention_days": 9},
        {"min_bytes": -1},
        {"max_bytes": 2**63},
        {"min_bytes": 2, "max_bytes": 1},
        {"min_age_s": 2, "max_age_s": 1},
        {"retention_days": -1},
        {"retention_days": 10**6},
        {"description": "\ud800"},
        {"run": True},
    ],
)
def test_what_makes_no_sense_changes_nothing(rig: Rig, change: dict[str, object]) -> None:
    number = create(rig, "kept")
    before = rig.job(number)
    answer = rig.unix("PATCH", f"/api/v1/jobs/{number}", change)
    assert answer.status == 422
    assert isinstance(answer.detail, str)
    assert rig.job(number) == before
