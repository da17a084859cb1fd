"""Times of the day in which nothing begins. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, time, timedelta
from zoneinfo import ZoneInfo

from catalog.schedule_records import Blackout
from tapefs.errors import UsageError
from tapefs.schedule.zones import instant_of, wall_of

#: Windows that follow on each other for longer than this leave no week free.
_MOST_DAYS = 9


def end_of_blackout(blackouts: Sequence[Blackout], zone: ZoneInfo, at_ns: int) -> int | None:
    """Return when the blackout ends that `at_ns` falls into, with those that follow on it; None when it is in none.

    Its last instant is outside. Raises UsageError when it does not end.
    """
    free_ns, is_in = at_ns, True
    while is_in:
        ends = [end for begin, end in _around(blackouts, zone, free_ns) if begin <= free_ns < end]
        is_in = bool(ends)
        free_ns = max(ends, default=free_ns)
        if free_ns - at_ns > _MOST_DAYS * 86_400_000_000_000:
            raise UsageError("the blackouts leave no time in which anything could begin")
    return free_ns if free_ns != at_ns else None


def _around(blackouts: Sequence[Blackout], zone: ZoneInfo, at_ns: int) -> Iterator[tuple[int, int]]:
    """Yield the windows that may hold the instant: those that begin on its day, or the day before."""
    today = wall_of(at_ns, zone).date()
    for window in blackouts:
        begins, ends = time.fromisoformat(window.begins), time.fromisoformat(window.ends)
        for day in (today - timedelta(days=1), today):
            if window.days and day.weekday() not in window.days:
                continue
            last = day + timedelta(days=begins >= ends)
            yield (
                instant_of(datetime.combine(day, begins), zone),
                instant_of(datetime.combine(last, ends), zone),
            )


def check_blackouts(blackouts: Sequence[Blackout], zone: ZoneInfo, now_ns: int) -> None:
    """Raise UsageError when they leave no time free."""
    end_of_blackout(blackouts, zone, now_ns)
