"""Being with a sidecar: the one that runs, or one of our own for as long as we need it.

A sidecar that was started for a command ends when nobody holds it any more. What holds it is an open stream of
arrivals, so every command keeps one; it dies with the command, whatever kills that. Two commands that start at once
each start a sidecar; the one that loses the lock on the state folder waits for the winner's socket.
"""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tapefs.client.api import Arrival, Client, decode
from tapefs.client.transport import LineStream
from tapefs.errors import HomeInUse, TapefsError, Unreachable
from tapefs.home import TARGET_OWNER, Home

#: Descriptor on which a sidecar says that it is ready, or that another one owns the state folder.
READY_VARIABLE = "TAPEFS_READY_FD"
READY = b"ready\n"
IN_USE = b"in-use\n"

#: A start takes about a second; recovery after a crash may read tapes' worth of trailers.
START_S = 120.0
#: Arrivals carry a sign of life every ten seconds.
SILENCE_S = 60.0
#: The log is begun anew beyond this.
LOG_BYTES = 4 * 1024 * 1024

#: After a sidecar went away.
AGAIN_S = 1.0

_log = logging.getLogger(__name__)

Listener = Callable[[Arrival], None]


class Presence:
    """Calls to the sidecar, and the hold on it."""

    def __init__(self, home: Home, *, keep: bool = False) -> None:
        """Find a sidecar or start one; with `keep` find or start another one whenever it goes away."""
        self.client = Client(home.socket)
        self._home = home
        self._keep = keep
        self._closing = threading.Event()
        self._listener: Listener | None = None
        self._hold, self._ours = _find_or_start(home)
        self._thread = threading.Thread(target=self._listen, name="arrivals", daemon=True)
        self._thread.start()

    def listen(self, listener: Listener) -> None:
        """Have every arrival from now on told to `listener`, in a thread of its own."""
        self._listener = listener

    def close(self) -> None:
        """Let go of the sidecar."""
        self._closing.set()
        self._hold.stream.end()
        self._thread.join()
        self._hold.stream.close()

    def _listen(self) -> None:
        self._follow()
        while self._keep and not self._closing.wait(AGAIN_S):
            self._hold_again()

    def _follow(self) -> None:
        # When the sidecar goes away the next call says so; here is nobody to tell.
        with suppress(Unreachable):
            for line in self._hold.lines:
                listener = self._listener
                if listener is not None and b'"segment"' in line:
                    listener(decode(line, Arrival))

    def _hold_again(self) -> None:
        """Find a sidecar again. Start one only in place of one that we had started: an operator restarts his own."""
        try:
            hold, ours = _find_or_start(self._home) if self._ours else (_try_hold(self._home), False)
        except TapefsError as error:
            _log.warning("no sidecar, files that are not staged cannot be read: %s", error)
            return
        if hold is None:
            return
        before, self._hold = self._hold, hold
        before.stream.close()
        self._ours = self._ours and ours
        if self._closing.is_set():
            hold.stream.end()
        self._follow()


@contextmanager
def connected(home: Home, *, keep: bool = False) -> Iterator[Presence]:
    """Be with the sidecar of `home` inside the block. Raises Unreachable with the reason why a start failed."""
    presence = Presence(home, keep=keep)
    try:
        yield presence
    finally:
        presence.close()


class _Hold(NamedTuple):
    stream: LineStream
    #: The lines behind the greeting.
    lines: Iterator[bytes]


def _find_or_start(home: Home) -> tuple[_Hold, bool]:
    """Return a hold on the sidecar, and whether we started it. Raises Unreachable."""
    deadline = time.monotonic() + START_S
    started = False
    while True:
        hold = _try_hold(home)
        if hold is not None:
            return hold, started
        if time.monotonic() > deadline:
            raise Unreachable(f"{home.path} is owned by a process that does not answer: {_owner(home)}")
        started = _start(home, deadline)
        if not started:
            _check_not_served(home)
            time.sleep(0.1)


def _try_hold(home: Home) -> _Hold | None:
    """Return a hold on the running sidecar, None when there is none or it is just ending."""
    try:
        stream = LineStream(home.socket, "/api/v1/arrivals", SILENCE_S)
    except Unreachable:
        return None
    lines = iter(stream)
    try:
        greeting = next(lines, b"")
    except Unreachable:
        greeting = b""
    if not greeting:
        stream.close()
        return None
    return _Hold(stream, lines)


def _check_not_served(home: Home) -> None:
    """Raise HomeInUse when the owner is no sidecar and never becomes one."""
    try:
        pid, _, kind = home.lock.read_text().strip().partition(" ")
    except OSError:
        return
    # What the file says of an owner that has gone is old: the next one has not written it yet.
    if kind == TARGET_OWNER and Path("/proc", pid).exists():
        raise HomeInUse(
            f"the library of {home.path} is served to others by `tapefs vtl`, pid {pid}: stop it with `kill {pid}`"
        )


def _owner(home: Home) -> str:
    try:
        return f"look at pid {home.lock.read_text().partition(' ')[0]}"
    except OSError:
        return "look who holds its file `lock`"


def _start(home: Home, deadline: float) -> bool:
    """Start a sidecar; True when it is ready, False when another one has the state folder. Raises Unreachable."""
    log = _open_log(home.path / "sidecar.log")
    begin = os.fstat(log).st_size
    reader, writer = os.pipe()
    try:
        try:
            process = _spawn(home, log, writer)
        finally:
            os.close(writer)
        word = _wait_word(reader, deadline)
        if word == READY:
            return True
        if word == IN_USE:
            process.wait()
            return False
        if word is None:
            process.terminate()
            raise Unreachable(f"the sidecar did not get ready within {START_S:.0f} s: see {home.path}/sidecar.log")
        process.wait()
        raise Unreachable(_last_words(log, begin) or f"the sidecar ended with code {process.returncode}")
    finally:
        os.close(reader)
        os.close(log)


def _spawn(home: Home, log: int, writer: int) -> subprocess.Popen[bytes]:
    # A session of its own, so that our terminal's Ctrl-C and hang-up are ours alone.
    return subprocess.Popen(
        [sys.executable, "-m", "tapefs", "--home", str(home.path), "serve", "--until-idle"],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=os.environ | {READY_VARIABLE: str(writer)},
        pass_fds=[writer],
        start_new_session=True,
        cwd="/",
    )


def _wait_word(reader: int, deadline: float) -> bytes | None:
    """Return what the sidecar says, b"" when it ends without a word, None when it says nothing in time."""
    ready, _, _ = select.select([reader], [], [], max(0.0, deadline - time.monotonic()))
    return os.read(reader, 64) if ready else None


def _open_log(path: Path) -> int:
    try:
        log = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        if os.fstat(log).st_size > LOG_BYTES:
            os.ftruncate(log, 0)
    except OSError as error:
        raise TapefsError(f"cannot write {path}: {error.strerror}") from error
    return log


def _last_words(log: int, begin: int) -> str:
    """Return the last line that was logged from `begin` on, without the program's name."""
    lines = (
        os.pread(log, 64 * 1024, max(begin, os.fstat(log).st_size - 64 * 1024)).decode(errors="replace").splitlines()
    )
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last.removeprefix("tapefs: ")
