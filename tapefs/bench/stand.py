"""What the benchmarks share: a place to work, commands with their times, results as lines of a table. Blocking."""

from __future__ import annotations

import fcntl
import mmap
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tapefs.home import Home, open_home
from tapefs.setup_home import NewHome, create_home

#: Large enough that no benchmark changes tapes; the files are as long as what is written.
TAPE_BYTES = 64 * 1024**3
MOUNT_S = 60.0
SIDECAR_S = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table."""

    what: str
    ours: str
    against: str
    theirs: str
    #: Ours to theirs; None where there is nothing to compare with.
    ratio: float | None
    goal: str
    #: None where there is no goal.
    is_reached: bool | None


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a benchmark works."""

    folder: Path

    def new_home(self, name: str) -> Home:
        """Make a state folder."""
        path = self.folder / name
        create_home(NewHome(path=path, tapes=4, tape_bytes=TAPE_BYTES), time.time_ns())
        return open_home(path)


@contextmanager
def stand() -> Iterator[Stand]:
    """Yield a place to work, in TMPDIR; removed afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="tapefs-bench."))
    try:
        yield Stand(folder)
    finally:
        for lock in folder.glob("*/lock"):
            _wait_released(lock)
        shutil.rmtree(folder)


def _wait_released(lock: Path) -> None:
    """Wait until no sidecar owns the state folder. Raises TimeoutError.

    One that a command has started outlives the command: the next one may need it, and it ends when it has been idle.
    Its movers hold the lock, too, and the last thing any of them does is to let go of it.
    """
    deadline_s = time.monotonic() + SIDECAR_S
    with lock.open("rb") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    owner = file.read().decode().strip()
                    raise TimeoutError(f"the sidecar with pid {owner} still owns {lock.parent}") from None
                time.sleep(0.05)
            else:
                return


def tapefs(home: Home, *arguments: str | Path) -> list[str]:
    """Return the command line of one of our commands."""
    return [sys.executable, "-m", "tapefs", "--home", str(home.path), *map(str, arguments)]


def timed(command: Sequence[str], output: Path | None = None) -> float:
    """Run a command to its good end and return its seconds; stdout goes to `output` or nowhere."""
    with open(output or os.devnull, "wb") as sink:
        begin = time.perf_counter()
        subprocess.run(command, stdout=sink, stderr=subprocess.DEVNULL, check=True)
        return time.perf_counter() - begin


def out_of(command: Sequence[str]) -> str:
    """Run a command to its good end and return the last line it printed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return done.stdout.decode().rstrip("\n").rpartition("\n")[2]


@contextmanager
def mounted(command: Sequence[str], folder: Path) -> Iterator[int]:
    """Run a command that mounts at `folder` until the end of the block; yield its process id.

    Raises RuntimeError when it does not mount.
    """
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + MOUNT_S
        while not os.path.ismount(folder):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise RuntimeError(f"{folder} was not mounted: {process.communicate()[1].decode(errors='replace')}")
            time.sleep(0.05)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate()


def warm_memory(size_bytes: int) -> None:
    """Take so much memory and give it back, so that the kernel has it at hand.

    A virtual machine may have handed its free memory to its host. Getting 4 KiB back took 14 µs, where a page that is
    there takes 1.2: a file of 512 MiB that goes to the page cache was read in 0.2 or in 2 s, whatever served it.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
    mmap.mmap(-1, size_bytes, flags=flags).close()


def ratio_of(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Return the median of the ratios turn by turn: what else the machine does falls on both sides of a turn."""
    return median([mine / other for mine, other in zip(ours, theirs, strict=True)])


def machine() -> str:
    """Return one line about this machine."""
    with open("/proc/cpuinfo") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "unknown")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**3
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores of {model}, {memory} GiB, {system}"


def print_results(results: Sequence[Result]) -> None:
    """Print the table as Markdown, which also reads well on a terminal."""
    print(f"\n{machine()}\n")
    print("| what | tapefs | against | there | ratio | goal | |")
    print("|---|---|---|---|---|---|---|")
    for each in results:
        ratio = "" if each.ratio is None else f"{each.ratio:.2f}"
        verdict = {None: "", True: "reached", False: "**missed**"}[each.is_reached]
        print(f"| {each.what} | {each.ours} | {each.against} | {each.theirs} | {ratio} | {each.goal} | {verdict} |")
