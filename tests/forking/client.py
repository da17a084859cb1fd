"""Start Python programs by a fork of a process that has their modules, one such process per process of the tests.

A sidecar takes 0.7 s of the processor to import its modules; a fork of a process that has them takes 0.01 s. What is
forked is a process of its own in every respect: own pid, descriptors, environment, command line, signals, exit code.
It is only not our child: `Forked` stands for it as `subprocess.Popen` would.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from tapefs.cli import COMMANDS

ROOT = Path(__file__).parents[2]
#: What sidecars, commands, mounts and backups in one process need. A program's own module may not be among them.
MODULES = (
    "sidecar.serve",
    *sorted(set(COMMANDS.values())),
    "tapefs.mount.session",
    "tests.sidecar.steps",
    "tests.backup.rig",
)
#: Room for the command line of what is forked.
PAD_BYTES = 16 * 1024
#: Beginnings of variables that are read before `main`, by the interpreter or the dynamic linker.
READ_EARLY = ("PYTHON", "LD_", "MALLOC_", "LC_", "LANG")
READY_S = 60.0


class Forked:
    """A process that was forked by the server; used as a `subprocess.Popen`."""

    def __init__(self, server: _Server, pid: int, *pipes: IO[str] | None) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr = pipes
        self.returncode: int | None = None
        self._server = server
        # Until it is reaped the pid is nobody else's: it stands for this process, whatever happens.
        self._pidfd = os.pidfd_open(pid)

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Close its input; return what it has said on pipes. To be called once."""
        if self.stdin is not None:
            self.stdin.close()
        deadline = None if timeout is None else time.monotonic() + timeout
        pipes = {stream.fileno(): b"" for stream in (self.stdout, self.stderr) if stream is not None}
        open_ones = set(pipes)
        while open_ones:
            left = None if deadline is None else max(0, deadline - time.monotonic())
            readable, _, _ = select.select(open_ones, [], [], left)
            if not readable:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
            for descriptor in readable:
                part = os.read(descriptor, 65536)
                pipes[descriptor] += part
                if not part:
                    open_ones.remove(descriptor)
        texts = ["" if stream is None else pipes[stream.fileno()].decode() for stream in (self.stdout, self.stderr)]
        self._close_pipes()
        self.wait(None if deadline is None else max(0, deadline - time.monotonic()))
        return texts[0], texts[1]

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self._close_pipes()
        self.wait()

    def __del__(self) -> None:
        self._close_pipes()
        if self._pidfd >= 0:
            os.close(self._pidfd)

    def _close_pipes(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    def _look(self, timeout: float | None) -> int | None:
        """Return the exit code; None when it has not ended within that time."""
        if self.returncode is None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if poll.poll(None if timeout is None else timeout * 1000):
                self.returncode = self._server.ask({"reap": self.pid})
                os.close(self._pidfd)
                self._pidfd = -1
        return self.returncode


class _Server:
    """The server of this process."""

    def __init__(self) -> None:
        #: It belongs to the process that has started it: one that forks itself makes another.
        self.owner = os.getpid()
        self.environment = _early(os.environ)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.forking.server", str(theirs.fileno()), "x" * PAD_BYTES, *MODULES]
            self._process = subprocess.Popen(
                command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        self._lock = threading.Lock()
        self._connection = ours
        ours.settimeout(READY_S)
        atexit.register(self._end)

    def ask(self, request: dict[str, Any], descriptors: Sequence[int] = ()) -> int:
        """Send a request; return the number that it answers with."""
        with self._lock:
            socket.send_fds(self._connection, [json.dumps(request).encode()], descriptors)
            answer = self._connection.recv(4096)
        assert answer, "the server of forked processes has ended"
        return int(json.loads(answer))

    def _end(self) -> None:
        if os.getpid() == self.owner:
            self._connection.close()
            self._process.wait(READY_S)


_server: _Server | None = None

#: What `start` returns.
Process = Forked | subprocess.Popen[str]


def start(
    *command: object,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] = ROOT,
    stdin: int | IO[Any] = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = subprocess.DEVNULL,
    stderr: int | IO[Any] | None = None,
    pass_fds: Sequence[int] = (),
) -> Process:
    """Run `python COMMAND…`, which begins with `-m MODULE` or `-c CODE`; pipes are of text.

    Started anew where the environment has something that the interpreter reads, or the dynamic linker.
    """
    words = [os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in command]
    environment = dict(os.environ if env is None else env)
    server = _get()
    if _early(environment) != server.environment:
        return subprocess.Popen(
            [sys.executable, *words], cwd=cwd, env=environment, pass_fds=pass_fds, stdin=stdin, stdout=stdout,
            stderr=stderr, text=True,
        )  # fmt: skip
    if words[0] not in ("-m", "-c"):
        raise ValueError(f"{words[0]}: no option but -m and -c")
    umask = os.umask(0)
    os.umask(umask)
    request = {
        "command": words, "environment": environment, "cwd": os.path.abspath(cwd), "umask": umask,
        "descriptors": [0, 1, 2, *pass_fds],
    }  # fmt: skip
    with ExitStack() as stack:
        null = stack.enter_context(open(os.devnull, "r+"))
        pipes: list[IO[str] | None] = []
        theirs = []
        for number, wanted in enumerate((stdin, stdout, stderr)):
            if wanted == subprocess.PIPE:
                ends = os.pipe()
                pipes.append(os.fdopen(ends[number == 0], "w" if number == 0 else "r"))
                theirs.append(ends[number != 0])
                stack.callback(os.close, theirs[-1])
            else:
                pipes.append(None)
                theirs.append(_descriptor(wanted, null.fileno(), number))
        pid = server.ask(request, [*theirs, *pass_fds])
    return Forked(server, pid, *pipes)


def run(*command: object, timeout: float | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run it to its end, as `start`; what it says is text, unless `stdout` or `stderr` have it elsewhere."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with start(*command, **options) as process:
        try:
            out, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(command, process.wait(), out, errors)


def _descriptor(wanted: int | IO[Any] | None, null: int, usual: int) -> int:
    if wanted == subprocess.DEVNULL:
        return null
    if wanted is None:
        return usual
    return wanted if isinstance(wanted, int) else wanted.fileno()


def _early(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_EARLY)}


def _get() -> _Server:
    global _server
    if _server is None or _server.owner != os.getpid():
        _server = _Server()
    return _server
