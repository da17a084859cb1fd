"""What sets build on: files of theirs lie there, so it is read back with them. Blocking; any thread."""

from __future__ import annotations

from collections.abc import Iterable

from catalog.errors import NotFound
from catalog.ids import SetId
from catalog.ledger import Ledger
from catalog.records import BackupSet, SetState


def with_bases(ledger: Ledger, sets: Iterable[SetId]) -> list[SetId]:
    """Return these sets, and behind them what they build on, directly or not. Unknown ones stay as they are named."""
    named = list(dict.fromkeys(sets))
    bases: dict[SetId, None] = {}
    seen = set(named)
    for set_id in named:
        each = _known(ledger, set_id)
        while each is not None and each.parent_id is not None and each.parent_id not in seen:
            seen.add(each.parent_id)
            each = _known(ledger, each.parent_id)
            if each is not None and each.state is SetState.COMPLETE:
                bases[each.set_id] = None
    return [*named, *bases]


def _known(ledger: Ledger, set_id: SetId) -> BackupSet | None:
    """Return the set; None for one that the ledger has not, such as the parent of a set that was taken in alone."""
    try:
        return ledger.backup_set(set_id)
    except NotFound:
        return None
