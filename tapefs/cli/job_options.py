"""The options that say what a job is asked to do, the same for `backup`, `job create` and `job edit`.

An option that is not given leaves its field unset: the sidecar's default, or as it is when a job is edited.
"""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click
from msgspec import UNSET, UnsetType

from tapefs.backup.patterns import BadPattern, parse
from tapefs.cli.output import level_text, printable
from tapefs.cli.values import TYPES, Age, Level, RetentionDays, Size
from tapefs.client.job_fields import MOST_RETRIES, JobFields
from tapefs.codecs import CODECS, check_level
from tapefs.errors import UsageError

T = TypeVar("T")
Function = Callable[..., None]


def _levels() -> str:
    ranges = (
        f"{each.name} {each.levels[0]} to {each.levels[-1]}{' or auto' if each.auto_levels else ''} "
        f"[{level_text(each.default_level)}]"
        for each in CODECS.values()
        if len(each.levels) > 1
    )
    return ", ".join(ranges)


#: Each sets the field of its name; `excludes` and what belongs to them are put together in `_fields`.
_OPTIONS = (
    click.option(
        "--type",
        type=click.Choice(TYPES),
        help="Of the sets to make; archive removes the sources once they are on tape.  [default: full]",
    ),
    click.option("--codec", type=click.Choice(list(CODECS)), help="[default: zstd]"),
    click.option("--level", type=Level(), help=f"Of compression: {_levels()}."),
    click.option(
        "--threads", type=click.IntRange(0, 1024), help="Of compression; 0: as the settings say.  [default: 0]"
    ),
    click.option("--exclude", "excludes", metavar="PATTERN", multiple=True, help="As in .gitignore; repeatable."),
    click.option(
        "--exclude-from",
        metavar="FILE",
        multiple=True,
        type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=bytes),
        help="Patterns, one a line; # begins a comment; - is standard input.",
    ),
    click.option(
        "--exclude-caches/--no-exclude-caches", default=None, help="Leave out what is in folders with a CACHEDIR.TAG."
    ),
    click.option("--one-file-system/--all-file-systems", default=None, help="Stay on the file system of each source."),
    click.option("--min-size", "min_bytes", type=Size(), metavar="SIZE", help="Leave out smaller files."),
    click.option("--max-size", "max_bytes", type=Size(), metavar="SIZE", help="Leave out larger files; 0: no bound."),
    click.option(
        "--newer", "max_age_s", type=Age(), metavar="AGE", help="Leave out files last changed before, as 30d."
    ),
    click.option("--older", "min_age_s", type=Age(), metavar="AGE", help="Leave out files changed since, as 12h."),
    click.option(
        "--checksum/--no-checksum", default=None, help="Of an incremental set: compare content, not only times."
    ),
    click.option(
        "--verify/--no-verify", default=None, help="Read everything back from tape before it counts as done.  [no]"
    ),
    click.option("--copies", type=click.IntRange(1, 8), help="Of an archive: on so many tapes.  [default: 1]"),
    click.option(
        "--keep-sources/--remove-sources",
        default=None,
        help="Of an archive: leave the sources as they are.  [default: what was read back from tape is removed]",
    ),
    click.option(
        "--spool/--no-spool",
        default=None,
        help="Put whole segments on disk first, for sources slower than the drive.  [as the settings say]",
    ),
    click.option(
        "--retention-days",
        type=RetentionDays(),
        help="Then sets may expire; 0: never; pool: as their pool says.  [default: as the pool says, else 0]",
    ),
    click.option("--pool", metavar="POOL", help="Write to tapes of this pool; see `tapefs pool`."),
    click.option(
        "--copy-pool",
        "copy_pools",
        metavar="POOL",
        multiple=True,
        help="Copy to tapes of this one, too; repeatable; '' for none.",
    ),
    click.option(
        "--priority", type=click.IntRange(0, 100), metavar="0-100", help="Higher ones run first.  [default: 50]"
    ),
    click.option(
        "--retries",
        type=click.IntRange(0, MOST_RETRIES),
        help="Try again so often when source, drives or disk fail.  [default: 0]",
    ),
    click.option("--retry-first", "retry_first_s", type=Age(), metavar="TIME", help="After so long, ...  [1m]"),
    click.option(
        "--retry-longest", "retry_longest_s", type=Age(), metavar="TIME", help="... doubled each time, to this.  [1h]"
    ),
    click.option(
        "--after",
        "after",
        metavar="N",
        type=click.IntRange(0),
        multiple=True,
        help="Run when job number N has succeeded; repeatable; 0 for none.",
    ),
    click.option("--after-any/--after-success", default=None, help="... however it has ended.  [default: success]"),
    click.option(
        "--hook-before",
        "hooks_before",
        metavar="NAME",
        multiple=True,
        help="Run this hook of tapefs.toml before a drive is taken; repeatable; '' for none.",
    ),
    click.option(
        "--hook-after", "hooks_after", metavar="NAME", multiple=True, help="... and this one when the run has ended."
    ),
    click.option(
        "--then-verify",
        type=click.Choice(["all", "sample", "no"]),
        help="Read the set back, or a part of it, as a task behind the job.  [default: no]",
    ),
    click.option("--description", metavar="TEXT", help="For people."),
)
_NAMES = (
    *("type", "codec", "level", "threads", "excludes", "exclude_from", "exclude_caches", "one_file_system", "checksum"),
    *(
        "min_bytes",
        "max_bytes",
        "min_age_s",
        "max_age_s",
        "verify",
        "copies",
        "keep_sources",
        "spool",
        "retention_days",
        "pool",
        "copy_pools",
        "description",
    ),
    *("priority", "retries", "retry_first_s", "retry_longest_s", "after", "after_any", "then_verify"),
    *("hooks_before", "hooks_after"),
)


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
    patterns = [_checked("--exclude", pattern) for pattern in _many(given.pop("excludes"))]
    for file in _many(given.pop("exclude_from")):
        patterns += patterns_in(file)
    copy_pools = _many(given["copy_pools"])
    given["copy_pools"] = [name for name in copy_pools if name] if copy_pools else None
    for hooks in ("hooks_before", "hooks_after"):
        given[hooks] = [name for name in _many(given[hooks]) if name] if given[hooks] else None
    after = _many(given["after"])
    given["after"] = [number for number in after if number] if after else None
    given["then_verify"] = "" if given["then_verify"] == "no" else given["then_verify"]
    chosen = {name: UNSET if value is None else value for name, value in given.items()}
    return JobFields(excludes=patterns or UNSET, **chosen)  # type: ignore[arg-type]


