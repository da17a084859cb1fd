"""When and what, between TAF's words and ours. Pure, but for the ledger's records that an action names: blocking."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

import msgspec

from catalog.ledger import Ledger
from catalog.records import BackupSet, Job, SetState
from catalog.schedule_records import (
    Action,
    BackUp,
    Calendar,
    Cron,
    Daily,
    Interval,
    Monthly,
    Once,
    Restore,
    Rule,
    Weekly,
    Yearly,
)
from sidecar.http.answers import shown
from sidecar.http.requests import Invalid, converted
from sidecar.taf.schedule_models import Anything, ScheduleConfig
from tapefs.codecs import CODECS
from tapefs.errors import NoSuchThing, UsageError
from tapefs.schedule.zones import local_zone_name, zone_of

#: What a type of schedule cannot do without.
NEEDED = {
    "once": ("datetime",),
    "interval": ("interval", "unit"),
    "daily": ("time",),
    "weekly": ("time",),
    "monthly": ("day_of_month", "time"),
    "yearly": ("month", "day", "time"),
    "cron": ("cron",),
    "calendar": ("calendar",),
}
#: TAF's actions that have no fields of theirs, and ours.
_PLAIN = {"cleanup": "expire", "health_check": "health", "retention_check": "retention"}
#: Actions that TAF does not have; their `action_config` has our fields.
_OURS = ("verify", "cleaning", "catalog", "reclaim")
ACTIONS = ("backup", "recovery", *_PLAIN, *_OURS)
#: Places in our records, and what TAF calls them.
_NAMES = {"every": "interval", "days": "day_of_week", "day": "day_of_month", "date": "datetime"}
_RESTORE_NAMES = {"target": "target_path", "paths": "files", "name": "set_name"}

# -- when ------------------------------------------------------------------------------------------------------------


def rule_of(kind: str, config: ScheduleConfig) -> Rule:
    """Return when it is due. Raises Invalid."""
    kind, place = kind.lower(), ["body", "schedule_config"]
    if kind not in NEEDED:
        raise Invalid("enum", ["body", "schedule_type"], f"must be one of {', '.join(NEEDED)}", kind)
    for name in NEEDED[kind]:
        if getattr(config, name) is None:
            raise Invalid("missing", [*place, name], f"Field required for schedule_type {kind}")
    if kind == "weekly" and config.day_of_week is None and not config.days_of_week:
        raise Invalid("missing", [*place, "day_of_week"], "Field required for schedule_type weekly")
    values = _values(kind, config) | {"kind": kind}
    try:
        return cast(Rule, converted(values, Rule, ["body", "schedule_config"]))
    except Invalid as error:
        own = str([*error.problem["loc"], "", "", ""][2])
        named = kind if own == "expression" else own if kind == "yearly" else _NAMES.get(own, own)
        raise Invalid(error.problem["type"], [*place, named], error.problem["msg"], error.problem["input"]) from error


def _values(kind: str, config: ScheduleConfig) -> dict[str, object]:
    """Return the fields of our rule, unchecked."""
    if kind == "once":
        return _once(str(config.datetime), zone_name(config))
    days = config.days_of_week or (config.day_of_week,)
    found: dict[str, dict[str, object]] = {
        "interval": {"every": config.interval, "unit": config.unit},
        "daily": {"time": config.time},
        "weekly": {"days": days, "time": config.time},
        "monthly": {"day": config.day_of_month, "time": config.time},
        "yearly": {"month": config.month, "day": config.day, "time": config.time},
        "cron": {"expression": config.cron},
        "calendar": {"expression": config.calendar},
    }
    return found[kind]


def _once(text: str, zone: str) -> dict[str, object]:
    place: list[str | int] = ["body", "schedule_config"]
    try:
        at = datetime.fromisoformat(text)
        local = at if at.tzinfo is None else at.astimezone(zone_of(zone))
    except UsageError as error:
        raise Invalid("value_error", [*place, "zone"], str(error), zone) from error
    except (ValueError, OverflowError):
        message = "Input should be an ISO 8601 date and time"
        raise Invalid("datetime_parsing", [*place, "datetime"], message, text) from None
    return {"date": local.date().isoformat(), "time": f"{local:%H:%M:%S}"}


def zone_name(config: ScheduleConfig) -> str:
    """Return the zone by whose clocks it is due."""
    return config.zone or local_zone_name()


def config_of(rule: Rule, zone: str) -> tuple[str, ScheduleConfig]:
    """Return schedule_type and schedule_config; the zone only where it is not this machine's."""
    kind, config = _config_of(rule)
    return kind, config if zone == local_zone_name() else msgspec.structs.replace(config, zone=zone)


def _config_of(rule: Rule) -> tuple[str, ScheduleConfig]:
    match rule:
        case Once():
            return "once", ScheduleConfig(datetime=f"{rule.date}T{rule.time}")
        case Interval():
            return "interval", ScheduleConfig(interval=rule.every, unit=rule.unit)
        case Daily():
            return "daily", ScheduleConfig(time=rule.time)
        case Weekly():
            days = list(rule.days) if len(rule.days) > 1 else None
            return "weekly", ScheduleConfig(day_of_week=rule.days[0], days_of_week=days, time=rule.time)
        case Monthly():
            return "monthly", ScheduleConfig(day_of_month=rule.day, time=rule.time)
        case Yearly():
            return "yearly", ScheduleConfig(month=rule.month, day=rule.day, time=rule.time)
        case Cron():
            return "cron", ScheduleConfig(cron=rule.expression)
        case Calendar():
            return "calendar", ScheduleConfig(calendar=rule.expression)


