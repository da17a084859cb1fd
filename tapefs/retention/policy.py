"""Which sets stay and which go, and why. Pure: a function of the ledger's records and a time.

A set stays as long as one that stays builds on it, whatever else is said of it. Nobody but an operator who names it
lets go of a job's newest complete set. Where its job and the pools of its tapes say how long, the longest counts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from catalog.ids import JobId, JobNumber, SetId
from catalog.records import AS_POOL, BackupSet, Job, JobState, SetState
from tapefs.retention.rules import Hold

_NS_PER_S = 1_000_000_000
_NS_PER_DAY = 86_400 * _NS_PER_S
#: What a failed set has left behind is kept this long: its job may go on from there.
FAILED_DAYS = 7

ARCHIVE, MIRROR = "archive", "mirror"
_ACTIVE = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.PAUSED})


class Why(Enum):
    """The rule that decided."""

    #: These stay.
    RUNNING = "running"
    ARCHIVE = "archive"
    NEWEST = "newest"
    FOR_EVER = "for ever"
    YOUNG = "young"
    RESUMABLE = "resumable"
    BASE = "base"
    UNREADABLE = "unreadable"
    #: These go.
    AGED = "aged"
    FAILED = "failed"
    REPLACED = "replaced"
    NAMED = "named"


#: Rules by which a set goes.
GOING = frozenset({Why.AGED, Why.FAILED, Why.REPLACED, Why.NAMED})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a set; `reason` is for the operator."""

    backup_set: BackupSet
    why: Why
    reason: str

    @property
    def goes(self) -> bool:
        """May it expire?"""
        return self.why in GOING


@dataclass(frozen=True, slots=True)
class Wish:
    """What an operator asks for beyond the rules."""

    #: Let go of these whatever their age, even the newest of a job; never of archives.
    named: frozenset[SetId] = frozenset()
    #: Let go of what failed at once.
    failed: bool = False


NOTHING_MORE = Wish()
Holds = Mapping[SetId, Sequence[Hold]]
NO_HOLDS: Holds = {}


def decide(
    sets: Iterable[BackupSet],
    jobs: Iterable[Job],
    now_ns: int,
    wish: Wish = NOTHING_MORE,
    verified: Collection[SetId] = frozenset(),
    damaged: Collection[SetId] = frozenset(),
    holds: Holds = NO_HOLDS,
    unreadable: Collection[JobNumber] = frozenset(),
) -> list[Verdict]:
    """Return a verdict on every set that has not expired, by number.

    `verified` are sets all of whose data was read back from tape; only such a mirror replaces earlier ones. Of the
    `damaged` something is known to be on no tape any more: they are no reason to let an older one go. `holds` are the
    rules of the pools on whose tapes sets lie. Of `unreadable` jobs nobody knows whether they go on with a set.
    """
    known = sorted((each for each in sets if each.state is not SetState.EXPIRED), key=lambda each: each.number)
    scene = _Scene(known, jobs, now_ns, wish, frozenset(verified), frozenset(damaged), holds)
    verdicts = {each.set_id: scene.verdict(each) for each in known}
    for each in known:
        if each.job_number in unreadable and verdicts[each.set_id].goes:
            verdicts[each.set_id] = Verdict(each, Why.UNREADABLE, f"the record of its job {each.job_number} is damaged")
    # Newest first, so that a chain is held from its end.
    for each in reversed(known):
        parent = verdicts.get(each.parent_id) if each.parent_id is not None else None
        if parent is not None and parent.goes and not verdicts[each.set_id].goes:
            base = parent.backup_set
            reason = f"{_called(each)} builds on it, and that stays: {verdicts[each.set_id].reason}"
            verdicts[base.set_id] = Verdict(base, Why.BASE, reason)
    return [verdicts[each.set_id] for each in known]


