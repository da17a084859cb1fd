"""How errors look: problem details by RFC 9457, with the sentence in `detail`, where TAF's programs look for it.

TAF's own calls answer as FastAPI does, with `detail` alone, unless their caller says that he takes problem details.
Pure functions.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Scope

from sidecar.http.request_notes import notes_in
from sidecar.http.requests import Invalid

PROBLEM = "application/problem+json"
#: Where TAF's calls are.
_TAF = re.compile(r"/api/(?!v1(/|$))")


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


class Wrong(msgspec.Struct, frozen=True):
    """One value that makes no sense; the value itself is not repeated, for it may be a secret."""

    type: str
    #: Where it is: `body`, `query` or `path`, and the names and places below.
    loc: list[str | int]
    msg: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error by RFC 9457."""

    #: The status in words.
    title: str
    status: int
    #: What is wrong, for people.
    detail: str
    #: The id of the request: it stands in the log and in the audit log, too.
    instance: str = ""
    #: Of status 422.
    errors: list[Wrong] = []
    #: This says what kind of problem it is: `about:blank`, which is the default, that the status does.
    type: str = "about:blank"


def problem_answer(
    scope: Scope, status: int, sentence: str, headers: dict[str, str] | None = None, invalid: Invalid | None = None
) -> Response:
    """Return the answer that tells an error in the way its caller reads; `invalid` has the place that is wrong."""
    if not _takes_problems(scope):
        detail: object = [invalid.problem] if invalid is not None else sentence
        return Response(msgspec.json.encode({"detail": detail}), status, headers, "application/json")
    notes = notes_in(scope)
    problem = Problem(
        title=_title(status),
        status=status,
        detail=sentence,
        instance=notes.request if notes is not None else "",
        errors=[msgspec.convert(invalid.problem, Wrong)] if invalid is not None else [],
    )
    return Response(msgspec.json.encode(problem), status, headers, PROBLEM)


def _takes_problems(scope: Scope) -> bool:
    return not _TAF.match(scope.get("path", "")) or PROBLEM in Headers(scope=scope).get("accept", "").lower()


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
