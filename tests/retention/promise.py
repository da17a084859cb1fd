"""What docs/pools.md promises of the year's three pools, as simply as it can be said. Uses nothing of the product."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

NIGHTLY_DAYS, MONTHLY_TAPE_MONTHS, OFFSITE_MONTHS = 14, 3, 6
GRACE_DAYS, VAULT_AFTER_DAYS = 3, 20


@dataclass(frozen=True)
class Made:
    """A set, as the test has seen it made."""

    set_id: str
    job: str
    at: datetime
    #: The set it builds on.
    base: str | None
    #: By pool, when its tape was begun there.
    begun: dict[str, datetime]
    #: By pool, the tape's label.
    tapes: dict[str, str]
    #: By name, what its source held.
    content: dict[str, bytes]

    def until(self) -> datetime:
        """The longest counts of what the pools say on whose tapes it lies."""
        ends = []
        if "nightly" in self.begun:
            ends.append(self.at + timedelta(days=NIGHTLY_DAYS))
        if "monthly" in self.begun:
            # To the end of the third month behind the one in which its tape was begun.
            ends.append(_first_of(self.begun["monthly"], MONTHLY_TAPE_MONTHS + 1))
        if "offsite" in self.begun:
            first = _first_of(self.at, OFFSITE_MONTHS)
            day = min(self.at.day, monthrange(first.year, first.month)[1])
            ends.append(self.at.replace(year=first.year, month=first.month, day=day))
        return max(ends)


def living(made: list[Made], now: datetime) -> set[str]:
    """Return which sets are there: the young, the newest of each job, and what these build on."""
    newest = {each.job: each.set_id for each in made}
    kept = {each.set_id for each in made if each.until() > now} | set(newest.values())
    for each in reversed(made):
        if each.set_id in kept and each.base is not None:
            kept.add(each.base)
    return kept


def belongs(tape_begun: datetime, has_living: bool, now: datetime) -> str:
    """Return where a tape of the pool offsite belongs: away when it is old enough, back when all of it has expired."""
    is_old = now >= tape_begun + timedelta(days=VAULT_AFTER_DAYS)
    return "the bank" if has_living and is_old else ""


def _first_of(day: datetime, months: int) -> datetime:
    year, month = divmod(day.year * 12 + day.month - 1 + months, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)