def check_level_of(fields: JobFields) -> None:
    """Look at codec and level of a new job before anything is done. Raises click.BadParameter."""
    if fields.level is UNSET:
        return
    try:
        check_level(CODECS["zstd" if fields.codec is UNSET else fields.codec], fields.level)
    except UsageError as error:
        raise click.BadParameter(str(error), param_hint="'--level'") from error


def _many(value: object) -> tuple[Any, ...]:
    """Return the values of an option that may be repeated."""
    return value if isinstance(value, tuple) else ()


def patterns_in(file: bytes) -> list[str]:
    """Return the patterns in a file, without comments and empty lines. Raises click.UsageError, OSError."""
    with click.open_file(os.fsdecode(file), "rb") as stream:
        lines = stream.read().removeprefix(BOM_UTF8).splitlines()
    place = os.fsdecode(file)
    numbered = ((f"{place}:{number}", os.fsdecode(line)) for number, line in enumerate(lines, start=1))
    return [_checked(where, line) for where, line in numbered if line.strip() and not line.startswith("#")]


def _checked(where: str, pattern: str) -> str:
    """Return a pattern that the ledger and HTTP can hold, and that matches something. Raises click.UsageError."""
    try:
        pattern.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(pattern).decode("utf-8", "backslashreplace")
        raise click.UsageError(f"{where} {shown}: not UTF-8; write ? for each byte that is not") from None
    try:
        parse(pattern)
    except BadPattern as error:
        raise click.UsageError(f"{where} {printable(pattern)}: matches nothing: {error}") from None
    return pattern


def set_or(value: T | None) -> T | UnsetType:
    """Return the value of an option, UNSET when it was not given."""
    return UNSET if value is None else value
