"""The ledger in itself: every record is readable, and none contradicts another."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

from tapefs.check.finding import Finding, Scene

_ADVICE = "restore the catalog from its newest backup (`tapefs catalog restore`), or rebuild it from the tapes"


def check_ledger(scene: Scene) -> Iterator[Finding]:
    """Read it in a process of its own: where the disk cannot give a page of the map, that dies by SIGBUS."""
    scene.progress("the ledger")
    folder = scene.home.ledger
    done = subprocess.run(
        [sys.executable, "-m", "catalog.ledger_store.verify", str(folder)], capture_output=True, text=True, check=False
    )
    for line in done.stdout.splitlines():
        if line:
            yield Finding("ledger", str(folder), line, _ADVICE)
    if done.returncode == -signal.SIGBUS:
        yield Finding("ledger", str(folder), "the disk cannot read all of it, or it is cut short", _ADVICE)
    elif done.returncode and not done.stdout.strip():
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        yield Finding("ledger", str(folder), f"it could not be checked: {last[0]}", _ADVICE)
