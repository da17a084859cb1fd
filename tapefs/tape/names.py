"""Names of tapes: which are sensible, and the next counted one. Pure but for the ledger; any thread.

A counted name is `TP`, year, month, and a number within the month: TP20261101. Numbers are never given twice, also when
their tape was forgotten, and none that any known tape has.
"""

from __future__ import annotations

import re
from datetime import datetime

from catalog.errors import NotFound
from catalog.ledger import Ledger
from catalog.records import Volume
from tapefs.errors import UsageError

#: Also a file name in the mount, and what people write on the case.
_SENSIBLE = re.compile(r"[^\W_](?:[\w .+-]{0,30}[^\W_])?")


def tape_called(ledger: Ledger, name: str) -> Volume:
    """Return the tape with this label, or else with this barcode. Raises NotFound."""
    try:
        return ledger.volume_by_label(name)
    except NotFound:
        pass
    try:
        return ledger.volume_by_code(name)
    except NotFound:
        raise NotFound(f"there is no tape {name}: see `tapefs tapes`") from None


def code_called(ledger: Ledger, name: str) -> str:
    """Return what the library calls the tape with this label or barcode; the name itself for one that is not known."""
    try:
        return tape_called(ledger, name).code
    except NotFound:
        return name


def check_name(name: str) -> str:
    """Return a name that a tape can be given. Raises UsageError."""
    if not name.isprintable() or _SENSIBLE.fullmatch(name) is None:
        raise UsageError(
            f"{name!r} is no name for a tape: up to 32 letters and digits, with `-`, `_`, `.`, `+` or blanks between"
        )
    return name


def next_name(ledger: Ledger, now_ns: int) -> str:
    """Return the next counted name of this month, by local time."""
    stem = f"TP{datetime.fromtimestamp(now_ns / 1e9):%Y%m}"
    return f"{stem}{ledger.newest_number(stem) + 1:02}"
