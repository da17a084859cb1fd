"""Dumps of a real PostgreSQL server: back from tape, into another database, and compared; broken ones are none."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ingest.conftest import Site
from tests.sidecar.rig import wait_until
from tests.taf.test_catalog import as_postgres, connected, postgres  # noqa: F401 -- a fixture

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


def test_a_cluster_comes_back(site: Site, tmp_path: Path, postgres: str) -> None:  # noqa: F811
    """As a tar with its WAL: another server starts from what came back, and has the rows.

    Meanwhile a slot of the script's own keeps the WAL; none is left behind.
    """
    with connected(postgres) as database:
        database.execute(statements(5000))
    looking = f"psql -At -d '{postgres}' -c 'SELECT temporary, restart_lsn IS NOT NULL FROM pg_replication_slots'"
    (tmp_path / "pg_basebackup").write_text(f'#!/bin/sh\n{looking} > {tmp_path}/slots\nexec pg_basebackup "$@"\n')
    (tmp_path / "pg_basebackup").chmod(0o755)
    options = ("--base", "--bin", tmp_path, "--dsn", postgres, "--lock", tmp_path / "lock")
    [line] = site.run("postgresql", *options)
    assert (line["ok"], line["name"]) == (True, "postgresql-cluster-base")
    assert (tmp_path / "slots").read_text() == "t|t\n"
    with connected(postgres) as database:
        assert database.execute("SELECT slot_name FROM pg_replication_slots").fetchall() == []
    tar = tmp_path / "base.tar"
    assert line["bytes"] == len(site.get("jobs/postgresql-cluster-base/latest/postgresql-cluster-base.tar", tar))
    with another_server(tar) as url:
        assert rows(url) == rows(postgres)
        assert len(rows(url)) == 5000


@contextmanager
def another_server(tar: Path) -> Iterator[str]:
    """As docs/ingest.md says: unpacked, verified with its WAL, started."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    folder = Path(tempfile.mkdtemp(prefix="tafpgbase-"))
    (folder / "data").mkdir(mode=0o700)
    try:
        become = as_postgres(folder)
        os.chown(folder / "data", folder.stat().st_uid, folder.stat().st_gid)
        with tar.open("rb") as file:
            subprocess.run(["tar", "-xpf", "-", "-C", folder / "data"], stdin=file, check=True, **become)
        verify = [programs / "pg_verifybackup", folder / "data"]
        subprocess.run(verify, check=True, capture_output=True, cwd=folder, **become)
        options = ["-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"]
        server = subprocess.Popen([programs / "postgres", "-D", folder / "data", *options], cwd=folder, **become)
        try:
            yield f"postgresql://taf@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(timeout=60)
    finally:
        shutil.rmtree(folder)


def test_a_base_backup_that_fails_is_no_set(site: Site, tmp_path: Path) -> None:
    """Without a slot, or when the program breaks off; the password of a DSN is on no command line."""
    options = ("--base", "--lock", tmp_path / "lock", "--name", "failing")
    dsn = f"host={tmp_path} user=taf password=canary"
    assert site.run("postgresql", *options, "--dsn", dsn, code=1) == []
    assert "no replication slot" in site.said
    assert "canary" not in site.said
    (tmp_path / "pg_basebackup").write_text(
        f'#!/bin/sh\necho "$PGPASSWORD $*" > {tmp_path}/told\nhead -c 3000000 /dev/urandom\n'
        "echo 'pg_basebackup: error: no room' >&2\nexit 1\n"
    )
    (tmp_path / "pg_basebackup").chmod(0o755)
    [line] = site.run("postgresql", *options, "--no-slot", "--bin", tmp_path, "--dsn", dsn, code=1)
    assert not line["ok"]
    assert "exit code 1" in line["error"]
    assert line["error"].endswith("no room")
    assert "\npg_basebackup: error: no room\n" in f"\n{site.said}"
    [job] = [job for job in site.client.jobs() if job.name == "failing-cluster-base"]
    assert "no room" in (job.error or "")
    assert "failing-cluster-base" not in {entry.name for entry in site.client.folder("jobs")}
    password, _, arguments = (tmp_path / "told").read_text().partition(" ")
    assert password == "canary"
    assert "--wal-method=fetch" in arguments
    assert "canary" not in arguments
    site.run("postgresql", *options, "--database", "shop", code=64)


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
