"""Options that say when and what a schedule runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import click
import msgspec

from catalog.schedule_records import Action, Blackout, Missed, Overlap, Rule
from tapefs.cli.place import Place
from tapefs.client.schedules import ScheduleFields
from tapefs.errors import UsageError

_DAYS = {name: number for number, name in enumerate(("mon", "tue", "wed", "thu", "fri", "sat", "sun"))}
_TIME = r"([0-2][0-9]:[0-5][0-9](?::[0-5][0-9])?)"
_ON_DAYS = re.compile(rf"([A-Za-z, ]+?) +{_TIME}")
_MONTHLY = re.compile(rf"([0-9]{{1,2}}) +{_TIME}")
_YEARLY = re.compile(rf"([0-9]{{1,2}})-([0-9]{{1,2}}) +{_TIME}")
_ONCE = re.compile(rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})[ T]+{_TIME}")
_EVERY = re.compile(r"([0-9]{1,7}) *(minute|hour|day)s?")
_WINDOW = re.compile(rf"(?:([A-Za-z, ]+?) +)?{_TIME} *- *{_TIME}")

RULES = (
    click.option("--once", metavar="'DATE TIME'", help="Once, as `2026-12-24 18:00`."),
    click.option("--every", metavar="N UNIT", help="Every `30 minutes`, `6 hours`, `2 days`, from now on."),
    click.option("--daily", metavar="TIME", help="Every day, as `02:30`."),
    click.option("--weekly", metavar="'DAYS TIME'", help="On some days, as `Mon,Thu 02:30`."),
    click.option("--monthly", metavar="'DAY TIME'", help="As `1 02:30`; 31 is the last day of every month."),
    click.option("--yearly", metavar="'MM-DD TIME'", help="As `12-31 02:30`."),
    click.option("--cron", metavar="FIELDS", help="Five fields, as `30 2 * * mon-fri`."),
    click.option("--calendar", metavar="EVENT", help="As systemd writes it: `Mon..Fri 18:00`."),
)
ACTIONS = (
    click.option("--backup", metavar="JOB", help="Run a job, by number or name."),
    click.option("--type", "run_type", metavar="TYPE", help="With --backup: the type of the sets."),
    click.option("--verify", is_flag=True, help="Read back what lies on tape."),
    click.option("--tape", "tapes", metavar="TAPE", multiple=True, help="With --verify: only this one; repeatable."),
    click.option("--sample", type=click.IntRange(1), help="With --verify: of each tape so many segments."),
    click.option("--unless-days", type=click.IntRange(1), help="With --verify: not what was read back within so long."),
    click.option("--expire", is_flag=True, help="Let go of the sets that `tapefs expire` lists."),
    click.option("--retention", is_flag=True, help="Only tell which may go."),
    click.option("--clean", is_flag=True, help="Clean the drives that ask for it."),
    click.option("--health", is_flag=True, help="Look at drives and tapes, and run `tapefs check`."),
    click.option("--copy-catalog", metavar="DIR", help="Copy the catalog to this folder; `tape`: to tape."),
    click.option("--keep", type=click.IntRange(1), help="With --copy-catalog: so many copies; on tape so many days."),
    click.option("--reclaim", metavar="POOL", help="Copy what lives off the almost empty tapes of a pool."),
    click.option("--restore", metavar="NAME", help="Restore the newest set of this name."),
    click.option("--to", "target", metavar="DIR", help="With --restore: where to."),
    click.option("--overwrite", is_flag=True, help="With --restore: replace what is there."),
)
POLICIES = (
    click.option("--zone", metavar="ZONE", help="Time zone, as `Europe/Berlin`.  [default: this machine's]"),
    click.option(
        "--missed", type=click.Choice([each.value for each in Missed]), help="Runs for which nobody was there."
    ),
    click.option("--overlap", type=click.Choice([each.value for each in Overlap]), help="Due while it runs."),
    click.option(
        "--blackout",
        "blackouts",
        metavar="WINDOW",
        multiple=True,
        help="Nothing begins then: `22:00-06:00`, `Sat,Sun 00:00-00:00`; repeatable; '' for none.",
    ),
    click.option(
        "--blackout-waits/--blackout-skips", default=None, help="What a run does that falls into one.  [waits]"
    ),
    click.option(
        "--jitter", "jitter_s", metavar="SECONDS", type=click.IntRange(0, 86_400), help="Begin up to so much later."
    ),
    click.option("--before", metavar="HOOK", multiple=True, help="A hook of tapefs.toml; repeatable; '' for none."),
    click.option("--after", metavar="HOOK", multiple=True, help="Likewise, behind it."),
    click.option("--description", metavar="TEXT", help="For people."),
    click.option("--enabled/--disabled", default=None, help="Does it run?  [yes]"),
)
_RULE_NAMES = ("once", "every", "daily", "weekly", "monthly", "yearly", "cron", "calendar")
_ACTION_NAMES = ("backup", "verify", "expire", "retention", "clean", "health", "copy_catalog", "reclaim", "restore")
#: Options that go with one action only.
_BELONG = {
    "run_type": "backup",
    "tapes": "verify",
    "sample": "verify",
    "unless_days": "verify",
    "keep": "copy_catalog",
    "target": "restore",
    "overwrite": "restore",
}


def fields_of(place: Place, options: Mapping[str, object], *, is_new: bool) -> ScheduleFields:
    """Return what the options ask for. Raises UsageError, NoSuchThing."""
    found: dict[str, object] = {}
    rule, action = _only(options, _RULE_NAMES, is_new), _only(options, _ACTION_NAMES, is_new)
    for option, owner in _BELONG.items():
        if options.get(option) and action != owner:
            raise UsageError(f"--{option.replace('_', '-')} goes with --{owner.replace('_', '-')}")
    if rule:
        found["rule"] = _rule(rule, str(options[rule]))
    if action:
        found["action"] = _action(place, action, options)
    for name in ("name", "zone", "missed", "overlap", "blackout_waits", "jitter_s", "description", "enabled"):
        if options.get(name) is not None:
            found[name] = options[name]
    for name in ("before", "after"):
        if names := _many(options, name):
            found[name] = tuple(each for each in names if each)
    if windows := _many(options, "blackouts"):
        found["blackouts"] = tuple(_window(each) for each in windows if each)
    return msgspec.convert(found, ScheduleFields)


def _many(options: Mapping[str, object], name: str) -> tuple[str, ...]:
    value = options.get(name)
    return tuple(map(str, value)) if isinstance(value, tuple) else ()


def _only(options: Mapping[str, object], names: tuple[str, ...], is_new: bool) -> str:
    given = [name for name in names if options.get(name)]
    if len(given) > 1 or (is_new and not given):
        raise UsageError(f"name one of {', '.join('--' + name.replace('_', '-') for name in names)}")
    return given[0] if given else ""


# -- when ------------------------------------------------------------------------------------------------------------


def _rule(name: str, text: str) -> Rule:
    readers: dict[str, Callable[[str], dict[str, object]]] = {
        "once": lambda text: _groups(_ONCE, text, "once", "date", "time"),
        "every": _every,
        "daily": lambda text: {"time": text},
        "weekly": _weekly,
        "monthly": lambda text: _groups(_MONTHLY, text, "monthly", "day", "time"),
        "yearly": lambda text: _groups(_YEARLY, text, "yearly", "month", "day", "time"),
        "cron": lambda text: {"expression": text},
        "calendar": lambda text: {"expression": text},
    }
    kind = "interval" if name == "every" else name
    try:
        return msgspec.convert({"kind": kind, **readers[name](text.strip())}, Rule)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        raise UsageError(
            f"--{name} {text!r}: there is no such time or day; `tapefs schedule create --help` has how it is written"
        ) from error


def _groups(pattern: re.Pattern[str], text: str, option: str, *names: str) -> dict[str, object]:
    match = pattern.fullmatch(text)
    if match is None:
        raise UsageError(f"--{option} {text!r} is not written as `tapefs schedule create --help` has it")
    return {name: int(part) if part.isdigit() else part for name, part in zip(names, match.groups(), strict=True)}


def _every(text: str) -> dict[str, object]:
    match = _EVERY.fullmatch(text)
    if match is None:
        raise UsageError(f"--every {text!r} is not written as `30 minutes`, `6 hours` or `2 days`")
    return {"every": int(match[1]), "unit": f"{match[2]}s"}


def _weekly(text: str) -> dict[str, object]:
    match = _ON_DAYS.fullmatch(text)
    if match is None:
        raise UsageError(f"--weekly {text!r} is not written as `Mon,Thu 02:30`")
    return {"days": _days(match[1]), "time": match[2]}


def _days(text: str) -> tuple[int, ...]:
    names = [name for name in re.split("[, ]+", text.lower()) if name]
    unknown = [name for name in names if name[:3] not in _DAYS]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no day: write Mon, Tue, Wed, Thu, Fri, Sat, Sun")
    return tuple(dict.fromkeys(_DAYS[name[:3]] for name in names))


def _window(text: str) -> Blackout:
    match = _WINDOW.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--blackout {text!r} is not written as `22:00-06:00` or `Sat,Sun 08:00-20:00`")
    return Blackout(days=_days(match[1] or ""), begins=match[2], ends=match[3])


# -- what ------------------------------------------------------------------------------------------------------------


def _action(place: Place, name: str, options: Mapping[str, object]) -> Action:
    value = options[name]
    fields: dict[str, object] = {"kind": {"clean": "cleaning", "copy_catalog": "catalog"}.get(name, name)}
    if name == "backup":
        from tapefs.cli.jobs import job_number

        fields |= {"job": job_number(place, str(value)), "type": options.get("run_type") or ""}
    elif name == "verify":
        fields["tapes"] = _many(options, "tapes")
        fields |= {each: options[each] for each in ("sample", "unless_days") if options.get(each)}
    elif name == "copy_catalog":
        fields |= {"folder": "" if value == "tape" else value, "keep": options.get("keep") or 0}
    elif name == "reclaim":
        fields["pool"] = value
    elif name == "restore":
        if not options.get("target"):
            raise UsageError("--restore needs --to DIR")
        fields |= {"name": value, "target": options["target"], "overwrite": bool(options.get("overwrite"))}
    try:
        return msgspec.convert(fields, Action)  # type: ignore[no-any-return]
    except msgspec.ValidationError as error:
        raise UsageError(f"--{name.replace('_', '-')}: {error}") from error
