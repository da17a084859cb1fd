"""TAF's own catalog, in SQLite and on a real PostgreSQL server: names and times of sets, and what differs."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tapefs.errors import UsageError
from tapefs.taf.catalog import read_catalog
from tests.drivers.ltfs_bench import BARCODE, make_volume
from tests.taf.import_rig import Imports
from tests.taf.test_import import noise_of
from tests.taf.test_taf import SET

#: As TAF's models declare them, as far as they matter.
TABLES = """
CREATE TABLE backup_tasks (id INTEGER PRIMARY KEY, task_name VARCHAR(200), task_type VARCHAR(20), source_paths TEXT,
    backup_files_table VARCHAR(100));
CREATE TABLE backup_sets (id INTEGER PRIMARY KEY, set_id VARCHAR(50), set_name VARCHAR(200), backup_group VARCHAR(20),
    backup_task_id INTEGER, tape_id VARCHAR(50), backup_type VARCHAR(20), backup_time TIMESTAMP WITH TIME ZONE);
CREATE TABLE FILES (id INTEGER PRIMARY KEY, backup_set_id INTEGER, file_path TEXT, file_type VARCHAR(20),
    file_size BIGINT, checksum VARCHAR(128), is_copy_success BOOLEAN);
"""
FILES = {"docs/one": b"1" * 100, "docs/two": b"22", "docs/three": b"333", "extra": b"4"}
SHA = hashlib.sha256(b"1" * 100).hexdigest()
TIME = "2026-11-22 18:46:51"
ROWS = [
    f"INSERT INTO backup_sets VALUES (7, '{SET}', 's', '2026-11', 3, '{BARCODE}', 'INCREMENTAL', '{TIME}+00:00')",
    f"INSERT INTO backup_sets VALUES (8, '2026-11_000009', 'gone', '2026-11', 3, '{BARCODE}', 'FULL', '{TIME}')",
    f"INSERT INTO FILES VALUES (1, 7, 'D:\\data\\docs\\one', 'FILE', 100, '{SHA}', TRUE)",
    "INSERT INTO FILES VALUES (2, 7, '/data/docs/two', 'FILE', 99, NULL, TRUE)",
    f"INSERT INTO FILES VALUES (3, 7, '/data/docs/three', 'file', 3, '{SHA}', TRUE)",
    "INSERT INTO FILES VALUES (4, 7, '/data/docs/lost', 'FILE', 3, NULL, TRUE)",
    "INSERT INTO FILES VALUES (5, 7, '/data/docs/never', 'FILE', 3, NULL, FALSE)",
    "INSERT INTO FILES VALUES (6, 7, '/data/docs', 'DIRECTORY', 0, NULL, TRUE)",
]  # fmt: skip


def statements(table: str) -> list[str]:
    task = f"""INSERT INTO backup_tasks VALUES (3, 'nightly/报告', 'INCREMENTAL', '["D:/data"]', '{table}')"""
    return [
        each.replace("FILES ", f"{table} ", 1) for each in [*TABLES.strip().removesuffix(";").split(";\n"), task, *ROWS]
    ]


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    path = tmp_path / "taf.db"
    with sqlite3.connect(path) as database:
        for statement in statements("backup_files"):
            database.execute(statement)
    database.close()
    return f"sqlite:{path}"


def as_postgres(folder: Path) -> dict[str, Any]:
    """Its server refuses to be root's."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, on a private socket."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    assert programs, "scripts/setup installs postgresql"
    folder = Path(tempfile.mkdtemp(prefix="tafpg-"))
    try:
        become = as_postgres(folder)
        data = folder / "data"
        subprocess.run(
            [programs[-1] / "initdb", "-A", "trust", "-U", "taf", "-E", "UTF8", "--no-sync", "-D", data],
            check=True, capture_output=True, cwd=folder, **become,
        )  # fmt: skip
        server = subprocess.Popen(
            [programs[-1] / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **become,
        )  # fmt: skip
        try:
            url = f"postgresql://taf@/postgres?host={folder}"
            with connected(url) as database:
                for statement in statements("backup_files_000003"):
                    database.execute(statement)
            yield url
        finally:
            server.send_signal(signal.SIGINT)  # Waits for no client.
            server.wait(timeout=60)
    finally:
        shutil.rmtree(folder)


def connected(url: str) -> psycopg.Connection[tuple[object, ...]]:
    deadline = time.monotonic() + 60
    while True:
        try:
            return psycopg.connect(url)
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_names_and_differences(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(kind)
    imports = Imports(tmp_path, make_volume(tmp_path / "volume"))
    noise_of(imports.root, FILES)
    told = imports.told("--catalog", url)
    (found,) = told["sets"]
    assert told["absent"] == ["2026-11_000009"]
    assert found["differences"] == [
        "of another size than listed: /data/docs/two",
        "of another SHA-256 than listed: /data/docs/three",
        "listed, but in no archive: /data/docs/lost",
        "listed as not copied, and in no archive: /data/docs/never",
        "files that TAF's catalog does not list: 1",
    ]
    (backup_set,) = imports.sets()
    assert (backup_set.name, backup_set.type, backup_set.sources) == ("nightly_报告", "incremental", (b"D:/data",))
    assert backup_set.started_at_ns == int(datetime(2026, 11, 22, 18, 46, 51, tzinfo=UTC).timestamp()) * 10**9
    assert imports.contents(backup_set) == FILES


def test_a_set_that_it_does_not_know(tmp_path: Path, sqlite: str) -> None:
    imports = Imports(tmp_path, make_volume(tmp_path / "volume"))
    path = noise_of(imports.root, FILES)
    path.parent.rename(imports.root / "2026-12_000001")
    (found,) = imports.told("--catalog", sqlite)["sets"]
    assert found["differences"] == ["TAF's catalog does not know this set"]
    assert imports.sets()[0].name == "2026-12_000001"


@pytest.mark.parametrize("url", ["mysql://x", "sqlite:/nowhere/taf.db", "postgresql://taf@/taf?host=/nowhere"])
def test_no_catalog(url: str) -> None:
    with pytest.raises(UsageError, match="catalog"):
        read_catalog(url)


def test_another_database_is_no_catalog(tmp_path: Path) -> None:
    """It is not made, either."""
    path = tmp_path / "other.db"
    sqlite3.connect(path).close()
    with pytest.raises(UsageError, match="no table backup_tasks"):
        read_catalog(f"sqlite:{path}")
