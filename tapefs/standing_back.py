"""Threads that stand back when others want the processors: by their nice value, which Linux keeps for each thread.

Whoever has no right to take a nice value back (most who are not root; see RLIMIT_NICE) can only raise it for good: that
is enough for threads that do nothing else. Others stand back only where they may come forward again. Threads and
processes begin with the nice value of the thread that starts them. Any thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_MOST = 19
#: What this process began with: its user may have given it another than 0.
_OWN = os.getpriority(os.PRIO_PROCESS, 0)


def nice_value() -> int:
    """Return that of the calling thread."""
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def stand_back(by: int) -> None:
    """Have the calling thread stand back for good."""
    _set(max(nice_value(), min(_OWN + by, _MOST)))


def come_forward() -> None:
    """Have a thread that was begun by one that stands back be as the process, where that is allowed."""
    if nice_value() > _OWN and may_come_forward():
        _set(_OWN)


@contextmanager
def standing_back(by: int) -> Iterator[None]:
    """Have the calling thread stand back inside the block, if it may come forward again."""
    if not by or not may_come_forward():
        yield
        return
    before = nice_value()
    stand_back(by)
    try:
        yield
    finally:
        _set(before)


@contextmanager
def coming_forward() -> Iterator[None]:
    """Have the calling thread be as the process inside the block, if it stands back."""
    before = nice_value()
    come_forward()
    try:
        yield
    finally:
        _set(before)


@cache
def may_come_forward() -> bool:
    """May a thread of this process take back a nice value that it has raised? A thread tries it once."""
    came: list[bool] = []

    def attempt() -> None:
        before = nice_value()
        try:
            _set(min(before + 1, _MOST))
            _set(before)
        except PermissionError:
            return
        came.append(before < _MOST)

    thread = threading.Thread(target=attempt, name="may-come-forward")
    thread.start()
    thread.join()
    return bool(came)


def _set(value: int) -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), value)
