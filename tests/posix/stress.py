"""Hundreds of programs that read the mount at once, many of them killed, while staging is evicted. Blocking.

`python -m tests.posix.stress [--programs N] [--at-once N] [--seed N]`, as root or not.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click

from tapefs.staging.area import StagingArea
from tests.posix.content import first_difference, whole_files
from tests.test_end_to_end import Installation

#: Less than the source has, so that the evictor has work; and small frames, so that a file has several.
SETTINGS = "backup frame_bytes = 262144\nstaging limit_bytes = 8000000"
#: A reader that was killed ends at once; this is for a machine with other work.
_END_S = 60.0
#: A program that nobody kills ends within this.
_DONE_S = 300.0
#: Signals that end a reader; the last one does because none of the programs handles it.
_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGALRM)


def make_source(folder: Path, seed: int) -> Path:
    """Make a tree of some 25 MB: many small files, some that are large."""
    chance = random.Random(seed)
    for name, count, most in (("small", 300, 20_000), ("medium", 24, 600_000), ("large", 4, 4_000_000)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            path = folder / name / f"{number % 7}/{name}-{number:03}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(chance.randbytes(chance.randrange(most // 4, most)))
    return folder


@dataclass(frozen=True)
class Task:
    """What a program is to read, and where that shows."""

    command: list[str]
    #: Where what it printed goes.
    printed: Path
    #: Where it copies to.
    target: Path | None = None
    #: What it copies: a file or a folder of the source.
    copied: Path | None = None
    #: What it prints when nobody kills it.
    wanted: bytes = b""


@dataclass
class Run:
    """A program that reads the mount, in a process group of its own."""

    task: Task
    process: subprocess.Popen[bytes]
    started_s: float
    #: When to kill it; never if there is none.
    kill_at_s: float | None
    signal: signal.Signals
    killed_at_s: float | None = None

    def is_gone(self) -> bool:
        """Has it ended, with all that it has started?"""
        if self.process.poll() is None:
            return False
        try:
            os.killpg(self.process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def is_late(self, now_s: float) -> bool:
        """Should it have ended by now?"""
        if self.killed_at_s is None:
            return now_s - self.started_s > _DONE_S
        return now_s - self.killed_at_s > _END_S


@dataclass
class Outcome:
    """How it went."""

    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    #: The longest that a killed program took to end.
    slowest_end_s: float = 0.0
    evictions: int = 0
    bytes_compared: int = 0


class Stress:
    """Starts programs, kills some, and looks at what they have read."""

    def __init__(self, source: Path, root: Path, folder: Path, seed: int) -> None:
        self._source = source
        self._root = root
        self._folder = folder
        self._chance = random.Random(seed)
        self._files = sorted(path.relative_to(source) for path in source.rglob("*") if path.is_file())
        self._trees = sorted(path.relative_to(source) for path in source.glob("*/*") if path.is_dir())
        self._started = 0
        self.outcome = Outcome()

    def run(self, programs: int, at_once: int) -> None:
        """Start so many programs, so many at once, and wait for all of them."""
        running: list[Run] = []
        while self._started < programs or running:
            while self._started < programs and len(running) < at_once:
                running.append(self._start())
            time.sleep(0.005)
            running = [run for run in running if not self._has_ended(run)]

    def _start(self) -> Run:
        self._started += 1
        task = self._task(self._folder / f"printed-{self._started}", self._folder / f"target-{self._started}")
        with task.printed.open("wb") as printed:
            process = subprocess.Popen(
                task.command, stdout=printed, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
            )
        now_s = time.monotonic()
        kill_at_s = now_s + self._chance.random() ** 2 * 2 if self._chance.random() < 0.5 else None
        return Run(task, process, now_s, kill_at_s, self._chance.choice(_SIGNALS))

    def _task(self, printed: Path, target: Path) -> Task:
        file, tree = self._chance.choice(self._files), self._chance.choice(self._trees)
        some = self._chance.sample(self._files, 8)
        paths = [str(self._root / path) for path in some]
        contents = [(self._source / path).read_bytes() for path in some]
        kind = self._chance.choice(("cp", "cp -r", "rsync", "md5sum", "cat"))
        if kind == "cp":
            return Task(["cp", str(self._root / file), str(target)], printed, target, self._source / file)
        if kind == "cp -r":
            return Task(["cp", "-r", str(self._root / tree), str(target)], printed, target, self._source / tree)
        if kind == "rsync":
            return Task(["rsync", "-a", f"{self._root / tree}/", str(target)], printed, target, self._source / tree)
        if kind == "md5sum":
            sums = [
                f"{hashlib.md5(content).hexdigest()}  {path}\n" for content, path in zip(contents, paths, strict=True)
            ]
            return Task(["md5sum", *paths], printed, wanted="".join(sums).encode())
        return Task(["cat", *paths], printed, wanted=b"".join(contents))

    def _has_ended(self, run: Run) -> bool:
        """Kill a program if it is time; tell whether it has ended, after having looked at what it did."""
        now_s = time.monotonic()
        if run.is_gone():
            self._judge(run, now_s)
            return True
        if run.killed_at_s is None and run.kill_at_s is not None and now_s > run.kill_at_s:
            if run.process.poll() is None:
                run.process.send_signal(run.signal)
                run.killed_at_s = now_s
            run.kill_at_s = None
        if not run.is_late(now_s):
            return False
        self.outcome.wrong.append(
            f"{run.task.command} hangs, {f'killed by {run.signal.name}' if run.killed_at_s else ''}"
        )
        os.killpg(run.process.pid, signal.SIGKILL)
        run.process.wait(_END_S)
        return True

    def _judge(self, run: Run, now_s: float) -> None:
        code, command = run.process.returncode, run.task.command
        how = "left alone"
        if run.killed_at_s is not None:
            how = run.signal.name if code else f"{run.signal.name} too late"
            self.outcome.slowest_end_s = max(self.outcome.slowest_end_s, now_s - run.killed_at_s)
        elif code:
            said = [line for line in run.task.printed.read_bytes().splitlines() if command[0].encode() in line[:10]]
            self.outcome.wrong.append(f"{command[0]} ended with {code}: {said}")
        self.outcome.ended[f"{command[0]}, {how}"] += 1
        self.outcome.wrong += [f"{command}, {how}: {each}" for each in self._differences(run.task, is_whole=code == 0)]
        run.task.printed.unlink()
        if run.task.target is not None and run.task.target.is_dir():
            shutil.rmtree(run.task.target)
        elif run.task.target is not None:
            run.task.target.unlink(missing_ok=True)

    def _differences(self, task: Task, *, is_whole: bool) -> Iterator[str]:
        """Yield what is wrong with what a program has copied or printed; what was killed may have less."""
        if task.target is None or task.copied is None:
            # What a dying program says about signals comes behind what it has read.
            yield from self._difference("output", task.wanted, task.printed.read_bytes(), is_whole)
            return
        if not task.copied.is_dir():
            found = task.target.read_bytes() if task.target.exists() else b""
            yield from self._difference("copy", task.copied.read_bytes(), found, is_whole)
            return
        copies = {path.relative_to(task.target): path for path in task.target.rglob("*") if path.is_file()}
        if is_whole and len(copies) != sum(path.is_file() for path in task.copied.rglob("*")):
            yield f"{len(copies)} files"
        for name, path in copies.items():
            # Unfinished, rsync's have a dot before the name and six letters behind it.
            known = name if (task.copied / name).exists() else name.with_name(name.name[1:].rpartition(".")[0])
            yield from self._difference(str(name), (task.copied / known).read_bytes(), path.read_bytes(), is_whole)

    def _difference(self, what: str, wanted: bytes, found: bytes, is_whole: bool) -> Iterator[str]:
        self.outcome.bytes_compared += len(found)
        if found != (wanted if is_whole else wanted[: len(found)]):
            yield f"{what}: {first_difference(wanted, found)}"


@contextmanager
def evictions(staging: Path, outcome: Outcome, seed: int) -> Iterator[None]:
    """Drop all that is staged and not open, again and again, during the block."""
    ending = threading.Event()
    chance = random.Random(seed)
    area = StagingArea(staging)

    def evict() -> None:
        while not ending.wait(chance.random() * 0.3):
            area.evict_all()
            outcome.evictions += 1

    thread = threading.Thread(target=evict)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def stress(folder: Path, programs: int, at_once: int, seed: int) -> Outcome:
    """Make an archive in `folder`, read it with so many programs, and end everything; a mount that fails raises."""
    source = make_source(folder / "source", seed)
    installation = Installation(folder)
    try:
        installation.run("init", "--tapes", "2", "--tape-size", "256MiB")
        toml = installation.home / "tapefs.toml"
        toml.write_text(with_settings(toml.read_text()))
        installation.backup(source, "--name", "stress")
        installation.serve()
        root = installation.mount_point / "jobs/stress/latest" / source.relative_to("/")
        (folder / "targets").mkdir()
        work = Stress(source, root, folder / "targets", seed)
        with evictions(installation.home / "staging", work.outcome, seed):
            work.run(programs, at_once)
        # Nothing was read last: all of it is right, and all of it is there.
        work.outcome.wrong += whole_files(os.fsencode(source), os.fsencode(root))
    finally:
        installation.close()
    for line in (folder / "log").read_text().splitlines():
        if any(word in line for word in ("defect", "Traceback", "[error", "[warning", "failed")):
            work.outcome.wrong.append(f"in the log: {line}")
    return work.outcome


def with_settings(toml: str) -> str:
    """Put small frames and a small staging area into an installation's settings."""
    for line in SETTINGS.splitlines():
        section, _, setting = line.partition(" ")
        assert f"[{section}]\n" in toml
        toml = toml.replace(f"[{section}]\n", f"[{section}]\n{setting}\n")
    return toml


@click.command()
@click.option("--programs", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--at-once", type=click.IntRange(1), default=200, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
def main(programs: int, at_once: int, seed: int) -> None:
    """Read a mount with many programs at once, kill half of them, evict meanwhile; exit code 1 if a byte is wrong."""
    with tempfile.TemporaryDirectory(prefix="tapefs-stress.") as name:
        begin_s = time.monotonic()
        outcome = stress(Path(name), programs, at_once, seed)
    for word, count in sorted(outcome.ended.items()):
        print(f"{count:6} {word}")
    print(
        f"{outcome.bytes_compared / 1e9:.2f} GB compared, {outcome.evictions} evictions, the slowest end after a kill "
        f"{outcome.slowest_end_s:.2f} s, {time.monotonic() - begin_s:.0f} s in all, wrong: {len(outcome.wrong)}"
    )
    for line in outcome.wrong[:20]:
        print(line)
    sys.exit(bool(outcome.wrong))


if __name__ == "__main__":
    main()
