"""The instants of a rule. Pure.

Days, weeks, months and years go by the wall clock (`zones` says what a change of the clocks does); minutes and hours of
an interval pass evenly. Cron is cronsim's: what runs at fixed hours is treated like a day's rule, what runs every so
many minutes or hours goes on evenly through a change. Calendar events are oncalendar's, which does as systemd: a time
that does not exist on the day of the change is left out.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from oncalendar import OnCalendar, OnCalendarError

from catalog.schedule_records import Calendar, Cron, Daily, Interval, Monthly, Once, Rule, Weekly, Yearly
from tapefs.errors import UsageError
from tapefs.schedule.zones import FIRST_YEAR, LAST_YEAR, NS_PER_S, aware, instant_of, ns_of, wall_of

#: Nothing runs more often: a tape takes longer to load.
SHORTEST_S = 60
#: So many instants are looked at to find out.
_LOOKED_AT = 100
#: Reaching back for the newest instants begins with so much time, and quadruples it.
_FIRST_REACH_NS = 3600 * NS_PER_S
_UNITS_S = {"minutes": 60, "hours": 3600}


def instants(rule: Rule, zone: ZoneInfo, after_ns: int) -> Iterator[int]:
    """Yield the rule's instants behind `after_ns`, in order; none twice. The rule was checked."""
    newest_ns = after_ns
    for at_ns in _instants(rule, zone, after_ns):
        if at_ns > newest_ns:
            newest_ns = at_ns
            yield at_ns


def next_instant(rule: Rule, zone: ZoneInfo, after_ns: int) -> int | None:
    """Return the next instant behind `after_ns`; None when there is none any more."""
    return next(instants(rule, zone, after_ns), None)


def newest_instants(rule: Rule, zone: ZoneInfo, after_ns: int, until_ns: int, most: int) -> list[int]:
    """Return the newest instants behind `after_ns` and not behind `until_ns`, oldest first; at most `most`.

    However long that is, only about four times as many are looked at.
    """
    reach_ns = _FIRST_REACH_NS
    while True:
        from_ns = max(after_ns, until_ns - reach_ns)
        found = [at_ns for at_ns in _until(instants(rule, zone, from_ns), until_ns)]
        if len(found) >= most or from_ns == after_ns:
            return found[-most:]
        reach_ns *= 4


def _until(found: Iterator[int], until_ns: int) -> Iterator[int]:
    for at_ns in found:
        if at_ns > until_ns:
            return
        yield at_ns


def check_rule(rule: Rule, zone: ZoneInfo, now_ns: int) -> None:
    """Raise UsageError for a rule that makes no sense, has nothing to come, or comes more often than each minute."""
    _check_texts(rule, zone)
    coming = list(islice(instants(rule, zone, now_ns), _LOOKED_AT))
    if not coming:
        raise UsageError(f"{describe(rule)} has nothing to come after {aware(now_ns, zone):%Y-%m-%d %H:%M %Z}")
    if any(later - at_ns < SHORTEST_S * NS_PER_S for at_ns, later in pairwise(coming)):
        raise UsageError(f"{describe(rule)} comes more often than once in {SHORTEST_S} seconds")


def _check_texts(rule: Rule, zone: ZoneInfo) -> None:
    if isinstance(rule, Once):
        _date_of(rule)
    elif isinstance(rule, Yearly) and rule.day > monthrange(2024, rule.month)[1]:
        raise UsageError(f"month {rule.month} has no day {rule.day}")
    elif isinstance(rule, Cron):
        _cron(rule, datetime(2024, 1, 1, tzinfo=zone))
    elif isinstance(rule, Calendar):
        _calendar(rule, datetime(2024, 1, 1, tzinfo=zone))


def _instants(rule: Rule, zone: ZoneInfo, after_ns: int) -> Iterator[int]:
    if isinstance(rule, Once):
        return iter((instant_of(datetime.combine(_date_of(rule), _time(rule.time)), zone),))
    if isinstance(rule, Interval):
        return _interval(rule, zone, after_ns)
    if isinstance(rule, Cron):
        return map(ns_of, _endless(_cron(rule, aware(after_ns, zone))))
    if isinstance(rule, Calendar):
        return map(ns_of, _endless(_calendar(rule, aware(after_ns, zone))))
    # The clocks may have been changed by hours, once by a day.
    first = wall_of(after_ns, zone).date() - timedelta(days=2)
    at = _time(rule.time)
    return (instant_of(datetime.combine(day, at), zone) for day in _days(rule, first))


