"""Two drives write the same backup, and the mover of either is killed. Nothing is faked but the tape."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.lmdb_ledger import LmdbLedger
from tapefs.home import open_home
from tests.along.rig import from_tape
from tests.backup.trees import random_files, snapshot
from tests.test_end_to_end import Installation, wait_until
from tests.test_failover_end_to_end import jobs, serve

pytestmark = pytest.mark.slow


@pytest.fixture
def motion() -> str:
    """How fast the drives are."""
    return "account"


@pytest.fixture
def installation(tmp_path: Path, motion: str) -> Iterator[Installation]:
    made = Installation(tmp_path)
    made.run("init", "--drives", "2", "--tapes", "4", "--tape-size", "400M")
    toml = made.home / "tapefs.toml"
    text = re.sub(r'motion = ".*"', f'motion = "{motion}"', toml.read_text())
    assert motion in text
    text = text.replace("[backup]\n", "[backup]\nsegment_bytes = 2097152\n")
    toml.write_text(text.replace("[recall]\n", "[recall]\nbackup_yields_after_s = 0.5\n"))
    serve(made)
    made.run("pool", "create", "vault")
    made.run("pool", "assign", "vault", "TP0003L9", "TP0004L9")
    yield made
    made.close()


def used(installation: Installation) -> dict[str, int]:
    return {str(tape["label"]): int(str(tape["used_bytes"])) for tape in installation.listing("tapes")}


def begin(installation: Installation, tmp_path: Path) -> Path:
    """Have a backup run with both drives."""
    tree = random_files(tmp_path / "tree", 2500, 30_000)
    installation.run("backup", tree, "--name", "both", "--copy-pool", "vault", "--no-wait")
    wait_until(lambda: used(installation)["TP0003L9"] > 4_000_000, "two copies at once")
    return tree


def check(installation: Installation, tree: Path, tmp_path: Path) -> None:
    """The job is done, and comes back from the second tape alone."""
    wait_until(lambda: jobs(installation)["both"]["state"] not in ("running", "queued"), "the job's end")
    assert jobs(installation)["both"]["error"] is None
    (tapes,) = [each["tapes"] for each in installation.listing("sets") if each["name"] == "both"]
    assert set(tapes) >= {"TP0001L9", "TP0003L9"}  # type: ignore[call-overload]
    installation.run("evict", "--all")
    installation.run("restore", "both", "--to", tmp_path / "out")
    assert snapshot(Path(f"{tmp_path / 'out'}{tree}")) == snapshot(tree)
    home = open_home(installation.home)
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        for label in ("TP0003L9", "TP0004L9"):
            from_tape(home, ledger, label, tmp_path / "second")
    assert snapshot(Path(f"{tmp_path / 'second'}{tree}")) == snapshot(tree)


@pytest.mark.parametrize("which", [0, 1])
def test_a_mover_is_killed(installation: Installation, tmp_path: Path, which: int) -> None:
    tree = begin(installation, tmp_path)
    os.kill(installation.movers()[which], signal.SIGKILL)
    check(installation, tree, tmp_path)


def test_a_sidecar_is_killed(installation: Installation, tmp_path: Path) -> None:
    """Everything ends in the middle of both copies; the next sidecar goes on by itself, and both become whole."""
    tree = begin(installation, tmp_path)
    for pid in installation.processes("serve"):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not installation.movers(), "the end of the movers")
    serve(installation)
    check(installation, tree, tmp_path)


@pytest.mark.parametrize("motion", ["scaled:20"])
def test_a_reader_takes_the_second_drive(installation: Installation, tmp_path: Path) -> None:
    """The copy gives way to who waits for tape, the backup does not; both become whole all the same."""
    installation.run("pool", "create", "cold")
    installation.run("pool", "assign", "cold", "TP0002L9")
    cold = random_files(tmp_path / "cold", 3, 400_000, seed=9)
    installation.run("backup", cold, "--name", "cold", "--pool", "cold")
    installation.run("evict", "--all")
    tree = begin(installation, tmp_path)
    installation.run("restore", "cold", "--to", tmp_path / "cold-out")
    assert jobs(installation)["both"]["state"] == "running", "nobody waits for the end of a backup"
    assert snapshot(Path(f"{tmp_path / 'cold-out'}{cold}")) == snapshot(cold)
    check(installation, tree, tmp_path)