class _Scene:
    """What a verdict on one set takes into account of the others."""

    def __init__(
        self,
        known: list[BackupSet],
        jobs: Iterable[Job],
        now_ns: int,
        wish: Wish,
        verified: frozenset[SetId],
        damaged: frozenset[SetId],
        holds: Holds,
    ) -> None:
        self._holds = holds
        self._jobs = {job.job_id: job for job in jobs}
        self._now_ns = now_ns
        self._wish = wish
        self._newest: dict[JobId, BackupSet] = {}
        #: The newest without damage, in itself or in what it builds on.
        self._newest_whole: dict[JobId, BackupSet] = {}
        self._verified_mirrors: dict[JobId, BackupSet] = {}
        broken = set(damaged)
        for each in known:
            if each.parent_id in broken:
                broken.add(each.set_id)
            if each.state is SetState.COMPLETE:
                self._newest[each.job_id] = each
                if each.set_id not in broken:
                    self._newest_whole[each.job_id] = each
                if each.type == MIRROR and each.set_id in verified:
                    self._verified_mirrors[each.job_id] = each

    def verdict(self, each: BackupSet) -> Verdict:
        """Return what becomes of a set if none builds on it."""
        if each.state in (SetState.RUNNING, SetState.SEALED):
            return Verdict(each, Why.RUNNING, "it is being made")
        if each.state is SetState.FAILED:
            return self._failed(each)
        if each.type == ARCHIVE:
            return Verdict(each, Why.ARCHIVE, "it is an archive, which is kept without end")
        verdict = self._mirror(each) if each.type == MIRROR else self._aged(each)
        if each.set_id in self._wish.named:
            although = "" if verdict.goes else f", although {verdict.reason}"
            return Verdict(each, Why.NAMED, f"it was named{although}")
        return verdict

    def _failed(self, each: BackupSet) -> Verdict:
        job = self._jobs.get(each.job_id)
        is_newest_run = job is not None and job.set_id == each.set_id
        if job is not None and is_newest_run and job.state in _ACTIVE:
            return Verdict(each, Why.RUNNING, f"job {job.number} is about to go on with it")
        if each.set_id in self._wish.named:
            return Verdict(each, Why.NAMED, "it failed, and it was named")
        if each.is_adopted:
            # It may only wait for a tape that is missing.
            return Verdict(each, Why.RESUMABLE, "it was found on tape, and something of it is missing")
        if self._wish.failed:
            return Verdict(each, Why.FAILED, "it failed")
        if not is_newest_run:
            return Verdict(each, Why.FAILED, "it failed, and no job can go on with it")
        until_ns = max(each.finished_at_ns, each.started_at_ns) + FAILED_DAYS * _NS_PER_DAY
        if until_ns > self._now_ns:
            return Verdict(each, Why.RESUMABLE, f"it failed, but its job may go on with it until {_day(until_ns)}")
        return Verdict(each, Why.FAILED, f"it failed more than {FAILED_DAYS} days ago")

    def _mirror(self, each: BackupSet) -> Verdict:
        newer = self._verified_mirrors.get(each.job_id)
        if newer is None or newer.number <= each.number:
            return Verdict(each, Why.NEWEST, "no verified mirror of its job has taken its place")
        if missed := what_is_missed(each, newer):
            return Verdict(each, Why.NEWEST, f"{_called(newer)} {missed}: look at the source, then name this set")
        replaced = f"{_called(newer)} has taken its place"
        last, _ = _longest(self._holds.get(each.set_id, ()))
        if last is None or _end(last) <= self._now_ns:
            return Verdict(each, Why.REPLACED, replaced)
        held = self._held(each, last, "")
        return Verdict(each, held.why, f"{replaced}, but {held.reason}")

    def _aged(self, each: BackupSet) -> Verdict:
        if self._newest[each.job_id] is each:
            return Verdict(each, Why.NEWEST, "it is the newest complete set of its job")
        if self._newest_whole.get(each.job_id) is each:
            return Verdict(each, Why.NEWEST, "it is the newest set of its job that is not known to be damaged")
        if not each.retention_days:
            return Verdict(each, Why.FOR_EVER, "it was made without an end of its retention")
        holds = list(self._holds.get(each.set_id, ()))
        own = None
        if each.retention_days != AS_POOL:
            days = f"{each.retention_days} day{'s' if each.retention_days > 1 else ''}"
            own = Hold(f"its {days}", each.kept_from_ns + each.retention_days * _NS_PER_DAY)
            holds.insert(0, own)
        last, others = _longest(holds)
        if last is None:
            return Verdict(each, Why.FOR_EVER, "it is kept as its pool says, and that names no end")
        longer = f", longer than {' and '.join(other.by for other in others)}" if others else ""
        if last is not own or last.until_ns is None:
            return self._held(each, last, longer)
        if last.until_ns > self._now_ns:
            return Verdict(each, Why.YOUNG, f"{last.by} end on {_day(last.until_ns)}{longer}")
        return Verdict(each, Why.AGED, f"{last.by} ended on {_day(last.until_ns)}{longer}")

    def _held(self, each: BackupSet, hold: Hold, longer: str) -> Verdict:
        """Return what becomes of a set that a pool keeps or has kept."""
        if hold.until_ns is None:
            return Verdict(each, Why.FOR_EVER, f"{hold.by} keeps it for ever{longer}")
        if hold.until_ns > self._now_ns:
            return Verdict(each, Why.YOUNG, f"{hold.by} keeps it until {_day(hold.until_ns)}{longer}")
        return Verdict(each, Why.AGED, f"{hold.by} kept it until {_day(hold.until_ns)}{longer}")


def _end(hold: Hold) -> float:
    return math.inf if hold.until_ns is None else hold.until_ns


def _longest(holds: Sequence[Hold]) -> tuple[Hold | None, list[Hold]]:
    """Return the hold that ends last, and the others."""
    last = max(holds, key=_end, default=None)
    return last, [each for each in holds if each is not last]


def what_is_missed(before: BackupSet, after: BackupSet) -> str:
    """Say why the later mirror cannot take the place of the earlier one; nothing when it can.

    A source that is not mounted looks like an empty directory. What could not be read this time may have been read
    the last time, if it is not the very same.
    """
    if gone := next((each for each in before.sources if not _is_within(each, after.sources)), None):
        return f"has nothing of {gone.decode(errors='backslashreplace')}, which is a source of this one"
    had, has = before.files + before.directories, after.files + after.directories
    if 2 * has < had:
        return f"has {has:,} entries, where this one has {had:,}"
    if after.unread_files and (after.unread_files, after.unread_mark) != (before.unread_files, before.unread_mark):
        return f"could not read {after.unread_files:,} files or directories of the source"
    if after.is_resumed:
        return "was made in more than one run, and what could not be read in the first is not known"
    return ""


def _is_within(source: bytes, sources: Iterable[bytes]) -> bool:
    return any((source.rstrip(b"/") + b"/").startswith(each.rstrip(b"/") + b"/") for each in sources)


def _called(each: BackupSet) -> str:
    return f"set {each.set_id[:8]} of {_day(each.started_at_ns)}"


def _day(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns // _NS_PER_S, UTC).strftime("%Y-%m-%d")
