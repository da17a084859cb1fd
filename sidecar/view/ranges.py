"""Conditions and byte ranges of GET, by RFC 9110. Pure functions."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import NamedTuple

from starlette.datastructures import Headers

_NS_PER_S = 1_000_000_000
_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})")
_TAG = re.compile(r'(?:W/)?"([^"]*)"')


class Span(NamedTuple):
    """Bytes from `start` up to `end`, which is not included."""

    start: int
    end: int


class Unsatisfiable(Exception):
    """The range lies behind the end: status 416."""


def span_of(headers: Headers, size_bytes: int, tag: str, mtime_ns: int) -> Span | None:
    """Return which part is wanted; None for the whole. Raises Unsatisfiable.

    What is no single range of bytes is as if it were not there (RFC 9110 §14.2), and so is one of another content.
    """
    found = _RANGE.fullmatch(headers.get("range", "").strip().replace(" ", ""))
    if found is None or not any(found.groups()) or not _is_same(headers.get("if-range"), tag, mtime_ns):
        return None
    first, last = found.groups()
    if not first:
        length = min(int(last), size_bytes)
        if not length:
            raise Unsatisfiable
        return Span(size_bytes - length, size_bytes)
    if last and int(last) < int(first):
        return None
    if int(first) >= size_bytes:
        raise Unsatisfiable
    return Span(int(first), min(int(last) + 1, size_bytes) if last else size_bytes)


def is_unchanged(headers: Headers, tag: str, mtime_ns: int) -> bool:
    """Has the client this content already?"""
    known = headers.get("if-none-match")
    if known is not None:
        return known.strip() == "*" or tag in _TAG.findall(known)
    since = _moment(headers.get("if-modified-since"))
    return since is not None and mtime_ns // _NS_PER_S <= since


def is_other(headers: Headers, tag: str) -> bool:
    """Does the client want only a content that this is not? Status 412."""
    wanted = headers.get("if-match")
    return wanted is not None and wanted.strip() != "*" and tag not in _TAG.findall(wanted)


def http_date(at_ns: int) -> str:
    """Return a time as headers have it; what they cannot hold is cut to the nearest that they can."""
    seconds = min(max(at_ns // _NS_PER_S, 0), 253_402_300_799)
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


def _is_same(condition: str | None, tag: str, mtime_ns: int) -> bool:
    """Does If-Range mean this content? Weak tags never do."""
    if condition is None:
        return True
    if condition.strip().startswith('"'):
        return condition.strip() == f'"{tag}"'
    return _moment(condition) == mtime_ns // _NS_PER_S


def _moment(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return int(parsedate_to_datetime(text).timestamp())
    except (ValueError, OverflowError):
        return None
