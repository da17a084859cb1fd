"""How errors look: problem details by RFC 9457, with TAF's `detail` in them. Pure functions."""

from __future__ import annotations

from typing import Any

import msgspec


class ErrorItem(msgspec.Struct, frozen=True):
    """One value that makes no sense, as FastAPI tells it."""

    type: str
    #: Where it is: `body`, `query` or `path`, and the names and places below.
    loc: list[str | int]
    msg: str
    input: Any = None


class Detail(msgspec.Struct, frozen=True):
    """An error as TAF's programs read it."""

    detail: str | list[ErrorItem]


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error by RFC 9457."""

    #: `about:blank`: the status says what kind of problem it is.
    type: str
    title: str
    status: int
    #: What is wrong, for people.
    detail: str
    #: The id of the request: it stands in the log and in the audit log, too.
    instance: str
    #: Of status 422.
    errors: list[ErrorItem] = []
