"""A job for people: its fields in words, where JSON has 0, null or an empty list for `none` and `as usual`. Pure.

What comes in is the job as JSON has it, that of the ledger or an answer of a sidecar elsewhere.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from tapefs.cli.output import level_text, printable, short_moment
from tapefs.sizes import counted, size

Say = Callable[[Any], str]

_UNITS_S = ((604_800, "week"), (86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))
#: They say something only where the job is tried again.
_OF_RETRIES = ("retry_first_s", "retry_longest_s")


def job_facts(shown: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield titles and values, several values of a title one by one."""
    for key, value in shown.items():
        if key.endswith("_b64") or (key in _OF_RETRIES and not shown.get("retries")):
            continue
        told = _paths(shown) if key == "sources" else value
        say = _WORDS.get(key, _plain)
        title = _TITLES.get(key, key.replace("_", " "))
        if isinstance(told, list | tuple):
            yield from ((title, say(each)) for each in told or [None])
        else:
            yield title, say(told)


def _paths(shown: Mapping[str, Any]) -> list[str]:
    """Return the sources with every byte of theirs: beside the text the ledger has base64, an answer has it instead."""
    if "sources_b64" in shown:
        return [b64decode(each).decode("utf-8", "surrogateescape") for each in shown["sources_b64"]]
    return [
        b64decode(each["b64"]).decode("utf-8", "surrogateescape") if isinstance(each, dict) else each
        for each in shown["sources"]
    ]


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items() if not isinstance(each, dict))
    return "none" if value in (None, "") else printable(str(value))


def _or(nothing: str, say: Say = _plain) -> Say:
    """Return what says `nothing` of what is 0, null or empty, and of anything else what `say` says."""
    return lambda value: say(value) if value else nothing


def _duration(seconds: int) -> str:
    """Return a duration in the largest unit in which it is a whole number."""
    unit_s, noun = next(each for each in _UNITS_S if seconds % each[0] == 0)
    return counted(seconds // unit_s, noun)


def _time(value: str) -> str:
    return short_moment(datetime.fromisoformat(value))


def _kept(value: int | str | None) -> str:
    if value == "pool":
        return "as its pool says"
    return counted(int(value), "day") if value else "for ever"


def _spooled(value: bool | None) -> str:
    return "as the settings say" if value is None else _plain(value)


def _move(move: Mapping[str, Any]) -> str:
    tape = f" with tape {move['tape']} in it" if move["tape"] else ""
    return f"{_time(move['at'])}: {move['drive']} failed{tape}: {printable(move['reason'])}"


def _try(one: Mapping[str, Any]) -> str:
    there = f", {counted(one['segments'], 'segment')} on tape by then" if one["segments"] else ""
    return f"{_time(one['at'])}: {one['kind']}{there}: {printable(one['reason'])}"


def _hook(hook: Mapping[str, Any]) -> str:
    when = "after" if hook["is_after"] else "before"
    return f"{hook['name']}, {when} the run, {hook['duration_s']} s: {printable(hook['error'] or 'good')}"


def _check(check: Mapping[str, Any]) -> str:
    reason = f": {printable(check['reason'])}" if check["reason"] else ""
    return f"{check['state']}{reason}"


def _drive(counters: Mapping[str, Any]) -> str:
    moves = f"{counted(counters['loads'], 'load')}, {counted(counters['locates'], 'locate')}"
    stops = f"{counted(counters['backhitches'], 'back-hitch', 'es')}, {counted(counters['underruns'], 'underrun')}"
    return f"{size(counters['bytes_written'])} written, {size(counters['bytes_read'])} read, {moves}, {stops}"


def _buffer(use: Mapping[str, Any]) -> str:
    if not use["size_bytes"]:
        return "there was none"
    return f"{size(use['size_bytes'])}, {counted(use['starts'], 'start')}, {use['stops']:,} stops at the low-water mark"


def _trouble(trouble: Mapping[str, Any]) -> str:
    return f"{printable(trouble['path'])}: {printable(trouble['reason'])}"


def _progress(progress: Mapping[str, Any]) -> str:
    done = f"{counted(progress['files'], 'file')}, {size(progress['bytes'])} read"
    return f"{progress['stage']}: {done}, {size(progress['stored_bytes'])} on tape"


_never, _not_told = _or("-", _time), "not known"
_WORDS: dict[str, Say] = {
    "stream": _or("none: the sources are read"),
    "level": level_text,
    "threads": _or("as the settings say"),
    "min_bytes": _or("no bound", size),
    "max_bytes": _or("no bound", size),
    "min_age_s": _or("no bound", _duration),
    "max_age_s": _or("no bound", _duration),
    "spool": _spooled,
    "retention_days": _kept,
    "pool": _or("the usual one"),
    "copy_pools": _or("those of its pool"),
    "retries": _or("none"),
    "retry_first_s": _duration,
    "retry_longest_s": _duration,
    "after": _or("none", lambda number: f"job {number}"),
    "then_verify": _or("no"),
    "run_type": _or("-"),
    "set_type": _or("-"),
    "set_id": _or("none yet"),
    "moves": _or("none", _move),
    "tries": _or("none", _try),
    "hooks": _or("none", _hook),
    "check": _or("none", _check),
    "drive": _or(_not_told, _drive),
    "buffer": _or(_not_told, _buffer),
    "troubles": _or("none", _trouble),
    "progress": _or("-", _progress),
    "waits_for": _or("-"),
    "jobs_before": lambda count: "-" if count is None else str(count),
    "remarks": _or("-"),
    **dict.fromkeys(("not_before", "paused_at", "created_at", "queued_at", "started_at", "finished_at"), _never),
}
_TITLES = {
    "min_bytes": "min size",
    "max_bytes": "max size",
    "min_age_s": "min age",
    "max_age_s": "max age",
    "retention_days": "kept",
    "retry_first_s": "retry first",
    "retry_longest_s": "retry longest",
    "one_file_system": "one filesystem",
}
