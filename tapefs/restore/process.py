"""A restore in a process of its own, for the sidecar: what is to be done on standard input, how far it is on standard
output, one JSON object a line.

It asks the sidecar for frames as `tapefs restore` does. SIGTERM ends it: files that were begun are gone, those that
were written stay.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TextIO

import msgspec

from catalog.errors import CatalogError
from catalog.index.reader import IndexReader
from catalog.recovery_records import NotRestored
from tapefs.access.places import open_target
from tapefs.client.presence import connected
from tapefs.errors import TapefsError
from tapefs.home import open_home
from tapefs.restore.calling import Recalls
from tapefs.restore.engine import restore
from tapefs.restore.records import RestoreProgress, RestoreReport, Trouble
from tapefs.restore.words import missing_of

#: Problems that are told one by one.
_TOLD = 5


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done."""

    home: bytes
    set_id: str
    paths: tuple[bytes, ...]
    target: bytes
    special: bool
    overwrite: bool
    #: The target must be beneath one of these; None: anywhere.
    roots: tuple[str, ...] | None


class Told(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far it is, or how it has ended."""

    files: int = 0
    files_total: int = 0
    bytes: int = 0
    bytes_total: int = 0
    not_restored: NotRestored = NotRestored()
    is_over: bool = False
    #: Why it failed, for people; empty: it has not.
    error: str = ""


def run(order: Order, say: Callable[[Told], None]) -> None:
    """Do it; `say` is told all that there is to be told. Blocking."""
    try:
        say(_outcome(_restore(order, say)))
    except (TapefsError, CatalogError) as error:
        say(Told(is_over=True, error=str(error)))
    except OSError as error:
        say(Told(is_over=True, error=f"{os.fsdecode(order.target)!r}: {error.strerror or error}"))


def _restore(order: Order, say: Callable[[Told], None]) -> RestoreReport:
    home = open_home(Path(os.fsdecode(order.home)))
    target = Path(os.fsdecode(order.target))
    if order.roots is not None:
        # Through the descriptor: whatever becomes of the path meanwhile, nothing is written elsewhere.
        target = Path(f"/proc/self/fd/{open_target(order.target, order.roots)}")

    def tell(progress: RestoreProgress) -> None:
        say(
            Told(
                files=progress.files,
                files_total=progress.files_total,
                bytes=progress.bytes,
                bytes_total=progress.bytes_total,
            )
        )

    with connected(home) as presence, closing(IndexReader(home.index(order.set_id))) as reader:
        recalls = Recalls(presence.client)
        presence.listen(recalls.arrived)
        return restore(
            home,
            reader,
            order.paths,
            target,
            fetch=recalls.fetch,
            failed=recalls.failed,
            progress=tell,
            overwrite=order.overwrite,
            special=order.special,
        )


def _outcome(report: RestoreReport) -> Told:
    missing = NotRestored(
        offline=report.offline,
        damaged=report.damaged,
        locked=report.locked,
        unread=report.unread,
        skipped=report.skipped,
        failed=report.failed,
    )
    return Told(
        files=report.files,
        files_total=report.files + missing.without_content + missing.skipped,
        not_restored=missing,
        bytes=report.bytes,
        bytes_total=report.bytes,
        is_over=True,
        error="" if report.is_complete else _why(report),
    )


def _why(report: RestoreReport) -> str:
    missing = missing_of(report)
    refused = [f"{each.what} of {each.count} names: {each.reason}" for each in report.refusals if not each.is_expected]
    troubles = [_line(each) for each in report.troubles[:_TOLD]]
    rest = report.trouble_count - len(troubles)
    more = [f"and {rest} more"] if rest > 0 else []
    said = [each for each in [report.stopped, missing, *troubles, *more, *refused] if each]
    return "; ".join(said) or "not everything is as it was recorded"


def _line(trouble: Trouble) -> str:
    return f"{trouble.path.decode('utf-8', 'backslashreplace')}: {trouble.reason}"


def main(source: TextIO, out: TextIO) -> None:
    """Read what is to be done, do it, and tell of it."""
    order = msgspec.json.decode(source.read(), type=Order)

    def say(told: Told) -> None:
        out.write(msgspec.json.encode(told).decode() + "\n")
        out.flush()

    run(order, say)


if __name__ == "__main__":
    main(sys.stdin, sys.stdout)
