"""The options that say what a job is asked to do, the same for `backup`, `job create` and `job edit`.

An option that is not given leaves its field unset: the sidecar's default, or as it is when a job is edited.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

import click
from msgspec import UNSET, UnsetType

from tapefs.client.job_fields import JobFields

T = TypeVar("T")
Function = Callable[..., None]

#: Each sets the field of its name; `excludes` and what belongs to them are put together in `_fields`.
_OPTIONS = (
    click.option("--type", type=click.Choice(["full"]), help="Of the sets to make.  [default: full]"),
    click.option("--codec", type=click.Choice(["zstd"]), help="[default: zstd]"),
    click.option("--level", type=click.IntRange(1, 19), help="Of compression.  [default: 3]"),
    click.option("--exclude", "excludes", metavar="GLOB", multiple=True, help="Leave out what matches; repeatable."),
    click.option("--retention-days", type=click.IntRange(0), help="Then sets may expire; 0: never.  [default: 0]"),
    click.option("--description", metavar="TEXT", help="For people."),
)
_NAMES = ("type", "codec", "level", "excludes", "retention_days", "description")


def job_options(function: Function) -> Function:
    """Add the options to a command, which is given them as `fields`, JobFields without name and sources."""

    @wraps(function)
    def collecting(*args: object, **values: object) -> None:
        given = {name: values.pop(name) for name in _NAMES}
        function(*args, fields=_fields(given), **values)

    command: Function = collecting
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _fields(given: dict[str, object]) -> JobFields:
    excludes = given.pop("excludes")
    patterns = [_utf8(pattern) for pattern in excludes] if isinstance(excludes, tuple) else []
    chosen = {name: UNSET if value is None else value for name, value in given.items()}
    return JobFields(excludes=patterns or UNSET, **chosen)  # type: ignore[arg-type]


def _utf8(pattern: str) -> str:
    """Return a pattern that the ledger and HTTP can hold. Raises click.UsageError."""
    try:
        pattern.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(pattern).decode("utf-8", "backslashreplace")
        raise click.UsageError(f"--exclude {shown}: not UTF-8; write ? for each byte that is not") from None
    return pattern


def set_or(value: T | None) -> T | UnsetType:
    """Return the value of an option, UNSET when it was not given."""
    return UNSET if value is None else value
