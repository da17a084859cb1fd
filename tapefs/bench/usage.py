"""What commands and the processes of a state folder use: seconds, processor time, memory. Blocking."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tapefs.home import Home

_SAMPLE_S = 0.1
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Spent:
    """What something took."""

    wall_s: float
    #: Of all processors together, user and system.
    cpu_s: float

    def __str__(self) -> str:
        return f"{self.wall_s:.2f} s ({self.cpu_s:.2f} s of processors)"


def spent(command: Sequence[str], others: Callable[[], float] = float) -> Spent:
    """Run a command to its good end, its output going nowhere; with the children that it has waited for.

    `others` tells the processor seconds that others have used so far; those that come meanwhile count.
    """
    begin, before = time.perf_counter(), others()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # The sum over all children would count a sidecar of the turn before that ends in this one.
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Spent(time.perf_counter() - begin, used.ru_utime + used.ru_stime + others() - before)


def processor_s(pid: int) -> float:
    """Return the processor seconds that a process has used so far, with the children that it has waited for."""
    return _cpu_s(Path(f"/proc/{pid}"))


class Staff:
    """The sidecar and the movers of a state folder, which serve a command without being its children."""

    def __init__(self, home: Home) -> None:
        #: The most that a mover had in memory at once, in bytes, while watched.
        self.peak_bytes = 0
        self._mark = str(home.path).encode()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Staff:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def cpu_s(self) -> float:
        """Return the processor seconds they have used so far, with those of children they have waited for."""
        return sum(_cpu_s(folder) for folder, _ in self._processes())

    def _processes(self) -> Iterator[tuple[Path, bytes]]:
        for folder in Path("/proc").glob("[0-9]*"):
            command = _text(folder / "cmdline")
            if self._mark in command and (b"tapefs.mover" in command or b"serve" in command):
                yield folder, command

    def _watch(self) -> None:
        """Look at the movers' own record of their greatest size; a mover once found is not looked for again."""
        movers: list[Path] = []
        while not self._end.wait(_SAMPLE_S):
            movers = movers or [folder for folder, command in self._processes() if b"tapefs.mover" in command]
            self.peak_bytes = max([self.peak_bytes, *map(_peak_bytes, movers)])


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # The process has just ended.


def _cpu_s(folder: Path) -> float:
    fields = _text(folder / "stat").rpartition(b")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_S


def _peak_bytes(folder: Path) -> int:
    lines = _text(folder / "status").decode().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
