"""Mounts a state folder: `python -m tests.mount.mount_process HOME DIR`, and the handle that tests have on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from tapefs.home import open_home
from tapefs.mount.mount_point import find_mount
from tapefs.mount.session import run_mount
from tests.forking.client import Process, start


@dataclass
class Mounted:
    """A mount in a process of its own."""

    path: Path
    process: Process
    log: Path

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def is_mounted(self) -> bool:
        return find_mount(self.path) is not None

    def end(self) -> int:
        """Ask it to end; return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def mounted(home: Path, path: Path, log: Path) -> Iterator[Mounted]:
    """Mount, and see to it that no mount and no process is left; a defect in the mount fails the test."""
    path.mkdir(exist_ok=True)
    with log.open("w") as stderr:
        process = start("-m", "tests.mount.mount_process", home, path, stdout=subprocess.PIPE, stderr=stderr)
    mount = Mounted(path, process, log)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", log.read_text()
        yield mount
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(60)
        process.stdout.close()
        while find_mount(path) is not None:
            subprocess.run(["umount", "-l", str(path)], check=True)
    assert process.returncode == 0 or process.returncode == -signal.SIGKILL, log.read_text()
    defects = [each for each in mount.events() if each["event"] == "defect in the mount"]
    assert not defects, defects
    assert "Traceback" not in log.read_text()


def main() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    home = open_home(Path(sys.argv[1]))
    run_mount(home, Path(sys.argv[2]), allow_other=True, ready=lambda: print("ready", flush=True))


if __name__ == "__main__":
    os.chdir("/")
    main()
