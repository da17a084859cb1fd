"""Programs that the sidecar runs for a schedule: hooks, and commands of its own. One trio run.

No shell, nothing on standard input, an environment that holds only what it is given, a session of its own. What the
program prints is kept up to MOST_OUTPUT_BYTES, the end of it. When its time is over, or it is given up, all that is
left of its session is killed; a process that has left the session is not found.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import trio

from tapefs.home import Home

T = TypeVar("T")

#: Of what a program prints the end is kept.
MOST_OUTPUT_BYTES = 16 * 1024
#: Between asking a program to end and killing it.
GRACE_S = 5.0
#: A program has ended, and a child that it has left behind still holds its output: it is read so much longer.
_LEFT_S = 0.5
_READ_BYTES = 65_536
#: A command of our own that is still at work then is given up.
COMMAND_S = 14 * 86_400.0
#: What a program gets unless the settings say otherwise.
BASE_ENVIRONMENT: Mapping[str, str] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program has ended."""

    #: As `subprocess` has it; None: it could not be started.
    status: int | None
    #: The end of what it printed.
    output: str
    #: Why it does not count as done; empty: it does.
    error: str


async def run_program(
    argv: Sequence[str],
    environment: Mapping[str, str],
    timeout_s: float,
    given_up: trio.Event | None = None,
    *,
    given: bytes = b"",
    listen: Callable[[bytes], None] | None = None,
) -> Ended:
    """Run a program to its end, to the end of its time, or until `given_up` is set.

    It is given `given` to read; `listen` is told all that it prints, as it comes.
    """
    source = _readable(given) if given else subprocess.DEVNULL
    try:
        process = await trio.lowlevel.open_process(
            list(argv),
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**BASE_ENVIRONMENT, **environment},
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:  # ValueError: a zero byte in an argument.
        return Ended(None, "", f"{argv[0]} cannot be started: {getattr(error, 'strerror', None) or error}")
    finally:
        if given:
            os.close(source)
    output, why = bytearray(), ""
    try:
        why = await _watch(process, output, timeout_s, given_up, listen)
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                await _end(process)
            if process.stdout is not None:
                await process.stdout.aclose()
    text = bytes(output).decode("utf-8", "backslashreplace")
    return Ended(process.returncode, text, why or _words(process.returncode))


async def run_own(
    home: Home, arguments: Sequence[str], given_up: trio.Event, listen: Callable[[bytes], None] | None = None
) -> Ended:
    """Run a command of our own on the same state folder."""
    argv = [sys.executable, "-m", "tapefs", "--home", str(home.path), *arguments]
    return await run_program(argv, own_environment(), COMMAND_S, given_up, listen=listen)


def own_environment() -> dict[str, str]:
    """Return what processes of our own get of the sidecar's environment."""
    return {name: os.environ[name] for name in ("HOME", "TZ", "PYTHONPATH") if name in os.environ}


def last_line(ended: Ended) -> str:
    """Return the last that a program has said."""
    lines = [line.strip() for line in ended.output.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def why_it_ended(ended: Ended) -> str:
    """Say why a program that speaks JSON has ended before its last word."""
    lines = [line.strip() for line in ended.output.splitlines() if line.strip() and not line.startswith("{")]
    return "; ".join([ended.error or "it ended without a word", *lines[-1:]])


class JsonLines(Generic[T]):
    """What a process says, line by line, each a `kind` in JSON. What is none is for people."""

    def __init__(self, kind: type[T], listen: Callable[[T], None]) -> None:
        self.last: T | None = None
        self._decoder = msgspec.json.Decoder(kind)
        self._listen = listen
        self._rest = b""

    def take(self, piece: bytes) -> None:
        """Take what has come."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            try:
                self.last = self._decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            self._listen(self.last)


def _readable(given: bytes) -> int:
    """Return a descriptor from which a program can read that; no pipe, which would have to be fed."""
    descriptor = os.memfd_create("given", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(given)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


async def _watch(
    process: trio.Process,
    output: bytearray,
    timeout_s: float,
    given_up: trio.Event | None,
    listen: Callable[[bytes], None] | None,
) -> str:
    """Wait for the end; return why it is to be ended, empty when it has."""
    why = [f"it has not ended within {timeout_s:g} s"]
    with trio.move_on_after(timeout_s) as limit:
        async with trio.open_nursery() as nursery:
            drained = trio.Event()
            nursery.start_soon(_read, process, output, drained, listen)
            if given_up is not None:
                nursery.start_soon(_wait_given_up, given_up, why, limit)
            await process.wait()
            with trio.move_on_after(_LEFT_S):
                await drained.wait()
            nursery.cancel_scope.cancel()
    return "" if process.returncode is not None else why[0]


async def _wait_given_up(given_up: trio.Event, why: list[str], limit: trio.CancelScope) -> None:
    await given_up.wait()
    why[0] = "it was given up"
    limit.cancel()


async def _read(
    process: trio.Process, output: bytearray, drained: trio.Event, listen: Callable[[bytes], None] | None
) -> None:
    if process.stdout is None:
        raise AssertionError("the program has a pipe for its output")
    while True:
        piece = await process.stdout.receive_some(_READ_BYTES)
        if not piece:
            drained.set()
            return
        if listen is not None:
            listen(bytes(piece))
        output += piece
        del output[:-MOST_OUTPUT_BYTES]


async def _end(process: trio.Process) -> None:
    """Ask all of the session to end, then kill it."""
    _signal(process.pid, signal.SIGTERM)
    with trio.move_on_after(GRACE_S):
        await process.wait()
    _signal(process.pid, signal.SIGKILL)
    await process.wait()


def _signal(session: int, number: signal.Signals) -> None:
    for pid in _session(session):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _session(session: int) -> Iterable[int]:
    """Return the processes of a session: a child may have made a process group of its own."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError):
                # Behind the name, which is in parentheses and may hold any: state, parent, group, session.
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if int(fields[3]) == session:
                    found.append(int(entry.name))
    return found


def _words(status: int | None) -> str:
    if not status:
        return ""
    return f"it was killed by signal {-status}" if status < 0 else f"it ended with exit code {status}"
