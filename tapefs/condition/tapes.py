"""How good a tape is, from 0 to 100, with the reasons, and a warning before it fails. Pure.

A tape begins with 100 points, and loses some for each thing that is known against it. What was long ago, and what a
drive is to blame for, costs a third. One grave thing, or several small ones, reach a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from catalog.life_records import CartridgeLife, Mounting
from catalog.records import CopyState, SegmentCopy, Volume, VolumeState
from drivers.scsi.tape_alerts import ALERTS
from tapefs.condition.blame import Blame
from tapefs.condition.limits import OLD_YEARS, VERY_OLD_YEARS, most_loads, most_passes

#: Below this the tape's data is to be copied; below the other one nothing is written to it any more.
WARN_BELOW, WRITE_FROM = 75, 50
#: So many mountings count as now.
RECENT = 10
#: What is long ago, or a drive's fault, counts by this.
_LITTLE = 1 / 3
_FAILURE_POINTS, _MOST_FAILURE_POINTS = 15, 45
_DAMAGE_POINTS, _MOST_DAMAGE_POINTS = 25, 60
#: What TapeAlert flags that speak of the tape cost; all others are about drives or their users.
_ALERT_POINTS = {
    **{1: 8, 2: 8, 3: 30, 4: 60, 5: 40, 6: 30, 7: 60, 8: 40, 13: 100, 14: 100, 15: 20, 18: 5, 19: 30, 49: 30},
    **{51: 5, 52: 40, 53: 40, 54: 40, 55: 40, 56: 20, 59: 60},
}
#: The share of a maker's limit, or the share of the capacity that was lost, from which on it costs so much.
_WORN = ((1.0, 40), (0.8, 15))
_SHRUNK = ((0.05, 35), (0.02, 15))
_YEAR_S = 365.25 * 86_400


@dataclass(frozen=True, slots=True)
class Reason:
    """Something against a tape."""

    points: int
    sentence: str


@dataclass(frozen=True, slots=True)
class Condition:
    """How a tape is."""

    #: 0 … 100.
    score: int
    #: The gravest first.
    reasons: tuple[Reason, ...] = ()
    #: What to do before it fails; empty: nothing.
    warning: str = ""

    @property
    def may_be_written(self) -> bool:
        """Is it good enough for new data?"""
        return self.score >= WRITE_FROM


def condition_of(
    volume: Volume,
    life: CartridgeLife,
    mountings: Sequence[Mounting],
    now_ns: int,
    *,
    copies: Sequence[SegmentCopy] = (),
    blame: Blame | None = None,
) -> Condition:
    """Judge a tape. `mountings` are its own, the newest first; `blame` is what all failures point at."""
    reasons = [
        *_suspect(volume),
        *_failures(mountings, life, blame or Blame()),
        *_alerts(mountings, life, blame or Blame()),
        *_damaged(copies),
        *_worn(volume, life),
        *_shrunk(life),
        *_aged(life, now_ns),
    ]
    reasons.sort(key=lambda each: -each.points)
    score = max(0, 100 - sum(each.points for each in reasons))
    return Condition(score, tuple(reasons), _warning(volume, score, has_data=bool(copies)))


def _warning(volume: Volume, score: int, *, has_data: bool) -> str:
    if score >= WARN_BELOW:
        return ""
    if not has_data:
        return "take it out of use"
    stop = "; nothing more is written to it" if score < WRITE_FROM else ""
    return f"copy what is on it: `tapefs reclaim {volume.label}`{stop}"


def _suspect(volume: Volume) -> list[Reason]:
    if volume.state is not VolumeState.SUSPECT:
        return []
    return [Reason(100, f"it is suspect: {volume.reason}" if volume.reason else "it is suspect")]


def _failures(mountings: Sequence[Mounting], life: CartridgeLife, blame: Blame) -> list[Reason]:
    return [
        *_failures_of("writing", [each.write_failures for each in mountings], life.write_failures, mountings, blame),
        *_failures_of("reading", [each.read_failures for each in mountings], life.read_failures, mountings, blame),
    ]


def _failures_of(
    what: str, counts: Sequence[int], total: int, mountings: Sequence[Mounting], blame: Blame
) -> list[Reason]:
    if not total:
        return []
    weight, blamed = 0.0, set[str]()
    for place, (count, each) in enumerate(zip(counts, mountings, strict=True)):
        is_of_the_drive = blame.is_of_the_drive(each)
        weight += count * (_LITTLE if is_of_the_drive or place >= RECENT else 1.0)
        if is_of_the_drive and count:
            blamed.add(each.drive)
    # What is too old to be kept.
    weight += max(0, total - sum(counts)) * _LITTLE
    points = min(_MOST_FAILURE_POINTS, max(1, round(_FAILURE_POINTS * weight)))
    whose = f"; {' and '.join(sorted(blamed))} is to blame for some, it fails with other tapes, too" if blamed else ""
    return [Reason(points, f"{what} has failed {_times(total)}{_lately(counts)}{whose}")]


def _lately(counts: Sequence[int]) -> str:
    recent = sum(counts[:RECENT])
    return f", {_times(recent)} of them in its last {len(counts[:RECENT])} mountings" if recent else ", not lately"


def _alerts(mountings: Sequence[Mounting], life: CartridgeLife, blame: Blame) -> list[Reason]:
    reasons = []
    for seen in life.alerts:
        full = _ALERT_POINTS.get(seen.number)
        if full is None:
            continue
        recent = [each for each in mountings[:RECENT] if seen.number in each.alerts]
        counts = any(not blame.is_of_the_drive(each) for each in recent)
        points = full if counts else max(1, round(full * _LITTLE))
        when = "" if recent else ", not lately"
        sentence = f"{ALERTS[seen.number].message} [TapeAlert {seen.number}, {_times(seen.mountings)}{when}]"
        reasons.append(Reason(points, sentence))
    return reasons


def _damaged(copies: Sequence[SegmentCopy]) -> list[Reason]:
    count = sum(each.state is CopyState.DAMAGED for each in copies)
    if not count:
        return []
    segments = "one segment" if count == 1 else f"{count} segments"
    points = min(_MOST_DAMAGE_POINTS, _DAMAGE_POINTS * count)
    return [Reason(points, f"{segments} could not be read back as written")]


def _worn(volume: Volume, life: CartridgeLife) -> list[Reason]:
    medium = life.medium
    loads = max(life.mountings, (medium.loads if medium else None) or 0)
    most = most_loads(volume.generation)
    reasons = _over(loads / most, _WORN, f"it was loaded {loads} times, and is made for {most}")
    passes = most_passes(volume.generation)
    capacity = (medium.capacity_bytes if medium else None) or volume.capacity_bytes
    if passes is not None and capacity:
        written = max(life.written_bytes, (medium.written_bytes if medium else None) or 0)
        read = max(life.read_bytes, (medium.read_bytes if medium else None) or 0)
        done = (written + read) / capacity
        sentence = f"it was written or read {done:.0f} times over its whole length, and is made for about {passes}"
        reasons += _over(done / passes, _WORN, sentence)
    return reasons


def _shrunk(life: CartridgeLife) -> list[Reason]:
    now_bytes = life.medium.capacity_bytes if life.medium else None
    most = life.most_capacity_bytes
    if not now_bytes or now_bytes >= most:
        return []
    share = (most - now_bytes) / most
    return _over(share, _SHRUNK, f"it holds {share:.0%} less than it did")


def _aged(life: CartridgeLife, now_ns: int) -> list[Reason]:
    began_s = _made_s(life)
    if not began_s:
        return []
    years = (now_ns / 1e9 - began_s) / _YEAR_S
    return _over(years, ((VERY_OLD_YEARS, 25), (OLD_YEARS, 10)), f"it is {years:.0f} years old")


def _made_s(life: CartridgeLife) -> float:
    """Return when the cartridge was made, or else first used here, in seconds since the epoch; 0: not known."""
    text = life.medium.manufactured if life.medium else ""
    try:
        return datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return life.first_at_ns / 1e9


def _over(value: float, steps: Sequence[tuple[float, int]], sentence: str) -> list[Reason]:
    """Return the reason with the points of the first step that `value` has reached."""
    points = next((points for least, points in steps if value >= least), 0)
    return [Reason(points, sentence)] if points else []


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
