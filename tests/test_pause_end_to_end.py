"""A running backup is paused, goes on, loses sidecar and mover at once, goes on by itself, and comes back whole."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tapefs.home import open_home
from tests.backup.trees import random_files, snapshot
from tests.sidecar.rig import Rig
from tests.test_end_to_end import Installation, wait_until


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    """Small segments, so that there are good places to pause, and a drive that waits as it starts and stops."""
    made = Installation(tmp_path)
    made.run("init", "--drives", "1", "--tapes", "2", "--tape-size", "400M", "--motion", "scaled:50")
    toml = made.home / "tapefs.toml"
    toml.write_text(toml.read_text().replace("[backup]\n", "[backup]\nsegment_bytes = 2097152\n"))
    try:
        yield made
    finally:
        made.close()


def serve(installation: Installation) -> tuple[subprocess.Popen[bytes], Rig]:
    process = installation.start("serve", "--listen", "127.0.0.1:0")
    home = open_home(installation.home)
    wait_until(lambda: installation.is_served() and installation.movers(), "the sidecar")
    return process, Rig(home, process, 0)  # type: ignore[arg-type]


def segments(installation: Installation) -> int:
    """How many have a trailer here; one more may be about to."""
    return len(list((installation.home / "trailers").iterdir()))


def stopped(installation: Installation, rig: Rig, number: int) -> int:
    """Let the mover stand still in the middle of the backup, however quick the machine is."""
    mover = installation.movers()[0]
    os.kill(mover, signal.SIGSTOP)
    assert rig.job(number)["state"] == "running", "the backup is over already: make it longer"
    return mover


def test_paused_resumed_killed_and_whole(installation: Installation, tmp_path: Path) -> None:
    tree = random_files(tmp_path / "tree", 4000, 30_000, seed=5)
    process, rig = serve(installation)
    number = rig.unix("POST", "/api/v1/jobs", {"name": "long", "sources": [str(tree)]}).body["number"]
    wait_until(lambda: segments(installation) > 2, "the first segments")
    mover = stopped(installation, rig, number)
    assert rig.unix("POST", f"/api/v1/jobs/{number}/pause").status in (200, 202)
    os.kill(mover, signal.SIGCONT)
    wait_until(lambda: rig.job(number)["state"] == "paused", "the pause")
    done = segments(installation)
    assert rig.unix("POST", f"/api/v1/jobs/{number}/resume").status == 202
    wait_until(lambda: segments(installation) > done + 2, "further segments")
    os.kill(stopped(installation, rig, number), signal.SIGKILL)
    process.kill()
    process.wait()
    wait_until(lambda: not installation.movers(), "the end of the mover")
    _, rig = serve(installation)
    wait_until(lambda: rig.job(number)["state"] in ("completed", "failed"), "the end of the job")
    job = rig.job(number)
    assert (job["state"], job["runs"], job["error"]) == ("completed", 1, None)
    assert [each["state"] for each in installation.listing("sets")] == ["complete"]
    installation.run("verify", "long")
    installation.run("restore", "long", "--to", tmp_path / "back")
    assert snapshot(Path(f"{tmp_path / 'back'}{tree}")) == snapshot(tree)
