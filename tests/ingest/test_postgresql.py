"""Dumps of a real PostgreSQL server: back from tape, into another database, and compared; broken ones are none."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.ingest.conftest import Site
from tests.sidecar.rig import wait_until
from tests.taf.test_catalog import connected, postgres  # noqa: F401 -- a fixture

ODD = "odd/name ü"


def statements(count: int) -> str:
    return (
        "CREATE TABLE goods (id serial PRIMARY KEY, name text, data bytea);"
        f"INSERT INTO goods (name, data) SELECT 'good ' || n, sha256(n::text::bytea) FROM generate_series(1, {count}) n"
    )


def rows(url: str) -> list[tuple[object, ...]]:
    with connected(url) as database:
        return database.execute("SELECT id, name, data FROM goods ORDER BY id").fetchall()


def of(url: str, database: str) -> str:
    return f"host={re.search('host=(.*)', url)[1]} user=taf dbname='{database}'"


def test_dumps_come_back(site: Site, tmp_path: Path, postgres: str) -> None:  # noqa: F811
    with connected(postgres) as server:
        server.autocommit = True
        for name in ("shop", ODD, "again"):
            server.execute(f'CREATE DATABASE "{name}"')
        server.execute("CREATE ROLE seller LOGIN")
    for name, count in (("shop", 20_000), (ODD, 3)):
        with connected(of(postgres, name)) as database:
            database.execute(statements(count))
    lines = site.run("postgresql", "--dsn", postgres, "--lock", tmp_path / "lock")
    assert [line["database"] for line in lines] == ["globals", "again", ODD, "postgres", "shop"]
    assert all(line["ok"] for line in lines), lines
    roles = site.get("jobs/postgresql-cluster-globals/latest/postgresql-cluster-globals.sql", tmp_path / "roles")
    assert b"CREATE ROLE seller" in roles
    site.get("jobs/postgresql-shop/latest/postgresql-shop.dump", tmp_path / "shop.dump")
    listed = subprocess.run(
        ["pg_restore", "--list", tmp_path / "shop.dump"], capture_output=True, text=True, check=True
    )
    assert "TABLE DATA public goods" in listed.stdout
    subprocess.run(["pg_restore", "--dbname", of(postgres, "again"), tmp_path / "shop.dump"], check=True)
    assert rows(of(postgres, "again")) == rows(of(postgres, "shop"))
    assert len(rows(of(postgres, "again"))) == 20_000


def test_a_dump_that_fails_is_no_set(site: Site, tmp_path: Path, postgres: str) -> None:  # noqa: F811
    """Its program writes much, and then ends with an error; the next one is stored all the same."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "pg_dumpall").symlink_to("/usr/bin/pg_dumpall")
    (programs / "pg_dump").write_text(
        '#!/bin/sh\ncase "$*" in *broken*) head -c 3000000 /dev/urandom; exit 1;; esac\nexec /usr/bin/pg_dump "$@"\n'
    )
    (programs / "pg_dump").chmod(0o755)
    options = ("--dsn", postgres, "--name", "failing", "--bin", programs, "--lock", tmp_path / "lock")
    lines = site.run("postgresql", *options, "--database", "broken", "--database", "postgres", code=1)
    assert [line["ok"] for line in lines] == [True, False, True]
    assert "exit code 1" in lines[1]["error"]
    [job] = [job for job in site.client.jobs() if job.name == "failing-broken"]
    assert job.state.value == "failed"
    assert "failing-broken" not in {entry.name for entry in site.client.folder("jobs")}
    assert os.path.basename(lines[2]["name"]) in {entry.name for entry in site.client.folder("jobs")}


def test_a_script_that_is_killed_leaves_no_set(site: Site, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "pg_dumpall").write_text("#!/bin/sh\nhead -c 3000000 /dev/urandom\nexec sleep 5\n")
    (programs / "pg_dumpall").chmod(0o755)
    options = ("--name", "killed", "--database", "none", "--bin", programs, "--lock", tmp_path / "lock")
    process = site.start("postgresql", *options)
    wait_until(lambda: any(job.name == "killed-cluster-globals" for job in site.client.jobs()), "asked for")
    wait_until(
        lambda: next(j for j in site.client.jobs() if j.name == "killed-cluster-globals").state.value != "pending",
        "on its way",
    )
    process.kill()
    process.communicate()
    [job] = [job for job in site.client.jobs() if job.name == "killed-cluster-globals"]
    assert site.client.wait_job(job.number).state.value == "failed"
    assert "killed-cluster-globals" not in {entry.name for entry in site.client.folder("jobs")}


def test_no_server(site: Site, tmp_path: Path) -> None:
    site.run("postgresql", "--dsn", f"host={tmp_path}", "--lock", tmp_path / "lock", code=1)
    assert "cannot be listed" in site.said
    site.run("postgresql", "--dsn", "nonsense", "--lock", tmp_path / "lock", code=64)
