"""The checks in a process of its own, for the sidecar: what is to be done on standard input, what is found on standard
output, one JSON object a line.

A disk that cannot read a page of a mapped file kills this process, and no other. SIGTERM ends it: a repair that was
begun is done or not there.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import msgspec

from catalog.errors import CatalogError
from catalog.lmdb_ledger import LmdbLedger
from tapefs.check.finding import Scene
from tapefs.check.run import CHECKS, Outcome, run_checks
from tapefs.errors import TapefsError
from tapefs.home import open_home

#: What is looked at is told so often.
TELL_S = 0.2


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done."""

    home: bytes
    #: Empty: all.
    checks: tuple[str, ...]
    repair: bool


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not as it should be."""

    #: Name of the check.
    check: str
    #: What it is about: a set, a tape, a file.
    subject: str
    problem: str
    #: What an operator can do.
    advice: str
    #: A repair would put it right; and it has.
    repairable: bool
    repaired: bool
    #: Why the repair has failed; empty: none has.
    error: str


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far it is, what it has found, or how it has ended."""

    looks_at: str = ""
    found: Found | None = None
    is_over: bool = False
    #: Why it has not come to its end; empty: it has.
    error: str = ""


def found_of(outcome: Outcome) -> Found:
    """Return what was found, and what came of its repair."""
    finding = outcome.finding
    return Found(
        check=finding.check,
        subject=finding.subject,
        problem=finding.problem,
        advice=finding.advice,
        repairable=finding.repair is not None,
        repaired=outcome.repaired,
        error=outcome.error,
    )


def run(order: Order, say: Callable[[Told], None]) -> None:
    """Do it; `say` is told all that there is to be told. Blocking."""
    next_s = time.monotonic()

    def look(at: str) -> None:
        nonlocal next_s
        if time.monotonic() >= next_s:
            next_s = time.monotonic() + TELL_S
            say(Told(looks_at=at))

    try:
        home = open_home(Path(os.fsdecode(order.home)))
        with LmdbLedger.open(home.ledger, readonly=True) as ledger:
            for outcome in run_checks(Scene(home, ledger, look), order.checks or tuple(CHECKS), repair=order.repair):
                say(Told(found=found_of(outcome)))
    except (TapefsError, CatalogError, OSError) as error:
        say(Told(is_over=True, error=str(error)))
    else:
        say(Told(is_over=True))


def main(source: TextIO, out: TextIO) -> None:
    """Read what is to be done, do it, and tell of it."""
    order = msgspec.json.decode(source.read(), type=Order)

    def say(told: Told) -> None:
        out.write(msgspec.json.encode(told).decode() + "\n")
        out.flush()

    run(order, say)


if __name__ == "__main__":
    main(sys.stdin, sys.stdout)
