"""The line of jobs that wait: in which order they run, and what keeps one from running yet. One trio run; no I/O but
look-ups in the ledger.

A job of a higher priority runs first, of equal ones the one that was queued first. An hour of waiting counts like one
step of priority, so that nothing waits for ever: the order is that of `queued_at - priority * 1 h`, which never changes
while a job waits. A run that comes back into the line (another drive, another try, resumed) has its old place.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import Enum

from catalog.errors import NotFound
from catalog.ids import JobNumber
from catalog.records import DriveMove, Job, JobState
from sidecar.drives.health import OTHER_DRIVE_S

#: Waiting that counts like one step of priority.
STEP_NS = 3600 * 10**9

_ON_THE_WAY = frozenset({JobState.QUEUED, JobState.RUNNING, JobState.PAUSED})


@dataclass(frozen=True, slots=True)
class Waiting:
    """A job in the line, with what decides when it runs."""

    number: JobNumber
    order: tuple[int, int]
    not_before_ns: int
    after: tuple[JobNumber, ...]
    after_any: bool
    moves: tuple[DriveMove, ...]
    #: Its hooks before have not all gone well yet.
    is_unprepared: bool


class Outlook(Enum):
    """What the jobs say that another is to follow."""

    READY = "ready"
    #: One is on its way.
    WAITS = "waits"
    #: One has never run, and nobody has queued it.
    IDLE = "idle"
    #: One has not succeeded, or is gone.
    NEVER = "never"


class Line:
    """All jobs that wait, in their order."""

    def __init__(self) -> None:
        self._order: list[tuple[tuple[int, int], JobNumber]] = []
        self._waiting: dict[JobNumber, Waiting] = {}

    def __contains__(self, number: object) -> bool:
        """Does the job wait?"""
        return number in self._waiting

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[Waiting]:
        """Yield them, the first to run first; the line must not change meanwhile."""
        return (self._waiting[number] for _, number in self._order)

    def add(self, job: Job) -> None:
        """Put a job in its place; one that waits already gets the place that is right by now."""
        self.remove(job.number)
        order = (job.queued_at_ns - job.priority * STEP_NS, int(job.number))
        self._waiting[job.number] = Waiting(
            job.number, order, job.not_before_ns, job.after, job.after_any, job.moves, is_unprepared(job)
        )
        insort(self._order, (order, job.number))

    def remove(self, number: JobNumber) -> bool:
        """Take a job out; return whether it was there."""
        waiting = self._waiting.pop(number, None)
        if waiting is None:
            return False
        del self._order[bisect_left(self._order, (waiting.order, number))]
        return True

    def place_of(self, number: JobNumber) -> int | None:
        """Return how many are before a job that waits."""
        waiting = self._waiting.get(number)
        return None if waiting is None else bisect_left(self._order, (waiting.order, number))

    def next_time_ns(self, now_ns: int) -> int | None:
        """Return when the first of those may begin that wait for a time by now."""
        return min((each.not_before_ns for each in self._waiting.values() if each.not_before_ns > now_ns), default=None)

    def first(self, is_fit: Callable[[Waiting], bool]) -> JobNumber | None:
        """Return the first job that may run."""
        return next((each.number for each in self if is_fit(each)), None)


def is_unprepared(job: Job) -> bool:
    """Have the hooks before its run still to begin, or to go well?"""
    if not (job.hooks_before or job.hooks_after):
        return False
    done = [result for result in job.hooks if not result.is_after and not result.error]
    return not job.hooks_begun_at_ns or len(done) < len(job.hooks_before)


def may_take(waiting: Waiting, drive: str, drives_up: Collection[str], now_ns: int) -> bool:
    """May this drive run it? A run that the drive has failed leaves it to others for a while."""
    others = set(drives_up) - {drive} - {move.drive for move in waiting.moves}
    if not others or all(move.drive != drive for move in waiting.moves):
        return True
    return now_ns - waiting.moves[-1].at_ns > OTHER_DRIVE_S * 1e9


def outlook(after: Collection[JobNumber], after_any: bool, job_of: Callable[[JobNumber], Job]) -> tuple[Outlook, str]:
    """Return what can be said of a job that is to follow these, and which one is to blame, for people."""
    found = [(_outlook(number, after_any, job_of), number) for number in after]
    for worst in (Outlook.NEVER, Outlook.IDLE, Outlook.WAITS):
        for (one, words), _ in found:
            if one is worst:
                return one, words
    return Outlook.READY, ""


def _outlook(number: JobNumber, after_any: bool, job_of: Callable[[JobNumber], Job]) -> tuple[Outlook, str]:
    try:
        job = job_of(number)
    except NotFound:
        return (Outlook.READY, "") if after_any else (Outlook.NEVER, f"job {number}, which was deleted")
    words = f"job {number} ({job.name}), which is {job.state.value}"
    if job.state in _ON_THE_WAY:
        return Outlook.WAITS, words
    if job.state is JobState.PENDING:
        return Outlook.IDLE, f"job {number} ({job.name}), which has not been run yet"
    if job.state is JobState.COMPLETED or after_any:
        return Outlook.READY, ""
    return Outlook.NEVER, words
