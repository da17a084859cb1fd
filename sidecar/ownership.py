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
from tapefs.home import TARGET_OWNER, Home

#: How long the movers of a killed sidecar may take to end, or a sidecar that a command started for its own duration,
#: before a new one gives up.
PATIENCE_S = 10.0
#: Behind the pid in the lock file of a sidecar that ends by itself when nothing is left to do.
_TEMPORARY = b"until idle"
_TARGET = TARGET_OWNER.encode()


@contextmanager
def owned(home: Home, *, temporary: bool, target: bool = False, waits: bool = False) -> Iterator[int]:
    """Hold the state folder; yields the lock's descriptor, for the movers to inherit. Raises HomeInUse, HomeError.

    `temporary` owners end by themselves when they are idle: one that is to stay waits a little for them, and one that
    says that it `waits`. `target`: the owner is no sidecar but serves the library to others, `tapefs vtl`.
    """
    descriptor = _open(home.lock)
    try:
        _lock(descriptor, home, waits=waits or not temporary)
        os.truncate(descriptor, 0)
        kind = _TEMPORARY if temporary else _TARGET if target else b""
        os.pwrite(descriptor, b"%d %b\n" % (os.getpid(), kind), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HomeError(f"cannot open {path}: {error.strerror}") from error


def _lock(descriptor: int, home: Home, *, waits: bool) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid, kind = _owner(descriptor)
            stays = pid is None or (_is_alive(pid) and not (waits and kind == _TEMPORARY))
            if stays or time.monotonic() > deadline:
                raise _in_use(home, pid, kind) from None
            time.sleep(0.05)
        else:
            return


def _owner(descriptor: int) -> tuple[int | None, bytes]:
    """Return the pid in the lock file, None while its owner has not written it, and what kind of owner it is."""
    pid, _, kind = os.pread(descriptor, 64, 0).strip().partition(b" ")
    return int(pid) if pid.isdigit() else None, kind


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _in_use(home: Home, pid: int | None, kind: bytes) -> HomeInUse:
    if pid is None:
        return HomeInUse(f"{home.path} is owned by a sidecar that is just starting: try again, or use that one")
    if kind == _TARGET and _is_alive(pid):
        return HomeInUse(
            f"the library of {home.path} is served to others by `tapefs vtl`, pid {pid}: stop it with `kill {pid}`"
        )
    if _is_alive(pid):
        return HomeInUse(
            f"{home.path} is owned by the sidecar with pid {pid}: use that one, or stop it with `kill {pid}`"
        )
    return HomeInUse(
        f"a mover of the sidecar that had pid {pid} still holds {home.path}: wait until its drive lets it go"
    )
