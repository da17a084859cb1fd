"""The rules of pools: as text, and until when they keep a set."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.pool_records import AllocationKind, Pool, RetentionKind
from tapefs.errors import UsageError
from tapefs.retention.calendar import check_event, end_of_month, months_later, period_began
from tapefs.retention.rules import allocation_rule, allocation_text, hold_of, retention_rule, retention_text

BERLIN = ZoneInfo("Europe/Berlin")


def ns(text: str, zone: ZoneInfo | None = None) -> int:
    at = datetime.fromisoformat(text).replace(tzinfo=zone or UTC)
    return int(at.timestamp()) * 10**9


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("job", "job"),
        (" FOR  ever", "for ever"),
        ("forever", "for ever"),
        ("1d", "1 day"),
        ("30 Days", "30 days"),
        ("6m", "6 months"),
        ("0tm", "0 tape-months"),
        ("1 tape-months", "1 tape-month"),
    ],
)
def test_a_retention_is_read_and_written(text, written):
    rule = retention_rule(text)
    assert retention_text(rule) == written
    assert retention_rule(written) == rule


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "0d", "0m", "36526d", "1201m", "1.5d", "6 weeks", "٣d", "for"])
def test_what_is_no_retention(text):
    with pytest.raises(UsageError, match="is no retention"):
        retention_rule(text)


@pytest.mark.parametrize("text", ["continue", "job", "run", "per weekly", "per Mon..Fri 18:00", "per *-*-01"])
def test_an_allocation_is_read_and_written(text):
    rule = allocation_rule(text)
    assert allocation_text(rule) == text
    assert (rule.kind is AllocationKind.PERIOD) == text.startswith("per")


@pytest.mark.parametrize(
    "text", ["", "per", "per ", "per 25:00", "per 2024-01-01", "per *-02-30", "weekly", "per 2050..2060-02-29"]
)
def test_what_is_no_allocation(text):
    with pytest.raises(UsageError):
        allocation_rule(text)


@pytest.mark.parametrize(
    ("retention", "until"),
    [
        ("30 days", "2026-03-02T12:00"),
        ("1 month", "2026-02-28T12:00"),
        ("13 months", "2027-02-28T12:00"),
        # Begun in November: to the end of November, and one, two, three months more.
        ("0 tape-months", "2025-12-01"),
        ("2 tape-months", "2026-02-01"),
        ("14 tape-months", "2027-02-01"),
    ],
)
def test_until_when_a_pool_keeps_a_set(retention, until):
    pool = Pool(name="p", retention=retention_rule(retention))
    hold = hold_of(pool, ns("2026-01-31T12:00"), [ns("2025-11-30T23:59:59")], UTC)
    assert hold is not None
    assert hold.until_ns == ns(until)
    assert hold.by == f"pool p ({retention})"


def test_the_tape_that_was_begun_last_counts():
    pool = Pool(name="p", retention=retention_rule("1tm"))
    hold = hold_of(pool, 0, [ns("2026-01-31"), ns("2026-02-01"), ns("2025-12-01")], UTC)
    assert hold is not None
    assert hold.until_ns == ns("2026-04-01")


def test_no_rule_and_no_end():
    assert hold_of(Pool(name="p"), 0, [0], UTC) is None
    hold = hold_of(Pool(name="p", retention=retention_rule("for ever")), 0, [0], UTC)
    assert hold is not None
    assert hold.until_ns is None


def test_months_end_where_the_machine_is():
    """One o'clock of the first is still the month before in Greenwich."""
    begun = ns("2026-05-01T00:30", BERLIN)
    assert end_of_month(begun, 1, BERLIN) == ns("2026-07-01", BERLIN)
    assert end_of_month(begun, 1, UTC) == ns("2026-06-01")


def test_a_month_keeps_the_hour_of_the_clock():
    assert months_later(ns("2026-03-01T12:00", BERLIN), 1, BERLIN) == ns("2026-04-01T12:00", BERLIN)


@given(st.integers(0, 4_000_000_000), st.integers(0, 1200), st.integers(0, 1200))
def test_more_months_are_never_shorter(at_s, one, other):
    at_ns, (less, more) = at_s * 10**9, sorted((one, other))
    assert months_later(at_ns, less, UTC) <= months_later(at_ns, more, UTC)
    assert at_ns < end_of_month(at_ns, less, UTC) <= end_of_month(at_ns, more, UTC)
    if less:
        assert at_ns < months_later(at_ns, less, UTC) < end_of_month(at_ns, less, UTC)


@pytest.mark.parametrize(
    ("event", "since", "now", "began"),
    [
        ("weekly", "2026-11-16T08:00", "2026-11-22T23:59:59", None),
        ("weekly", "2026-11-16T08:00", "2026-11-23T00:00", "2026-11-23T00:00"),
        ("weekly", "2026-11-16T08:00", "2027-11-23T00:00", "2026-11-23T00:00"),
        ("monthly", "2026-11-01T00:00", "2026-11-30T12:00", None),
        ("Mon..Fri", "2026-11-20T01:00", "2026-11-22T23:00", None),
        ("Mon..Fri 18:00", "2026-11-20T01:00", "2026-11-20T18:00", "2026-11-20T18:00"),
        # The night without 02:30, and the one with two.
        ("*-*-* 02:30", "2026-03-28T12:00", "2026-03-29T03:05", "2026-03-29T02:30"),
        ("*-*-* 02:30", "2026-10-25T02:31", "2026-10-25T23:00", None),
        # The clock was set back: nothing begins.
        ("daily", "2026-11-20T01:00", "2026-11-19T01:00", None),
    ],
)
def test_periods_begin_by_the_clock_on_the_wall(event, since, now, began):
    check_event(event)
    found = period_began(event, ns(since, BERLIN), ns(now, BERLIN), BERLIN)
    assert found == (None if began is None else datetime.fromisoformat(began))


def test_kinds_have_a_text():
    texts = {"days": "3d", "months": "3m", "tape-months": "3tm", "for-ever": "forever", "job": "job"}
    assert {retention_rule(texts[kind.value]).kind for kind in RetentionKind} == set(RetentionKind)
