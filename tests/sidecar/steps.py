"""Watches the event loop: which steps took long, in processor time of its thread, for the machine may be busy."""

from __future__ import annotations

import time
from pathlib import Path

import trio


class Steps(trio.abc.Instrument):
    """Writes a line for each long step into a file."""

    def __init__(self, path: Path, longest_s: float) -> None:
        self._path = path
        self._longest_s = longest_s
        self._began_s = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A task goes on."""
        self._began_s = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """It waits again."""
        spent_s = time.thread_time() - self._began_s
        if spent_s >= self._longest_s:
            with self._path.open("a") as file:
                file.write(f"{spent_s * 1000:.0f} ms {task.name}\n")
