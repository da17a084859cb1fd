"""How long a listing command takes, from the shell and back. Blocking."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from tapefs.bench.stand import Result, Stand, tapefs, timed

GOAL_S = 0.2
_RUNS = 15


def run(stand: Stand) -> list[Result]:
    """Measure `tapefs sets` and `tapefs ls` with a small set."""
    home = stand.new_home("listing")
    timed(tapefs(home, "backup", "--name", "bench", Path("/etc/hosts")))
    results = []
    for words in (("sets",), ("ls", "bench:etc")):
        seconds = median([timed(tapefs(home, *words)) for _ in range(_RUNS)])
        what = f"tapefs {' '.join(words)}"
        print(f"listing: {what} {seconds * 1000:.0f} ms")
        results.append(
            Result(what, f"{seconds * 1000:.0f} ms", "", "", None, f"≤ {GOAL_S * 1000:.0f} ms", seconds <= GOAL_S)
        )
    return results
