"""Memory with a directory of a million files: of the mover, which builds the index, too, and of the builder alone.

The second is a process of its own: `python -m tapefs.bench.memory HOME`. Blocking.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from catalog.lmdb_ledger import LmdbLedger
from tapefs.bench.stand import Result, Stand, tapefs, timed
from tapefs.bench.usage import Staff
from tapefs.client.presence import connected
from tapefs.home import Home, open_home
from tapefs.sets.build import build_index

GOAL_MB = 400
_FEW = 100_000
_MANY = 1_000_000


def run(stand: Stand) -> list[Result]:
    """Back up a directory with a million files and one with a tenth of them."""
    few, many = _measure(stand, _FEW), _measure(stand, _MANY)
    return [
        _result(f"memory of the mover, a directory of {_MANY:,} files", many[0], few[0]),
        _result("memory of the index's builder, the same", many[1], few[1]),
    ]


def _measure(stand: Stand, count: int) -> tuple[float, float]:
    """Return the MB that the mover and a builder took at most."""
    tree, home = _directory(stand.folder / "names", count), stand.new_home("memory")
    with connected(home), Staff(home) as staff:
        seconds = timed(tapefs(home, "backup", "--name", "bench", tree))
    command = [sys.executable, "-m", "tapefs.bench.memory", str(home.path)]
    builder = float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    mover = staff.peak_bytes / 1e6
    print(f"memory: {count:,} files in {seconds:.0f} s, mover {mover:.0f} MB, builder {builder:.0f} MB")
    shutil.rmtree(tree)
    shutil.rmtree(home.path)
    return mover, builder


def _directory(folder: Path, count: int) -> Path:
    folder.mkdir()
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(count):
            os.close(os.open(f"a name of some length {number:07}.txt", os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=place))
    finally:
        os.close(place)
    return folder


def _result(what: str, many: float, few: float) -> Result:
    against = f"a directory of {_FEW:,}"
    return Result(
        what, f"{many:.0f} MB", against, f"{few:.0f} MB", many / few, f"≤ {GOAL_MB} MB", many <= GOAL_MB
    )  # fmt: skip


def build(home: Home) -> float:
    """Build the index of the newest set once more, beside the one that is there; return the MB it took at most."""
    ledger = LmdbLedger.open(home.ledger, readonly=True)
    try:
        set_id = ledger.backup_sets()[-1].set_id
        trailers = [home.trailer(segment.segment_id) for segment in ledger.segments(set_id)]
    finally:
        ledger.close()
    copy = home.path / f"{time.time_ns()}.lmdb"
    build_index(copy, set_id, trailers)
    copy.unlink()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    print(build(open_home(Path(sys.argv[1]))))
