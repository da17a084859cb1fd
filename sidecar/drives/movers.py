"""A mover process and the socket to it, seen from the sidecar.

Used by tasks of one trio run. One task (`run_reports`) reads what the mover says and routes it: answers go to the
call that waits for them, everything else to `on_report`, in the order it was said. The process is started from the
thread of the trio run itself: the kernel ends it with its parent *thread*, and trio's worker threads end after ten
idle seconds.
"""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import structlog
import trio

from tapefs.errors import TapefsError
from tapefs.home import Home
from tapefs.mover.messages import Cancel, Command, Done, Ends, Failed, Ready, Report
from tapefs.mover.wire import PREFIX_BYTES, WireError, decode, encode, length_of

#: How long a mover may take to open its drive; a real drive answers within seconds, a hanging one never.
READY_S = 60.0
#: How long a mover may take to end after its socket was closed; then it is killed.
END_S = 10.0
#: How long a killed one may take to be gone.
KILL_S = 2.0

#: Kind of a failure that is the drive's: another one may do what was asked.
DRIVE_FAILED = "drive_failed"

log = structlog.get_logger(__name__)


class MoverDied(TapefsError):
    """The mover's process ended or lost its socket."""


class CommandFailed(TapefsError):
    """The mover answered Failed; `kind` as there."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


#: Returns the command line of a mover: home, drive's name and number, descriptor of its socket.
MoverCommand = Callable[[Home, str, int, int], Sequence[str]]


def mover_command(home: Home, drive: str, number: int, descriptor: int) -> Sequence[str]:
    """Return the command line of the real mover."""
    arguments = ["--home", str(home.path), "--drive", drive, "--number", str(number), "--fd", str(descriptor)]
    return [sys.executable, "-m", "tapefs.mover", *arguments]


class _Answer:
    """A place for the answer to a command."""

    def __init__(self) -> None:
        self.come = trio.Event()
        self.message: Done | Failed | None = None


class Call:
    """A command on its way; made by `Mover.start_call`."""

    def __init__(self, number: int, answer: _Answer, mover: Mover) -> None:
        #: The command's id.
        self.number = number
        self._answer = answer
        self._mover = mover

    async def wait_done(self) -> Done:
        """Wait for the answer. Raises CommandFailed, MoverDied. A cancel leaves the command running."""
        await self._answer.come.wait()
        message = self._answer.message
        if isinstance(message, Done):
            return message
        if isinstance(message, Failed):
            raise CommandFailed(message.kind, message.message)
        raise MoverDied(self._mover.last_words)


class Mover:
    """A running mover; made by `open_mover`."""

    def __init__(self, drive: str, process: subprocess.Popen[bytes], stream: trio.SocketStream) -> None:
        #: Name of its drive.
        self.drive = drive
        self._process = process
        self._stream = stream
        self._ids = itertools.count(1)
        self._answers: dict[int, _Answer] = {}
        self._sending = trio.Lock()
        self._dead = False
        #: Why it ended, for people.
        self._end = f"the mover of {drive} ended unexpectedly"

    @property
    def last_words(self) -> str:
        """What the mover has said of its end, else that it said nothing."""
        return self._end

    @property
    def pid(self) -> int:
        """Pid of the process."""
        return self._process.pid

    async def start_call(self, make: Callable[[int], Command]) -> Call:
        """Send the command that `make` returns for an id. Raises MoverDied."""
        number = next(self._ids)
        answer = self._answers[number] = _Answer()
        if self._dead:
            answer.come.set()
        await self.tell(make(number))
        return Call(number, answer, self)

    async def call(self, make: Callable[[int], Command]) -> Done:
        """Send a command and wait for its answer. Raises CommandFailed, MoverDied."""
        return await (await self.start_call(make)).wait_done()

    async def tell(self, command: Command) -> None:
        """Send a command that has no answer of its own. Raises MoverDied. Not cancelled half way."""
        async with self._sending:
            with trio.CancelScope(shield=True):
                try:
                    await self._stream.send_all(encode(command))
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    raise MoverDied(f"the mover of {self.drive} does not listen any more") from error

    async def run_reports(self, on_report: Callable[[Report], None]) -> None:
        """Route what the mover says until it ends. Raises MoverDied always, WireError."""
        try:
            while True:
                self._route(await self._receive(), on_report)
        finally:
            self._dead = True
            for answer in self._answers.values():
                answer.come.set()

    async def cancel_all(self) -> None:
        """Ask the mover to stop whatever it does; a dead one needs no asking."""
        for number in list(self._answers):
            try:
                await self.tell(Cancel(target=number))
            except MoverDied:
                return

    def _route(self, report: Report, on_report: Callable[[Report], None]) -> None:
        if isinstance(report, Done | Failed):
            answer = self._answers.pop(report.id, None)
            if answer is None:
                raise WireError(f"the mover of {self.drive} answered command {report.id}, which nobody gave")
            answer.message = report
            answer.come.set()
        else:
            on_report(report)

    async def _receive(self) -> Report:
        while True:
            prefix = await self._exactly(PREFIX_BYTES)
            report: Report = decode(await self._exactly(length_of(prefix)), Report)  # type: ignore[arg-type]
            if not isinstance(report, Ends):
                return report
            self._end = report.reason

    async def _exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            try:
                part = await self._stream.receive_some(size - len(parts))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                part = b""
            if not part:
                raise MoverDied(self._end)
            parts += part
        return bytes(parts)

    async def wait_ready(self) -> Ready:
        """Wait for the first message. To be called once, before `run_reports`. Raises MoverDied, WireError."""
        with trio.move_on_after(READY_S):
            report = await self._receive()
            if isinstance(report, Ready):
                return report
            raise WireError(f"the mover of {self.drive} began with {type(report).__name__}")
        raise MoverDied(f"the mover of {self.drive} did not open its drive within {READY_S:.0f} s")

    async def end(self) -> int | None:
        """Close the socket, wait for the process, kill it when it does not end.

        Returns its exit code; None when even the kill did not end it: a process inside a hanging ioctl cannot be
        killed.
        """
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(self._stream)
            with trio.move_on_after(END_S):
                await wait_exit(self._process)
            if self._process.poll() is None:
                log.warning("mover does not end, killing it", drive=self.drive, pid=self.pid)
                self._process.kill()
                with trio.move_on_after(KILL_S):
                    await wait_exit(self._process)
        return self._process.poll()


@asynccontextmanager
async def open_mover(
    home: Home, drive: str, number: int, *, command: MoverCommand = mover_command, inherit: Sequence[int] = ()
) -> AsyncIterator[Mover]:
    """Start a mover; at the end ask it to stop, and kill it when it does not. `inherit`: descriptors it keeps open."""
    ours, theirs = socket.socketpair()
    with theirs:
        arguments = command(home, drive, number, theirs.fileno())
        # A process group of its own: a Ctrl-C on our terminal is for us, and we end our movers in order.
        process = subprocess.Popen(
            arguments, pass_fds=(theirs.fileno(), *inherit), stdin=subprocess.DEVNULL, process_group=0
        )
    ours.setblocking(False)
    mover = Mover(drive, process, trio.SocketStream(trio.socket.from_stdlib_socket(ours)))
    log.debug("mover started", drive=drive, pid=process.pid)
    try:
        yield mover
    finally:
        with trio.move_on_after(1) as scope:
            scope.shield = True
            await mover.cancel_all()
        code = await mover.end()
        log.debug("mover ended", drive=drive, pid=process.pid, code=code)


class Process(Protocol):
    """What `wait_exit` needs of a subprocess.Popen."""

    @property
    def pid(self) -> int:
        """Pid of the process."""
        ...

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        ...


async def wait_exit(process: Process) -> None:
    """Wait for the process without a thread. A cancel leaves it as it is."""
    if process.poll() is not None:
        return
    descriptor = os.pidfd_open(process.pid)
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
