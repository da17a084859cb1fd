"""The product as a person uses it: commands, a mount, processes that are killed. Nothing is faked."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backup.trees import odd_tree, random_files, snapshot
from tests.forking.client import run

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is missing: no mount can be tested"),
]

_PATIENCE_S = 60.0


def wait_until(done: Callable[[], object], what: str) -> None:
    """Return once `done()` is true; fail after a minute."""
    deadline_s = time.monotonic() + _PATIENCE_S
    while not done():
        assert time.monotonic() < deadline_s, f"{what} did not happen"
        time.sleep(0.02)


class Installation:
    """A state folder and the commands on it; ends what it started."""

    def __init__(self, folder: Path, command_s: float = 300) -> None:
        self.folder = folder
        #: A command may take so long.
        self._command_s = command_s
        self.home = folder / "home"
        self.mount_point = folder / "mnt"
        self.mount_point.mkdir()
        self._started: list[subprocess.Popen[bytes]] = []

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "tapefs", "--home", str(self.home), *map(str, arguments)]

    def run(self, *arguments: str | Path, ok: bool = True, env: dict[str, str] | None = None) -> str:
        """Run a command to its end and return its output."""
        # Forked, as there are many; what stays is started.
        environment = {**os.environ, **(env or {})}
        done = run(*self.command(*arguments)[1:], env=environment, cwd=Path.cwd(), timeout=self._command_s)
        assert (done.returncode == 0) is ok, done.stderr + done.stdout
        return done.stdout if ok else done.stderr

    def backup(self, *arguments: str | Path) -> str:
        """Back up and return the set id."""
        return self.run("backup", *arguments).splitlines()[-1]

    def listing(self, *arguments: str) -> list[dict[str, object]]:
        """Return a `--json` listing."""
        listed = json.loads(self.run(*arguments, "--json"))
        assert isinstance(listed, list)
        return listed

    def start(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Start a command that stays."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(self.command(*arguments), stdout=subprocess.DEVNULL, stderr=log)
        self._started.append(process)
        return process

    def serve(self) -> subprocess.Popen[bytes]:
        """Start a sidecar and the mount, and wait for both."""
        process = self.start("serve", "--listen", "127.0.0.1:0", "--mount", self.mount_point)
        wait_until(self.is_mounted, "the mount")
        return process

    def is_served(self) -> bool:
        """Does a sidecar answer? The socket of one that was killed is still there."""
        with socket.socket(socket.AF_UNIX) as ours:
            try:
                ours.connect(str(self.home / "sidecar.sock"))
            except OSError:
                return False
        return True

    def is_mounted(self) -> bool:
        """Does a live mount answer? A dead one still looks like a mount point."""
        try:
            return "jobs" in os.listdir(self.mount_point)
        except OSError:
            return False

    def mount(self) -> subprocess.Popen[bytes]:
        """Mount, and wait for it."""
        process = self.start("mount", self.mount_point)
        wait_until(self.is_mounted, "the mount")
        return process

    def movers(self) -> list[int]:
        """Return the process ids of this state folder's movers."""
        return self.processes("tapefs.mover")

    def processes(self, word: str) -> list[int]:
        """Return our processes with that word in their command line."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                line = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
            except OSError:
                continue
            if word.encode() in line and str(self.home).encode() in line:
                found.append(int(entry.name))
        return found

    def close(self) -> None:
        """End everything, politely at first."""
        for process in reversed(self._started):
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        if os.path.ismount(self.mount_point):
            subprocess.run(["umount", "-l", str(self.mount_point)], check=False)
        wait_until(lambda: not self.processes("tapefs") and not self.movers(), "the end of all processes")


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    made.run("init", "--tapes", "4", "--tape-size", "256MiB")
    yield made
    made.close()


def test_backup_mount_copy_compare(installation: Installation, tmp_path: Path) -> None:
    """A tree goes to tape, is evicted, and comes back identical through the mount, by opening its files."""
    tree = odd_tree(tmp_path)
    random_files(tree / "files", 10, 2_000_000)
    set_id = installation.backup(tree, "--name", "odd")
    installation.serve()
    installation.run("evict", "--all")
    latest = installation.mount_point / "jobs/odd/latest"
    assert os.readlink(installation.mount_point / "sets" / set_id).startswith("../jobs/odd/")
    out = tmp_path / "out"
    subprocess.run(["cp", "-a", f"{latest}{tree}", str(out)], check=True)
    assert snapshot(out) == snapshot(tree)
    drive = installation.listing("drives")[0]
    assert drive["counters"]["bytes_read"] > 20_000_000  # type: ignore[index]


def test_a_state_folder_with_a_long_path(tmp_path: Path) -> None:
    """The path of its socket does not fit into a socket address: commands, sidecar and mount find it all the same."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    tree = random_files(tmp_path / "tree", 3, 1000)
    installation = Installation(folder)
    try:
        installation.run("init", "--tapes", "1", "--tape-size", "64MiB")
        installation.backup(tree, "--name", "job")
        installation.mount()
        latest = installation.mount_point / "jobs/job/latest"
        assert snapshot(Path(f"{latest}{tree}")) == snapshot(tree)
    finally:
        installation.close()


