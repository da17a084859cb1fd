"""The OpenAPI 3.1 document of all calls, made from what they say of themselves and from the types of their bodies.

Pure functions. Schemas come from msgspec: they are what requests are really checked against. Calls of other methods
than OpenAPI knows (WebDAV has some) are left out.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Container, Iterable, Sequence
from typing import Any, Union, get_args, get_origin

import msgspec

from sidecar.access.cookies import PLAIN
from sidecar.http.calls import CURSOR, JSON, Call, Query
from sidecar.http.paging import TOTAL
from sidecar.http.problems import PROBLEM, Detail, Problem
from tapefs import __version__

REFERENCE = "#/components/schemas/{name}"
METHODS = ("get", "put", "post", "delete", "patch")
#: Parts of paths that are whole numbers.
_NUMBERS = frozenset({"number", "task_id", "user_id"})
_PART = re.compile(r"\{([a-z_]+)(:[a-z]+)?\}")
#: What the errors that a call can answer with mean.
_MEANINGS = {
    "400": "the request makes no sense as HTTP, or its Host is not served",
    "401": "nobody has said who he is, or a token is wrong",
    "403": "whoever asks may not do that",
    "404": "there is no such thing",
    "408": "the body did not come in time",
    "409": "not now: something else has to happen first",
    "413": "the body is too long",
    "422": "a value makes no sense",
    "429": "too many requests; `Retry-After` says when to come again",
    "5XX": "the sidecar failed, or what it needs is not there now",
}
_INTRODUCTION = (
    "A tape archive that you mount, over HTTP. `x-needs-role` names the least role of each call, the security scheme"
    " `bearer` the scopes that are enough as well. Errors are `application/problem+json`; calls under `/api` without"
    " `v1` answer as TAF does, with `detail` alone, unless `Accept` asks for problems."
)


def document(calls: Iterable[Call], issuers: Sequence[str] = ()) -> dict[str, object]:
    """Return the document; `issuers` are the addresses of those whose tokens are believed.

    Raises TypeError for a type that has no schema.
    """
    known = [(call, method) for call in calls for method in sorted(_methods(call)) if is_told(call)]
    schemas = _Schemas([call for call, _ in known])
    paths: dict[str, dict[str, object]] = {}
    tags: dict[str, str] = {}
    taken: set[str] = set()
    for call, method in known:
        path = _PART.sub(r"{\1}", call.path)
        tag, meaning = _tag(call)
        tags.setdefault(tag, meaning)
        name = operation_id(call, method, taken)
        taken.add(name)
        paths.setdefault(path, {})[method] = _operation(call, method, name, schemas, issuers)
    return {
        "openapi": "3.1.0",
        "info": {"title": "tapefs", "version": __version__, "description": _INTRODUCTION},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": meaning} for name, meaning in sorted(tags.items(), key=_place)],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": {f"E{code}": _error(code, schemas) for code in _MEANINGS},
            "securitySchemes": _security_schemes(issuers),
        },
    }


def is_told(call: Call) -> bool:
    """Is the call in the document? WebDAV describes itself, and most of its methods OpenAPI does not know."""
    return not call.endpoint.__module__.startswith("sidecar.dav.")


def _methods(call: Call) -> set[str]:
    return {method.lower() for method in call.methods or ()} & set(METHODS)


def operation_id(call: Call, method: str, taken: Container[str] = ()) -> str:
    """Return the name of an operation: the family and the function, made longer as far as it has to be."""
    family = _tag(call)[0].lower().replace(" ", "_").replace("-", "_")
    base = f"{family}_{call.endpoint.__name__.strip('_')}"
    words = re.sub(r"[^a-z0-9]+", "_", _PART.sub("", call.path).lower()).strip("_")
    of_method = [f"{base}_{method}"] if len(_methods(call)) > 1 else []
    names = (base, *of_method, f"{base}_{words}", f"{base}_{words}_{method}")
    return next(name for name in names if name not in taken)


def _tag(call: Call) -> tuple[str, str]:
    """Return the family of a call and what it is about: the first line of its module."""
    name = call.endpoint.__module__
    parts = name.split(".")
    tag = parts[-1].replace("_", "-")
    if len(parts) > 2 and parts[1] == "taf":
        tag = f"TAF {tag}"
    elif len(parts) > 2 and parts[1] not in ("own",):
        tag = parts[1]
    text = inspect.getdoc(sys.modules[name]) if name in sys.modules else None
    return tag, (text or "").partition("\n")[0].removesuffix(" Trio.")


def _place(tag: tuple[str, str]) -> tuple[bool, str]:
    """Our own families come first: TAF's are for scripts that know them."""
    return tag[0].startswith("TAF "), tag[0]


def _operation(call: Call, method: str, name: str, schemas: _Schemas, issuers: Sequence[str]) -> dict[str, object]:
    text = inspect.getdoc(call.endpoint) or ""
    found: dict[str, object] = {
        "operationId": name,
        "tags": [_tag(call)[0]],
        "summary": call.summary,
        "description": text.partition("\n")[2].strip(),
        "x-needs-role": call.needs.name.lower() if call.needs is not None else None,
        "parameters": [*_path_parameters(call), *(_query_parameter(each, schemas) for each in call.query)],
        "responses": _responses(call, method, schemas),
        "security": _security(call, issuers),
    }
    if call.body is not None:
        found["requestBody"] = {
            "required": not call.is_body_optional,
            "content": {JSON: {"schema": schemas.of(call.body)}},
        }
    return found


def _path_parameters(call: Call) -> list[dict[str, object]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "integer", "minimum": 0, "maximum": 10**18 - 1} if name in _NUMBERS else _text(kind),
            **({"description": "may contain slashes"} if kind else {}),
        }
        for name, kind in _PART.findall(call.path)
    ]


