"""The clients against a server of the test's own, which breaks off, has had enough, and sends what is wrong."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tapefs.client import connect, connect_trio
from tapefs.client.job_fields import JobFields
from tapefs.client.streams import Event, Events
from tapefs.errors import NotNow, RecallFailed, TapefsError, TooManyRequests, Unreachable

CONTENT = bytes(range(256)) * 8192
JOB = b'{"number": 3, "job_id": "x", "name": "docs", "state": "completed"}'
VIEW = (
    b'{"path": "/f", "url_path": "f", "name": "f", "type": "file", "size": %d, "mode": "0644", "uid": 0, "gid": 0, '
    b'"etag": "e"}'
)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        self.server.asked.append((self.command, self.path, dict(self.headers), self.client_address))
        answer = self.server.script[self.path]
        (answer.pop(0) if len(answer) > 1 else answer[0])(self)

    do_POST = do_GET

    def say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def content(self, upto: int, tag: str = '"e"') -> None:
        """Send the range that was asked for, but nothing from `upto` on."""
        begin = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        self.send_response(206 if begin else 200)
        self.send_header("ETag", tag)
        self.send_header("Content-Range", f"bytes {begin}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(CONTENT) - begin))
        self.end_headers()
        self.wfile.write(CONTENT[begin:upto])
        self.close_connection = upto < len(CONTENT)

    def hang_up(self) -> None:
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, dict[str, str], object]] = []
        self.script: dict[str, list[Callable[[Handler], None]]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def said(status: int, body: bytes, **headers: str) -> Callable[[Handler], None]:
    return lambda handler: handler.say(status, body, **headers)


def test_asking_comes_again_once_on_a_fresh_connection(server: Server) -> None:
    server.script["/api/v1/jobs/3"] = [Handler.hang_up, said(200, JOB)]
    with connect(server.url) as client:
        assert client.job(3).name == "docs"
    assert len(server.asked) == 2
    server.script["/api/v1/jobs/3"] = [Handler.hang_up]
    with connect(server.url) as client, pytest.raises(Unreachable):
        client.job(3)
    assert len(server.asked) == 4


def test_what_has_an_effect_is_never_sent_twice(server: Server) -> None:
    server.script["/api/v1/jobs"] = [Handler.hang_up]
    with connect(server.url) as client, pytest.raises(Unreachable, match="went away"):
        client.submit(JobFields(name="a", sources=["/a"]))
    assert len(server.asked) == 1


async def test_the_same_in_trio(server: Server) -> None:
    server.script["/api/v1/jobs/3"] = [Handler.hang_up, said(200, JOB)]
    server.script["/api/v1/jobs"] = [Handler.hang_up]
    async with connect_trio(server.url) as client:
        assert (await client.job(3)).name == "docs"
        assert len(server.asked) == 2
        with pytest.raises(Unreachable, match="went away"):
            await client.submit(JobFields(name="a", sources=["/a"]))
    assert len(server.asked) == 3


def test_connections_over_tcp_are_kept(server: Server) -> None:
    server.script["/api/v1/jobs/3"] = [said(200, JOB)]
    with connect(server.url) as client:
        for _ in range(5):
            client.job(3)
    assert len({peer for *_, peer in server.asked}) == 1


def test_a_sidecar_that_has_had_enough_is_asked_later(server: Server) -> None:
    enough = said(429, b'{"detail": "too many"}', Retry_After="1")
    server.script["/api/v1/jobs"] = [enough, said(202, JOB)]
    with connect(server.url) as client:
        assert client.submit(JobFields(name="a", sources=["/a"])).number == 3
    assert len(server.asked) == 2
    server.script["/api/v1/jobs/3"] = [said(429, b'{"detail": "too many"}', Retry_After="9999")]
    with connect(server.url) as client, pytest.raises(TooManyRequests, match="too many") as caught:
        client.job(3)
    assert caught.value.retry_after_s == 9999


async def test_it_is_asked_later_in_trio(server: Server) -> None:
    enough = said(429, b'{"detail": "too many"}', Retry_After="1")
    server.script["/api/v1/jobs/3"] = [enough, said(200, JOB)]
    async with connect_trio(server.url) as client:
        assert (await client.job(3)).number == 3
    assert len(server.asked) == 2


def script_download(server: Server, *answers: Callable[[Handler], None]) -> None:
    server.script["/api/v1/files/f"] = [said(200, VIEW % len(CONTENT))]
    server.script["/api/v1/content/f"] = list(answers)


def test_a_download_that_breaks_goes_on(server: Server, tmp_path: Path) -> None:
    script_download(
        server, lambda h: h.content(500_000), lambda h: h.content(1_500_000), Handler.hang_up, lambda h: h.content(9**9)
    )
    with connect(server.url) as client:
        client.download("f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT
    ranges = [headers.get("Range") for _, path, headers, _ in server.asked if "content" in path]
    assert ranges == [None, "bytes=500000-", "bytes=1500000-", "bytes=1500000-"]


async def test_a_download_that_breaks_goes_on_in_trio(server: Server, tmp_path: Path) -> None:
    script_download(server, lambda h: h.content(500_000), lambda h: h.content(9**9))
    async with connect_trio(server.url) as client:
        await client.download("f", tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_bytes_of_another_file_are_not_mixed_in(server: Server, tmp_path: Path) -> None:
    script_download(server, lambda h: h.content(500_000), lambda h: h.content(9**9, '"other"'))
    with connect(server.url) as client, pytest.raises(NotNow, match="newer set"):
        client.download("f", tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_file_that_cannot_be_fetched(server: Server, tmp_path: Path) -> None:
    cold = said(202, b'{"detail": "", "staging": "s", "url": "/api/v1/stagings/s"}', Retry_After="1")
    script_download(server, cold)
    server.script["/api/v1/stagings/s"] = [
        said(200, b'{"id": "s", "files": [{"path": "/f", "state": "FAILED", "error": "no tape"}], "completedAt": 1}')
    ]
    with connect(server.url) as client, pytest.raises(RecallFailed, match="no tape"):
        client.download("f", tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_a_search_that_breaks_off_is_no_result(server: Server) -> None:
    server.script["/api/v1/find?pattern=a"] = [
        said(200, b'{"path": "a"}\n{"end": true, "found": 1}\n'),
        said(200, b'{"path": "a"}\n'),
        said(200, b'{"path": "a"}\n{"error": "no index"}\n'),
    ]
    with connect(server.url) as client:
        assert client.find("a") == [{"path": "a"}]
        with pytest.raises(Unreachable, match="broke off"):
            client.find("a")
        with pytest.raises(TapefsError, match="no index"):
            client.find("a")


EVENTS = b': hello\n\nid: 7\nevent: job\ndata: {"a":\ndata: 1}\n\ndata: x\r\n\r\nid: 8\n\ndata: never ended'


def test_events(server: Server) -> None:
    server.script["/api/v1/events"] = [said(200, EVENTS)]
    with connect(server.url) as client, client.events(after="6") as events:
        found = list(events)
    assert found == [Event("7", "job", '{"a":\n1}'), Event("7", "message", "x")]
    assert found[0].json() == {"a": 1}
    assert server.asked[0][2]["Last-Event-ID"] == "6"


async def test_events_in_trio(server: Server) -> None:
    server.script["/api/v1/events"] = [said(200, EVENTS)]
    async with connect_trio(server.url) as client, client.events() as events:
        assert [event.id async for event in events] == ["7", "7"]


def test_a_field_without_a_colon_and_an_empty_one() -> None:
    parser = Events()
    assert [parser.feed(line) for line in ("data", "data:", "")][-1] == Event("", "message", "\n")
