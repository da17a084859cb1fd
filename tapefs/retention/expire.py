"""Letting go of sets: the ledger first, then what this folder keeps for them. What is on tape stays there.

Blocking; any number of processes at a time. A crash in between leaves files that nothing refers to: the next `expire`
removes them. An index that somebody has open stays readable for him until he closes it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from catalog.crash import crash_point
from catalog.errors import Conflict, Damaged, NotFound, WrongVersion
from catalog.ids import JobId, JobNumber, SegmentId, SetId
from catalog.ledger import Ledger
from catalog.records import BackupSet, CopyState, Job, SetState
from tapefs.home import Home
from tapefs.retention.holds import holds_on
from tapefs.retention.policy import MIRROR, NOTHING_MORE, Verdict, Wish, decide
from tapefs.staging.area import StagingArea

#: To read one job takes as long as to read so many in a row.
ALONE = 10

log = structlog.get_logger(__name__)

_before_files = crash_point("expire.files.before")
_after_index = crash_point("expire.index.after")
_after_reports = crash_point("expire.reports.after")


@dataclass(frozen=True, slots=True)
class Expiry:
    """What was decided, and what became of it."""

    verdicts: list[Verdict]
    expired: list[SetId]
    freed_bytes: int


def verdicts_of(ledger: Ledger, now_ns: int, wish: Wish = NOTHING_MORE, *, by_copies: bool = False) -> list[Verdict]:
    """Return what would become of every set now. Raises NotFound for a set named that is not there.

    With `by_copies` no index is trusted to say what is damaged.
    """
    for set_id in wish.named:
        ledger.backup_set(set_id)
    sets = ledger.backup_sets()
    complete = [each for each in sets if each.state is SetState.COMPLETE]
    verified = _verified_mirrors(ledger, complete)
    damaged = ledger.damaged_sets(by_copies=by_copies)
    holds = holds_on(ledger, complete)
    jobs, unreadable = _jobs_of(ledger, {each.job_number for each in sets if each.state is SetState.FAILED})
    verdicts = decide(sets, jobs, now_ns, wish, verified, damaged, holds, unreadable)
    # Nothing goes whose job may go on with it, for all that anybody knows; only these are looked at.
    unreadable |= _jobs_of(ledger, {each.backup_set.job_number for each in verdicts if each.goes})[1]
    return decide(sets, jobs, now_ns, wish, verified, damaged, holds, unreadable) if unreadable else verdicts


def _jobs_of(ledger: Ledger, numbers: Collection[JobNumber]) -> tuple[list[Job], set[JobNumber]]:
    """Return those of these jobs that are there, and which of them cannot be read.

    Only they are read, unless that takes longer: reading 100,000 takes 2 s.
    """
    if ALONE * len(numbers) > ledger.job_count():
        with suppress(Damaged, WrongVersion):  # One by one it is seen which.
            return ledger.jobs(), set()
    found, unreadable = [], set()
    for number in numbers:
        try:
            found.append(ledger.job(number))
        except NotFound:
            continue
        except (Damaged, WrongVersion):
            unreadable.add(number)
    return found, unreadable


def _verified_mirrors(ledger: Ledger, complete: Sequence[BackupSet]) -> list[SetId]:
    """Return of each job the newest mirror that was read back: only that one takes the place of others."""
    found: dict[JobId, SetId] = {}
    for each in reversed(complete):
        if each.type == MIRROR and each.job_id not in found and is_verified(ledger, each):
            found[each.job_id] = each.set_id
    return list(found.values())


def is_verified(ledger: Ledger, backup_set: BackupSet) -> bool:
    """Was every segment of the set read back from some tape and found whole?"""
    return backup_set.state is SetState.COMPLETE and all(
        any(copy.verified_at_ns and copy.state is CopyState.GOOD for copy in ledger.copies(segment.segment_id))
        for segment in ledger.segments(backup_set.set_id)
    )


def expire(
    home: Home,
    ledger: Ledger,
    now_ns: int,
    wish: Wish = NOTHING_MORE,
    only: Callable[[Verdict], bool] = lambda _: True,
) -> Expiry:
    """Let go of all sets that may go, and remove what this folder keeps of expired ones.

    With `only`, of those for which it is true; their verdicts are as if all went.
    Raises NotFound for a set named that is not there, OSError when a file cannot be removed; the rest stays done.
    """
    verdicts = verdicts_of(ledger, now_ns, wish, by_copies=True)
    expired = []
    # The newest first: what builds on another goes before it.
    for verdict in sorted(verdicts, key=lambda each: each.backup_set.number, reverse=True):
        if verdict.goes and only(verdict) and _let_go(ledger, verdict, now_ns):
            expired.append(verdict.backup_set.set_id)
    _before_files()
    freed_bytes = remove_leftovers(home, ledger)
    return Expiry(verdicts, expired, freed_bytes)


def _let_go(ledger: Ledger, verdict: Verdict, now_ns: int) -> bool:
    set_id = verdict.backup_set.set_id
    try:
        ledger.expire_set(set_id, now_ns)
    except Conflict as error:
        # A run has begun to build on it, or to go on with it, since the verdict.
        log.info("a set stays after all", set=set_id, reason=str(error))
        return False
    log.info("set expired", set=set_id, name=verdict.backup_set.name, reason=verdict.reason)
    return True


def remove_leftovers(home: Home, ledger: Ledger) -> int:
    """Remove indexes, trailers, reports and staged frames of expired sets, and trailers of what never was a segment.

    Returns the bytes freed. Raises OSError.
    """
    trailers = {path: _set_of(ledger, path.stem) for path in home.trailers.iterdir()}
    sets = ledger.backup_sets()
    expired = {each.set_id for each in sets if each.state is SetState.EXPIRED}
    # Names and the half of such a file too, which somebody may have begun who searched meanwhile.
    freed_bytes = _remove(path for path in home.indexes.iterdir() if path.name.partition(".")[0] in expired)
    _after_index()
    gone: set[SetId | None] = set(expired)
    if not any(each.state is SetState.RUNNING for each in sets):
        # Nobody was writing a segment when the folder was listed: what is of none is of a run that was killed.
        gone.add(None)
    freed_bytes += _remove(path for path, set_id in trailers.items() if set_id in gone)
    if not expired:
        return freed_bytes
    # Named by the set, or by one of its segments.
    reports = ((path, path.name.partition(".")[0]) for path in home.reports.glob("*"))
    freed_bytes += _remove(path for path, name in reports if name in expired or _set_of(ledger, name) in expired)
    _after_reports()
    area = StagingArea(home.staging)
    return freed_bytes + area.remove([each for each in area.segments() if _set_of(ledger, each) in expired])


def _set_of(ledger: Ledger, segment: str) -> SetId | None:
    """Return the set of a committed segment; None for one that is being written, or was lost."""
    try:
        return ledger.segment(SegmentId(segment)).set_id
    except NotFound:
        return None


def _remove(paths: Iterable[Path]) -> int:
    freed_bytes = 0
    for path in list(paths):
        try:
            size_bytes = path.stat().st_blocks * 512
            path.unlink()
        except FileNotFoundError:
            # Another process lets go of sets, too: a mover that has made a mirror.
            continue
        freed_bytes += size_bytes
    return freed_bytes
