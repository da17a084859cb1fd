"""Being with a sidecar: the one that runs, or one of our own for as long as we need it.

A sidecar that was started for a command ends when nobody holds it any more. What holds it is an open stream of
arrivals, so every command keeps one; it dies with the command, whatever kills that. Two commands that start at once
each start a sidecar; the one that loses the lock on the state folder waits for the winner's socket.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tapefs.client.api import Arrival, Client, decode
from tapefs.client.transport import LineStream
from tapefs.errors import TapefsError, Unreachable
from tapefs.home import Home

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

Listener = Callable[[Arrival], None]


class Presence:
    """Calls to the sidecar, and the hold on it."""

    def __init__(self, home: Home, stream: LineStream, lines: Iterator[bytes]) -> None:
        self.client = Client(home.socket)
        self._stream = stream
        self._lines = lines
        self._listener: Listener | None = None
        self._thread = threading.Thread(target=self._listen, name="arrivals", daemon=True)
        self._thread.start()

    def listen(self, listener: Listener) -> None:
        """Have every arrival from now on told to `listener`, in a thread of its own."""
        self._listener = listener

    def _listen(self) -> None:
        # When the sidecar goes away the next call says so; here is nobody to tell.
        with suppress(Unreachable):
            for line in self._lines:
                listener = self._listener
                if listener is not None and b'"segment"' in line:
                    listener(decode(line, Arrival))

    def close(self) -> None:
        """Let go of the sidecar."""
        self._stream.end()
        self._thread.join()
        self._stream.close()


@contextmanager
def connected(home: Home) -> Iterator[Presence]:
    """Be with the sidecar of `home` inside the block. Raises Unreachable with the reason a start failed."""
    presence = _find_or_start(home)
    try:
        yield presence
    finally:
        presence.close()


def _find_or_start(home: Home) -> Presence:
    deadline = time.monotonic() + START_S
    while True:
        presence = _hold(home)
        if presence is not None:
            return presence
        if time.monotonic() > deadline:
            raise Unreachable(f"{home.path} is owned by a process that does not answer: {_owner(home)}")
        if not _start(home, deadline):
            time.sleep(0.1)


def _owner(home: Home) -> str:
    try:
        return f"look at pid {home.lock.read_text().strip()}"
    except OSError:
        return "look who holds its file `lock`"


def _hold(home: Home) -> Presence | None:
    """Return a hold on the running sidecar, None when there is none or it is just ending."""
    try:
        stream = LineStream(home.socket, "/api/v1/arrivals", SILENCE_S)
    except Unreachable:
        return None
    lines = iter(stream)
    try:
        first = next(lines, b"")
    except Unreachable:
        first = b""
    if not first:
        stream.close()
        return None
    return Presence(home, stream, lines)


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