def test_restore_from_tape(installation: Installation, tmp_path: Path) -> None:
    """`restore` brings the tree back without a mount; a path brings that subtree only."""
    tree = odd_tree(tmp_path)
    set_id = installation.backup(tree)
    installation.run("restore", set_id, "--to", tmp_path / "all")
    assert snapshot(Path(f"{tmp_path / 'all'}{tree}")) == snapshot(tree)
    installation.run("restore", set_id[:8], f"{tree}/level-00", "--to", tmp_path / "some")
    assert snapshot(Path(f"{tmp_path / 'some'}{tree}/level-00")) == snapshot(tree / "level-00")
    assert not Path(f"{tmp_path / 'some'}{tree}/plain").exists()


def test_new_sets_appear_in_a_mount_that_is_there(installation: Installation, tmp_path: Path) -> None:
    """A mounted archive shows a new set at once, and `latest` follows it."""
    tree = random_files(tmp_path / "tree", 3, 1000)
    installation.backup(tree, "--name", "job")
    installation.serve()
    job = installation.mount_point / "jobs/job"
    first = os.readlink(job / "latest")
    (tree / "new").write_text("new")
    time.sleep(1.1)  # names are seconds: the second set gets a plain one
    installation.backup(tree, "--name", "job")
    wait_until(lambda: os.readlink(job / "latest") != first, "the new set")
    assert Path(f"{job / 'latest'}{tree}/new").read_text() == "new"


@pytest.mark.parametrize("victim", ["mover", "sidecar"])
def test_killed_during_a_backup(installation: Installation, tmp_path: Path, victim: str) -> None:
    """kill -9 within a backup: no half set is shown, the run goes on by itself, and the next backup is whole."""
    tree = random_files(tmp_path / "tree", 60, 2_000_000)
    sidecar = installation.start("serve", "--listen", "127.0.0.1:0")
    wait_until(lambda: installation.is_served() and installation.movers(), "the sidecar")
    job = installation.run("backup", tree, "--no-wait").strip()
    wait_until(lambda: any(s["segments"] for s in installation.listing("sets")), "the first segment")
    os.kill(installation.movers()[0] if victim == "mover" else sidecar.pid, signal.SIGKILL)
    if victim == "sidecar":
        sidecar.wait()
        wait_until(lambda: not installation.movers(), "the mover's end")
        assert {s["state"] for s in installation.listing("sets")} == {"running"}
        installation.start("serve", "--listen", "127.0.0.1:0")
        wait_until(lambda: bool(installation.movers()), "the next sidecar")
    wait_until(lambda: installation.listing("jobs")[0]["state"] not in ("running", "queued"), "the job's end")
    states = {str(j["number"]): j["state"] for j in installation.listing("jobs")}
    assert states[job] == "completed"
    set_id = installation.backup(tree)
    states = {s["set_id"]: s["state"] for s in installation.listing("sets")}
    assert states.pop(set_id) == "complete"
    assert set(states.values()) == {"complete"}
    installation.run("restore", set_id, "--to", tmp_path / "out")
    assert snapshot(Path(f"{tmp_path / 'out'}{tree}")) == snapshot(tree)


