"""Named crash points: one call before and after every effect on tape and catalog.

A module makes its points once, at import, and calls them where the effect is:

    after_filemark = crash_point("segment.filemark.after")
    ...
    after_filemark()

Tests arm a point in a child process with the environment variable `TAPEFS_CRASH_AT=NAME` or `NAME:N` (the N-th passing,
counted from 1); the process then kills itself with SIGKILL, as a power cut would. An unarmed point costs one call.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

VARIABLE = "TAPEFS_CRASH_AT"

_points: set[str] = set()
_passed: dict[str, int] = {}


def _armed() -> tuple[str, int] | None:
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    name, _, count = text.partition(":")
    return name, int(count or 1)


_target = _armed()


def arm() -> None:
    """Look at the variable again: for a process that was forked from one that had imported its modules."""
    global _target
    _target = _armed()
    _passed.clear()


def crash_point(name: str) -> Callable[[], None]:
    """Register the point `name` (unique, dotted, lower case) and return the function to call there."""
    if name in _points:
        raise AssertionError(f"crash point {name} exists already")
    _points.add(name)

    def pass_point() -> None:
        if _target is not None and _target[0] == name:
            _die_when_reached(name, _target[1])

    return pass_point


def _die_when_reached(name: str, wanted: int) -> None:
    _passed[name] = _passed.get(name, 0) + 1
    if _passed[name] == wanted:
        os.kill(os.getpid(), signal.SIGKILL)


def known_points() -> frozenset[str]:
    """Return the names of all points of the modules imported so far."""
    return frozenset(_points)
