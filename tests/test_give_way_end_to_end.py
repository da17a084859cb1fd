"""One drive, a long backup, and readers that wait: the backup leaves its drive to them at the end of a segment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.ids import JobNumber
from tapefs.client.api import Client
from tests.backup.trees import random_files
from tests.test_end_to_end import Installation, wait_until

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is missing: no mount can be tested"),
]


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """One drive, small segments, readers that a backup does not let wait for long."""
    installation = Installation(tmp_path)
    installation.run("init", "--drives", "1", "--tapes", "3", "--tape-size", "400M")
    toml = installation.home / "tapefs.toml"
    text = toml.read_text().replace("[backup]\n", "[backup]\nsegment_bytes = 2097152\n")
    toml.write_text(text.replace("[recall]\n", "[recall]\nbackup_yields_after_s = 0.5\n"))
    try:
        yield installation
    finally:
        installation.close()


def slow_source(folder: Path) -> Path:
    """A tree whose backup takes a while: most of its time goes into small segments, each synced."""
    return random_files(folder, 6000, 40_000, seed=3)


def job_state(installation: Installation, name: str) -> str:
    return next(str(job["state"]) for job in installation.listing("jobs") if job["name"] == name)


def begin_long_backup(installation: Installation, tmp_path: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """Have a cold file on tape, and a backup that holds the only drive; return its command and the file."""
    cold = random_files(tmp_path / "cold", 1, 3_000_000, seed=9)
    long = slow_source(tmp_path / "long")
    installation.serve()
    installation.backup(cold, "--name", "cold")
    installation.run("evict", "--all")
    backup = installation.start("backup", long, "--name", "long")
    wait_until(lambda: _segments(installation) > 2, "the first segments of the backup")
    return backup, installation.mount_point / "jobs/cold/latest" / str(cold).lstrip("/") / "file-00000"


def _segments(installation: Installation) -> int:
    """How many segments lie in the local trailers."""
    return len(list((installation.home / "trailers").iterdir()))


def test_a_reader_gets_its_bytes_before_the_backup_ends(installation: Installation, tmp_path: Path) -> None:
    backup, path = begin_long_backup(installation, tmp_path)
    wanted = (tmp_path / "cold/file-00000").read_bytes()
    assert path.read_bytes() == wanted
    assert backup.poll() is None, "the backup was over before the reader was served: make it longer"
    assert backup.wait(180) == 0
    assert job_state(installation, "long") == "completed"
    installation.run("verify", "long")
    outcomes = json.loads(installation.run("recalls", "--history", "--json"))
    assert any(entry["outcomes"].get("fetched") for entry in outcomes)
    assert "a backup gives way to recalls" in (tmp_path / "log").read_text()


def test_a_mover_killed_while_it_recalls_meanwhile(installation: Installation, tmp_path: Path) -> None:
    """The reader gets its bytes all the same, and the backup goes on where it was."""
    backup, path = begin_long_backup(installation, tmp_path)
    with subprocess.Popen(["md5sum", str(path)], stdout=subprocess.PIPE) as reader:
        wait_until(lambda: "a backup gives way to recalls" in (tmp_path / "log").read_text(), "it gives way")
        os.kill(installation.movers()[0], signal.SIGKILL)
        assert reader.stdout is not None
        digest = reader.stdout.read().split()[0]
    assert digest == subprocess.check_output(["md5sum", str(tmp_path / "cold/file-00000")]).split()[0]
    assert backup.wait(180) == 0
    assert job_state(installation, "long") == "completed"
    installation.run("verify", "long")


def test_a_backup_that_is_cancelled_while_it_has_given_way(installation: Installation, tmp_path: Path) -> None:
    backup, path = begin_long_backup(installation, tmp_path)
    number = next(job["number"] for job in installation.listing("jobs") if job["name"] == "long")
    with subprocess.Popen(["md5sum", str(path)], stdout=subprocess.PIPE) as reader:
        wait_until(lambda: "a backup gives way to recalls" in (tmp_path / "log").read_text(), "it gives way")
        Client(installation.home / "sidecar.sock").cancel(JobNumber(int(str(number))))
        assert reader.wait(60) == 0
    backup.wait(60)
    wait_until(lambda: job_state(installation, "long") == "cancelled", "the job is cancelled")
    again = random_files(tmp_path / "again", 3, 1000)
    installation.backup(again, "--name", "again")
