"""An incremental backup in which nothing has changed, against `find -printf %s` over the same tree. Blocking.

The job's time is what the ledger has: from the moment the sidecar gives it to a mover to the moment it is done, tape,
ledger and index written. The command's has the start of Python and the way to the sidecar, too.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

from catalog.lmdb_ledger import LmdbLedger
from tapefs.bench.stand import Result, Stand, ratio_of, tapefs, timed
from tapefs.bench.trees import Tree
from tapefs.bench.usage import Spent, Staff, spent
from tapefs.client.presence import connected
from tapefs.home import Home

GOAL = 1.5
#: The first run finds the base's index cold, and its processes' programs.
_WARM_UP = 2


def run(stand: Stand, tree: Tree, runs: int) -> list[Result]:
    """Measure both in turns, all caches warm and the sidecar running: the job's own time, and the command's."""
    print(f"incremental: {tree}")
    home = stand.new_home("incremental")
    theirs: list[Spent] = []
    jobs: list[Spent] = []
    commands: list[Spent] = []
    with connected(home), Staff(home) as staff:
        timed(_backup(home, tree, "full"))
        for number in range(runs + _WARM_UP):
            found = spent(["find", *map(str, tree.sources), "-xdev", "-printf", "%s\\n"])
            before = staff.cpu_s()
            command = spent(_backup(home, tree, "incremental"))
            job = Spent(_job_seconds(home), staff.cpu_s() - before)
            print(f"  find {found}, job {job}, command {command.wall_s:.2f} s{_note(number)}")
            if number >= _WARM_UP:
                theirs.append(found)
                jobs.append(job)
                commands.append(command)
    return [
        _result(
            "incremental run, nothing changed, from the job's start to its end", _walls(jobs), _walls(theirs), GOAL
        ),
        _result("the same, the command with the start of Python", _walls(commands), _walls(theirs)),
        _result("processor time of mover and sidecar meanwhile", _processors(jobs), _processors(theirs)),
    ]


def _walls(times: list[Spent]) -> list[float]:
    return [each.wall_s for each in times]


def _processors(times: list[Spent]) -> list[float]:
    """What other work on the machine hardly changes."""
    return [each.cpu_s for each in times]


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


def _result(what: str, ours: list[float], theirs: list[float], goal: float | None = None) -> Result:
    ratio = ratio_of(ours, theirs)
    wanted, is_reached = ("", None) if goal is None else (f"≤ {goal}", ratio <= goal)
    found = f"{median(theirs):.2f} s"
    return Result(what, f"{median(ours):.2f} s", "find -printf %s", found, ratio, wanted, is_reached)
