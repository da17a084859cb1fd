"""What comes in over HTTP, checked: typed bodies, path and query values, paging. Errors have the place that is wrong.

Bodies are JSON, decoded straight into records; everything that is wrong raises Invalid, which becomes status 422.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, TypeVar

import msgspec
from starlette.requests import Request

from tapefs.errors import UsageError

T = TypeVar("T")

#: Canonical lower-case UUIDs: they become file names.
Uuid = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]

LONGEST_PAGE = 1000
DEFAULT_PAGE = 50


class Invalid(UsageError):
    """A value in the request makes no sense; `problem` is one entry of FastAPI's `detail` list."""

    def __init__(self, kind: str, place: Sequence[str | int], message: str, value: object = None) -> None:
        where = ".".join(str(part) for part in place[1:]) or str(place[0])
        super().__init__(f"{where}: {message}")
        self.problem: dict[str, Any] = {"type": kind, "loc": list(place), "msg": message, "input": value}


async def body_of(request: Request, kind: type[T]) -> T:
    """Return the request's JSON body as a record. Raises Invalid, and what the limits on bodies raise."""
    raw = await request.body()
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise _invalid_body(raw, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid("json_invalid", ["body"], f"not JSON: {error}") from error
    except RecursionError as error:
        raise Invalid("json_invalid", ["body"], "nested too deeply") from error


def converted(value: object, kind: Any, place: Sequence[str | int]) -> Any:
    """Return what stands at `place` of a body, decoded as anything, as a record. Raises Invalid."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        problem = _invalid_body(msgspec.json.encode(value), str(error)).problem
        raise Invalid(problem["type"], [*place, *problem["loc"][1:]], problem["msg"], problem["input"]) from error


def _invalid_body(raw: bytes, message: str) -> Invalid:
    text, _, path = message.partition(" - at `$")
    place: list[str | int] = ["body"]
    for name, index in re.findall(r"\.([^.\[`]+)|\[(\d+|\.\.\.)\]", path):
        place.append(name or (int(index) if index.isdigit() else index))
    if "matching regex" in text and "[0-9a-f]{8}" in text:
        text = "Expected a UUID in lower case"
    missing = re.search(r"missing required field `(.+)`", text)
    if missing:
        return Invalid("missing", [*place, missing[1]], "Field required", _value_at(raw, place[1:]))
    return Invalid("value_error", place, text, _value_at(raw, place[1:]))


def _value_at(raw: bytes, path: Sequence[str | int]) -> object:
    """Return what stands at a place of a JSON text, None when the way there ends or Python cannot hold the text."""
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return None
    for part in path:
        if isinstance(value, dict) and isinstance(part, str):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        else:
            return None
    return value


def number_in_path(request: Request, name: str) -> int:
    """Return a positive whole number that is part of the path. Raises Invalid."""
    text = str(request.path_params[name])
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise Invalid("int_parsing", ["path", name], "Input should be a whole number", text)
    return int(text)


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list is wanted."""

    limit: int
    offset: int

    def cut(self, items: Sequence[T]) -> Sequence[T]:
        """Return the part."""
        return items[self.offset : self.offset + self.limit]


def page_of(request: Request) -> Page:
    """Return limit and offset of the query; a limit over LONGEST_PAGE is cut to it. Raises Invalid."""
    limit = _query_number(request, "limit", DEFAULT_PAGE, 1)
    return Page(min(limit, LONGEST_PAGE), _query_number(request, "offset", 0, 0))


def _query_number(request: Request, name: str, default: int, least: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise Invalid("int_parsing", ["query", name], "Input should be a whole number", text)
    if int(text) < least:
        raise Invalid("greater_than_equal", ["query", name], f"Input should be greater than or equal to {least}", text)
    return int(text)


def number_of(request: Request, name: str) -> int | None:
    """Return a whole number of the query that is not negative; None when it is missing. Raises Invalid."""
    return _query_number(request, name, 0, 0) if name in request.query_params else None


def text_of(request: Request, name: str) -> str | None:
    """Return a text of the query; None when it is missing or empty."""
    return request.query_params.get(name) or None


def moment_of(request: Request, name: str, *, is_end: bool = False) -> datetime | None:
    """Return a date or a time of the query, zoneless ones as local; with `is_end` a date means its last moment.

    Raises Invalid.
    """
    text = text_of(request, name)
    if text is None:
        return None
    try:
        # A `+` that was not escaped arrives as a space.
        moment = datetime.fromisoformat(re.sub(r" (\d\d:?\d\d)$", r"+\1", text) if "T" in text else text)
        if is_end and _is_date(text):
            moment = moment.replace(hour=23, minute=59, second=59, microsecond=999_999)
        # Local time knows no year 0 and none behind 9999.
        return moment if moment.tzinfo is not None else moment.astimezone()
    except (ValueError, OverflowError):
        raise Invalid("datetime_parsing", ["query", name], "Input should be an ISO 8601 date or time", text) from None


def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
