"""Which tape a job writes next, and why not the others. Pure: a function of records, what is where, and a time.

In this order: the fullest begun tape of the pool that its rule allows, a blank one of the pool, a blank one of the
scratch pool, the tape of the pool that could have been overwritten for the longest time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from enum import Enum

from catalog.ids import JobId, SetId, VolumeId
from catalog.pool_records import AllocationKind, Pool
from catalog.records import Volume, VolumeState
from tapefs.retention.calendar import period_began
from tapefs.retention.pools import SCRATCH
from tapefs.retention.reuse import Reuse
from tapefs.retention.rules import allocation_text


class Source(Enum):
    """Where a tape that may be written comes from; in the order in which they are taken."""

    BEGUN = "begun"
    BLANK = "blank"
    SCRATCH = "scratch"
    #: It holds expired sets only, and is begun anew.
    REUSED = "reused"


_ORDER = list(Source)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A tape, and what counts for or against it."""

    volume: Volume
    #: When it was begun; 0: it was not.
    begun_at_ns: int = 0
    #: Jobs whose sets lie on it, expired ones as well, and those sets.
    jobs: frozenset[JobId] = frozenset()
    sets: frozenset[SetId] = frozenset()
    is_in_library: bool = True
    #: Another drive works with it.
    is_held: bool = False
    #: Why its key keeps it from being written to as it is; empty: it does not.
    unfit: str = ""
    #: Why the drive cannot write it, and why it is too bad to be written to; empty: neither is so.
    misfit: str = ""
    bad: str = ""
    reuse: Reuse | None = None


@dataclass(frozen=True, slots=True)
class Want:
    """Who wants a tape."""

    pool: Pool
    now_ns: int
    #: None: nobody in particular; then rules that depend on the job allow everything.
    job_id: JobId | None = None
    #: The set of this run, once it has begun.
    set_id: SetId | None = None
    #: Tapes that were tried or filled already.
    exclude: Collection[VolumeId] = frozenset()
    zone: tzinfo | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What becomes of one tape; `reason` is for the operator: why it is not taken, or what it is."""

    volume: Volume
    source: Source | None
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The tape to write, and what is to be said of all others of the pool."""

    taken: Answer | None
    #: Of all tapes that come into question, the best one first, then by label.
    answers: Sequence[Answer]


def choose(want: Want, candidates: Iterable[Candidate]) -> Choice:
    """Choose the tape to write next."""
    judged = [(each, _judge(want, each)) for each in candidates if _concerns(want, each)]
    judged.sort(key=lambda pair: _rank(pair[0], pair[1]))
    answers = [answer for _, answer in judged]
    taken = answers[0] if answers and answers[0].source is not None else None
    return Choice(taken, answers)


def _concerns(want: Want, each: Candidate) -> bool:
    name, pool = each.volume.pool, want.pool
    return name == pool.name or (name == SCRATCH and pool.use_scratch)


def _rank(each: Candidate, answer: Answer) -> tuple[int, float, str]:
    volume = each.volume
    if answer.source is None:
        return len(_ORDER), 0, volume.label
    if answer.source is Source.BEGUN:
        return 0, -volume.used_bytes, volume.label
    since_ns = each.reuse.since_ns if answer.source is Source.REUSED and each.reuse is not None else 0
    return _ORDER.index(answer.source), since_ns, volume.label


def _judge(want: Want, each: Candidate) -> Answer:
    volume = each.volume
    if obstacle := _obstacle(want, each):
        return Answer(volume, None, obstacle)
    if volume.state is VolumeState.BLANK:
        return _blank(want, volume)
    if volume.state is VolumeState.APPENDABLE and volume.used_bytes < volume.capacity_bytes:
        if refusal := each.unfit or _refusal(want, each):
            return _again(each, refusal)
        return Answer(volume, Source.BEGUN, "it was begun and has room")
    return _again(each, "it is full")


def _obstacle(want: Want, each: Candidate) -> str:
    """Say what keeps anybody from writing to the tape now; nothing when nothing does."""
    volume = each.volume
    if volume.state is VolumeState.SUSPECT:
        return f"it is suspect: {volume.reason}" if volume.reason else "it is suspect"
    if each.bad:
        return each.bad
    if volume.volume_id in want.exclude:
        return "this run has tried it already"
    if volume.location:
        return f"it lies in {volume.location}; say `tapefs tape move {volume.label} library` when it is back for good"
    if not each.is_in_library:
        return "it is not in the library"
    if each.misfit:
        return each.misfit
    return "another drive has it" if each.is_held else ""


def _blank(want: Want, volume: Volume) -> Answer:
    if volume.pool == want.pool.name:
        return Answer(volume, Source.BLANK, "it is blank")
    return Answer(volume, Source.SCRATCH, f"it is blank, of pool {SCRATCH}")


def _refusal(want: Want, each: Candidate) -> str:
    """Say why the pool's rule has this job begin another tape; nothing when it may go on with this one."""
    rule = want.pool.allocation
    if rule.kind is AllocationKind.CONTINUE or want.set_id in each.sets:
        return ""
    by = f"pool {want.pool.name} allocates `{allocation_text(rule)}`"
    if rule.kind is AllocationKind.PERIOD:
        began = period_began(rule.period, each.begun_at_ns, want.now_ns, want.zone)
        return f"{by}: it was begun before {began:%Y-%m-%d %H:%M}" if began is not None else ""
    if rule.kind is AllocationKind.JOB:
        others = want.job_id is not None and each.jobs - {want.job_id}
        return f"{by}: it holds sets of another job" if others else ""
    return f"{by}: it was begun by another run" if each.sets else ""


def _again(each: Candidate, reason: str) -> Answer:
    """A tape that is not to be gone on with may be one to begin anew."""
    if each.reuse is None:
        return Answer(each.volume, None, reason)
    if each.reuse.may:
        return Answer(each.volume, Source.REUSED, f"{reason}; {each.reuse.reason}")
    return Answer(each.volume, None, f"{reason}; {each.reuse.reason}")