def test_a_killed_mount_leaves_a_place_to_mount_again(installation: Installation, tmp_path: Path) -> None:
    """kill -9 of the mount leaves a dead mount; the next one clears it away, and the files are there."""
    tree = random_files(tmp_path / "tree", 3, 1000)
    installation.backup(tree, "--name", "job")
    mount = installation.mount()
    mount.kill()
    mount.wait()
    with pytest.raises(OSError, match="not connected"):
        os.listdir(installation.mount_point)
    installation.mount()
    latest = installation.mount_point / "jobs/job/latest"
    assert snapshot(Path(f"{latest}{tree}")) == snapshot(tree)


def test_two_sidecars_are_refused(installation: Installation) -> None:
    """The second owner of a state folder is told so in one line."""
    installation.start("serve", "--listen", "127.0.0.1:0")
    wait_until(lambda: installation.is_served() and installation.movers(), "the sidecar")
    message = installation.run("serve", "--listen", "127.0.0.1:0", ok=False)
    assert message.startswith("tapefs: ")
    assert len(message.strip().splitlines()) == 1


def test_a_missing_source_is_one_line(installation: Installation, tmp_path: Path) -> None:
    """A source that does not exist fails at once, with its name, and leaves no set."""
    message = installation.run("backup", tmp_path / "nothing", ok=False)
    assert str(tmp_path / "nothing") in message
    assert len(message.strip().splitlines()) == 1
    assert installation.listing("sets") == []


def test_a_tape_that_fills_up_is_followed_by_the_next(installation: Installation, tmp_path: Path) -> None:
    """A set larger than a tape lies on two, and reads back as one."""
    tree = random_files(tmp_path / "tree", 150, 2_000_000)
    set_id = installation.backup(tree)
    (shown,) = installation.listing("sets")
    assert len(shown["tapes"]) == 2  # type: ignore[arg-type]
    assert {t["state"] for t in installation.listing("tapes")} == {"full", "appendable", "blank"}
    installation.run("restore", set_id, "--to", tmp_path / "out")
    assert snapshot(Path(f"{tmp_path / 'out'}{tree}")) == snapshot(tree)


def test_incremental_sets_show_and_restore_the_whole_tree(installation: Installation, tmp_path: Path) -> None:
    """Each set of a chain, through the mount and by restore from tape, is the tree as it was; links and all."""
    tree = odd_tree(tmp_path)
    random_files(tree / "files", 6, 300_000)
    looks = {installation.backup(tree, "--name", "odd"): snapshot(tree)}
    for number in range(3):
        (tree / "files" / f"file-{number:05}").write_bytes(os.urandom(200_000))
        (tree / "files" / f"file-{number + 3:05}").unlink()
        (tree / f"new-{number}").write_text("new")
        (tree / "level-00" / "file").rename(tree / f"moved-{number}")
        (tree / "level-00" / "file").write_text("another")
        kind = "differential" if number == 1 else "incremental"
        looks[installation.backup(tree, "--name", "odd", "--type", kind)] = snapshot(tree)
    (job,) = installation.listing("jobs")
    assert (job["name"], job["runs"]) == ("odd", 4)
    for set_id, look in looks.items():
        installation.run("evict", "--all")
        installation.run("restore", set_id, "--to", tmp_path / set_id)
        assert snapshot(Path(f"{tmp_path / set_id}{tree}")) == look
    installation.serve()
    for set_id, look in looks.items():
        assert snapshot(Path(f"{installation.mount_point}/sets/{set_id}{tree}")) == look


def test_an_incremental_backup_without_an_earlier_one(installation: Installation, tmp_path: Path) -> None:
    """The first run is full, and says so; one job is used again and again, another for other sources."""
    tree = odd_tree(tmp_path)
    done = subprocess.run(
        installation.command("backup", tree, "--type", "incremental"), capture_output=True, text=True, check=True
    )
    assert "made a full set" in done.stderr
    installation.backup(tree, "--type", "incremental")
    installation.backup(tree)
    installation.backup(tree / "empty", "--name", tree.name, "--type", "differential")
    assert [each["type"] for each in installation.listing("sets")] == ["full", "incremental", "full", "full"]
    assert [each["runs"] for each in installation.listing("jobs")] == [3, 1]
