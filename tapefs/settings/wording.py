"""What is wrong with tapefs.toml, in words: the section, the key, and what may stand there. Pure.

The decoder says ``Object contains unknown field `x` - at `$.library` ``, which nobody who edits a file understands.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

_NOUNS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text in quotes",
    "bool": "true or false",
    "array": "a list in square brackets",
    "object": "a section",
}
_LIMITS = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
_STEP = re.compile(r"\.([^.\[`]+)|\[(\d+|\.\.\.)\]")
#: The decoder does not tell the name of an entry of a table whose keys are free.
_ANY = "NAME"


class _Step(NamedTuple):
    """A key on the way to what is wrong, and behind it the entry of a list, counted from 0."""

    key: str
    entry: int | None = None


def in_words(error: msgspec.ValidationError, raw: object, kind: type[msgspec.Struct]) -> str:
    """Return what `error` says of `raw`, which should be a `kind`."""
    text, _, path = str(error).rpartition(" - at `$") if " - at `$" in str(error) else (str(error), "", "")
    steps = _steps(path)
    found = _type_at(inspect.type_info(kind), steps)
    if isinstance(found, inspect.StructType):
        return _of_table(text, _table(steps), found, is_top=not steps)
    return f"{_key(steps)}: {_of_value(text, _value_at(raw, steps), found)}"


def _steps(path: str) -> list[_Step]:
    steps: list[_Step] = []
    for key, entry in _STEP.findall(path):
        if key:
            steps.append(_Step(key))
        elif entry == "...":
            steps.append(_Step(_ANY))
        elif steps:
            steps[-1] = _Step(steps[-1].key, int(entry))
    return steps


def _table(steps: list[_Step]) -> str:
    """Return how the file has the head of a section."""
    name = ".".join(step.key for step in steps)
    if steps and steps[-1].entry is not None:
        return f"[[{name}]] number {steps[-1].entry + 1}"
    return f"[{name}]"


def _key(steps: list[_Step]) -> str:
    if not steps:
        return "the file"
    last = steps[-1].key if steps[-1].entry is None else f"{steps[-1].key}, entry {steps[-1].entry + 1}"
    if len(steps) < 2:
        return last
    return f"{_table(steps[:-1])}{',' if steps[-2].entry is not None else ''} {last}"


def _type_at(found: inspect.Type, steps: list[_Step]) -> inspect.Type:
    for step in steps:
        if isinstance(found, inspect.DictType):
            found = found.value_type
        elif isinstance(found, inspect.StructType):
            found = next((field.type for field in found.fields if field.encode_name == step.key), inspect.AnyType())
        if step.entry is not None:
            found = _item_of(found)
    return found


def _item_of(found: inspect.Type) -> inspect.Type:
    if isinstance(found, inspect.UnionType):
        found = next((each for each in found.types if isinstance(each, inspect.VarTupleType)), found)
    return found.item_type if isinstance(found, inspect.VarTupleType) else inspect.AnyType()


def _value_at(raw: Any, steps: list[_Step]) -> object:
    for step in steps:
        raw = raw.get(step.key) if isinstance(raw, dict) else None
        if step.entry is not None:
            raw = raw[step.entry] if isinstance(raw, list) and step.entry < len(raw) else None
    return raw


def _of_table(text: str, table: str, found: inspect.StructType, *, is_top: bool) -> str:
    names = [field.encode_name for field in found.fields]
    if unknown := re.fullmatch(r"Object contains unknown field `(.+)`", text):
        what = "there is no key or section" if is_top else f"{table} has no key"
        return f"{what} `{unknown[1]}`; {_meant(unknown[1], names)}"
    if missing := re.fullmatch(r"Object missing required field `(.+)`", text):
        return f"the key `{missing[1]}` is missing" if is_top else f"{table} lacks the key `{missing[1]}`"
    if re.match(r"Expected `(object|array)`, got", text):
        key = table.strip("[]")
        return f"`{key}` is a section: write {table} on a line of its own, and its keys below"
    return f"{table}: {text}"


def _meant(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, 1)
    return f"did you mean `{close[0]}`?" if close else f"there are {_list(names)}"


def _of_value(text: str, value: object, found: inspect.Type) -> str:
    if invalid := re.fullmatch(r"Invalid enum value (.+)", text):
        allowed = [str(each) for each in found.values] if isinstance(found, inspect.LiteralType) else []
        return f"{invalid[1]} is none of {_list(allowed)}" if allowed else f"{invalid[1]} is not known here"
    if text == "Expected `array`, got `object`" and isinstance(_item_of(found), inspect.StructType):
        return "there may be several, so write its name in two pairs of brackets: [[…]]"
    if wrong := re.fullmatch(r"Expected `(.+)`, got `(.+)`", text):
        return f"must be {_nouns(wrong[1])}, and is {_nouns(wrong[2])}"
    # Texts may be secrets.
    stands = f", and is {value}" if isinstance(value, int | float) else ""
    if limit := re.fullmatch(r"Expected `\w+` (>=|<=|>|<) (\S+)", text):
        return f"must be {_LIMITS[limit[1]]} {limit[2]}{stands}"
    if multiple := re.fullmatch(r"Expected `\w+` that's a multiple of (\S+)", text):
        return f"must be a multiple of {multiple[1]}{stands}"
    if length := re.fullmatch(r"Expected `(\w+)` of length (>=|<=) (\d+)", text):
        if (length[2], length[3]) == (">=", "1"):
            return "must not be empty"
        return f"must have {_LIMITS[length[2]]} {length[3]} {'characters' if length[1] == 'str' else 'entries'}"
    if pattern := re.fullmatch(r"Expected `str` matching regex (.+)", text):
        return f"must match the regular expression {pattern[1]}"
    return text


def _nouns(kinds: str) -> str:
    return " or ".join(_NOUNS.get(each, each) for each in kinds.split(" | ") if each != "null")


def _list(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
