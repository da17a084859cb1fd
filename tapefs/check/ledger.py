"""The ledger in itself: every record is readable, and none contradicts another."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tapefs.check.finding import Finding, Scene

_ADVICE = "restore the catalog from its newest backup (`tapefs catalog restore`), or rebuild it from the tapes"


def check_ledger(scene: Scene) -> Iterator[Finding]:
    """Every record of the state folder's ledger."""
    scene.progress("the ledger")
    for problem in ledger_problems(scene.home.ledger):
        yield Finding("ledger", str(scene.home.ledger), problem, _ADVICE)


def ledger_problems(folder: Path) -> list[str]:
    """Return what is wrong with a ledger.

    Reads it in a process of its own: where the disk cannot give a page of the map, that dies by SIGBUS.
    """
    done = subprocess.run(
        [sys.executable, "-m", "catalog.ledger_store.verify", str(folder)], capture_output=True, text=True, check=False
    )
    found = [line for line in done.stdout.splitlines() if line]
    if done.returncode == -signal.SIGBUS:
        found.append("the disk cannot read all of it, or it is cut short")
    elif done.returncode and not found:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        found.append(f"it could not be checked: {last[0]}")
    return found
