"""A forked program is as a started one: what it finds around itself, how it ends, what can be done to it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.forking.client import READ_EARLY, ROOT, Forked, run, start

PROBE = "tests.forking.probe"
DONE_S = 60.0


def forked(*arguments: str, **options: Any) -> Forked:
    process = start("-m", PROBE, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    assert isinstance(process, Forked)
    return process


def started(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", PROBE, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, **options)


def test_it_finds_the_same_around_itself() -> None:
    """Modules apart, and what makes one process another."""
    reader, writer = os.pipe()
    before = os.umask(0o027)
    try:
        options: dict[str, Any] = {
            "cwd": ROOT,
            "env": {"PATH": os.environ["PATH"], "NAME": "a\udcffb", "TZ": "Asia/Tokyo"} | early(),
            "pass_fds": [writer],
        }
        said = []
        for make in (started, forked):
            with make("end", "é\udcff", **options) as process:
                lines, errors = process.communicate(timeout=DONE_S)
                assert (process.returncode, errors) == (0, "")
                said.append((json.loads(lines), process.pid))
    finally:
        os.umask(before)
        os.close(reader)
        os.close(writer)
    (one, one_pid), (other, other_pid) = said
    for facts in (one["facts"], other["facts"]):
        # Pipes of their own.
        assert set(facts["descriptors"]) == {"0", "1", "2", str(writer)}
        for number in ("1", "2"):
            assert facts["descriptors"][number][0].startswith("pipe:")
            facts["descriptors"][number][0] = "pipe"
    assert one["facts"] == other["facts"]
    assert one["own"][0] == one_pid
    assert other["own"][0] == other_pid
    assert one["own"][1] != other["own"][1]


def test_code_as_the_command() -> None:
    program = "import sys; print(sys.argv, sys.orig_argv[1:], sys.path[0], __name__, sys.stdin.read()); name = 1\n"
    program += "def f():\n    return name\nsys.exit(str(f()))"
    words = ["-c", program, "é"]
    pipes: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    said = []
    for make in (
        lambda: subprocess.Popen([sys.executable, *words], text=True, **pipes),
        lambda: start(*words, **pipes),
    ):
        with make() as process:
            process.stdin.write("more")
            process.stdin.close()
            said.append((process.stdout.read(), process.stderr.read(), process.wait(DONE_S)))
    assert said[0] == said[1]
    assert said[0][0].endswith(" __main__ more\n")
    assert said[0][1:] == ("1\n", 1)


def test_crash_points_are_armed(tmp_path: Path) -> None:
    """Though their modules were there before the variable."""
    environment = os.environ | {"TAPEFS_HOME": str(tmp_path / "home"), "TAPEFS_CRASH_AT": "init.rename.after"}
    assert run("-m", "tapefs", "init", env=environment).returncode == -signal.SIGKILL
    assert (tmp_path / "home").exists()
    code = "from catalog.crash import *; p = crash_point('a.b'); p(); p(); print('passed', flush=True); p()"
    done = run("-c", code, env=os.environ | {"TAPEFS_CRASH_AT": "a.b:3"})
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "passed\n")


def early() -> dict[str, str]:
    """What this process was started with, and the server, too."""
    return {name: value for name, value in os.environ.items() if name.startswith(READ_EARLY)}


@pytest.mark.parametrize("how", ["end", "message", "code", "error", "thread"])
def test_it_ends_the_same_way(how: str) -> None:
    ends = []
    for make in (started, forked):
        with make(how, cwd=ROOT) as process:
            lines, errors = process.communicate(timeout=DONE_S)
            ends.append((process.returncode, lines.splitlines()[1:], errors.splitlines()[-1:], "Traceback" in errors))
    assert ends[0] == ends[1]
    assert ends[0][0] == {"end": 0, "message": 1, "code": 7, "error": 1, "thread": 0}[how]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_signals_reach_it(number: signal.Signals) -> None:
    ends = []
    for make in (started, forked):
        with make("wait", cwd=ROOT) as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert process.poll() is None
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.05)
            process.send_signal(number)
            ends.append((process.wait(DONE_S), process.poll(), process.returncode))
            process.kill()  # Nobody: it has ended.
    assert ends[0] == ends[1] == (-number, -number, -number)


def test_no_two_are_alike() -> None:
    """The server's chance is not everybody's."""
    chances = set()
    for _ in range(3):
        with forked("end") as process:
            chances.add(json.loads(process.communicate(timeout=DONE_S)[0])["own"][1])
    assert len(chances) == 3


@pytest.mark.parametrize("name", ["PYTHONUTF8", "LD_BIND_NOW"])
def test_what_is_read_before_main_has_it_started_anew(name: str) -> None:
    with start("-m", PROBE, "end", env=os.environ | {name: "1"}, stdout=subprocess.PIPE) as process:
        assert isinstance(process, subprocess.Popen)
        assert json.loads(process.communicate(timeout=DONE_S)[0])["facts"]["environment"][name] == "1"


def test_from_several_threads() -> None:
    """Each gets the answer to its own question."""
    codes: list[int] = []

    def run(how: str) -> None:
        for _ in range(5):
            with forked(how) as process:
                process.communicate(timeout=DONE_S)
                codes.append(process.wait())

    threads = [threading.Thread(target=run, args=[how]) for how in ("end", "code")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [0] * 5 + [7] * 5


def test_what_runs_ends_with_the_tests() -> None:
    """A process that starts some and is killed leaves none, and no server."""
    program = (
        "import os, subprocess, time; from tests.forking.client import start\n"
        f"process = start('-m', {PROBE!r}, 'wait', stdout=subprocess.PIPE); process.stdout.readline()\n"
        "print(process.pid, flush=True); time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests:
        assert tests.stdout is not None
        descriptor = os.pidfd_open(int(tests.stdout.readline()))
        tests.kill()
    assert select.select([descriptor], [], [], DONE_S)[0]
    os.close(descriptor)
