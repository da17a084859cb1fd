"""What the ledger knows of every tape that a choice depends on. Blocking; reads the ledger."""

from __future__ import annotations

from datetime import tzinfo

from catalog.errors import NotFound
from catalog.ledger import Ledger
from catalog.records import BackupSet, Intent, SetState, Volume, VolumeState
from tapefs.retention.allocation import Candidate
from tapefs.retention.holds import begun_at_ns
from tapefs.retention.pools import Pools
from tapefs.retention.reuse import Reuse, may_reuse


def candidates_of(ledger: Ledger, pools: Pools, now_ns: int, zone: tzinfo | None = None) -> list[Candidate]:
    """Return all tapes, by label, as if all were in the library and nobody worked with them."""
    return [candidate_of(ledger, pools, *pair, now_ns, zone) for pair in tapes_with_sets(ledger)]


def tapes_with_sets(ledger: Ledger) -> list[tuple[Volume, list[BackupSet]]]:
    """Return all tapes, by label, and the sets that have or had anything on them, by number."""
    by_label: dict[str, list[BackupSet]] = {}
    for each in ledger.backup_sets():
        for label in each.tapes:
            by_label.setdefault(label, []).append(each)
    return [(volume, by_label.get(volume.label, [])) for volume in ledger.volumes()]


def candidate_of(
    ledger: Ledger, pools: Pools, volume: Volume, sets: list[BackupSet], now_ns: int, zone: tzinfo | None = None
) -> Candidate:
    """Return one tape as if it were in the library and nobody worked with it."""
    if volume.state is VolumeState.BLANK:
        return Candidate(volume)
    return Candidate(
        volume,
        begun_at_ns=begun_at_ns(ledger, volume),
        jobs=frozenset(each.job_id for each in sets),
        sets=frozenset(each.set_id for each in sets),
        reuse=reuse_of(ledger, pools, volume, sets, now_ns, zone),
    )


def reuse_of(
    ledger: Ledger, pools: Pools, volume: Volume, sets: list[BackupSet], now_ns: int, zone: tzinfo | None = None
) -> Reuse:
    """Decide whether a tape may be overwritten."""
    if volume.foreign:
        return Reuse(may=False, reason=f"{volume.foreign.upper()} has written it: it is only read")
    if volume.installation_id != ledger.installation().installation_id:
        return Reuse(may=False, reason="another installation has written it, and may count on it")
    is_under_way = any(_is_under_way(ledger, intent) for intent in ledger.intents(volume.volume_id))
    pool = pools.find(volume.pool)
    return may_reuse(volume, pool, sets, is_under_way=is_under_way, now_ns=now_ns, zone=zone)


def _is_under_way(ledger: Ledger, intent: Intent) -> bool:
    """Is what was announced still being written? Else it is torn, was never counted, and may go with the rest."""
    if intent.set_id is None:
        return True
    try:
        return ledger.backup_set(intent.set_id).state is SetState.RUNNING
    except NotFound:  # It was found on the tape by a rebuild.
        return False
