"""An incremental backup in which nothing has changed, against `find -printf %s` over the same tree. Blocking."""

from __future__ import annotations

from pathlib import Path
from statistics import median

from catalog.lmdb_ledger import LmdbLedger
from tapefs.bench.stand import Result, Stand, ratio_of, tapefs, timed
from tapefs.bench.trees import Tree
from tapefs.client.presence import connected
from tapefs.home import Home

GOAL = 1.5
#: The first run finds the base's index cold, and its processes' programs.
_WARM_UP = 2


def run(stand: Stand, tree: Tree, runs: int) -> list[Result]:
    """Measure both in turns, all caches warm and the sidecar running: the job's own time, and the command's."""
    print(f"incremental: {tree}")
    home = stand.new_home("incremental")
    theirs, jobs, commands = [], [], []
    with connected(home):
        timed(_backup(home, tree, "full"))
        for number in range(runs + _WARM_UP):
            found = timed(["find", *map(str, tree.sources), "-xdev", "-printf", "%s\\n"])
            command = timed(_backup(home, tree, "incremental"))
            job = _job_seconds(home)
            print(f"  find {found:.2f} s, job {job:.2f} s, command {command:.2f} s{_note(number)}")
            if number >= _WARM_UP:
                theirs.append(found)
                jobs.append(job)
                commands.append(command)
    return [
        _result("incremental run, nothing changed, from the job's start to its end", jobs, theirs),
        _result("the same, the command", commands, theirs),
    ]


def _note(number: int) -> str:
    return " (does not count)" if number < _WARM_UP else ""


def _backup(home: Home, tree: Tree, kind: str) -> list[str]:
    return tapefs(home, "backup", "--name", "bench", "--type", kind, *_sources(tree))


def _sources(tree: Tree) -> list[Path]:
    return list(tree.sources)


def _job_seconds(home: Home) -> float:
    """Return how long the newest run took, as the ledger has it; it must have been an incremental one."""
    ledger = LmdbLedger.open(home.ledger)
    try:
        newest = ledger.backup_sets()[-1]
        if newest.type != "incremental":
            raise RuntimeError(f"the run was {newest.type}")
        job = ledger.job(newest.job_number)
    finally:
        ledger.close()
    return (job.finished_at_ns - job.started_at_ns) / 1e9


def _result(what: str, ours: list[float], theirs: list[float]) -> Result:
    ratio = ratio_of(ours, theirs)
    found = f"{median(theirs):.2f} s"
    return Result(what, f"{median(ours):.2f} s", "find -printf %s", found, ratio, f"≤ {GOAL}", ratio <= GOAL)
