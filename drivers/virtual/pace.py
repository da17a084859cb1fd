"""Letting modelled time pass: not at all, in real time, or faster. Belongs to the thread of its drive or changer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

#: Sleeps shorter than this are saved up: a block of 256 KiB takes 0.6 ms, a sleep is late by 0.1 ms.
_WORTH_SLEEPING_S = 0.01
#: How far the drive may be behind and still make it up, as its buffer lets a real one: the host's own time per block
#: is not added to the model's.
_BUFFER_S = 0.1


@dataclass(frozen=True, slots=True)
class MotionMode:
    """What to do with the model's seconds."""

    #: Modelled seconds per second of sleep; None: only add up.
    speed: float | None


def parse_mode(text: str) -> MotionMode:
    """Read `account`, `real` or `scaled:N`, N > 0. Raises ValueError with a sentence for the operator."""
    if text == "account":
        return MotionMode(None)
    if text == "real":
        return MotionMode(1.0)
    kind, _, number = text.partition(":")
    if kind == "scaled":
        return MotionMode(_positive(text, number))
    raise ValueError(f"motion mode {text!r} is unknown: use account, real or scaled:N")


def _positive(text: str, number: str) -> float:
    try:
        speed = float(number)
    except ValueError:
        speed = 0.0
    if not (math.isfinite(speed) and speed > 0):
        raise ValueError(f"motion mode {text!r}: after `scaled:` comes a number above 0, for instance scaled:100")
    return speed


class Pace:
    """Sleeps modelled seconds as the mode wants it."""

    def __init__(
        self,
        mode: MotionMode,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._speed = mode.speed
        self._sleep = sleep
        self._now = now
        self._due_s = -math.inf
        self._slept_s = 0.0

    def spend(self, seconds: float) -> None:
        """Let `seconds` of the model pass."""
        if self._speed is None or seconds == 0:
            return
        now_s = self._now()
        self._due_s = max(self._due_s, now_s - _BUFFER_S / self._speed) + seconds / self._speed
        if self._due_s - now_s >= _WORTH_SLEEPING_S:
            self._sleep(self._due_s - now_s)
            self._slept_s += self._now() - now_s

    def clock_s(self, seconds: float) -> float:
        """Return the seconds by the clock that `seconds` of the model take; 0 when nothing waits."""
        return 0.0 if self._speed is None else seconds / self._speed

    def host_s(self) -> float:
        """Return the host's own time: the clock's, less what was slept here."""
        return self._now() - self._slept_s
