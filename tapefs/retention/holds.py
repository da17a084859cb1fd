"""Which pools keep which sets, by what the ledger knows of their tapes. Blocking; reads the ledger."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import tzinfo

from catalog.ids import SetId
from catalog.ledger import Ledger
from catalog.records import BackupSet, Volume
from tapefs.retention.rules import Hold, hold_of


def holds_on(ledger: Ledger, sets: Iterable[BackupSet], zone: tzinfo | None = None) -> dict[SetId, list[Hold]]:
    """Return the rules of pools by set; the rule of every pool on whose tapes a set lies counts for it."""
    pools = {pool.name: pool for pool in ledger.pools()}
    volumes = {volume.label: volume for volume in ledger.volumes() if volume.pool in pools}
    begun_ns: dict[str, int] = {}
    found: dict[SetId, list[Hold]] = {}
    for each in sets:
        by_pool: dict[str, list[int]] = {}
        for volume in (volumes[label] for label in each.tapes if label in volumes):
            if volume.label not in begun_ns:
                begun_ns[volume.label] = begun_at_ns(ledger, volume)
            by_pool.setdefault(volume.pool, []).append(begun_ns[volume.label])
        held = (hold_of(pools[name], each.kept_from_ns, begun, zone) for name, begun in by_pool.items())
        found[each.set_id] = [hold for hold in held if hold is not None]
    return found


def begun_at_ns(ledger: Ledger, volume: Volume) -> int:
    """Return when a tape was labelled; where an earlier version did not note it, when its first segment was written."""
    if volume.labelled_at_ns:
        return volume.labelled_at_ns
    first = next(iter(ledger.copies_on(volume.volume_id)), None)
    return volume.created_at_ns if first is None else ledger.segment(first.segment_id).committed_at_ns
