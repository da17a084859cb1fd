"""Where tapes should lie, by the rule of their pool. Pure.

A tape goes to its pool's vault when it is full, or so many days after it was begun if the pool says so, and comes back
when all of its sets have expired.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import tzinfo

from catalog.pool_records import Pool
from catalog.records import BackupSet, SetState, Volume, VolumeState
from tapefs.retention.calendar import day_of, days_later


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a tape lies and where it should; empty: in the library."""

    volume: Volume
    should: str
    #: For the operator.
    reason: str

    @property
    def is_due(self) -> bool:
        """Should somebody move it?"""
        return self.should != self.volume.location


def placement(
    volume: Volume,
    pool: Pool | None,
    sets: Collection[BackupSet],
    begun_at_ns: int,
    now_ns: int,
    zone: tzinfo | None = None,
) -> Placement:
    """Say where a tape should lie. `sets` are all that have or had anything on it."""
    if volume.state is VolumeState.SUSPECT:
        return Placement(volume, volume.location, "it is suspect: somebody has to look at it first")
    if pool is None or not pool.vault:
        return Placement(volume, volume.location, f"pool {volume.pool} names no vault")
    live = sum(each.state is not SetState.EXPIRED for each in sets)
    if not live:
        why = "all of its sets have expired" if sets else "it holds no set"
        return Placement(volume, "", why)
    holds = f"it holds {live} set{'s' if live > 1 else ''} that live{'' if live > 1 else 's'}"
    if volume.state is VolumeState.FULL:
        return Placement(volume, pool.vault, f"it is full, and {holds}")
    if not pool.vault_after_days:
        # One that was brought away with room left is where it belongs: nobody has to bring it back for that.
        return Placement(volume, volume.location, "it has room left, and goes when it is full")
    until_ns = days_later(begun_at_ns, pool.vault_after_days)
    if until_ns > now_ns:
        return Placement(volume, volume.location, f"it goes on {day_of(until_ns, zone)}, or when it is full")
    days = f"{pool.vault_after_days} day{'s' if pool.vault_after_days > 1 else ''}"
    return Placement(volume, pool.vault, f"it was begun more than {days} ago, and {holds}")
