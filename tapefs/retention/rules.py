"""The rules of a pool: as text, and what they mean for a set. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import tzinfo

from catalog.pool_records import AllocationKind, AllocationRule, Pool, RetentionKind, RetentionRule
from tapefs.errors import UsageError
from tapefs.retention.calendar import check_event, days_later, end_of_month, months_later

#: A century: beyond it somebody has mistaken the unit.
MOST_DAYS = 36_525
MOST_MONTHS = 1200

_UNITS = {
    "d": RetentionKind.DAYS,
    "day": RetentionKind.DAYS,
    "days": RetentionKind.DAYS,
    "m": RetentionKind.MONTHS,
    "month": RetentionKind.MONTHS,
    "months": RetentionKind.MONTHS,
    "tm": RetentionKind.TAPE_MONTHS,
    "tape-month": RetentionKind.TAPE_MONTHS,
    "tape-months": RetentionKind.TAPE_MONTHS,
}
_SINGULAR = {RetentionKind.DAYS: "day", RetentionKind.MONTHS: "month", RetentionKind.TAPE_MONTHS: "tape-month"}


def retention_rule(text: str) -> RetentionRule:
    """Return the rule that a text says: `job`, `30 days`, `6 months`, `6 tape-months`, `for ever`. Raises UsageError.

    Short: `30d`, `6m`, `6tm`, `forever`.
    """
    plain = " ".join(text.lower().split())
    if plain == "job":
        return RetentionRule()
    if plain in ("forever", "for ever", "for-ever"):
        return RetentionRule(kind=RetentionKind.FOR_EVER)
    match = re.fullmatch(r"([0-9]{1,6}) ?([a-z-]+)", plain)
    if match is None or match[2] not in _UNITS:
        raise UsageError(
            f"{text!r} is no retention: write `30 days`, `6 months`, `6 tape-months`, `for ever`, or `job`"
        )
    kind, count = _UNITS[match[2]], int(match[1])
    most = MOST_DAYS if kind is RetentionKind.DAYS else MOST_MONTHS
    # The end of the month in which a tape was begun is an end; no days at all would be none.
    least = 0 if kind is RetentionKind.TAPE_MONTHS else 1
    if not least <= count <= most:
        raise UsageError(f"{text!r} is no retention: {_SINGULAR[kind]}s are {least} to {most}")
    return RetentionRule(kind=kind, count=count)


def retention_text(rule: RetentionRule) -> str:
    """Return the text that `retention_rule` takes."""
    if rule.kind in _SINGULAR:
        return f"{rule.count} {_SINGULAR[rule.kind]}{'' if rule.count == 1 else 's'}"
    return "for ever" if rule.kind is RetentionKind.FOR_EVER else "job"


def allocation_rule(text: str) -> AllocationRule:
    """Return the rule that a text says: `continue`, `job`, `run`, or `per EVENT`. Raises UsageError."""
    plain = " ".join(text.split())
    if plain.lower().startswith("per "):
        event = plain[4:]
        check_event(event)
        return AllocationRule(kind=AllocationKind.PERIOD, period=event)
    for kind in (AllocationKind.CONTINUE, AllocationKind.JOB, AllocationKind.RUN):
        if plain.lower() == kind.value:
            return AllocationRule(kind=kind)
    raise UsageError(f"{text!r} is no allocation: write `continue`, `per weekly` (or another event), `job`, or `run`")


def allocation_text(rule: AllocationRule) -> str:
    """Return the text that `allocation_rule` takes."""
    return f"per {rule.period}" if rule.kind is AllocationKind.PERIOD else rule.kind.value


@dataclass(frozen=True, slots=True)
class Hold:
    """A rule beside that of its job that keeps a set."""

    #: Who keeps it and by which rule, for people: "pool monthly (6 tape-months)".
    by: str
    #: None: for ever.
    until_ns: int | None


def hold_of(pool: Pool, finished_at_ns: int, begun_at_ns: Collection[int], zone: tzinfo | None = None) -> Hold | None:
    """Return how a pool keeps a set; None when it leaves that to the job.

    `begun_at_ns`: when the tapes of the pool on which the set lies were begun; at least one.
    """
    rule = pool.retention
    by = f"pool {pool.name} ({retention_text(rule)})"
    match rule.kind:
        case RetentionKind.JOB:
            return None
        case RetentionKind.FOR_EVER:
            return Hold(by, None)
        case RetentionKind.DAYS:
            return Hold(by, days_later(finished_at_ns, rule.count))
        case RetentionKind.MONTHS:
            return Hold(by, months_later(finished_at_ns, rule.count, zone))
        case RetentionKind.TAPE_MONTHS:
            return Hold(by, max(end_of_month(at_ns, rule.count, zone) for at_ns in begun_at_ns))
