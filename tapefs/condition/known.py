"""How tapes and drives are by what the ledger knows. Blocking; reads the ledger."""

from __future__ import annotations

from catalog.ledger import Ledger
from catalog.records import Volume
from tapefs.condition.blame import Blame, blame
from tapefs.condition.drives import sentences_of
from tapefs.condition.tapes import Condition, condition_of

#: What is older says little of how a drive is now.
LOOKED_BACK_NS = 90 * 86_400 * 10**9


def blame_now(ledger: Ledger, now_ns: int) -> Blame:
    """Return what the failures of the last months point at."""
    return blame(ledger.mountings_since(now_ns - LOOKED_BACK_NS))


def condition_now(ledger: Ledger, volume: Volume, now_ns: int, whose: Blame | None = None) -> Condition:
    """Judge one tape; `whose` where several are judged."""
    return condition_of(
        volume,
        ledger.life(volume.code),
        ledger.mountings(volume.code),
        now_ns,
        copies=ledger.copies_on(volume.volume_id),
        blame=blame_now(ledger, now_ns) if whose is None else whose,
    )


def drives_now(ledger: Ledger, now_ns: int) -> dict[str, list[str]]:
    """Return what is known against each drive that was used in the last months."""
    mountings = ledger.mountings_since(now_ns - LOOKED_BACK_NS)
    whose = blame(mountings)
    names = sorted({each.drive for each in mountings})
    return {name: sentences_of(name, [each for each in mountings if each.drive == name], whose) for name in names}
