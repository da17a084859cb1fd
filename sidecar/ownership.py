"""Who owns the state folder: one sidecar at a time, told by a lock on HOME/lock.

The movers inherit the lock's descriptor. So the lock is free only when no mover of the last owner lives any more, and
whoever gets it may clean up behind them. Blocking; used before the trio run begins.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tapefs.errors import HomeError, HomeInUse
from tapefs.home import Home

#: How long the movers of a killed sidecar may take to end before a new one gives up.
ORPHANS_S = 10.0


@contextmanager
def owned(home: Home) -> Iterator[int]:
    """Hold the state folder; yields the lock's descriptor, for the movers to inherit. Raises HomeInUse, HomeError."""
    descriptor = _open(home.lock)
    try:
        _lock(descriptor, home)
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HomeError(f"cannot open {path}: {error.strerror}") from error


def _lock(descriptor: int, home: Home) -> None:
    deadline = time.monotonic() + ORPHANS_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = _owner(descriptor)
            if pid is None or _is_alive(pid) or time.monotonic() > deadline:
                raise _in_use(home, pid) from None
            time.sleep(0.05)
        else:
            return


def _owner(descriptor: int) -> int | None:
    """Return the pid in the lock file; None while its owner has not written it."""
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _in_use(home: Home, pid: int | None) -> HomeInUse:
    if pid is None:
        return HomeInUse(f"{home.path} is owned by a sidecar that is just starting: try again, or use that one")
    if _is_alive(pid):
        return HomeInUse(
            f"{home.path} is owned by the sidecar with pid {pid}: use that one, or stop it with `kill {pid}`"
        )
    return HomeInUse(
        f"a mover of the sidecar that had pid {pid} still holds {home.path}: wait until its drive lets it go"
    )
