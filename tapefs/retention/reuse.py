"""Whether a tape may be overwritten without anybody asking for it, and why not. Pure.

Never unless the tape's pool says so, and never a WORM cartridge. A tape that is let go of too early is lost, one that
is kept too long only costs its price: so whatever is not known speaks against it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import tzinfo

from catalog.pool_records import Pool
from catalog.records import BackupSet, SetState, Volume, VolumeState
from tapefs.retention.calendar import day_of, days_later

#: The last letter of a barcode of WORM cartridges: LT for LTO-3, and on from there, as IBM, HPE and Quantum label them.
_WORM_BARCODE = re.compile(r".*L[T-Z]")


@dataclass(frozen=True, slots=True)
class Reuse:
    """May a tape be overwritten now? `reason` is for the operator."""

    may: bool
    reason: str
    #: When the grace time ended; 0 while it has not, or when something else holds the tape.
    since_ns: int = 0


def may_reuse(
    volume: Volume,
    pool: Pool | None,
    sets: Collection[BackupSet],
    *,
    is_under_way: bool,
    now_ns: int,
    zone: tzinfo | None = None,
) -> Reuse:
    """Decide on one tape that has been written. `sets` are all that have or had anything on it.

    `pool` is None when its rules are not known.
    """
    if is_worm_barcode(volume.code):
        return Reuse(may=False, reason="it is WORM: what is written on it stays")
    if live := sorted((each for each in sets if each.state is not SetState.EXPIRED), key=lambda each: each.number):
        more = f" and {len(live) - 1} more, which live" if len(live) > 1 else ", which lives"
        return Reuse(may=False, reason=f"it holds set {live[0].set_id[:8]} ({live[0].name}){more}")
    if volume.state is VolumeState.SUSPECT:
        return Reuse(may=False, reason="it is suspect: somebody has to look at it first")
    if is_under_way:
        return Reuse(may=False, reason="something is being written to it")
    if pool is None or not pool.reuse:
        what = f"pool {volume.pool} does not reuse tapes by itself"
        return Reuse(may=False, reason=what if pool is not None else f"the rules of pool {volume.pool} are not known")
    return _after_grace(volume, pool, sets, now_ns, zone)


def _after_grace(volume: Volume, pool: Pool, sets: Collection[BackupSet], now_ns: int, zone: tzinfo | None) -> Reuse:
    if not sets and not volume.left_at_ns:
        # Labelled, and nothing known of what lies behind the label.
        return Reuse(may=False, reason="it holds no set that is known, and may hold what is not")
    if not all(each.expired_at_ns for each in sets):
        return Reuse(may=False, reason="when its last set expired was not noted: relabel it yourself")
    what = "all of its sets have expired or left it" if volume.left_at_ns else "all of its sets have expired"
    until_ns = days_later(max([volume.left_at_ns, *(each.expired_at_ns for each in sets)]), pool.reuse_grace_days)
    if until_ns > now_ns:
        when = day_of(until_ns, zone)
        return Reuse(may=False, reason=f"{what}; it may be overwritten from {when} on")
    return Reuse(may=True, reason=f"{what}, it may be overwritten", since_ns=until_ns)


def is_worm_barcode(barcode: str) -> bool:
    """Does the barcode say that the cartridge can be written only once?"""
    return _WORM_BARCODE.fullmatch(barcode) is not None
