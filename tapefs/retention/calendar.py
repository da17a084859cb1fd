"""Days, months and calendar events. Pure, but for the time zone of the machine.

`zone` is None for the local time of this machine, which is what operators mean by "the end of the month". Calendar
events are as systemd writes them (`man systemd.time`): `daily`, `weekly`, `Mon..Fri 18:00`, `*-*-01`. They are looked
for in the time of the wall clock, without zone: a night that has no 02:30 in spring still begins a period, and the hour
that comes twice in autumn begins it once.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta, tzinfo

from oncalendar import BaseIterator, OnCalendarError

from tapefs.errors import UsageError

_NS_PER_S = 1_000_000_000
_LAST_YEAR = 9000
#: An expression that has nothing in so long is a mistake, such as the 30th of February.
_LONGEST_PERIOD = timedelta(days=366 * 8)


def wall_time(at_ns: int, zone: tzinfo | None = None) -> datetime:
    """Return the time of the wall clock, without zone, to the second."""
    return datetime.fromtimestamp(at_ns // _NS_PER_S, zone).replace(tzinfo=None)


def day_of(at_ns: int, zone: tzinfo | None = None) -> str:
    """Return a day for people."""
    return f"{wall_time(at_ns, zone):%Y-%m-%d}"


def days_later(at_ns: int, days: int) -> int:
    """Return the time so many times 24 hours later."""
    return at_ns + days * 86_400 * _NS_PER_S


def months_later(at_ns: int, months: int, zone: tzinfo | None = None) -> int:
    """Return the same time of the same day so many months later; of a shorter month the last day."""
    at = wall_time(at_ns, zone)
    year, month = _month(at, months)
    return _ns(at.replace(year=year, month=month, day=min(at.day, monthrange(year, month)[1])), zone)


def end_of_month(at_ns: int, months: int, zone: tzinfo | None = None) -> int:
    """Return the end of the month that follows by so many months on that of a time; 0: the end of its own."""
    year, month = _month(wall_time(at_ns, zone), months + 1)
    return _ns(datetime(year, month, 1), zone)


def _month(at: datetime, months: int) -> tuple[int, int]:
    years, month = divmod(at.month - 1 + months, 12)
    return min(at.year + years, _LAST_YEAR), month + 1


def _ns(wall: datetime, zone: tzinfo | None) -> int:
    at = wall.astimezone() if zone is None else wall.replace(tzinfo=zone)
    return int((at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * _NS_PER_S


def check_event(expression: str) -> None:
    """Raise UsageError unless it is a calendar event that comes again and again."""
    start = datetime(2024, 1, 1)
    try:
        for _ in range(2):
            start = _next(expression, start)
    except OnCalendarError as error:
        raise UsageError(
            f"{expression!r} is no calendar event ({error}): write it as systemd does, such as `weekly`, "
            "`Mon..Fri 18:00` or `*-*-01`"
        ) from error
    except StopIteration:
        raise UsageError(f"{expression!r} does not come again and again: no period can begin with it") from None
    if start - datetime(2024, 1, 1) > 2 * _LONGEST_PERIOD:
        raise UsageError(f"{expression!r} comes too seldom: no period can begin with it")


def period_began(expression: str, since_ns: int, now_ns: int, zone: tzinfo | None = None) -> datetime | None:
    """Return when the first period began after `since_ns`, in wall time; None when none has until now.

    `expression` was checked.
    """
    try:
        begins = _next(expression, wall_time(since_ns, zone))
    except StopIteration:  # Behind the year 2199 it knows none.
        return None
    return begins if begins <= wall_time(now_ns, zone) else None


def _next(expression: str, start: datetime) -> datetime:
    found: datetime = next(BaseIterator(expression, start))
    return found
