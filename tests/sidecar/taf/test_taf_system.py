"""TAF's calls of the system group."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest

from tests.notices.receiver import receiving
from tests.ports import free_port
from tests.sidecar.rig import Rig, make_home, running


def test_statistics_are_real(tmp_path: Path) -> None:
    with running(make_home(tmp_path / "home")) as rig:
        empty = rig.unix("GET", "/api/system/statistics").body
        assert set(empty) == {
            "uptime", "backup_tasks", "tape_inventory", "storage", "recent_backups", "storage_trend", "success_rate",
        }  # fmt: skip
        assert empty["backup_tasks"] == {"total": 0, "running": 0, "completed": 0, "failed": 0}
        assert empty["tape_inventory"]["total"] == empty["tape_inventory"]["available"] == 3
        number = rig.submit("home")
        job = rig.wait_job(number, "completed")
        full = rig.unix("GET", "/api/system/statistics").body
        assert full["backup_tasks"] == {"total": 1, "running": 0, "completed": 1, "failed": 0}
        assert full["recent_backups"][0]["task_name"] == job["name"]
        assert full["recent_backups"][0]["status"] == "completed"
        assert full["success_rate"]["overall"] == full["success_rate"]["this_month"] == 100.0
        assert full["success_rate"]["this_month_count"] == 1
        assert len(full["storage_trend"]) == 30
        assert full["storage"]["total_capacity"] > 0


def test_info_version_health(rig: Rig) -> None:
    info = rig.unix("GET", "/api/system/info").body
    assert (info["app_name"], info["database"]["type"]) == ("tapefs", "lmdb")
    assert rig.unix("GET", "/api/system/version").body["version"] == info["version"]
    health = rig.unix("GET", "/api/system/health").body
    assert health == {"status": "healthy", "checks": dict.fromkeys(("database", "tape_drive", "scheduler"), "healthy")}


def test_the_gateway_by_tafs_calls(tmp_path: Path) -> None:
    """Its key goes in and never comes out; giving back what is shown keeps it."""
    home = make_home(tmp_path / "home")
    with (home.path / "tapefs.toml").open("a") as file:
        file.write("\n[notices]\nallow_private = true\nallow_http = true\n")
    with receiving() as receiver, running(home) as rig:
        receiver.answers = [(200, {}, b'{"success":true,"message":"ok"}')]
        base = "/api/system/notification"
        assert rig.unix("POST", f"{base}/test").body["success"] is False
        config = {"dingtalk_api_url": receiver.url, "dingtalk_api_key": "canary", "dingtalk_default_phone": "138"}
        assert rig.unix("PUT", f"{base}/config", config).body["success"] is True
        shown = rig.unix("GET", f"{base}/config").body
        assert shown["config"]["dingtalk_api_url"] == receiver.url
        assert "canary" not in json.dumps(shown)
        assert rig.unix("PUT", f"{base}/config", shown["config"]).body["success"] is True
        elsewhere = shown["config"] | {"dingtalk_api_url": "https://elsewhere.example.org"}
        assert rig.unix("PUT", f"{base}/config", elsewhere).status == 422  # The key is for whom it was given for.
        assert rig.unix("POST", f"{base}/test?phone=139").body["success"] is True
        assert rig.unix("POST", "/api/system/test-dingtalk").body["success"] is True
        assert [json.loads(each.body)["phone"] for each in receiver.posted] == ["139", "138"]
        assert {each.headers["Authorization"] for each in receiver.posted} == {"Bearer canary"}
        flags = rig.unix("GET", f"{base}/events").body["events"]
        assert len(flags) == 11
        assert all(flags.values())
        assert rig.unix("PUT", f"{base}/events", flags | {"notify_tape_error": False}).body["success"] is True
        assert rig.unix("GET", f"{base}/events").body["events"]["notify_tape_error"] is False
        assert rig.unix("PUT", f"{base}/events", {"notify_nothing": True}).status == 422
        user = {"phone": "140", "name": "ada"}
        number = rig.unix("POST", f"{base}/users", user).body["id"]
        assert rig.unix("PUT", f"{base}/users/{number}", user | {"enabled": False}).body["success"] is True
        (there,) = rig.unix("GET", f"{base}/users").body["users"]
        assert (there["phone"], there["enabled"]) == ("140", False)
        assert rig.unix("DELETE", f"{base}/users/{number}").body["success"] is True
        assert rig.unix("DELETE", f"{base}/users/{number}").status == 404
        for path in (home.path / "stderr.log", home.audit / "audit.jsonl"):
            assert "canary" not in path.read_text()


@pytest.mark.parametrize("url", ["http://example.org", "https://u:p@example.org", "ftp://x"])
def test_a_gateway_that_is_refused(rig: Rig, url: str) -> None:
    config = {"dingtalk_api_url": url, "dingtalk_api_key": "", "dingtalk_default_phone": "1"}
    assert rig.unix("PUT", "/api/system/notification/config", config).status == 422


# -- databases ---------------------------------------------------------------------------------------------------------


def test_a_sqlite_database_is_opened_and_not_changed(rig: Rig, tmp_path: Path) -> None:
    path = tmp_path / "backup system?.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE backup_tasks (id INTEGER)")
    connection.close()
    before = path.read_bytes()
    answer = rig.unix("POST", "/api/system/database/test", {"db_type": "sqlite", "db_path": str(path)}).body
    assert answer == {"success": True, "message": "Connected: a SQLite database with 1 tables.", "db_type": "sqlite"}
    assert path.read_bytes() == before
    for wrong in (tmp_path / "none.db", Path("/etc/passwd")):
        said = rig.unix("POST", "/api/system/database/test", {"db_type": "sqlite", "db_path": str(wrong)}).body
        assert said["success"] is False
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("host", ["0" * 64, "a..b", "one,two"])
@pytest.mark.parametrize("kind", ["opengauss", "redis"])
def test_what_is_no_host(rig: Rig, kind: str, host: str) -> None:
    answer = rig.unix("POST", "/api/system/database/test", {"db_type": kind, "db_host": host})
    assert answer.status == 422
    assert answer.detail[0]["loc"] == ["body", "db_host"]


def test_where_tafs_catalog_is(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    base = "/api/system/database"
    with running(home) as rig:
        assert rig.unix("GET", f"{base}/config").body["db_type"] == "lmdb"
        config = {"db_type": "opengauss", "db_host": "db.example.org", "db_user": "taf", "db_password": "canary"}
        assert rig.unix("PUT", f"{base}/config", config).body["success"] is True
        shown = rig.unix("GET", f"{base}/config").body
        assert (shown["db_host"], shown["db_port"], shown["db_password"]) == ("db.example.org", 5432, "********")
        assert rig.unix("PUT", f"{base}/config", {**config, "db_password": "********"}).body["success"] is True
        for other in ({"db_host": "127.0.0.1"}, {"db_port": 6543}, {"db_user": "eve"}, {"db_type": "postgresql"}):
            elsewhere = config | {"db_password": "********"} | other
            assert rig.unix("POST", f"{base}/test", elsewhere).status == 422  # Nobody else is told the password.
            assert rig.unix("PUT", f"{base}/config", elsewhere).status == 422
        assert json.loads((home.path / "taf-database.json").read_text())["db_password"] == "canary"
        assert (home.path / "taf-database.json").stat().st_mode & 0o777 == 0o600
        assert rig.unix("GET", f"{base}/status").body["status"] == "connected"
        assert rig.unix("GET", f"{base}/redis/config-file").body["success"] is False
        assert "canary" not in (home.audit / "audit.jsonl").read_text()


@pytest.mark.parametrize(
    "config",
    [
        {"db_type": "oracle"},
        {"db_type": "sqlite", "db_path": "relative.db"},
        {"db_type": "sqlite"},
        {"db_type": "postgresql", "db_host": "/var/run/postgresql"},
        {"db_type": "postgresql", "db_host": "a,b"},
        {"db_type": "postgresql", "db_host": "a b"},
        {"db_type": "postgresql"},
        {"db_type": "postgresql", "db_host": "x", "db_port": 70000},
    ],
)
def test_a_database_that_makes_no_sense(rig: Rig, config: object) -> None:
    assert rig.unix("POST", "/api/system/database/test", config).status == 422


@pytest.mark.parametrize("kind", ["postgresql", "opengauss", "redis"])
def test_nobody_answers(rig: Rig, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    config = {"db_type": kind, "db_host": "127.0.0.1", "db_port": port, "db_user": "a", "db_password": "canary"}
    said = rig.unix("POST", "/api/system/database/test", config).body
    assert (said["success"], said["db_type"]) == (False, kind)
    assert "canary" not in said["message"]


def test_a_redis_server_is_asked(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                assert connection.recv(1000) == b"*2\r\n$4\r\nAUTH\r\n$2\r\npw\r\n"
                connection.sendall(b"+OK\r\n")
                assert connection.recv(1000) == b"*1\r\n$4\r\nPING\r\n"
                connection.sendall(b"+PONG\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        config = {"db_type": "redis", "db_host": "127.0.0.1", "db_port": server.getsockname()[1], "db_password": "pw"}
        assert rig.unix("POST", "/api/system/database/test", config).body["success"] is True
        thread.join(60)


def _initdb() -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return str(found[-1].parent) if found else shutil.which("initdb")


@contextmanager
def postgresql() -> Iterator[int]:
    """A server of nobody's, as root may not run one; on a port of its own.

    Not below tmp_path: every run of pytest makes that unreachable for others when it begins.
    """
    binaries = Path(_initdb() or "")
    data = Path(tempfile.mkdtemp(prefix="tapefs-postgresql-"))
    user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
    if user:
        shutil.chown(data, "nobody", "nogroup")
    subprocess.run([*user, binaries / "initdb", "-D", data, "--no-sync", "-A", "trust", "-U", "taf"], check=True,
                   capture_output=True)  # fmt: skip
    port = free_port()
    server = subprocess.Popen(
        [*user, binaries / "postgres", "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", "", "-F"],
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(psycopg.OperationalError):
                psycopg.connect(host="127.0.0.1", port=port, user="taf", dbname="postgres").close()
                break
            time.sleep(0.05)
        yield port
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
        shutil.rmtree(data)


@pytest.mark.skipif(_initdb() is None, reason="PostgreSQL's server is not installed")
def test_a_postgresql_server_is_connected_to(rig: Rig) -> None:
    with postgresql() as port:
        config = {"db_type": "opengauss", "db_host": "127.0.0.1", "db_port": port, "db_user": "taf"}
        said = rig.unix("POST", "/api/system/database/test", {**config, "db_database": "postgres"}).body
        assert said["success"] is True, said
        assert "PostgreSQL" in said["message"]
        said = rig.unix("POST", "/api/system/database/test", {**config, "db_database": "none"}).body
        assert said["success"] is False
