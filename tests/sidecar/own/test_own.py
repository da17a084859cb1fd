"""Our own calls about status and jobs."""

from __future__ import annotations

import base64
import os

import pytest

from tapefs import __version__
from tapefs.client.api import Client
from tapefs.client.job_fields import JobFields, encoded
from tests.sidecar.rig import ROOT, Rig


def test_status(rig: Rig) -> None:
    status = rig.tcp("GET", "/api/v1/status").body
    assert status["version"] == __version__
    assert status["home"] == str(rig.home.path)
    assert status["pid"] == rig.process.pid
    assert [set(drive) for drive in status["drives"]] == [
        {"name", "state", "tape", "failure", "note", "compresses", "counters"}
    ]
    assert rig.unix("GET", "/health").body == {"status": "ok", "drives": {"drive0": status["drives"][0]["state"]}}
    assert Client(rig.home.socket).status().installation_id == status["installation_id"]


def test_a_job_from_submission_to_its_set(rig: Rig) -> None:
    answer = rig.unix("POST", "/api/v1/jobs", {"name": "etc", "sources": ["/etc/", "//etc/./fstab"], "level": 7})
    assert answer.status == 202
    assert answer.body["state"] in ("queued", "running")
    job = rig.wait_job(answer.body["number"], "completed")
    assert job["error"] is None
    assert (job["trouble_count"], len(job["troubles"])) == (120, 100)
    assert job["troubles"][0] == {"path": "/srv/119", "reason": "it vanished"}
    assert job["progress"]["files"] == 5
    assert job["progress"]["tape"] == "TP0001L9"
    sets = rig.unix("GET", "/api/recovery/sets").body["backup_sets"]
    assert job["set_id"] in {each["set_id"] for each in sets}
    # The report of its run comes with a single job only; this mover writes none.
    assert {**rig.unix("GET", "/api/v1/jobs").body[-1], "drive": None, "buffer": None} == job
    assert rig.unix("GET", "/api/v1/jobs?limit=1").body[0]["number"] == 1
    task = rig.unix("GET", f"/api/backup/tasks/{job['number']}").body
    assert task["source_paths"] == ["/etc", "/etc/fstab"]


def test_names_that_are_not_utf8(rig: Rig, tmp_path: os.PathLike[str]) -> None:
    path = os.fsencode(tmp_path) + b"/\xff"
    os.mkdir(path)
    client = Client(rig.home.socket)
    view = client.submit(JobFields(name="odd", sources=[encoded(path)]))
    rig.wait_job(view.number, "completed")
    task = rig.unix("GET", f"/api/backup/tasks/{view.number}").body
    assert task["source_paths"] == [f"{tmp_path}/\\xff"]


@pytest.mark.parametrize("name", ["fail", "lie"])
def test_a_run_that_fails_leaves_no_set_to_be_seen(rig: Rig, name: str) -> None:
    number = rig.submit(name)
    job = rig.wait_job(number, "failed")
    assert job["error"]
    sets = rig.unix("GET", "/api/recovery/sets").body["backup_sets"]
    assert job["set_id"] not in {each["set_id"] for each in sets}


SOURCE = str(ROOT / "tests")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"name": "x", "sources": [SOURCE], "nonsense": 1}, 422),
        ({"name": "x", "sources": []}, 422),
        ({"name": "x", "sources": ["relative"]}, 422),
        ({"name": "x", "sources": [{"b64": "!"}]}, 422),
        ({"name": "x", "sources": [{"b64": base64.b64encode(b"/a\0b").decode()}]}, 422),
        ({"name": "x", "sources": ["/no/such/place"]}, 404),
        ({"name": "x", "sources": [SOURCE], "type": "snapshot"}, 422),
        ({"name": "x", "sources": [SOURCE], "codec": "lzma"}, 422),
        ({"name": "x", "sources": [SOURCE], "level": 20}, 422),
        ({"name": "x", "sources": [SOURCE], "level": 0}, 422),
        ({"name": "x", "sources": [SOURCE], "codec": "pgzip", "level": -1}, 422),
        ({"name": "x", "sources": [SOURCE], "codec": "pgzip", "level": 10}, 422),
        ({"name": "x", "sources": [SOURCE], "codec": "tar", "level": 3}, 422),
        ({"name": "x", "sources": [SOURCE], "threads": -1}, 422),
        ({"name": "x", "sources": [SOURCE], "threads": 1025}, 422),
        ({"name": "x", "sources": [SOURCE], "excludes": [""]}, 422),
        ({"name": "", "sources": [SOURCE]}, 422),
    ],
)
def test_bad_jobs_are_refused_in_a_sentence(rig: Rig, body: object, status: int) -> None:
    before = len(rig.unix("GET", "/api/v1/jobs").body)
    answer = rig.unix("POST", "/api/v1/jobs", body)
    assert answer.status == status
    assert isinstance(answer.detail, str)
    assert len(rig.unix("GET", "/api/v1/jobs").body) == before


@pytest.mark.parametrize(
    ("body", "level"),
    [
        ({}, -1),
        ({"level": -1}, -1),
        ({"codec": "zstd", "level": 19}, 19),
        ({"codec": "pgzip"}, 4),
        ({"codec": "pgzip", "level": 0, "threads": 7}, 0),
        ({"codec": "tar"}, 0),
    ],
)
def test_codec_level_and_threads_are_kept(rig: Rig, body: dict[str, object], level: int) -> None:
    """What a job does not say is the codec's own level, and the settings' threads."""
    answer = rig.unix("POST", "/api/v1/jobs", {"name": "ok", "sources": [SOURCE], **body})
    assert answer.status == 202
    shown = (answer.body["codec"], answer.body["level"], answer.body["threads"])
    assert shown == (body.get("codec", "zstd"), level, body.get("threads", 0))
    rig.wait_job(answer.body["number"], "completed")


@pytest.mark.parametrize("depth", [300, 900, 990, 5000, 400_000])
@pytest.mark.parametrize("field", ["name", "nonsense"])
@pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/backup/tasks"])
def test_deep_bodies(rig: Rig, path: str, field: str, depth: int) -> None:
    nested = b"[" * depth + b"]" * depth
    assert rig.unix("POST", path, raw=b'{"%b": %b}' % (field.encode(), nested)).status == 422


def test_a_number_that_nothing_can_hold(rig: Rig) -> None:
    answer = rig.unix("POST", "/api/v1/jobs", raw=b'{"name": "x", "sources": [], "level": 1e400}')
    assert (answer.status, answer.detail) == (422, "level: Number out of range")


def test_unknown_jobs(rig: Rig) -> None:
    assert rig.unix("GET", "/api/v1/jobs/4711").status == 404
    assert rig.unix("GET", "/api/v1/jobs/4711x").status == 422
    assert rig.unix("GET", f"/api/v1/jobs/{10**18}").status == 422
