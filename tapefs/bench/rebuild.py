"""Getting a catalog back: a library of virtual tapes whose sets have millions of entries. Blocking; takes minutes.

    .venv/bin/python -m tapefs.bench.rebuild [TAPES] [ENTRIES PER TAPE] [index|trailers]

Beside it in the same run: `zstd` alone decompresses the same SET INDEXes, which is the least that anybody has to do who
reads them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from catalog.lmdb_ledger import LmdbLedger
from catalog.records import SetState
from tapefs.bench.made_tapes import fill_library
from tapefs.bench.usage import Spent, spent
from tapefs.home import Home
from tapefs.setup_home import NewHome, create_home

_TAPES, _ENTRIES = 100, 100_000
#: LABEL, SET LABEL, HEADER, PAYLOAD and TRAILER stand before it.
_INDEX_FILE = "00005"


def main() -> None:
    """Print one line per measurement."""
    tapes = int(sys.argv[1]) if len(sys.argv) > 1 else _TAPES
    per_tape = int(sys.argv[2]) if len(sys.argv) > 2 else _ENTRIES
    with tempfile.TemporaryDirectory(prefix="tapefs-bench-") as folder:
        path = Path(folder) / "home"
        home = create_home(NewHome(path=path, tapes=tapes, tape_bytes=per_tape * 1000 + (64 << 20)), time.time_ns())
        began_s = time.perf_counter()
        entries = fill_library(home, per_tape)
        print(f"made {tapes} tapes with {entries:,} entries in {time.perf_counter() - began_s:.0f} s", flush=True)
        for method in sys.argv[3:] or ("index", "trailers"):
            _measure(home, tapes, entries, method)


def _measure(home: Home, tapes: int, entries: int, method: str) -> None:
    alone = _zstd_alone(home)
    _lose_catalog(home)
    began_s = time.perf_counter()
    command = [sys.executable, "-m", "tapefs", "--home", str(home.path), "rebuild", "--from", method]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    took = Spent(time.perf_counter() - began_s, used.ru_utime + used.ru_stime)
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        sets = [each for each in ledger.backup_sets() if each.state is SetState.COMPLETE]
        if len(sets) != tapes or sum(each.files + each.directories for each in sets) != entries:
            raise AssertionError("the rebuilt catalog is not that of the tapes")
    print(
        f"rebuild --from {method}: {took}, {entries / took.wall_s:,.0f} entries/s by the clock, "
        f"{entries / took.cpu_s:,.0f} a processor second, {used.ru_maxrss / 1024:,.0f} MiB of memory at most; "
        f"zstd alone: {alone}, ratio {took.cpu_s / alone.cpu_s:.1f}",
        flush=True,
    )


def _zstd_alone(home: Home) -> Spent:
    indexes = sorted((home.library / "cartridges").glob(f"*/{_INDEX_FILE}"))
    return spent(["zstd", "-dcq", *map(str, indexes)])


def _lose_catalog(home: Home) -> None:
    for folder in (home.ledger, home.indexes, home.trailers):
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
