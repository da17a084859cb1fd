"""The instants of rules, over changes of the clocks: a table, properties, and systemd's own opinion."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.schedule_records import Calendar, Cron, Daily, Interval, Monthly, Once, Rule, Weekly, Yearly
from tapefs.errors import UsageError
from tapefs.schedule.rules import check_rule, describe, instants, newest_instants, next_instant
from tapefs.schedule.zones import instant_of, local_zone_name, wall_of, zone_of

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "UTC")
S = 1_000_000_000


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp()) * S


def shown(found: list[int], zone: str) -> list[str]:
    return [datetime.fromtimestamp(at_ns // S, ZoneInfo(zone)).isoformat(timespec="minutes") for at_ns in found]


def coming(rule: Rule, zone: str, after: str, count: int) -> list[str]:
    return shown(list(islice(instants(rule, zone_of(zone), ns(after)), count)), zone)


#: A rule for each night of the change: once behind the hour that does not exist, once in the hour that comes twice.
NIGHTS = [
    ("Europe/Berlin", "02:30", "2026-03-28T00:00+01:00", ["28T02:30+01:00", "29T03:00+02:00", "30T02:30+02:00"]),
    ("Europe/Berlin", "02:30", "2026-10-24T00:00+02:00", ["24T02:30+02:00", "25T02:30+02:00", "26T02:30+01:00"]),
    ("America/New_York", "02:15", "2026-03-07T00:00-05:00", ["07T02:15-05:00", "08T03:00-04:00", "09T02:15-04:00"]),
    ("America/New_York", "01:30", "2026-10-31T00:00-04:00", ["31T01:30-04:00", "01T01:30-04:00", "02T01:30-05:00"]),
    ("Australia/Lord_Howe", "02:10", "2026-10-03T00:00+10:30", ["03T02:10+10:30", "04T02:30+11:00", "05T02:10+11:00"]),
    ("Australia/Lord_Howe", "01:45", "2026-04-04T00:00+11:00", ["04T01:45+11:00", "05T01:45+11:00", "06T01:45+10:30"]),
    ("Asia/Kathmandu", "02:30", "2026-03-28T00:00+05:45", ["28T02:30+05:45", "29T02:30+05:45", "30T02:30+05:45"]),
    ("UTC", "02:30", "2026-03-28T00:00+00:00", ["28T02:30+00:00", "29T02:30+00:00", "30T02:30+00:00"]),
]


@pytest.mark.parametrize(("zone", "at", "after", "wanted"), NIGHTS)
def test_every_night_has_its_run(zone: str, at: str, after: str, wanted: list[str]) -> None:
    assert [each[8:] for each in coming(Daily(time=at), zone, after, 3)] == wanted
    hour, minute = at.split(":")
    assert [each[8:] for each in coming(Cron(expression=f"{minute} {hour} * * *"), zone, after, 3)] == wanted


@pytest.mark.parametrize("zone", ZONES)
def test_what_runs_every_half_hour_goes_on_evenly(zone: str) -> None:
    for rule in (Cron(expression="*/30 * * * *"), Interval(every=30, unit="minutes")):
        found = list(islice(instants(rule, zone_of(zone), ns("2026-01-01T00:00+00:00")), 2 * 24 * 365))
        assert {later - at for at, later in pairwise(found)} == {1800 * S}


RULES: list[tuple[Rule, str, str, list[str]]] = [
    (Once(date="2026-03-29", time="02:30"), "Europe/Berlin", "2026-03-01T00:00+01:00", ["2026-03-29T03:00+02:00"]),
    (Once(date="2026-03-29", time="02:30"), "Europe/Berlin", "2026-03-29T03:00+02:00", []),
    (
        Weekly(days=(6, 0), time="02:30"),
        "Europe/Berlin",
        "2026-03-28T00:00+01:00",
        ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00", "2026-04-05T02:30+02:00"],
    ),
    (
        Monthly(day=31, time="12:00"),
        "UTC",
        "2028-01-01T00:00+00:00",
        ["2028-01-31T12:00+00:00", "2028-02-29T12:00+00:00", "2028-03-31T12:00+00:00", "2028-04-30T12:00+00:00"],
    ),
    (
        Yearly(month=2, day=29, time="01:00"),
        "UTC",
        "2027-01-01T00:00+00:00",
        ["2027-02-28T01:00+00:00", "2028-02-29T01:00+00:00", "2029-02-28T01:00+00:00"],
    ),
    (
        Interval(every=2, unit="days", anchor_ns=ns("2026-03-25T08:00+01:00")),
        "Europe/Berlin",
        "2026-03-26T00:00+01:00",
        ["2026-03-27T08:00+01:00", "2026-03-29T08:00+02:00", "2026-03-31T08:00+02:00"],
    ),
    (
        Interval(every=6, unit="hours", anchor_ns=ns("2026-03-28T20:00+01:00")),
        "Europe/Berlin",
        "2026-03-28T20:00+01:00",
        ["2026-03-29T03:00+02:00", "2026-03-29T09:00+02:00"],
    ),
    (
        Cron(expression="0 9 1 * mon"),
        "UTC",
        "2026-05-31T00:00+00:00",
        ["2026-06-01T09:00+00:00", "2026-06-08T09:00+00:00"],
    ),
    (
        Calendar(expression="Mon..Fri 18:00"),
        "Europe/Berlin",
        "2026-03-27T12:00+01:00",
        ["2026-03-27T18:00+01:00", "2026-03-30T18:00+02:00"],
    ),
    (
        Calendar(expression="*-*-* 02:30:00"),
        "Europe/Berlin",
        "2026-03-28T00:00+01:00",
        ["2026-03-28T02:30+01:00", "2026-03-30T02:30+02:00"],
    ),
]


@pytest.mark.parametrize(("rule", "zone", "after", "wanted"), RULES)
def test_rules(rule: Rule, zone: str, after: str, wanted: list[str]) -> None:
    assert coming(rule, zone, after, max(1, len(wanted))) == wanted
    assert describe(rule)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", ["*-*-* 02:30:00", "Sun *-*-* 01:45:00", "monthly", "Mon..Fri 18:00"])
@pytest.mark.parametrize("start", ["2026-03-27 00:00:00", "2026-10-02 00:00:00", "2026-10-30 00:00:00"])
def test_calendar_events_are_systemds(zone: str, expression: str, start: str) -> None:
    command = ["systemd-analyze", "calendar", "--iterations=6", f"--base-time={start} UTC", f"{expression} {zone}"]
    done = subprocess.run(command, env={"TZ": "UTC"}, capture_output=True, text=True, check=True, timeout=60)
    lines = [line.partition(":")[2].strip() for line in done.stdout.splitlines() if " UTC" in line]
    theirs = [line for line in lines if line.endswith(" UTC") and line[:3].isalpha()]
    found = islice(instants(Calendar(expression=expression), zone_of(zone), ns(f"{start}+00:00")), 6)
    ours = [datetime.fromtimestamp(at_ns // S, UTC).strftime("%a %Y-%m-%d %H:%M:%S UTC") for at_ns in found]
    assert ours == theirs[-6:]
    assert len(ours) == 6


_times = st.times().map(lambda at: f"{at:%H:%M:%S}")
_simple = st.one_of(
    st.builds(Daily, time=_times),
    st.builds(Weekly, days=st.sets(st.integers(0, 6), min_size=1).map(tuple), time=_times),
    st.builds(Monthly, day=st.integers(1, 31), time=_times),
    st.builds(Yearly, month=st.integers(1, 12), day=st.integers(1, 28), time=_times),
    st.builds(
        Interval,
        every=st.integers(1, 400),
        unit=st.sampled_from(["minutes", "hours", "days"]),
        anchor_ns=st.integers(0, 2 * 10**9).map(lambda at_s: at_s * S),
    ),
    st.builds("{} {} * * *".format, st.integers(0, 59), st.integers(0, 23)).map(lambda text: Cron(expression=text)),
)
_moments = st.integers(ns("2000-01-01T00:00+00:00") // S, ns("2036-01-01T00:00+00:00") // S).map(lambda at: at * S)


@given(rule=_simple, zone=st.sampled_from(ZONES), after_ns=_moments)
def test_instants_come_in_order_and_from_anywhere(rule: Rule, zone: str, after_ns: int) -> None:
    """Whoever asks behind the n-th gets the next one, and looking back finds the same."""
    found = list(islice(instants(rule, zone_of(zone), after_ns), 5))
    assert all(after_ns < at for at in found)
    assert found == sorted(set(found))
    for at_ns, later_ns in pairwise(found):
        assert next_instant(rule, zone_of(zone), at_ns) == later_ns
        assert next_instant(rule, zone_of(zone), later_ns - S) == later_ns
    assert newest_instants(rule, zone_of(zone), after_ns, found[-1], 1000) == found
    assert newest_instants(rule, zone_of(zone), after_ns, found[-1], 2) == found[-2:]


@given(at=_times, zone=st.sampled_from(ZONES), start=st.dates(datetime(2000, 1, 1).date(), datetime(2036, 1, 1).date()))
def test_daily_is_once_on_each_day_and_as_cron_has_it(at: str, zone: str, start: object) -> None:
    at = at[:5]
    rule, after = Daily(time=at), ns(f"{start}T00:00:00+00:00")
    found = list(islice(instants(rule, zone_of(zone), after), 250))
    days = [wall_of(each, zone_of(zone)).date() for each in found]
    assert days == [days[0] + timedelta(days=place) for place in range(250)]
    hour, minute = at.split(":")
    cron = Cron(expression=f"{int(minute)} {int(hour)} * * *")
    assert list(islice(instants(cron, zone_of(zone), after), 250)) == found


@given(zone=st.sampled_from(ZONES), at_ns=_moments)
def test_a_wall_time_that_exists_is_that_time(zone: str, at_ns: int) -> None:
    wall = wall_of(at_ns, zone_of(zone))
    assert wall_of(instant_of(wall, zone_of(zone)), zone_of(zone)) == wall
    assert instant_of(wall, zone_of(zone)) <= at_ns


def test_the_newest_of_a_year_of_minutes_are_found_quickly() -> None:
    rule = Cron(expression="* * * * *")
    start, end = ns("2025-01-01T00:00+00:00"), ns("2026-01-01T00:00+00:00")
    found = newest_instants(rule, zone_of("Europe/Berlin"), start, end, 3)
    assert shown(found, "UTC") == ["2025-12-31T23:58+00:00", "2025-12-31T23:59+00:00", "2026-01-01T00:00+00:00"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Once(date="2026-02-30"), "is no day"),
        (Once(date="0001-01-01"), "between the years"),
        (Once(date="2020-01-01"), "nothing to come"),
        (Yearly(month=2, day=30), "month 2 has no day 30"),
        (Cron(expression="* * * *"), "five fields"),
        (Cron(expression="* * * * * *"), "five fields"),
        (Cron(expression="61 * * * *"), "Bad minute"),
        (Cron(expression="0 0 30 2 *"), "Bad day-of-month"),
        (Calendar(expression="never"), "is no calendar event"),
        (Calendar(expression="2026-02-30"), "calendar"),
        (Calendar(expression="*:*:00/20"), "more often than once in 60"),
        (Calendar(expression="2020-01-01"), "nothing to come"),
    ],
)
def test_what_makes_no_sense_is_refused(rule: Rule, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_rule(rule, zone_of("Europe/Berlin"), ns("2026-01-01T00:00+00:00"))


@pytest.mark.parametrize("rule", [each[0] for each in RULES] + [Cron(expression="* * * * *")])
def test_what_makes_sense_is_taken(rule: Rule) -> None:
    for zone in ZONES:
        check_rule(rule, zone_of(zone), ns("2026-01-01T00:00+00:00"))


@pytest.mark.parametrize(
    "name", ["", "Nowhere/City", "../../etc/passwd", "/etc/localtime", "Europe", "a\0b", "x" * 5000]
)
def test_no_such_zone(name: str) -> None:
    with pytest.raises(UsageError, match="is no time zone"):
        zone_of(name)


def test_the_machines_zone_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", ":Asia/Kathmandu")
    assert local_zone_name() == "Asia/Kathmandu"
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    assert zone_of(local_zone_name())
