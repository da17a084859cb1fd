"""Errors as RFC 9457 has them and as TAF's programs read them; answers made small for those who take it."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest
import zstandard
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from sidecar.http.compression import CODINGS, Compression
from tests.sidecar.rig import Rig, make_home, running

PROBLEM = "application/problem+json"
LONG = msgspec.json.encode([{"number": number, "name": "archive"} for number in range(5000)])


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running(make_home(tmp_path_factory.mktemp("answers") / "home"), listen=True) as rig:
        yield rig


def test_own_calls_tell_problems(rig: Rig) -> None:
    answer = rig.tcp("PUT", "/api/v1/jobs/x/priority", {"priority": 1}, **{"X-Request-Id": "mine-42"})
    assert answer.status == 422
    assert answer.headers["content-type"] == PROBLEM
    assert answer.body == {
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "number: Input should be a whole number",
        "instance": "mine-42",
        "errors": [{"type": "int_parsing", "loc": ["path", "number"], "msg": "Input should be a whole number"}],
    }
    assert answer.headers["x-request-id"] == "mine-42"


@pytest.mark.parametrize(
    ("method", "path", "token", "status"),
    [("GET", "/nothing", "", 404), ("PUT", "/api/v1/pins", "", 405), ("GET", "/api/v1/pins", "wrong", 401)],
)
def test_problems_of_http_itself(rig: Rig, method: str, path: str, token: str, status: int) -> None:
    answer = rig.tcp(method, path, token=token)
    assert (answer.status, answer.headers["content-type"]) == (status, PROBLEM)
    assert answer.body["status"] == status
    assert isinstance(answer.detail, str)
    assert answer.body["instance"] == answer.headers["x-request-id"]
    if status == 405:
        assert answer.headers["allow"] == "GET, HEAD, POST"


def test_tafs_calls_answer_as_fastapi_does_unless_asked(rig: Rig) -> None:
    plain = rig.tcp("POST", "/api/backup/tasks", {"task_name": "a"})
    assert plain.status == 422
    assert plain.headers["content-type"] == "application/json"
    assert plain.body == {"detail": [plain.detail[0]]}
    assert plain.detail[0]["loc"] == ["body", "source_paths"]
    asked = rig.tcp("POST", "/api/backup/tasks", {"task_name": "a"}, Accept=f"{PROBLEM}, application/json")
    assert asked.headers["content-type"] == PROBLEM
    assert asked.body["errors"][0]["loc"] == ["body", "source_paths"]
    assert "input" not in asked.body["errors"][0]


async def ask(endpoint: Callable[[Request], Any], accepted: str) -> httpx.Response:
    transport = httpx.ASGITransport(Compression(Starlette(routes=[Route("/x", endpoint)])))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        async with client.stream("GET", "/x", headers={"accept-encoding": accepted}) as answer:
            raw = b"".join([piece async for piece in answer.aiter_raw()])
            return httpx.Response(200, headers=[*answer.headers.raw, (b"x-raw", raw[:0])], extensions={"raw": raw})


async def long(request: Request) -> Response:
    return Response(LONG, media_type="application/json", headers={"etag": '"1"'})


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip", "gzip"),
        ("zstd;q=0, gzip;q=0.5", "gzip"),
        ("zstd;q=0.1, gzip", "gzip"),
        ("*", "zstd"),
        ("gzip;q=0", ""),
        ("gzip;q=much", ""),
        ("identity", ""),
        ("", ""),
    ],
)
async def test_long_answers_are_made_small(accepted: str, coding: str) -> None:
    answer = await ask(long, accepted)
    raw = answer.extensions["raw"]
    assert answer.headers.get("content-encoding", "") == coding
    assert answer.headers["vary"] == "Accept-Encoding"
    assert int(answer.headers["content-length"]) == len(raw)
    decoded = {"zstd": zstandard.decompress, "gzip": gzip.decompress, "": bytes}[coding](raw)
    assert decoded == LONG
    assert answer.headers["etag"] == ('W/"1"' if coding else '"1"')
    assert not coding or len(raw) < len(LONG) // 10


async def streamed(request: Request) -> Response:
    return StreamingResponse(iter([LONG[:4000], LONG[4000:]]), media_type="application/x-ndjson")


async def content(request: Request) -> Response:
    return Response(LONG, media_type="text/plain", headers={"accept-ranges": "bytes"})


async def secret(request: Request) -> Response:
    return Response(LONG, media_type="application/json", headers={"cache-control": "no-store"})


async def cookie(request: Request) -> Response:
    return Response(LONG, media_type="application/json", headers={"set-cookie": "a=b"})


async def short(request: Request) -> Response:
    return Response(LONG[:1000], media_type="application/json")


async def picture(request: Request) -> Response:
    return Response(LONG, media_type="image/png")


@pytest.mark.parametrize("endpoint", [streamed, content, secret, cookie, short, picture])
async def test_what_goes_out_as_it_is(endpoint: Callable[[Request], Any]) -> None:
    answer = await ask(endpoint, ", ".join(CODINGS))
    assert "content-encoding" not in answer.headers
    assert answer.extensions["raw"] in (LONG, LONG[:1000])


def test_over_tcp_but_not_over_the_unix_socket(rig: Rig) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{rig.port}") as tcp:
        answer = tcp.get("/openapi.json", headers={"accept-encoding": "zstd"})
        assert answer.headers["content-encoding"] == "zstd"
        assert answer.json()["openapi"] == "3.1.0"
    transport = httpx.HTTPTransport(uds=str(rig.home.socket))
    with httpx.Client(base_url="http://here", transport=transport) as unix:
        assert "content-encoding" not in unix.get("/openapi.json", headers={"accept-encoding": "zstd"}).headers
