"""How things are printed: tables and JSON on stdout, names of any bytes, sizes and times."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import click

from tapefs.sizes import counted
from tapefs.sizes import size as size

Json = dict[str, object]

_NS_PER_S = 1_000_000_000
_BATCH_LINES = 1000
_SHORT_ID = 8


def print_json(value: object) -> None:
    """Print one JSON value."""
    click.echo(json.dumps(value, indent=2))


def print_lines(lines: Iterable[bytes]) -> None:
    """Print lines of any bytes, many at a time."""
    batch: list[bytes] = []
    for line in lines:
        batch.append(line)
        if len(batch) >= _BATCH_LINES:
            click.echo(b"\n".join(batch))
            batch.clear()
    if batch:
        click.echo(b"\n".join(batch))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str | int]]) -> None:
    """Print columns below their headers; numbers and what looks like sizes go to the right."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(headers), *cells]) for i in range(len(headers))]
    right = [bool(rows) and all(_is_right(row[i]) for row in rows) for i in range(len(headers))]
    for row in [list(headers), *cells]:
        parts = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ]
        click.echo("  ".join(parts).rstrip())


def _is_right(cell: str | int) -> bool:
    return isinstance(cell, int) or cell.endswith(("B", "%", " s"))


def name_for_people(name: bytes) -> bytes:
    """Return a name as it is for a pipe, and escaped for a terminal, which control characters would confuse."""
    if not sys.stdout.isatty():
        return name
    return printable(name.decode("utf-8", "surrogateescape")).encode()


def printable(text: str) -> str:
    """Return the text with whatever a terminal cannot or should not show as escapes."""
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # A byte that is not UTF-8, by surrogateescape.
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def named(key: str, name: bytes) -> Json:
    """Return a name for JSON: as text, and when it is not UTF-8 exactly, too, as base64 under `…_b64`."""
    try:
        return {key: name.decode("utf-8")}
    except UnicodeDecodeError:
        return {key: name.decode("utf-8", "replace"), f"{key}_b64": base64.b64encode(name).decode("ascii")}


def paths(key: str, values: Sequence[bytes]) -> Json:
    """Return paths for JSON as `named` does; when one is not UTF-8 all are given as base64, too."""
    result: Json = {key: [value.decode("utf-8", "replace") for value in values]}
    if not all(_is_utf8(value) for value in values):
        result[f"{key}_b64"] = [base64.b64encode(value).decode("ascii") for value in values]
    return result


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def contents(files: int, directories: int, count_bytes: int) -> str:
    """Return what a set holds, such as `1 file, 2 directories, 1.3 KiB`."""
    return f"{counted(files, 'file')}, {counted(directories, 'director', 'ies', 'y')}, {size(count_bytes)}"


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """Return, by id, the beginnings that name the sets of an archive in tables: of one length, and each of one set.

    Whole ids would leave little room on a line, and every command takes beginnings.
    """
    known = set(ids)
    length = _SHORT_ID
    while len({each[:length] for each in known}) < len(known):
        length += 1
    return {each: each[:length] for each in known}


def iso_time(at_ns: int) -> str | None:
    """Return a time for JSON: ISO 8601 in UTC to the microsecond; None for 0, which means never."""
    if not at_ns:
        return None
    moment = datetime.fromtimestamp(at_ns // _NS_PER_S, UTC).replace(microsecond=at_ns % _NS_PER_S // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def short_time(at_ns: int) -> str:
    """Return a time for people, in UTC as the folders of the mount have it; a dash for never."""
    return datetime.fromtimestamp(at_ns // _NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%SZ") if at_ns else "-"


def short_moment(at: datetime | None) -> str:
    """Return a time of an answer as `short_time` does."""
    return short_time(0 if at is None else int(at.timestamp()) * _NS_PER_S)


def level_text(level: int) -> str:
    """Return a level as people write it. The number stands here, because listing commands have no time for codecs."""
    return "auto" if level == -1 else str(level)
