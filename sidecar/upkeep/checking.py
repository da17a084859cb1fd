"""Checks of the catalog, in a process of their own. One trio run."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

import msgspec
import trio

from sidecar.schedules.programs import JsonLines, own_environment, run_program, why_it_ended
from tapefs.check.process import Order, Told
from tapefs.home import Home

#: A check that runs for so long is given up.
LONGEST_S = 14 * 86_400.0


async def check_catalog(
    home: Home, checks: Sequence[str], given_up: trio.Event, listen: Callable[[Told], None], *, repair: bool = False
) -> str:
    """Compare what the state folder holds; `listen` is told what is found. Without `checks` it is all of them.

    Returns why they have not come to their end, empty: they have.
    """
    order = Order(home=os.fsencode(home.path), checks=tuple(checks), repair=repair)
    lines = JsonLines(Told, listen)
    argv = [sys.executable, "-m", "tapefs.check.process"]
    ended = await run_program(
        argv, own_environment(), LONGEST_S, given_up, given=msgspec.json.encode(order), listen=lines.take
    )
    if lines.last is not None and lines.last.is_over:
        return lines.last.error
    return why_it_ended(ended)
