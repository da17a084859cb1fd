"""What makes a schedule acceptable, whichever interface asks for it: the only place that checks. Blocking.

Checks raise Invalid with the field's name in the body.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar, get_args

import msgspec
from msgspec import UNSET

from catalog.ids import JobNumber, new_uuid
from catalog.ledger import Ledger
from catalog.schedule_records import (
    Action,
    BackUp,
    Course,
    Daily,
    Interval,
    Reclaim,
    Rule,
    Schedule,
    ScheduleNumber,
    Verify,
)
from sidecar.http.requests import Invalid
from sidecar.jobs.new import check_name, check_run_type
from sidecar.schedules.commands import check_hooks
from tapefs.client.schedules import ScheduleFields
from tapefs.errors import NoSuchThing, UsageError
from tapefs.home import Home
from tapefs.retention.pools import Pools
from tapefs.schedule.blackouts import check_blackouts
from tapefs.schedule.policies import check_jitter
from tapefs.schedule.rules import check_rule
from tapefs.schedule.zones import local_zone_name, zone_of

T = TypeVar("T")
replace = msgspec.structs.replace


def _fields_by_kind(union: object) -> dict[str, frozenset[str]]:
    """Return the fields that each kind of a rule or an action has."""
    kinds = get_args(union)
    return {str(kind.__struct_config__.tag): frozenset({"kind", *kind.__struct_fields__}) for kind in kinds}


_RULES, _ACTIONS = _fields_by_kind(Rule), _fields_by_kind(Action)


def new_schedule(home: Home, ledger: Ledger, fields: ScheduleFields, now_ns: int, notes: str = "{}") -> Schedule:
    """Return a schedule that is not recorded yet. Raises Invalid, NoSuchThing, NotFound."""
    for field in ("name", "rule", "action"):
        if getattr(fields, field) is UNSET:
            raise Invalid("missing", ["body", field], "Field required")
    blank = Schedule(
        number=ScheduleNumber(0),
        schedule_id=new_uuid(),
        name="",
        rule=Daily(),
        zone=local_zone_name(),
        action=BackUp(job=JobNumber(0)),
        notes=notes,
        created_at_ns=now_ns,
    )
    return changed_schedule(home, ledger, blank, fields, now_ns)


def changed_schedule(home: Home, ledger: Ledger, known: Schedule, fields: ScheduleFields, now_ns: int) -> Schedule:
    """Return the schedule with what `fields` sets, checked. Raises Invalid, NoSuchThing, NotFound.

    What was due before a change of when it runs, or while it was disabled, is not made up for.
    """
    changed = replace(known, **fields.changes())
    changed = replace(changed, name=check_name(changed.name, "name"))
    if isinstance(changed.rule, Interval) and not changed.rule.anchor_ns:
        changed = replace(changed, rule=replace(changed.rule, anchor_ns=now_ns - now_ns % 1_000_000_000))
    _check_when(changed, now_ns, is_new_rule=(changed.rule, changed.zone) != (known.rule, known.zone))
    _check_action(ledger, home, changed)
    for field in ("before", "after"):
        names = getattr(changed, field)
        if len(set(names)) < len(names):
            raise Invalid("value_error", ["body", field], "names a hook twice")
        _checked(["body", field], partial(check_hooks, home, names))
    times = ("rule", "zone", "enabled", "blackouts", "jitter_s")
    if not known.number or any(getattr(known, field) != getattr(changed, field) for field in times):
        changed = replace(changed, course=replace(changed.course, decided_ns=now_ns))
    return changed


def _check_when(schedule: Schedule, now_ns: int, *, is_new_rule: bool) -> None:
    zone = _checked(["body", "zone"], lambda: zone_of(schedule.zone))
    if is_new_rule:  # One that is over may still be edited.
        _checked(["body", "rule"], lambda: check_rule(schedule.rule, zone, now_ns))
    _checked(["body", "blackouts"], lambda: check_blackouts(schedule.blackouts, zone, now_ns))
    _checked(["body", "jitter_s"], lambda: check_jitter(replace(schedule, course=Course()), now_ns))


def _check_action(ledger: Ledger, home: Home, schedule: Schedule) -> None:
    action = schedule.action
    if isinstance(action, BackUp):
        job = ledger.job(action.job)
        if action.type:
            check_run_type(job, action.type)
    elif isinstance(action, Reclaim):
        Pools.of(home, ledger).get(action.pool)
    elif isinstance(action, Verify):
        for set_id in action.sets:
            ledger.backup_set(set_id)
        for label in action.tapes:
            ledger.volume_by_label(label)


def _checked(place: list[str | int], check: Callable[[], T]) -> T:
    try:
        return check()
    except (UsageError, NoSuchThing) as error:
        raise Invalid("value_error", place, str(error)) from error


def refuse_unknown(raw: bytes) -> None:
    """Raise Invalid for a field of a rule, an action or a blackout that there is not: records ignore those."""
    body = json.loads(raw)
    if not isinstance(body, dict):
        return
    for field, kinds in (("rule", _RULES), ("action", _ACTIONS)):
        value = body.get(field)
        if isinstance(value, dict):
            _refuse(value, kinds.get(str(value.get("kind")), frozenset(value)), ["body", field])
    for place, window in enumerate(body.get("blackouts") or ()):
        if isinstance(window, dict):
            _refuse(window, frozenset({"days", "begins", "ends"}), ["body", "blackouts", place])


def _refuse(value: Mapping[str, object], known: frozenset[str], place: list[str | int]) -> None:
    unknown = sorted(set(value) - known)
    if unknown:
        raise Invalid("extra_forbidden", [*place, unknown[0]], "there is no such field", value[unknown[0]])
