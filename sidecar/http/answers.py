"""JSON answers, encoded by msgspec. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec
from starlette.responses import Response

_encoder = msgspec.json.Encoder()

_NS_PER_S = 1_000_000_000


def json_answer(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return `value` (records, dicts, lists, plain values) as JSON."""
    return Response(_encoder.encode(value), status, headers, media_type="application/json")


def moment(at_ns: int) -> datetime | None:
    """Return a time with the local zone, to the microsecond; None for 0, which means never."""
    if not at_ns:
        return None
    seconds, rest_ns = divmod(at_ns, _NS_PER_S)
    return datetime.fromtimestamp(seconds).astimezone().replace(microsecond=rest_ns // 1000)


def shown(path: bytes) -> str:
    """Return a path for people; what is not UTF-8 as escapes."""
    return path.decode("utf-8", "backslashreplace")
