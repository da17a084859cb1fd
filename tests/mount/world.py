"""The whole product on a small archive: a sidecar with its mover and mounts, all as processes that can be killed."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tapefs.home import Home, open_home
from tapefs.mount.mount_point import find_mount
from tapefs.setup_home import NewHome, create_home
from tests.forking.client import run

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "tapefs")
START_S = 60.0


class World:
    """An archive of `source`; processes are started by hand and ended by `end`."""

    def __init__(self, folder: Path, *, files: int, file_bytes: int, staging: str) -> None:
        """`staging` is what stands under [staging] in the settings."""
        self.folder = folder
        self.source = folder / "source"
        self.source.mkdir()
        chance = random.Random(11)
        for number in range(files):
            # Some small ones between, so that frames hold the ends of several files.
            length = file_bytes if number % 3 else chance.randrange(1, 20_000)
            (self.source / f"{number:03}").write_bytes(chance.randbytes(length))
        tape_bytes = 4 * files * file_bytes + 64 * 1024**2
        self.home: Home = create_home(NewHome(path=folder / "home", tapes=2, tape_bytes=tape_bytes), time.time_ns())
        settings = self.home.path / "tapefs.toml"
        text = settings.read_text().replace("[staging]\n", f"[staging]\n{staging}\n")
        settings.write_text(re.sub(r"\[recall\]\n", "[recall]\ndeadline_s = 30.0\n", text))
        self.home = open_home(self.home.path)
        self._mounts: dict[Path, subprocess.Popen[bytes]] = {}
        self._sidecar: subprocess.Popen[bytes] | None = None
        self._log = (folder / "log").open("ab")

    # -- processes -----------------------------------------------------------------------------------------------------

    def start_sidecar(self) -> None:
        """Start a sidecar and wait until it answers."""
        reader, writer = os.pipe()
        self._sidecar = subprocess.Popen(
            [*COMMAND, "--home", str(self.home.path), "serve", "--listen", "127.0.0.1:0"],
            env=os.environ | {"TAPEFS_READY_FD": str(writer)},
            pass_fds=[writer],
            stdout=self._log,
            stderr=self._log,
            cwd=ROOT,
        )
        os.close(writer)
        with os.fdopen(reader) as words:
            assert words.readline() == "ready\n", self.log()

    def kill_sidecar(self) -> None:
        """Kill it as it stands; its mover ends by itself."""
        assert self._sidecar is not None
        mover = self._mover()
        self._sidecar.kill()
        self._sidecar.wait()
        if mover is not None:
            wait_until(lambda: not Path(f"/proc/{mover}").exists(), "the mover outlives its sidecar")

    def kill_mover(self) -> bool:
        """Kill the mover, if there is one at the moment."""
        mover = self._mover()
        if mover is None:
            return False
        try:
            os.kill(mover, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def _mover(self) -> int | None:
        assert self._sidecar is not None
        for pid in Path(f"/proc/{self._sidecar.pid}/task/{self._sidecar.pid}/children").read_text().split():
            try:
                if b"tapefs.mover" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return int(pid)
            except FileNotFoundError:
                continue
        return None

    def mount(self, name: str) -> Path:
        """Mount; return the tree as it is mounted."""
        path = self.folder / name
        path.mkdir(exist_ok=True)
        self._mounts[path] = subprocess.Popen(
            [*COMMAND, "--home", str(self.home.path), "mount", str(path)],
            stdout=self._log,
            stderr=self._log,
            cwd=ROOT,
        )
        wait_until(lambda: find_mount(path) is not None, "not mounted")
        return path / "jobs/docs/latest" / str(self.source).lstrip("/")

    def kill_mount(self, name: str) -> None:
        """Kill a mount as it stands and take it out of the way."""
        path = self.folder / name
        process = self._mounts.pop(path)
        process.kill()
        process.wait()
        _unmount(path)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return run("-m", "tapefs", "--home", self.home.path, *arguments, timeout=180)

    def back_up(self) -> None:
        """Make the set."""
        done = self.run("backup", str(self.source), "--name", "docs")
        assert done.returncode == 0, done.stderr

    def log(self) -> str:
        """Return what all processes have said."""
        return (self.folder / "log").read_text(errors="replace")

    def end(self) -> None:
        """End everything."""
        for path, process in self._mounts.items():
            _end(process)
            _unmount(path)
        if self._sidecar is not None:
            _end(self._sidecar)
        self._log.close()


@contextmanager
def world(folder: Path, *, files: int, file_bytes: int, staging: str) -> Iterator[World]:
    """A world with its set made and a sidecar; nothing of it is left afterwards."""
    made = World(folder, files=files, file_bytes=file_bytes, staging=staging)
    try:
        made.start_sidecar()
        made.back_up()
        yield made
    finally:
        made.end()


def wait_until(is_true: Callable[[], bool], what: str, seconds: float = START_S) -> None:
    deadline_s = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _unmount(path: Path) -> None:
    while find_mount(path) is not None:
        subprocess.run(["umount", "-l", str(path)], check=True)
