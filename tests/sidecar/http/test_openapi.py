"""The document of all calls: sound OpenAPI 3.1, complete, and the same as what the calls say of themselves."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import httpx
import jsonschema_rs
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.applications import Starlette

from sidecar.http.app import calls_of
from sidecar.http.callers import Role
from sidecar.http.calls import JSON, Call
from sidecar.http.openapi import METHODS, document, is_told
from sidecar.own.docs import DocsCalls
from sidecar.own.job_views import JobRequest
from sidecar.service import Service
from tapefs.client.job_fields import JobFields
from tests.sidecar.http.test_calls import Parts

CALLS = calls_of(cast(Service, Parts()))
DOCUMENT: dict[str, Any] = document(CALLS, ["https://login.example"])
OPERATIONS = [
    (f"{method.upper()} {path}", operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
]


def test_every_call_is_there_once() -> None:
    wanted = {
        f"{method} {re.sub(r':[a-z]+(?=})', '', call.path)}"
        for call in CALLS
        if is_told(call)
        for method in call.methods or ()
        if method.lower() in METHODS
    }
    assert {name for name, _ in OPERATIONS} == wanted
    names = [operation["operationId"] for _, operation in OPERATIONS]
    assert len(set(names)) == len(names) > 150
    assert all(re.fullmatch("[a-z0-9_]+", name) for name in names)


#: Their answer is empty by WLCG's specification.
EMPTY = {"/wlcg/v1/stage/{id}", "/wlcg/v1/release/{id}", "/wlcg/v1/stage/{id}/cancel"}


def test_every_call_says_what_it_answers() -> None:
    for call in CALLS:
        if is_told(call) and call.path not in EMPTY:
            is_said = call.answer is not None or call.media != JSON or call.status == 204
            assert is_said, call.path


def test_all_references_lead_somewhere() -> None:
    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            return [value["$ref"]] if isinstance(value.get("$ref"), str) else references(list(value.values()))
        return [found for each in value for found in references(each)] if isinstance(value, list) else []

    found = set(references(DOCUMENT))
    assert len(found) > 50
    for each in found:
        place: Any = DOCUMENT
        for part in each.removeprefix("#/").split("/"):
            place = place[part]
        assert isinstance(place, dict)


def faults_of(document: object) -> list[str]:
    """Return what a validator of OpenAPI 3.1 says against a document, as it comes over the wire."""
    found = OpenAPIV31SpecValidator(json.loads(json.dumps(document))).iter_errors()
    return [str(error).partition("\n")[0] for error in found]


def test_the_document_is_openapi_3_1() -> None:
    assert faults_of(DOCUMENT) == []


@pytest.mark.parametrize("wrong", [{"parameters": []}, {"operationId": "jobs_delete"}, {"security": "bearer"}])
def test_the_validator_looks_at_more_than_the_schema_of_the_document(wrong: dict[str, object]) -> None:
    """It sees a path without its parameter, a name that is there twice, and what the schema forbids."""
    path = "/api/v1/jobs/{number}"
    told = DOCUMENT["paths"][path]
    assert told["delete"]["operationId"] == "jobs_delete"
    few = {path: {"get": {**told["get"], **wrong}, "delete": told["delete"]}}
    parts = {**DOCUMENT["components"], "schemas": {}}
    assert faults_of({**DOCUMENT, "paths": _without_schemas(few), "components": _without_schemas(parts)})


def _without_schemas(value: Any) -> Any:
    """Return a part of the document whose references to schemas mean anything: looking at all takes a second."""
    if isinstance(value, dict):
        is_schema = str(value.get("$ref", "")).startswith("#/components/schemas/")
        return {} if is_schema else {name: _without_schemas(each) for name, each in value.items()}
    return [_without_schemas(each) for each in value] if isinstance(value, list) else value


def test_what_is_refused_anyway_is_not_shown() -> None:
    """WebDAV tells its clients itself what it has; most of its methods only refuse to write."""
    assert not [name for name, _ in OPERATIONS if "/dav" in name]
    assert any(call.path == "/dav" and "DELETE" in (call.methods or ()) for call in CALLS)


def test_all_schemas_are_schemas() -> None:
    for name, schema in DOCUMENT["components"]["schemas"].items():
        jsonschema_rs.meta.validate(schema)
        assert not re.search(r"\\\\[AZ]", str(schema)), name


def test_what_a_call_needs_is_said() -> None:
    rank = DOCUMENT["paths"]["/api/v1/jobs/{number}/priority"]["put"]
    assert rank["x-needs-role"] == "operator"
    assert rank["summary"] == "Give a job another priority, whatever it does"
    assert rank["parameters"][0]["schema"]["type"] == "integer"
    assert rank["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/PriorityBody"}
    assert {"401", "403", "404", "409", "422", "429", "5XX"} <= set(rank["responses"])
    stage = DOCUMENT["paths"]["/wlcg/v1/stage"]["post"]
    assert stage["security"] == [{"bearer": ["storage.stage"]}, {"session": []}, {"oidc0": []}]
    assert stage["responses"]["201"]["content"]["application/json"]["schema"]["$ref"].endswith("Accepted")
    assert DOCUMENT["paths"]["/health/live"]["get"]["security"] == []
    oidc = DOCUMENT["components"]["securitySchemes"]["oidc0"]
    assert oidc["openIdConnectUrl"] == "https://login.example/.well-known/openid-configuration"


def test_a_job_is_told_by_the_names_with_which_it_is_changed() -> None:
    assert JobRequest.__struct_fields__ == JobFields.__struct_fields__


def test_a_method_that_openapi_does_not_know_is_left_out() -> None:
    async def find(request: object) -> Any:
        """Find."""

    call = Call("/x/{path:path}", find, needs=Role.VIEWER, methods=["PROPFIND", "GET"])
    item = cast(Any, document([call]))["paths"]["/x/{path}"]
    assert list(item) == ["get"]


@pytest.fixture
async def client() -> Any:
    calls = DocsCalls(cast(Service, Parts()), lambda: [])
    transport = httpx.ASGITransport(Starlette(routes=calls.routes()))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        yield client


async def test_who_opens_the_address_itself_is_led_to_the_viewer(client: httpx.AsyncClient) -> None:
    answer = await client.get("/")
    assert (answer.status_code, str(answer.next_request.url)) == (307, "http://here/docs")  # type: ignore[union-attr]


def test_our_own_families_come_before_those_of_taf() -> None:
    names = [each["name"] for each in DOCUMENT["tags"]]
    own = [name for name in names if not name.startswith("TAF ")]
    assert names[: len(own)] == own == sorted(own)
    assert len(names) > len(own) > 20


async def test_the_viewer_comes_from_here_and_runs_nothing_else(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?:|//|<script>| style=| on[a-z]+=", page.text)
    for name, kind, least in (("viewer.js", "javascript", 1_000_000), ("viewer.css", "css", 100_000)):
        assert f'"docs/{name}"' in page.text
        answer = await client.get(f"/docs/{name}")
        assert kind in answer.headers["content-type"]
        assert len(answer.content) > least
        again = await client.get(f"/docs/{name}", headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    assert "SwaggerUIBundle" in (await client.get("/docs/start.js")).text
