"""Whether a process that waits in a read is being ended by a signal, from what /proc shows.

FUSE passes on that a reader was interrupted, but pyfuse3 does not, and a reader whose request is with us sleeps
uninterruptibly until we answer. So we look a few times a second. EINTR for a signal that the program handles and goes
on after would break programs that never see EINTR from a disk: only signals that end the process count.

Everything here is plain functions on text and /proc; nothing touches the mount: `/proc/PID/fdinfo` is read, never
`/proc/PID/fd`, whose stat would ask ourselves. Any thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator


def _mask(signals: Iterable[signal.Signals]) -> int:
    return sum(1 << (each - 1) for each in signals)


_KILL = _mask([signal.SIGKILL])
#: Somebody asks the process to end: its handler, if it has one, must get to run.
_REQUESTS = _mask([signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM])
_HARMLESS = _mask(
    [
        signal.SIGCHLD,
        signal.SIGCONT,
        signal.SIGSTOP,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGURG,
        signal.SIGWINCH,
    ]
)
_ALL = (1 << 64) - 1
#: Without a handler these end the process.
_FATAL = _ALL & ~_HARMLESS

_FIELDS = ("State", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt")


def is_ending(status: str) -> bool:
    """Tell from the text of /proc/PID/status whether the thread sleeps uninterruptibly with a signal that ends it
    pending.
    """
    fields = {}
    for line in status.splitlines():
        key, _, value = line.partition(":")
        if key in _FIELDS:
            fields[key] = value.strip()
    if len(fields) != len(_FIELDS) or not fields["State"].startswith("D"):
        return False
    own, shared, blocked, ignored, caught = (int(fields[name], 16) for name in _FIELDS[1:])
    pending = own | shared
    if pending & _KILL:
        return True
    open_to = pending & ~blocked & ~ignored
    return bool(open_to & _REQUESTS or open_to & ~caught & _FATAL)


def is_thread_ending(thread_id: int) -> bool | None:
    """Tell it of one thread; None if there is no such thread (any more)."""
    status = _read(f"/proc/{thread_id}/status")
    return None if status is None else is_ending(status)


def is_waiting_itself(thread_id: int) -> bool:
    """Tell whether a thread waits in a read or a page fault of its own, as far as /proc shows it.

    A reader waits in FUSE's `request_wait_answer`, one in a page fault sleeps uninterruptibly.
    """
    if _read(f"/proc/{thread_id}/wchan") == "request_wait_answer":
        return True
    status = _read(f"/proc/{thread_id}/status") or ""
    return any(line.startswith("State:\tD") for line in status.splitlines())


def inodes_of_ending() -> frozenset[int]:
    """Return the inodes that are open in threads that are being ended. Looks at every thread that may be seen: some 20
    µs each.
    """
    found: set[int] = set()
    for thread in _threads():
        status = _read(f"{thread}/status")
        if status is not None and is_ending(status):
            found.update(_open_inodes(thread))
    return frozenset(found)


def _threads() -> Iterator[str]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                yield from [f"/proc/{name}/task/{each}" for each in os.listdir(f"/proc/{name}/task")]


def _open_inodes(thread: str) -> Iterator[int]:
    try:
        names = os.listdir(f"{thread}/fdinfo")
    except OSError:
        return
    for name in names:
        for line in (_read(f"{thread}/fdinfo/{name}") or "").splitlines():
            if line.startswith("ino:"):
                yield int(line[4:])


def _read(path: str) -> str | None:
    """Return a file of /proc; None when the process is gone or may not be looked at."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None
