"""What the options of `tapefs schedule` mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.schedule_records import Blackout, Calendar, Interval, Monthly, Once, Rule, Weekly, Yearly
from tapefs.cli.place import Place
from tapefs.cli.schedule_options import fields_of
from tapefs.errors import UsageError

NOWHERE = Place(Path("/nonexistent"))
MEANT: list[tuple[str, str, Rule]] = [
    ("once", "2026-12-24 18:00", Once(date="2026-12-24", time="18:00")),
    ("every", "6 hours", Interval(every=6, unit="hours")),
    ("every", "1 day", Interval(every=1, unit="days")),
    ("weekly", "Mon,thu 02:30", Weekly(days=(0, 3), time="02:30")),
    ("monthly", "31 02:30", Monthly(day=31, time="02:30")),
    ("yearly", "12-31 02:30:15", Yearly(month=12, day=31, time="02:30:15")),
    ("calendar", "Mon..Fri 18:00", Calendar(expression="Mon..Fri 18:00")),
]


@pytest.mark.parametrize(("option", "text", "rule"), MEANT)
def test_rules(option: str, text: str, rule: Rule) -> None:
    fields = fields_of(NOWHERE, {option: text, "expire": True, "name": "x"}, is_new=True)
    assert fields.rule == rule


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"daily": "02:30"},
        {"daily": "25:00", "expire": True},
        {"daily": "02:30", "cron": "* * * * *", "expire": True},
        {"daily": "02:30", "expire": True, "verify": True},
        {"daily": "02:30", "expire": True, "sample": 3},
        {"daily": "02:30", "restore": "docs"},
        {"weekly": "Caturday 02:30", "expire": True},
        {"every": "fortnight", "expire": True},
        {"daily": "02:30", "expire": True, "blackouts": ("night",)},
    ],
)
def test_what_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        fields_of(NOWHERE, options, is_new=True)


def test_a_change_names_what_it_changes() -> None:
    fields = fields_of(NOWHERE, {"blackouts": ("Sat,Sun 08:00-20:00",), "before": ("",)}, is_new=False)
    window = Blackout(days=(5, 6), begins="08:00", ends="20:00")
    assert fields.changes() == {"blackouts": (window,), "before": ()}
