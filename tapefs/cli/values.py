"""Values of options that need reading: sizes, motion, addresses, names of jobs."""

from __future__ import annotations

import re
import time
from datetime import datetime
from decimal import Decimal

import click

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgtp", start=1):
    _UNITS[f"{_letter}ib"] = _UNITS[_letter] = 1024**_power
    _UNITS[f"{_letter}b"] = 1000**_power

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)")
_SCALED = re.compile(r"scaled:([0-9]+(?:\.[0-9]+)?)")
_SINCE = re.compile(r"([0-9]{1,9})([smhdw])")
_SINCE_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
GENERATIONS = ("lto5", "lto6", "lto7", "lto8", "lto9")

#: Types of backups.
TYPES = ("full", "incremental", "differential", "mirror", "archive")
#: A name becomes a folder of the mount; a file system takes 255 bytes, and the times below it need none of them.
NAME_BYTES = 255


def parse_size(text: str) -> int:
    """Return the bytes that `2GiB`, `500MB`, `1.5T` or `4096` mean: iB and bare letters count in 1024s, B in 1000s.

    Raises ValueError with what is wrong.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no size: write for instance 2GiB, 500MB or a number of bytes")
    unit = match[2].lower()
    if unit not in _UNITS:
        raise ValueError(f"{text!r} has an unknown unit {match[2]!r}: use KiB, MiB, GiB, TiB or KB, MB, GB, TB")
    return int(Decimal(match[1]) * _UNITS[unit])


class Size(click.ParamType[int]):
    """An option's size in bytes, not below `least`."""

    name = "size"

    def __init__(self, least_bytes: int = 0) -> None:
        self._least_bytes = least_bytes

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes; a wrong size is a usage error."""
        if isinstance(value, int):
            return value
        try:
            count_bytes = parse_size(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if count_bytes < self._least_bytes:
            self.fail(f"{value} is too small: the least is {self._least_bytes // 1024**2} MiB", param, ctx)
        return count_bytes


def _meant(value: object) -> str:
    """Say what was meant by a word that belongs to another option."""
    return f"; a {value} backup is made by `--type {value}`" if value in TYPES else ""


class Level(click.ParamType[int]):
    """A level of compression: a number, or `auto`."""

    name = "level"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return a number; what is none is a usage error."""
        if value == "auto":
            return -1  # As the seam of the codecs has it, which not every command has time to load.
        try:
            return int(str(value))
        except ValueError:
            self.fail(f"{value!r} is no level of compression: give a number, or auto{_meant(value)}", param, ctx)


class RetentionDays(click.ParamType["int | str"]):
    """Days, or `pool` for what the pool says."""

    name = "days"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return a number or `pool`; what is neither is a usage error."""
        text = str(value)
        if text == "pool":
            return text
        if not text.isascii() or not text.isdigit():
            self.fail(f"{text!r} is no number of days: give one, 0 for ever, or pool", param, ctx)
        return int(text)


class SizeRange(click.ParamType[tuple[int, int]]):
    """Sizes as `find -size` takes them: `+1GiB` is more than that, `-10MB` less, `4096` just that."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return the least and the greatest size in bytes; a wrong size is a usage error."""
        if isinstance(value, tuple):
            return value
        text = str(value)
        try:
            count_bytes = parse_size(text[1:] if text.startswith(("+", "-")) else text)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if text.startswith("+"):
            return count_bytes + 1, MOST_BYTES
        return (0, count_bytes - 1) if text.startswith("-") else (count_bytes, count_bytes)


#: No file is larger.
MOST_BYTES = 2**63 - 1

_AGES = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
_AGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([a-z]+)")


def parse_age(text: str) -> int:
    """Return the seconds that `90min`, `12h`, `30d`, `2w` or `1y` mean; `0` is none. Raises ValueError."""
    plain = text.strip().lower()
    match = _AGE.fullmatch(plain)
    if plain == "0":
        return 0
    if match is None or match[2] not in _AGES:
        raise ValueError(f"{text!r} is no age: write for instance 90min, 12h, 30d, 2w or 1y")
    return int(Decimal(match[1]) * _AGES[match[2]])


class Age(click.ParamType[int]):
    """An option's age in seconds."""

    name = "age"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return seconds; a wrong age is a usage error."""
        if isinstance(value, int):
            return value
        try:
            return parse_age(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Motion(click.ParamType[str]):
    """How the virtual drive spends the time that a real one would."""

    name = "motion"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the setting as tapefs.toml has it; anything else is a usage error."""
        text = str(value)
        match = _SCALED.fullmatch(text)
        if text in ("account", "real") or (match is not None and float(match[1]) > 0):
            return text
        self.fail(f"{text!r} is no motion: use account, real, or scaled:N for N times faster than real", param, ctx)


class Address(click.ParamType[str]):
    """HOST:PORT to listen on."""

    name = "address"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the address as it is; one without host or with an impossible port is a usage error."""
        text = str(value)
        host, _, port = text.rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
            self.fail(f"{text!r} is no address: write HOST:PORT, for instance 127.0.0.1:8080", param, ctx)
        return text


class Since(click.ParamType[float]):
    """An age (`12h`, `30d`), or a time (ISO 8601, local without a zone)."""

    name = "when"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return seconds since the epoch; anything else is a usage error."""
        text = str(value)
        match = _SINCE.fullmatch(text)
        try:
            if match is not None:
                return time.time() - int(match[1]) * _SINCE_UNITS_S[match[2]]
            return datetime.fromisoformat(text).timestamp()
        except (ValueError, OverflowError, OSError):
            self.fail(
                f"{text!r} is neither an age, such as 12h or 30d, nor a time such as 2026-11-23T08:00", param, ctx
            )


class JobName(click.ParamType[str]):
    """A job's name, which becomes the name of a folder."""

    name = "name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name; one that could be no folder, or not be written in SET:PATH, is a usage error."""
        text = str(value)
        wrong = wrong_with_name(text)
        if wrong:
            self.fail(f"{text!r} is no name for a backup: {wrong}", param, ctx)
        return text


def wrong_with_name(text: str) -> str:
    """Return what is wrong with the name of a job, or nothing."""
    if text in ("", ".", ".."):
        return "it must be more than dots"
    if not text.isprintable():
        return "it must be UTF-8 without control characters"
    if "/" in text or ":" in text:
        return "it must hold neither slash nor colon"
    if len(text.encode()) > NAME_BYTES:
        return f"it must not be longer than {NAME_BYTES} bytes"
    return ""


def name_from_path(path: bytes) -> str:
    """Return a job's name made from a source's last component, with a dash for whatever a name cannot have."""
    last = path.rstrip(b"/").rpartition(b"/")[2].decode("utf-8", "replace")
    cleaned = "".join(char if char.isprintable() and char not in "/:\ufffd" else "-" for char in last)
    while len(cleaned.encode()) > NAME_BYTES:
        cleaned = cleaned[:-1]
    return "root" if wrong_with_name(cleaned) else cleaned