# -- by the wall clock -----------------------------------------------------------------------------------------------


def _days(rule: Daily | Weekly | Monthly | Yearly, first: date) -> Iterator[date]:
    """Yield the rule's days from `first` on, and perhaps some before."""
    if isinstance(rule, Monthly):
        yield from (_day(year, month, rule.day) for year, month in _months(first))
    elif isinstance(rule, Yearly):
        yield from (_day(year, rule.month, rule.day) for year in range(first.year, LAST_YEAR))
    else:
        wanted = range(7) if isinstance(rule, Daily) else rule.days
        day = first
        while day.year < LAST_YEAR:
            if day.weekday() in wanted:
                yield day
            day += timedelta(days=1)


def _months(first: date) -> Iterator[tuple[int, int]]:
    count = first.year * 12 + first.month - 1
    while count // 12 < LAST_YEAR:
        yield count // 12, count % 12 + 1
        count += 1


def _day(year: int, month: int, day: int) -> date:
    return date(year, month, min(day, monthrange(year, month)[1]))


def _interval(rule: Interval, zone: ZoneInfo, after_ns: int) -> Iterator[int]:
    if rule.unit == "days":
        anchor = wall_of(rule.anchor_ns, zone)
        count = max(0, (wall_of(after_ns, zone) - anchor).days // rule.every - 1)
        while True:
            try:
                wall = anchor + timedelta(days=count * rule.every)
            except OverflowError:
                return
            if wall.year >= LAST_YEAR:
                return
            yield instant_of(wall, zone)
            count += 1
    step_ns = rule.every * _UNITS_S[rule.unit] * NS_PER_S
    at_ns = rule.anchor_ns + max(0, (after_ns - rule.anchor_ns) // step_ns) * step_ns
    while True:
        yield at_ns
        at_ns += step_ns


def _time(text: str) -> time:
    return time.fromisoformat(text)


def _date_of(rule: Once) -> date:
    try:
        day = date.fromisoformat(rule.date)
    except ValueError:
        raise UsageError(f"{rule.date} is no day") from None
    if not FIRST_YEAR <= day.year < LAST_YEAR:
        raise UsageError(f"{rule.date} is no day between the years {FIRST_YEAR} and {LAST_YEAR}")
    return day


# -- by libraries ----------------------------------------------------------------------------------------------------


def _cron(rule: Cron, after: datetime) -> Iterator[datetime]:
    if len(rule.expression.split()) != 5:
        raise UsageError(
            f"{rule.expression!r} has not five fields: minute, hour, day of the month, month, day of the week"
        )
    try:
        # cronsim treats UTC apart, and knows it by the object.
        return CronSim(rule.expression, after.astimezone(UTC) if str(after.tzinfo) == "UTC" else after)
    except CronSimError as error:
        raise UsageError(f"{rule.expression!r} is no cron expression: {error}") from error


def _calendar(rule: Calendar, after: datetime) -> Iterator[datetime]:
    try:
        return OnCalendar(rule.expression, after)
    except OnCalendarError as error:
        raise UsageError(
            f"{rule.expression!r} is no calendar event ({error}): write it as systemd does, such as `weekly`, "
            "`Mon..Fri 18:00` or `*-*-01 02:30`"
        ) from error


def _endless(found: Iterator[datetime]) -> Iterator[datetime]:
    """Yield what the libraries find; they end, or fail, where their calendar does."""
    try:
        yield from found
    except (StopIteration, OverflowError, CronSimError):
        return


# -- for people ------------------------------------------------------------------------------------------------------

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def describe(rule: Rule) -> str:
    """Return the rule in words."""
    if isinstance(rule, Once):
        return f"once, on {rule.date} at {rule.time}"
    if isinstance(rule, Interval):
        return f"every {rule.every} {rule.unit}" if rule.every > 1 else f"every {rule.unit[:-1]}"
    if isinstance(rule, Daily):
        return f"daily at {rule.time}"
    if isinstance(rule, Weekly):
        return f"{' '.join(_DAYS[day] for day in sorted(set(rule.days)))} at {rule.time}"
    if isinstance(rule, Monthly):
        return f"monthly on day {rule.day} at {rule.time}"
    if isinstance(rule, Yearly):
        return f"yearly on {rule.month:02d}-{rule.day:02d} at {rule.time}"
    return f"{'cron' if isinstance(rule, Cron) else 'calendar'} {rule.expression}"
