"""The client against a server of the test's own on a real Unix socket: answers, errors, streams, long paths."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

import pytest

from catalog.ids import FrameNo, JobNumber, SegmentId
from catalog.records import JobState
from tapefs import __version__
from tapefs.client.api import Client, FrameSpan
from tapefs.client.job_fields import JobFields, encoded
from tapefs.client.transport import LineStream, Transport
from tapefs.errors import HomeError, NoSuchThing, NotNow, TapefsError, Unreachable, UsageError
from tapefs.socket_name import SOCKET_PATH_BYTES, socket_name

JOB = {"number": 3, "job_id": "x", "name": "docs", "state": "running", "progress": {"files": 7, "new_key": 1}}


class Handler(BaseHTTPRequestHandler):
    """Answers by path; remembers what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path, json.loads(body) if body else None))
        status, data = self.server.answers.get(self.path, (404, {"detail": "nothing here"}))
        if isinstance(data, list):
            self.stream(data)
            return
        payload = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def stream(self, lines: list[bytes]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in lines:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()
        self.server.hold.wait(60)
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True

    def __init__(self, path: Path) -> None:
        with socket_name(path) as name:
            super().__init__(name, Handler)
        self.path = path
        self.answers: dict[str, tuple[int, object]] = {}
        self.asked: list[tuple[str, str, object]] = []
        self.hold = threading.Event()

    def get_request(self):
        connection, _ = super().get_request()
        return connection, ("client", 0)


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path / "s.sock") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.hold.set()
        server.shutdown()
        thread.join()


def test_a_job(server):
    server.answers["/api/v1/jobs"] = (202, JOB)
    server.answers["/api/v1/jobs/3"] = (200, JOB | {"state": "completed", "set_id": "s", "unknown": [1]})
    client = Client(server.path)
    job = client.submit(JobFields(name="docs", sources=[encoded(b"/a"), encoded(b"/\xff")], excludes=["*.o"]))
    assert job.state is JobState.RUNNING
    assert not job.is_finished
    assert job.progress.files == 7
    assert client.job(JobNumber(3)).is_finished
    assert server.asked[0][2]["sources"] == ["/a", {"b64": "L/8="}]
    assert server.asked[0][2]["excludes"] == ["*.o"]
    assert "level" not in server.asked[0][2]


def test_staging(server):
    server.answers["/api/v1/stage"] = (202, {"accepted": 1})
    server.answers["/api/v1/evict"] = (200, {"freed_bytes": 5, "left_bytes": 2})
    client = Client(server.path)
    span = FrameSpan(segment=SegmentId("g"), first=FrameNo(1), last=FrameNo(4))
    assert client.stage([span]) == 1
    assert client.evict(None).freed_bytes == 5
    assert client.evict([SegmentId("g")]).left_bytes == 2
    assert [body for _, _, body in server.asked] == [
        {"segments": [{"segment": "g", "first": 1, "last": 4}], "awaited": False},
        {"segments": None},
        {"segments": ["g"]},
    ]


def test_many_spans_go_in_pieces(server):
    """A scattered tree makes more spans than one body may hold."""
    server.answers["/api/v1/stage"] = (202, {"accepted": 1})
    spans = [FrameSpan(segment=SegmentId("g" * 36), first=FrameNo(2 * n), last=FrameNo(2 * n)) for n in range(12_000)]
    assert Client(server.path).stage(spans) == 3
    posted = [span for _, _, body in server.asked for span in body["segments"]]
    assert [span["first"] for span in posted] == [span.first for span in spans]
    assert all(len(json.dumps(body)) < 1024**2 for _, _, body in server.asked)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(422, UsageError), (404, NoSuchThing), (409, NotNow), (403, HomeError), (503, Unreachable), (500, TapefsError)],
)
def test_what_the_sidecar_refuses(server, status, kind):
    server.answers["/api/v1/status"] = (status, {"detail": "because of the test"})
    with pytest.raises(kind, match="because of the test") as caught:
        Client(server.path).status()
    assert type(caught.value) is kind


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"detail": ', b"[]"])
def test_an_error_without_a_sentence(server, body):
    server.answers["/api/v1/status"] = (500, body)
    with pytest.raises(TapefsError, match="status 500"):
        Client(server.path).status()


def test_an_answer_that_makes_no_sense(server):
    server.answers["/api/v1/status"] = (200, {"version": 1})
    with pytest.raises(TapefsError, match="another version"):
        Client(server.path).status()


def test_nobody_is_there(tmp_path):
    with pytest.raises(Unreachable, match="tapefs serve"):
        Client(tmp_path / "none.sock").status()


def test_a_socket_left_behind_by_a_crash(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "dead.sock"))
    with pytest.raises(Unreachable):
        Client(tmp_path / "dead.sock").status()


def test_a_path_longer_than_a_socket_address(tmp_path):
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    with Server(folder / "s.sock") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        server.answers["/api/v1/evict"] = (200, {"freed_bytes": 1})
        assert len(str(server.path)) > SOCKET_PATH_BYTES
        assert Client(server.path).evict(None).freed_bytes == 1
        server.shutdown()
        thread.join()


def test_lines_come_as_they_are_sent_and_end_when_we_say(server):
    server.answers["/api/v1/arrivals"] = (200, [b'{"hello":1}\n', b'{"segment":"g"', b',"first":1}\n'])
    stream = LineStream(server.path, "/api/v1/arrivals", 60.0)
    lines = iter(stream)
    assert next(lines) == b'{"hello":1}\n'
    assert next(lines) == b'{"segment":"g","first":1}\n'
    timer = threading.Timer(0.05, stream.end)
    timer.start()
    with suppress(Unreachable):
        next(lines, b"")
    timer.join()
    stream.close()
    stream.close()


def test_silence_means_gone(server):
    server.answers["/api/v1/arrivals"] = (200, [b'{"hello":1}\n'])
    stream = LineStream(server.path, "/api/v1/arrivals", 3.0)
    lines = iter(stream)
    next(lines)
    with pytest.raises(Unreachable, match="in time"):
        next(lines)
    stream.close()


@pytest.mark.parametrize(("version", "said"), [("0.0.9", "it is version 0.0.9, this is "), (__version__, "older than")])
def test_a_sidecar_that_does_not_know_a_call_is_to_be_restarted(server: Server, version: str, said: str) -> None:
    """What it says itself of a thing that is not there is left as it is."""
    server.answers["/api/v1/new"] = (404, {"detail": "Not Found"})
    server.answers["/api/v1/jobs/3/new"] = (405, {"detail": "Method Not Allowed"})
    transport = Transport(server.path)
    with pytest.raises(NoSuchThing, match=r"^Not Found$"):
        transport.request("GET", "/api/v1/new")
    server.answers["/api/v1/status"] = (200, {"version": version})
    for path in ("/api/v1/new", "/api/v1/jobs/3/new"):
        with pytest.raises(NotNow, match=f"does not know what it was asked: .*{said}.*; restart it"):
            transport.request("GET", path)
    with pytest.raises(NoSuchThing, match="nothing here"):
        transport.request("GET", "/api/v1/jobs/4")


def test_a_redirect_is_no_success(server):
    """What is asked of one thing must not look done when the answer leads to another."""
    server.answers["/api/v1/status"] = (307, {})
    with pytest.raises(TapefsError, match="307"):
        Client(server.path).status()
