"""The product with a library behind iSCSI: its own virtual one, served by another process. Nothing is faked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backup.trees import odd_tree, random_files, snapshot
from tests.drivers.cutter import Cutter
from tests.drivers.tgt import need_libiscsi
from tests.test_end_to_end import Installation, wait_until

DRIVES = 2


class Library:
    """A virtual library of four tapes and two drives that `tapefs vtl` serves."""

    def __init__(self, folder: Path) -> None:
        self._home = folder / "vtl"
        self._run("init", "--tapes", "4", "--tape-size", "128MiB", "--drives", str(DRIVES))
        self._process: subprocess.Popen[str] | None = None
        self._where = "127.0.0.1:0"
        self.start()

    def _run(self, *arguments: str) -> None:
        subprocess.run(self._command(*arguments), check=True, capture_output=True)

    def _command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tapefs", "--home", str(self._home), *arguments]

    def start(self) -> None:
        """Serve, at the same address as before."""
        self._process = subprocess.Popen(
            self._command("vtl", "--listen", self._where), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        url = next((line.strip() for line in self._process.stdout if line.startswith("  iscsi://")), "")
        assert url, self._process.communicate()[1]
        self.unit = url.rpartition("/")[0]
        self._where = self.unit.split("/")[2]

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self._process is not None
        self._process.kill()
        self._process.communicate()

    def pause(self) -> None:
        """Have it stand still with its connections open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    @property
    def options(self) -> list[str]:
        """How `tapefs init` is told of it."""
        drives = [f"--drive={self.unit}/{1 + number}" for number in range(DRIVES)]
        return ["--driver", "iscsi", f"--changer={self.unit}/0", *drives]


pytestmark = pytest.mark.slow


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    need_libiscsi()
    library = Library(tmp_path)
    yield library
    library.kill()


@pytest.fixture
def installation(tmp_path: Path, library: Library) -> Iterator[Installation]:
    made = Installation(tmp_path)
    made.run("init", *library.options)
    with (made.home / "tapefs.toml").open("a") as settings:
        settings.write("[library.iscsi]\npatience_s = 3\n")
    yield made
    made.close()


def test_backup_evict_restore_compare(installation: Installation, library: Library, tmp_path: Path) -> None:
    tree = odd_tree(tmp_path)
    random_files(tree / "files", 5, 2_000_000)
    _serve(installation)
    set_id = installation.backup(tree, "--name", "odd")
    tapes = installation.listing("tapes")
    assert [tape["label"] for tape in tapes] == ["TP0001L9", "TP0002L9", "TP0003L9", "TP0004L9"]
    assert sum(tape["used_bytes"] > 0 for tape in tapes) == 1  # type: ignore[operator]
    installation.run("evict", "--all")
    installation.run("restore", set_id, "--to", tmp_path / "all")
    assert snapshot(Path(f"{tmp_path / 'all'}{tree}")) == snapshot(tree)
    installation.run("verify", set_id)
    # The library is switched off and on while nobody uses it: the next run goes on behind what is there.
    library.kill()
    library.start()
    (tree / "new").write_bytes(os.urandom(300_000))
    second = installation.backup(tree, "--name", "odd", "--type", "incremental")
    installation.run("evict", "--all")
    installation.run("restore", second, "--to", tmp_path / "again")
    assert snapshot(Path(f"{tmp_path / 'again'}{tree}")) == snapshot(tree)
    counters = [drive["counters"] for drive in installation.listing("drives")]
    assert sum(each["bytes_read"] for each in counters) > 10_000_000  # type: ignore[index]


def test_a_target_that_dies_within_a_backup(installation: Installation, library: Library, tmp_path: Path) -> None:
    """The run waits and says so, nothing half is shown; when the library is back it goes on where it was."""
    tree = random_files(tmp_path / "tree", 40, 2_000_000)
    sidecar = _serve(installation)
    job = installation.run("backup", tree, "--no-wait").strip()
    wait_until(lambda: any(s["segments"] for s in installation.listing("sets")), "the first segment")
    library.kill()
    wait_until(lambda: _shown(installation, job)["state"] == "queued", "the job's way back into the queue")
    assert [each["state"] for each in installation.listing("sets")] != ["complete"]
    assert "waits for another drive: drive" in installation.run("jobs")
    library.start()
    wait_until(lambda: _shown(installation, job)["state"] == "completed", "the end of the job")
    assert _shown(installation, job)["runs"] == 1
    set_id = str(installation.listing("sets")[-1]["set_id"])
    installation.run("evict", "--all")
    installation.run("restore", set_id, "--to", tmp_path / "all")
    assert snapshot(Path(f"{tmp_path / 'all'}{tree}")) == snapshot(tree)
    assert sidecar.poll() is None


def test_a_drive_that_is_gone_leaves_the_work_to_the_other(library: Library, tmp_path: Path) -> None:
    """Its tape is stuck there; the run goes on with the other drive by itself, and nothing of it is lost."""
    port = int(library.unit.split("/")[2].partition(":")[2])
    cutters = [Cutter(port) for _ in range(DRIVES)]
    installation = Installation(tmp_path)
    try:
        ends = {f"/{1 + number}": cutter.port for number, cutter in enumerate(cutters)}
        options = [each.replace(f":{port}/", f":{ends.get(each[-2:], port)}/") for each in library.options]
        installation.run("init", *options)
        with (installation.home / "tapefs.toml").open("a") as settings:
            settings.write("[library.iscsi]\npatience_s = 1\n")
        tree = random_files(tmp_path / "tree", 40, 2_000_000)
        _serve(installation)
        job = installation.run("backup", tree, "--no-wait").strip()
        wait_until(lambda: any(s["segments"] for s in installation.listing("sets")), "the first segment")
        states = {each["name"]: each["state"] for each in installation.listing("drives")}
        number = next(number for number in range(DRIVES) if states[f"drive{number}"] == "writing")
        cutters[number].close()
        wait_until(lambda: _shown(installation, job)["state"] == "completed", "the end of the run")
        (move,) = _shown(installation, job)["moves"]
        assert move["drive"] == f"drive{number}"
        assert f"drive{number} failed: " in installation.run("drives")
        set_id = str(installation.listing("sets")[-1]["set_id"])
        assert sum(tape["used_bytes"] > 0 for tape in installation.listing("tapes")) == 2  # type: ignore[operator]
        assert move["reason"] in installation.run("report", set_id)
        cutters[number] = Cutter(port, listen=cutters[number].port)
        installation.run("evict", "--all")
        installation.run("restore", set_id, "--to", tmp_path / "all")
        assert snapshot(Path(f"{tmp_path / 'all'}{tree}")) == snapshot(tree)
    finally:
        installation.close()
        for each in cutters:
            each.close()


def _serve(installation: Installation) -> subprocess.Popen[bytes]:
    """Start a sidecar that stays, and wait for it."""
    sidecar = installation.start("serve", "--listen", "127.0.0.1:0")
    wait_until(lambda: installation.is_served() and installation.movers(), "the sidecar")
    return sidecar


def _shown(installation: Installation, job: str) -> dict[str, Any]:
    shown = json.loads(installation.run("job", "show", job, "--json"))
    assert isinstance(shown, dict)
    return shown
