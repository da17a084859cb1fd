"""What is known to be damaged on tape, by whoever has met it: reading back, a restore, a read in the mount. Blocking.

Every damaged copy has a file that tells what it costs, so that this need not look at all segments.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from catalog.errors import NotFound
from catalog.ids import SegmentId
from catalog.ledger import Ledger
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import CopyState, SetState
from tapefs.doctor.findings import Finding, Grade
from tapefs.home import Home
from tapefs.sizes import counted

#: Sets and tapes that are named one by one.
_NAMED = 5


def look_at_damage(home: Home) -> Iterator[Finding]:
    """Yield what is whole nowhere, and what has fewer whole copies than it was given. Raises catalog errors."""
    if not home.ledger.exists():
        return
    segments = sorted({path.name.partition(".")[0] for path in home.reports.glob("*.damage.jsonl")})
    lost: dict[str, int] = {}
    tapes: dict[str, int] = {}
    with closing(LmdbLedger.open(home.ledger, readonly=True)) as ledger:
        for segment_id in segments:
            _count(ledger, SegmentId(segment_id), lost, tapes)
    if lost:
        yield Finding(
            grade=Grade.WARNING,
            about="tapes",
            says=f"no tape has all of {counted(sum(lost.values()), 'segment')} of {_names(lost)}",
            fix="look for another copy, read back with another drive (`tapefs verify --again`), and back up again",
            shows="tapefs check",
        )
    if tapes:
        yield Finding(
            grade=Grade.WARNING,
            about="tapes",
            says=f"copies on {_names(tapes)} are damaged, others of the same are whole",
            fix="copy what lives there to other tapes (`tapefs reclaim`)",
            shows="tapefs tape show",
        )


def _count(ledger: Ledger, segment_id: SegmentId, lost: dict[str, int], tapes: dict[str, int]) -> None:
    """Count a segment for its set if it is whole nowhere, else its damaged copies for their tapes."""
    try:
        made = ledger.backup_set(ledger.segment(segment_id).set_id)
    except NotFound:
        return  # It was given up meanwhile.
    if made.state is not SetState.COMPLETE:
        return
    copies = ledger.copies(segment_id)
    damaged = [each for each in copies if each.state is CopyState.DAMAGED]
    if damaged and len(damaged) == len(copies):
        name = f"set {made.set_id[:8]} ({made.name})"
        lost[name] = lost.get(name, 0) + 1
        return
    for copy in damaged:
        label = ledger.volume(copy.volume_id).label
        tapes[label] = tapes.get(label, 0) + 1


def _names(counts: dict[str, int]) -> str:
    names = list(counts)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
