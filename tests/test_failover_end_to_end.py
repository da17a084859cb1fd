"""Two drives, two backups and a restore at the same time; one drive dies. Nothing is faked but the tape."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.backup.trees import random_files, snapshot
from tests.test_end_to_end import Installation, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    made.run("init", "--drives", "2", "--tapes", "6", "--tape-size", "400M")
    toml = made.home / "tapefs.toml"
    text = toml.read_text().replace("[backup]\n", "[backup]\nsegment_bytes = 2097152\n")
    toml.write_text(text.replace("[recall]\n", "[recall]\nbackup_yields_after_s = 0.5\n"))
    yield made
    made.close()


def jobs(installation: Installation) -> dict[str, dict[str, Any]]:
    return {str(job["name"]): job for job in installation.listing("jobs")}


def serve(installation: Installation) -> None:
    installation.start("serve", "--listen", "127.0.0.1:0")
    wait_until(lambda: installation.is_served() and len(installation.movers()) == 2, "the sidecar")


def begin_two(installation: Installation, tmp_path: Path) -> dict[str, Path]:
    """Have two backups run at the same time; return their sources by name."""
    trees = {name: random_files(tmp_path / name, 1200, 30_000, seed=len(name)) for name in ("one", "three")}
    for name, tree in trees.items():
        installation.run("backup", tree, "--name", name, "--no-wait")
    wait_until(lambda: {jobs(installation)[name]["state"] for name in trees} == {"running"}, "two backups at once")
    return trees


def check(installation: Installation, trees: dict[str, Path], tmp_path: Path) -> None:
    """Both end well in one run each, and come back from tape as they were."""
    for name in trees:
        wait_until(lambda: jobs(installation)[name]["state"] not in ("running", "queued"), name)  # noqa: B023
    assert {jobs(installation)[name]["error"] for name in trees} == {None}
    assert {jobs(installation)[name]["runs"] for name in trees} == {1}
    installation.run("evict", "--all")
    for name, tree in trees.items():
        installation.run("restore", name, "--to", tmp_path / "out" / name)
        assert snapshot(Path(f"{tmp_path / 'out' / name}{tree}")) == snapshot(tree)
    states = [str(each["state"]) for each in installation.listing("sets")]
    assert set(states) == {"complete"}
    assert {str(tape["state"]) for tape in installation.listing("tapes")} <= {"blank", "appendable", "full"}


def test_a_mover_is_killed(installation: Installation, tmp_path: Path) -> None:
    """Its backup goes on by itself; the other one and a restore notice nothing."""
    cold = random_files(tmp_path / "cold", 3, 500_000, seed=9)
    serve(installation)
    installation.backup(cold, "--name", "cold")
    installation.run("evict", "--all")
    trees = begin_two(installation, tmp_path)
    restore = installation.start("restore", "cold", "--to", tmp_path / "warm")
    os.kill(installation.movers()[0], signal.SIGKILL)
    assert restore.wait(120) == 0
    assert snapshot(Path(f"{tmp_path / 'warm'}{cold}")) == snapshot(cold)
    check(installation, trees, tmp_path)
    moves = [move for job in jobs(installation).values() for move in job["moves"]]
    assert len(moves) <= 1  # None if it died between a recall and going on.
    for move in moves:
        assert f"the mover of {move['drive']} ended" in move["reason"]


def test_a_drive_fails_again_and_again(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it reads or writes there: backups and restores go on with the other drive."""
    with monkeypatch.context() as patch:
        patch.setenv("TAPEFS_FAULTS", json.dumps([{"kind": "power_cut", "drive": 0, "block": 120}]))
        serve(installation)
    trees = begin_two(installation, tmp_path)
    wait_until(lambda: any(job["moves"] for job in jobs(installation).values()), "the drive's failure")
    wait_until(lambda: "drive0 failed: the power failed at block 120" in installation.run("drives"), "its reason")
    check(installation, trees, tmp_path)
    (moved,) = [job for job in jobs(installation).values() if job["moves"]]
    (move,) = moved["moves"]
    assert (move["drive"], move["reason"]) == ("drive0", "the power failed at block 120 (fault on request)")
    report = installation.run("report", str(moved["set_id"]))
    assert f"drive0 failed with tape {move['tape']} in it: the power failed at block 120" in report
    # The tape could be taken out: the other drive reads what had been committed there.
    (used,) = [tape for tape in installation.listing("tapes") if tape["label"] == move["tape"]]
    assert used["sets"] == [moved["set_id"]]