def _text(kind: str) -> dict[str, object]:
    """Return the schema of a part of a path; one without a slash has at least a character."""
    return {"type": "string"} if kind else {"type": "string", "minLength": 1}


def _query_parameter(each: Query, schemas: _Schemas) -> dict[str, object]:
    return {
        "name": each.name,
        "in": "query",
        "required": each.is_required,
        "description": each.meaning,
        "schema": schemas.of(each.kind),
    }


def _responses(call: Call, method: str, schemas: _Schemas) -> dict[str, object]:
    good: dict[str, object] = {}
    for status in (call.status, *call.also):
        good[str(status)] = {"description": _success(status), **_content(call, status, schemas), **_headers(call)}
    takes = call.body is not None or bool(call.query) or "{" in call.path
    codes = ["400", "429", "5XX"]
    if call.needs is not None:
        codes += ["401", "403"]
    if call.body is not None:
        codes += ["408", "413"]
    if takes:
        codes += ["404", "422"]
    if takes or method != "get":
        codes += ["409"]
    codes = sorted({*codes, *(str(status) for status in call.errors if status < 500)})
    return good | {code: {"$ref": f"#/components/responses/E{code}"} for code in codes}


def _headers(call: Call) -> dict[str, object]:
    """Return what a page of a list has besides its entries."""
    if CURSOR not in call.query:
        return {}
    link = {"description": 'RFC 8288: where the next page is, as `rel="next"`; none: this is the last'}
    total = {"description": "entries of all pages, where counting them costs nothing"}
    return {
        "headers": {
            "Link": {**link, "schema": {"type": "string"}},
            TOTAL: {**total, "schema": {"type": "integer", "minimum": 0}},
        }
    }


def _content(call: Call, status: int, schemas: _Schemas) -> dict[str, object]:
    if status == 204 or 300 <= status < 400:
        return {}
    if call.media != JSON:
        return {"content": {call.media: {}}}
    return {"content": {JSON: {"schema": schemas.of(call.answer)}}} if call.answer is not None else {}


def _success(status: int) -> str:
    meanings = {
        200: "what was asked for",
        201: "what was made",
        202: "what was begun and is going on",
        204: "done; there is nothing to say",
        206: "the part that was asked for",
        303: "it is somewhere else",
        304: "it has not changed",
        307: "it is somewhere else",
        503: "not yet",
    }
    return meanings.get(status, "an answer")


def _error(code: str, schemas: _Schemas) -> dict[str, object]:
    found: dict[str, object] = {
        "description": _MEANINGS[code],
        "content": {PROBLEM: {"schema": schemas.of(Problem)}, JSON: {"schema": schemas.of(Detail)}},
    }
    if code == "429":
        found["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return found


def _security(call: Call, issuers: Sequence[str]) -> list[dict[str, list[str]]]:
    """Return the ways in, each of which is enough; none where none is needed."""
    if call.needs is None:
        return []
    foreign: list[dict[str, list[str]]] = [{f"oidc{number}": []} for number in range(len(issuers))]
    return [{"bearer": list(call.scopes)}, {"session": []}, *foreign]


def _security_schemes(issuers: Sequence[str]) -> dict[str, object]:
    found: dict[str, object] = {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "The token of the state folder, one of `tapefs token create`, a login, or an issuer's.",
        },
        "session": {
            "type": "apiKey",
            "in": "cookie",
            "name": PLAIN,
            "description": "`POST /api/v1/session` sets it; what changes something takes `X-CSRF-Token` as well.",
        },
    }
    for number, issuer in enumerate(issuers):
        url = issuer.rstrip("/") + "/.well-known/openid-configuration"
        found[f"oidc{number}"] = {"type": "openIdConnect", "openIdConnectUrl": url}
    return found


class _Schemas:
    """The schemas of all types that calls name."""

    def __init__(self, calls: Sequence[Call]) -> None:
        kinds: list[Any] = [Problem, Detail]
        for call in calls:
            for kind in (call.body, call.answer, *(each.kind for each in call.query)):
                if kind is not None:
                    kinds += _members(kind)
        unique = list({repr(kind): kind for kind in kinds}.values())
        found, components = msgspec.json.schema_components(unique, schema_hook=_hook, ref_template=REFERENCE)
        self._by_kind = {repr(kind): _plain(schema) for kind, schema in zip(unique, found, strict=True)}
        #: By name.
        self.components = {name: _plain(schema) for name, schema in sorted(components.items())}

    def of(self, kind: Any) -> object:
        """Return the schema of a type: most often a reference."""
        members = [self._by_kind[repr(member)] for member in _members(kind)]
        return members[0] if len(members) == 1 else {"anyOf": members}


def _hook(kind: type) -> dict[str, object]:
    """Return the schema of what msgspec knows none for: a plain object may be anything."""
    if kind is object:
        return {"description": "anything"}  # An empty schema counts as none.
    raise NotImplementedError


def _members(kind: Any) -> list[Any]:
    """Return the types of a union of records, which msgspec takes one by one only; any other type as it is."""
    if get_origin(kind) in (Union, types.UnionType):
        members = list(get_args(kind))
        if all(isinstance(member, type) and issubclass(member, msgspec.Struct) for member in members):
            return members
    return [kind]


def _plain(schema: Any) -> Any:
    """Return a schema with patterns as JSON Schema has them: `^` and `$` for Python's `\\A` and `\\Z`."""
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: re.sub(r"\\Z$", "$", re.sub(r"^\\A", "^", value))
        if key == "pattern" and isinstance(value, str)
        else _plain(value)
        for key, value in schema.items()
    }
