"""Long lists made without holding up others: the event loop has other things to do now and then. Trio only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import trio

T = TypeVar("T")
R = TypeVar("R")

#: So long one has the event loop before others have their turn.
STEP_S = 0.005


async def in_turns(make: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return what `make` makes of each; others have their turn before and behind it, too."""
    await trio.lowlevel.checkpoint()
    made, until_s = [], time.monotonic() + STEP_S
    for item in items:
        made.append(make(item))
        if time.monotonic() >= until_s:
            await trio.lowlevel.checkpoint()
            until_s = time.monotonic() + STEP_S
    await trio.lowlevel.checkpoint()
    return made
