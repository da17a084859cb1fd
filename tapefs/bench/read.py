"""Sequential read of a staged file against the local file, and against a mount that serves one buffer. Blocking."""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path
from statistics import median

from tapefs.bench.stand import Result, Stand, mounted, out_of, ratio_of, tapefs, timed, warm_memory
from tapefs.home import Home
from tapefs.mount.tuning import tune

FILE_BYTES = 512 * 1024 * 1024
GOAL = 0.75
_CHUNK_BYTES = 1024 * 1024
#: Made of random pieces that come again, so that it neither compresses to nothing nor takes long to make.
_PIECES = 64

CONSTANT = Path(__file__).parent.parent.parent / "scripts" / "constant_fs.py"


def run(stand: Stand, runs: int) -> list[Result]:
    """Measure all in turns: mounts are new each time, so that nothing comes from the kernel's page cache."""
    print(f"read: one file of {FILE_BYTES // 1024**2} MiB")
    home = stand.new_home("read")
    source = _make_file(stand.folder / "source")
    set_id = out_of(tapefs(home, "backup", "--name", "bench", source))
    timed(tapefs(home, "stage", set_id))
    local, staged, constant = [], [], []
    for _ in range(runs):
        local.append(_rate(source))
        staged.append(_staged_rate(stand, home, source))
        constant.append(_constant_rate(stand))
        print(f"  local {local[-1]:.0f} MB/s, staged {staged[-1]:.0f} MB/s, constant buffer {constant[-1]:.0f} MB/s")
    ours = median(staged)
    ratio = ratio_of(staged, constant)
    return [
        Result(
            "sequential read of a staged file",
            f"{ours:.0f} MB/s",
            "pyfuse3 serving one constant buffer",
            f"{median(constant):.0f} MB/s",
            ratio,
            f"≥ {GOAL}",
            ratio >= GOAL,
        ),
        Result(
            "the same",
            f"{ours:.0f} MB/s",
            "local file in the page cache",
            f"{median(local):.0f} MB/s",
            ratio_of(staged, local),
            "",
            True,
        ),
    ]


def _make_file(path: Path) -> Path:
    pieces = [random.Random(seed).randbytes(_CHUNK_BYTES) for seed in range(_PIECES)]  # noqa: S311
    with path.open("wb") as file:
        for number in range(FILE_BYTES // _CHUNK_BYTES):
            file.write(pieces[number % _PIECES])
    return path


def _rate(path: Path) -> float:
    """Read a file as `cat` does and return MB/s."""
    warm_memory(2 * FILE_BYTES)
    total = 0
    buffer = bytearray(_CHUNK_BYTES)
    begin = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    seconds = time.perf_counter() - begin
    if total != FILE_BYTES:
        raise RuntimeError(f"{path} gave {total} bytes instead of {FILE_BYTES}")
    return total / 1e6 / seconds


def _staged_rate(stand: Stand, home: Home, source: Path) -> float:
    folder = stand.folder / "mnt"
    with mounted(tapefs(home, "mount", folder), folder):
        return _rate(folder / "jobs/bench/latest" / source.relative_to("/"))


def _constant_rate(stand: Stand) -> float:
    folder = stand.folder / "constant"
    with mounted([sys.executable, str(CONSTANT), str(folder), str(FILE_BYTES)], folder):
        tune(os.minor(folder.stat().st_dev))  # The same read-ahead as ours has.
        return _rate(folder / "file")
