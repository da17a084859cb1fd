"""System calls that fail, or during which the process is killed, in the middle of a commit. strace injects them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from catalog.lmdb_ledger import LmdbLedger
from tests.catalog.builders import volume_of
from tests.catalog.lmdb_tools import ROOT

CLAIM = """
import sys
from pathlib import Path
from catalog.errors import StorageFailed
from catalog.lmdb_ledger import LmdbLedger
from tests.catalog.builders import volume_of
ledger = LmdbLedger.open(Path(sys.argv[1]))
for _ in range(6):
    try:
        print("done", ledger.claim_volume(volume_of("T1").volume_id), flush=True)
    except StorageFailed as error:
        print("failed", error, flush=True)
"""


def _strace(options: list[str], command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["strace", "-f", "-o", "/dev/null", *options, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module")
def _can_inject() -> None:
    try:
        tried = _strace(["-e", "inject=fdatasync:error=EIO"], ["true"])
    except FileNotFoundError:
        pytest.skip("strace is not installed")
    if tried.returncode:
        pytest.skip(f"strace cannot trace here: {tried.stderr.strip()}")


@pytest.mark.usefixtures("_can_inject")
@pytest.mark.parametrize("when", [2, 3])
@pytest.mark.parametrize("fault", ["error=EIO", "error=ENOSPC", "signal=KILL"])
@pytest.mark.parametrize("call", ["writev", "fdatasync", "pwrite64"])
def test_a_fault_in_a_commit_loses_nothing(folder: Path, ledger: LmdbLedger, call: str, fault: str, when: int) -> None:
    """What was acknowledged is there, what failed may or may not be, and nothing is damaged.

    The calls of a commit are writev (pages), fdatasync, pwrite64 (the meta page; sometimes pages, too).
    """
    ledger.add_volume(volume_of("T1"))
    ledger.close()
    options = ["-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={when}"]
    child = _strace(options, [sys.executable, "-c", CLAIM, str(folder)])
    lines = child.stdout.splitlines()
    done = [int(line.split()[1]) for line in lines if line.startswith("done")]
    assert child.returncode == (-9 if "KILL" in fault else 0), child.stderr
    assert len(lines) < 6 if "KILL" in fault else len(lines) == 6 > len(done), "the fault was felt"
    if "ENOSPC" in fault and call != "writev":
        assert any("is full" in line for line in lines)
    with LmdbLedger.open(folder) as opened:
        assert max(done) <= opened.volume_by_label("T1").claim <= max(done) + 1
        assert opened.verify() == []
        assert opened.claim_volume(volume_of("T1").volume_id) > max(done)
