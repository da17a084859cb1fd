"""TAF's sets as a newcomer sees them: the commands, a mount, and the script for cron."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sidecar.ownership import owned
from tapefs.home import open_home
from tapefs.ingest.manners import locked
from tests.catalog.lmdb_tools import ROOT
from tests.drivers.ltfs_bench import BARCODE, make_volume
from tests.taf.test_taf import SET, archive_of

Tapefs = Callable[..., str]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "noise").write_bytes(os.urandom(9_000_000))
    (folder / "sub" / "text").write_text("hello")
    return folder


@pytest.fixture
def volume(tmp_path: Path, source: Path) -> Path:
    root = make_volume(tmp_path / "volume")
    archive_of(root, source, ".tar.gz")
    return root


@pytest.fixture
def tapefs(tmp_path: Path, volume: Path) -> Tapefs:
    def run(*arguments: object, code: int = 0) -> str:
        command = [sys.executable, "-m", "tapefs", "--home", str(tmp_path / "home"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=180)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout if not code else done.stderr

    run("init", "--driver", "ltfs", "--drive", volume)
    return run


def test_commands_and_mount(tapefs: Tapefs, source: Path, tmp_path: Path) -> None:
    """Imported, searched, restored, read back, checked, mounted; never erased."""
    tapefs("taf", "import", tmp_path / "volume")
    (found,) = json.loads(tapefs("sets", "--json"))
    assert (found["name"], found["tapes"], found["partial"], found["state"]) == (SET, [BARCODE], None, "complete")
    assert "of TAF" in tapefs("show", SET)
    assert "sub/text" in tapefs("find", "text")
    tapefs("restore", SET, "--to", tmp_path / "out")
    assert (tmp_path / "out/noise").read_bytes() == (source / "noise").read_bytes()
    tapefs("verify", SET)
    assert tapefs("check") == ""
    explained = tapefs("explain", BARCODE)
    assert "TAF" in explained, explained
    assert "holds set" in tapefs("tape", "erase", BARCODE, "--yes-it-is", BARCODE, code=1)

    mount = tmp_path / "mnt"
    mount.mkdir()
    tapefs("evict", "--all")
    command = [sys.executable, "-m", "tapefs", "--home", str(tmp_path / "home"), "mount", str(mount)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as mounted:
        try:
            file = mount / "jobs" / SET / "latest" / "noise"
            deadline = time.monotonic() + 60
            while not file.exists():
                assert time.monotonic() < deadline
                assert mounted.poll() is None
                time.sleep(0.1)
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            assert digest == hashlib.sha256((source / "noise").read_bytes()).hexdigest()
        finally:
            subprocess.run(["fusermount3", "-u", str(mount)], check=False)
            mounted.wait(timeout=60)

    tapefs("expire", found["set_id"], "--apply")
    assert "only read" in tapefs("tape", "erase", BARCODE, "--yes-it-is", BARCODE, code=1)
    assert (tmp_path / "volume" / SET).is_dir()


def test_a_lost_catalog(tapefs: Tapefs, volume: Path, source: Path, tmp_path: Path) -> None:
    """A rebuild says what it cannot know, brings back what is ours, and the import the rest."""
    tapefs("taf", "import", volume)
    shutil.rmtree(tmp_path / "home/ledger")
    assert "taf import" in tapefs("rebuild")
    assert json.loads(tapefs("sets", "--json")) == []
    tapefs("taf", "import", volume)
    (found,) = json.loads(tapefs("sets", "--json"))
    assert found["foreign_name"] == SET
    tapefs("restore", SET, "--to", tmp_path / "out")
    assert (tmp_path / "out/noise").read_bytes() == (source / "noise").read_bytes()


def test_a_running_sidecar_does_it(tapefs: Tapefs, volume: Path, source: Path, tmp_path: Path) -> None:
    """Its mover reads the volume in its drive; other folders it cannot. No backup goes there."""
    home = tmp_path / "home"
    command = [sys.executable, "-m", "tapefs", "--home", str(home), "serve", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as sidecar:
        try:
            deadline = time.monotonic() + 60
            while not (home / "sidecar.sock").exists():
                assert time.monotonic() < deadline
                time.sleep(0.1)
            shutil.copytree(volume, tmp_path / "copy")
            assert "where it has a drive" in tapefs("taf", "import", tmp_path / "copy", "--label", "C1", code=1)
            (found,) = json.loads(tapefs("taf", "import", volume, "--json"))["sets"]
            assert (found["taf_set"], found["known"], found["partial"]) == (SET, False, None)
            (found,) = json.loads(tapefs("taf", "import", volume, "--json"))["sets"]
            assert found["known"]
            tapefs("restore", SET, "--to", tmp_path / "out")
            assert (tmp_path / "out/noise").read_bytes() == (source / "noise").read_bytes()
            assert "no tape" in tapefs("backup", source, code=1).lower()
        finally:
            sidecar.terminate()
            sidecar.wait(timeout=60)


@pytest.fixture
def script(tapefs: Tapefs, tmp_path: Path) -> Callable[..., tuple[list[dict[str, Any]], str]]:
    def run(*arguments: object, code: int = 0) -> tuple[list[dict[str, Any]], str]:
        """Return the lines of JSON, and what was said besides."""
        options = ["--home", tmp_path / "home", "--lock", tmp_path / "lock"]
        command = list(map(str, [sys.executable, ROOT / "scripts/ingest_taf.py", *options, *arguments]))
        # An address for the other scripts is none for this one.
        environment = os.environ | {"TAPEFS_URL": "https://nowhere.invalid", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
        assert done.returncode == code, done.stdout + done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()], done.stderr

    return run


def test_the_script_for_cron(script: Callable[..., Any], volume: Path, tmp_path: Path) -> None:
    """A line for each volume; an empty place is passed over, and damage is an exit code."""
    empty = tmp_path / "empty"
    empty.mkdir()
    [line], _ = script(empty, volume)
    assert (line["script"], line["volume"], line["tape"], line["ok"]) == ("ingest_taf", str(volume), BARCODE, True)
    assert [(each["taf_set"], each["files"]) for each in line["sets"]] == [(SET, 2)]
    [line], _ = script(empty, volume)
    assert (line["sets"], line["known"], line["ok"], line["error"]) == ([], 1, True, None)
    (volume / SET / f"backup_{SET}_2.tar.gz").write_bytes(b"damaged")
    [gone, line], said = script(tmp_path / "gone", volume, code=1)
    assert (gone["ok"], line["ok"]) == (False, False)
    assert "No such file" in gone["error"]
    assert gone["error"] in said
    assert "1 of 2 archives could not be read" in line["sets"][0]["partial"]


def test_the_script_gives_way(script: Callable[..., Any], volume: Path, tmp_path: Path) -> None:
    """To another run, and to a sidecar that has no drive there: 75, and nothing is read."""
    with locked(tmp_path / "lock"):
        lines, said = script(volume, code=75)
    assert lines == []
    assert "another run" in said
    shutil.copytree(volume, tmp_path / "copy")
    with owned(open_home(tmp_path / "home"), temporary=False):
        [line], said = script(tmp_path / "copy", code=75)
    assert not line["ok"]
    assert "is owned by" in line["error"]
    script("--home", code=64)
