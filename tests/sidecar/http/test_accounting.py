"""Who did what is in the audit log; requests have ids; figures and health are told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.http.accounting import SAFE, destroys, is_audited
from sidecar.http.app import calls_of
from sidecar.service import Service
from tapefs.audit import AuditLog, Entry, check_log, entries_of, files_of, without_secrets
from tapefs.cli import run
from tapefs.client.transport import SocketConnection
from tests.sidecar.http.test_calls import Parts
from tests.sidecar.rig import Rig, make_home, running, wait_until

ROOT = Path(__file__).parents[3]
ENTRY = Entry(at="2026-11-23T10:00:00Z", who="ada", operation="DELETE /x", outcome="done")


def metrics_of(rig: Rig) -> dict[str, Any]:
    """All families by name."""
    connection = SocketConnection(rig.home.socket, 60)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert answer.status == 200
    text = answer.read().decode()
    connection.close()
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(families: dict[str, Any], name: str, /, **labels: str) -> float:
    for family in families.values():
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    raise AssertionError(f"no {name} {labels}")


# -- the audit log -----------------------------------------------------------------------------------------------------


def test_the_chain_is_whole_over_files_and_restarts(tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    for _ in range(3):
        log = AuditLog(folder, most_bytes=1000)
        for number in range(5):
            log.append(msgspec.structs.replace(ENTRY, resource=str(number)), is_durable=number == 0)
    assert len(files_of(folder)) > 2
    checked = check_log(folder)
    assert (checked.entries, checked.problems) == (15, [])
    assert [entry.number for entry in entries_of(folder)] == list(range(1, 16))
    assert {path.stat().st_mode & 0o777 for path in files_of(folder)} == {0o600}


def test_every_change_to_a_line_is_seen(tmp_path: Path) -> None:
    """Of any byte of any line; taking a line out, swapping two, and cutting off the end."""
    log = AuditLog(tmp_path)
    for number in range(4):
        log.append(msgspec.structs.replace(ENTRY, resource=str(number)))
    path = tmp_path / "audit.jsonl"
    good = path.read_bytes()
    lines = good.splitlines(keepends=True)
    spoilt = [good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :] for place in range(len(good) - 1)]
    spoilt += [b"".join(lines[:i] + lines[i + 1 :]) for i in range(4)]
    spoilt += [b"".join([lines[1], lines[0], *lines[2:]]), good + lines[0], b""]
    for data in spoilt:
        path.write_bytes(data)
        assert check_log(tmp_path).problems, data
    path.write_bytes(good)
    assert check_log(tmp_path).problems == []


def test_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    """A crash in the middle of a line; nobody was told that it was there."""
    AuditLog(tmp_path).append(ENTRY)
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b'{"number": 2, "at"')
    AuditLog(tmp_path).append(ENTRY)
    checked = check_log(tmp_path)
    assert (checked.entries, checked.problems) == (2, [])


def test_secrets_are_taken_out_at_any_depth() -> None:
    value = {
        "name": "a",
        "Password": "canary",
        "catalog": "postgresql://taf:canary@db.example.org/taf?sslmode=require&password=canary",
        "dsn": "host=db.example.org user=taf password='canary it\\'s' dbname=taf",
        "more": [{"api_key": "canary", "x": {"webhook_url": 1, "url": "canary"}}],
    }
    assert "canary" not in json.dumps(without_secrets(value))
    assert without_secrets({"dingtalk_api_key": "", "a": [1, None, True]}) == {
        "dingtalk_api_key": "",
        "a": [1, None, True],
    }


def test_what_changes_anything_is_in_the_audit_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = make_home(tmp_path / "home")
    with running(home, listen=True) as rig:
        number = rig.submit("home")
        rig.wait_job(number, "completed")
        assert rig.unix("GET", f"/api/v1/jobs/{number}").headers["x-request-id"]
        answer = rig.tcp("DELETE", f"/api/v1/jobs/{number}", **{"X-Request-Id": "mine-1"})
        assert (answer.status, answer.headers["x-request-id"]) == (204, "mine-1")
        wait_until(lambda: len(list(entries_of(home.audit))) == 3, "the line of a call is written behind its answer")
        assert rig.tcp("DELETE", f"/api/v1/jobs/{number}", **{"X-Request-Id": "a b"}).headers["x-request-id"] != "a b"
        wait_until(lambda: len(list(entries_of(home.audit))) == 5, "the line of a call is written behind its answer")
        assert rig.tcp("POST", "/api/v1/jobs", {}, token=None).status in (401, 403)
        wait_until(lambda: len(list(entries_of(home.audit))) == 6, "the last line is written behind the answer")
        entries = list(entries_of(home.audit))
        assert [(each.operation, each.outcome) for each in entries] == [
            ("POST /api/v1/jobs", "done"),
            ("DELETE /api/v1/jobs/{number}", "begun"),
            ("DELETE /api/v1/jobs/{number}", "done"),
            ("DELETE /api/v1/jobs/{number}", "begun"),
            ("DELETE /api/v1/jobs/{number}", "refused"),
            ("POST /api/v1/jobs", "refused"),
        ]
        posted, begun, deleted = entries[:3]
        assert (posted.uid, posted.address) == (os.getuid(), "")
        assert json.loads(bytes(posted.new))["name"] == "home"
        assert (begun.request, deleted.request, deleted.who) == ("mine-1", "mine-1", "token")
        assert (deleted.address, deleted.status, deleted.resource) == ("127.0.0.1", 204, f"/api/v1/jobs/{number}")
        rows = rig.unix("GET", "/api/system/logs?operation_type=DELETE&limit=2").body
        assert rows["pagination"] == {"limit": 2, "offset": 0, "has_more": True}
        assert {row["type"] for row in rows["logs"]} == {"operation"}
        assert rig.unix("GET", "/api/system/logs?user_id=4711").body["logs"] == []
    assert run(["--home", str(home.path), "audit", "verify"]) == 0
    assert "6 entries" in capsys.readouterr().out
    assert run(["--home", str(home.path), "audit", "show", "--who", "token"]) == 0
    assert "DELETE /api/v1/jobs/{number}" in capsys.readouterr().out
    path = home.audit / "audit.jsonl"
    path.write_bytes(path.read_bytes().replace(b"mine-1", b"mine-2", 1))
    assert run(["--home", str(home.path), "audit", "verify"]) == 1


def test_nothing_is_destroyed_without_the_audit_log(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    home.audit.write_text("in the way")
    with running(home) as rig:
        number = rig.submit("home")
        rig.wait_job(number, "completed")
        answer = rig.unix("DELETE", f"/api/v1/jobs/{number}")
        assert answer.status == 503, answer
        assert "audit" in answer.detail
        assert rig.job(number)["state"] == "completed"


def test_which_calls_are_noted_before_they_begin() -> None:
    """A call of a new name that destroys something has to be put into the one list or the other."""
    calls = [(method, call.path) for call in calls_of(cast(Service, Parts())) for method in call.methods or ()]
    unsafe = {(method, path) for method, path in calls if method not in SAFE}
    assert {path for method, path in unsafe if not is_audited(method, path)} <= {
        "/api/v1/recalls",
        "/api/v1/recalls/cancel",
        "/api/v1/walks",
        "/api/v1/walks/end",
        "/wlcg/v1/archiveinfo",
    }
    noted = {(method, path) for method, path in unsafe if destroys(method, path)}
    for word in ("erase", "forget", "relabel", "label", "expire", "reclaim", "format"):
        assert {each for each in unsafe if each[0] == "POST" and each[1].endswith(f"/{word}")} <= noted, word
    for path in ("/api/v1/tapes/erase", "/api/v1/tapes/forget", "/api/v1/expire", "/api/v1/keys", "/api/v1/restores"):
        assert ("POST", path) in noted


# -- figures -----------------------------------------------------------------------------------------------------------


def test_figures_follow_what_happens(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with running(home, listen=True) as rig:
        before = metrics_of(rig)
        assert value(before, "tapefs_jobs_known") == 0
        assert value(before, "tapefs_tapes", state="blank") == 3
        rig.wait_job(rig.submit("home"), "completed")
        for _ in range(3):
            rig.unix("GET", "/api/v1/status")
        after = metrics_of(rig)
        assert value(after, "tapefs_jobs_known") == 1
        assert value(after, "tapefs_sets", state="complete") == 1
        assert value(after, "tapefs_job_last_success_timestamp_seconds", name="home") > 1e9
        name = "tapefs_http_request_duration_seconds_count"
        assert value(after, name, method="GET", status="2xx") > 3
        assert value(after, "tapefs_event_loop_lag_seconds") < 30
        wait_until(lambda: has_drive_seconds(rig), "the drive's time is taken now and then")
        assert rig.tcp("GET", "/metrics", token=None).status == 401


def has_drive_seconds(rig: Rig) -> bool:
    samples = metrics_of(rig)["tapefs_drive_seconds"].samples
    return any(each.labels["drive"] == "drive0" and each.value > 0 for each in samples)


def test_dashboard_and_alerts_use_only_figures_that_exist(rig: Rig) -> None:
    import re

    families = metrics_of(rig)
    known = {sample.name for family in families.values() for sample in family.samples}
    known |= {name for name, family in families.items() for name in _names(name, family.type)}
    dashboard = (ROOT / "docs/grafana-dashboard.json").read_text()
    json.loads(dashboard)
    for text in (
        dashboard,
        (ROOT / "docs/prometheus-alerts.yml").read_text(),
        (ROOT / "docs/monitoring.md").read_text(),
    ):
        used = set(re.findall(r"\btapefs_[a-z_]+", text))
        assert used
        assert used - known == set()
    described = set(re.findall(r"`(tapefs_[a-z_]+)", (ROOT / "docs/monitoring.md").read_text()))
    own = {name for name in families if not name.startswith("tapefs_process_")}
    assert {name.removesuffix("_total") for name in described} >= own


def test_no_label_is_one_of_prometheus_itself(rig: Rig) -> None:
    """It would come out as `exported_job`, and an alert with `$labels.job` would name the scrape."""
    families = metrics_of(rig).values()
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    assert {"drive", "state", "pool"} <= labels
    assert labels & {"job", "instance"} == set()


def _names(name: str, kind: str) -> list[str]:
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(kind, [""])
    return [name, *(name + ending for ending in endings)]


# -- health ------------------------------------------------------------------------------------------------------------


def test_health_needs_no_login_and_tells_nothing(tmp_path: Path) -> None:
    with running(make_home(tmp_path / "home"), listen=True) as rig:
        assert rig.tcp("GET", "/health/live", token=None).body == {"status": "ok"}
        ready = rig.tcp("GET", "/health/ready", token=None)
        assert ready.status == 200
        assert ready.body == {"status": "ready", "checks": {"ledger": True, "drives": True, "started": True}}
        assert rig.tcp("GET", "/health", token=None).status == 401