# -- what ------------------------------------------------------------------------------------------------------------


def action_kind(kind: str) -> str:
    """Return a type of action in TAF's words, checked. Raises Invalid."""
    plain, place = kind.lower(), ["body", "action_type"]
    if plain == "custom":
        message = "commands are not run over HTTP: name a hook of the settings, by `tapefs schedule create --before`"
        raise Invalid("value_error", place, message, kind)
    if plain not in ACTIONS:
        raise Invalid("enum", place, f"must be one of {', '.join(ACTIONS)}", kind)
    return plain


class RecoveryFile(msgspec.Struct, frozen=True):
    """What of a set is to be restored, as TAF's lists of files have it."""

    file_path: str


class RecoveryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The action_config of `recovery`: one set, or the newest of a name."""

    target_path: str
    backup_set_id: str | int | None = None
    #: Ours.
    set_name: str | None = None
    files: list[str | RecoveryFile] = []
    overwrite: bool = False


def action_of(kind: str, config: Anything, ledger: Ledger) -> Action:
    """Return what is to be done, but for backups. Raises Invalid, NoSuchThing, NotFound."""
    place: list[str | int] = ["body", "action_config"]
    if kind == "recovery":
        return _restore(cast(RecoveryConfig, converted(config, RecoveryConfig, place)), ledger)
    own = _PLAIN.get(kind, kind)
    action = cast(Action, converted(config | {"kind": own}, Action, place))
    for name in config:
        if name not in action.__struct_fields__:
            raise Invalid("extra_forbidden", [*place, name], f"{kind} has no such field", config[name])
    return action


def _restore(config: RecoveryConfig, ledger: Ledger) -> Restore:
    place: list[str | int] = ["body", "action_config"]
    if (config.backup_set_id is None) is (config.set_name is None):
        message = "name one set (backup_set_id), or a name whose newest set is taken (set_name)"
        raise Invalid("value_error", [*place, "backup_set_id"], message, config.backup_set_id)
    paths = [each if isinstance(each, str) else each.file_path for each in config.files]
    values: dict[str, object] = {"target": config.target_path, "paths": paths, "overwrite": config.overwrite}
    if config.backup_set_id is None:
        values["name"] = config.set_name
    else:
        found = _set_of(config.backup_set_id, ledger)
        values |= {"name": found.name, "set_id": found.set_id}
    try:
        return cast(Restore, converted(values | {"kind": "restore"}, Restore, place))
    except Invalid as error:
        where = [_RESTORE_NAMES.get(str(part), part) for part in error.problem["loc"]]
        raise Invalid(error.problem["type"], where, error.problem["msg"], error.problem["input"]) from error


def _set_of(asked: str | int, ledger: Ledger) -> BackupSet:
    """Return a complete set by its UUID or its number."""
    for each in ledger.backup_sets():
        if str(asked) in (each.set_id, str(each.number)) and each.state is SetState.COMPLETE:
            return each
    raise NoSuchThing(f"there is no complete set {asked}: GET /api/recovery/sets lists those that there are")


def action_config_of(action: Action, job: Job | None) -> tuple[str, Anything]:
    """Return action_type and action_config; `job` is the one that a backup runs, None when it is gone."""
    if isinstance(action, BackUp):
        return "backup", {} if job is None else _backup_config(action, job)
    if isinstance(action, Restore):
        named = {"backup_set_id": action.set_id} if action.set_id else {"set_name": action.name}
        files = [{"file_path": path} for path in action.paths]
        return "recovery", {**named, "target_path": action.target, "files": files, "overwrite": action.overwrite}
    fields: Anything = msgspec.to_builtins(action)
    own = fields.pop("kind")
    theirs = next((theirs for theirs, ours in _PLAIN.items() if ours == own), own)
    return theirs, fields


def _backup_config(action: BackUp, job: Job) -> Anything:
    return {
        "source_paths": [shown(source) for source in job.sources],
        "task_type": action.type or job.type,
        "exclude_patterns": list(job.excludes),
        "compression_enabled": CODECS[job.codec].is_compressed,
        "retention_days": job.retention_days,
        "description": job.description,
    }


#: For what is checked elsewhere under our names.
PLACES = {"rule": ["schedule_config"], "zone": ["schedule_config", "zone"], "name": ["task_name"]}


def renamed(check: Callable[[], Any]) -> Any:
    """Run a check; what it refuses is told with TAF's names. Raises what it raises."""
    try:
        return check()
    except Invalid as error:
        body, *rest = error.problem["loc"]
        place = [body, *PLACES.get(str(rest[0]), rest[:1]), *rest[1:]] if rest else [body]
        raise Invalid(error.problem["type"], place, error.problem["msg"], error.problem["input"]) from error
