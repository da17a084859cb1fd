"""GET /api/v1/events through real sockets: order, places, ends, a thousand of them."""

from __future__ import annotations

import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from tapefs.client.events import EventView, ProgressView, follow
from tapefs.client.notices import NoticeView
from tapefs.client.transport import SocketConnection
from tapefs.home import Home
from tests.sidecar.rig import Rig, make_home, running, wait_until

STREAMS = 1000
#: Measured: 42 KB, most of it hypercorn's and h11's. A tenth of a processor of two is what idle streams may take.
STREAM_BYTES = 130_000


@contextmanager
def stream(rig: Rig, query: str = "", **headers: str) -> Iterator[HTTPResponse]:
    """An open stream; its lines are read one by one."""
    with closing(SocketConnection(rig.home.socket, 60)) as connection:
        connection.request(
            "GET", f"/api/v1/events{query}", headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        yield answer


def next_event(answer: HTTPResponse) -> dict[str, Any]:
    """The next event: its fields, `data` as an object."""
    fields: dict[str, Any] = {}
    while True:
        raw = answer.readline()
        assert raw, "the stream has ended"
        line = raw.decode().rstrip("\n")
        if not line and "data" in fields:
            return {**fields, "data": json.loads(fields["data"])}
        name, _, value = line.partition(": ")
        if not line:
            fields = {}
        elif name:
            fields[name] = value


def test_notices_and_progress_come_while_a_job_runs(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    (home.path / "fake.json").write_text(json.dumps({"slow_s": 0.2}))
    with running(home) as rig, stream(rig, "?since=0") as answer:
        assert answer.readline() == b"retry: 2000\n"
        told: dict[str, Any] = {}

        def follow_until(kind: str) -> None:
            # The first look at the drives comes before the notices or behind them.
            while kind not in told:
                event = next_event(answer)
                told[event["data"]["kind"]] = event
                assert ("id" in event) == (event["event"] == "notice")

        follow_until("system.started")
        assert (told["system.started"]["id"], told["system.started"]["event"]) == ("1", "notice")
        number = rig.submit("home")
        follow_until("backup.succeeded")
        follow_until("drive.state")
        assert told["backup.succeeded"]["data"]["facts"]["job"] == number
        assert told["drive.state"]["data"]["subject"] == "drive0"
        # A browser that comes again names the last number, by a header that goes before the URL.
        last = told["backup.queued"]["id"]
        with stream(rig, "?since=0&kinds=backup.*", Last_Event_ID=last) as again:
            assert next_event(again)["data"]["kind"] == "backup.started"
            assert next_event(again)["data"]["kind"] == "backup.succeeded"


@pytest.mark.parametrize("query", ["?since=x", "?since=-1", f"?kinds={','.join(['a'] * 51)}"])
def test_what_makes_no_sense_is_refused(rig: Rig, query: str) -> None:
    assert rig.unix("GET", f"/api/v1/events{query}").status == 422


def test_who_is_nobody_is_told_nothing(rig: Rig) -> None:
    assert rig.tcp("GET", "/api/v1/events", token=None).status == 401
    assert rig.tcp("GET", "/api/v1/events", **{"Last-Event-ID": "x"}).status == 422


def test_a_revoked_token_ends_its_stream(tmp_path: Path) -> None:
    with running(make_home(tmp_path / "home"), listen=True) as rig:
        token = rig.unix("POST", "/api/v1/tokens", {"role": "viewer"}).body
        with closing(HTTPConnection("127.0.0.1", rig.port, timeout=60)) as connection:
            connection.request("GET", "/api/v1/events", headers={"Authorization": f"Bearer {token['secret']}"})
            answer = connection.getresponse()
            assert answer.status == 200
            rig.unix("DELETE", f"/api/v1/tokens/{token['id']}")
            rig.submit("home")
            assert b"backup" not in answer.read()  # It ends.


def test_nothing_is_lost_when_the_sidecar_is_killed(tmp_path: Path) -> None:
    """The client reads on from its last number with the next sidecar: each notice once."""
    home = make_home(tmp_path / "home")
    got: list[int] = []
    with running(home) as rig:
        rig.wait_job(rig.submit("one"), "completed")
        for event in follow(home.socket, since=0):
            if isinstance(event, NoticeView):
                got.append(event.number)
                if event.kind == "backup.started":
                    break
        rig.process.send_signal(signal.SIGKILL)
        rig.process.wait(60)
    with running(home) as rig:
        rig.wait_job(rig.submit("two"), "completed")
        wait_until(lambda: told(rig)[-1]["kind"] == "backup.succeeded", "not told")
        whole = [each["number"] for each in told(rig)]
        for event in follow(home.socket, since=got[-1], kinds=["*.*"]):
            if isinstance(event, NoticeView):
                got.append(event.number)
                if event.number == whole[-1]:
                    break
    assert got == whole == list(range(1, len(whole) + 1))


def told(rig: Rig) -> list[Any]:
    return list(rig.unix("GET", "/api/v1/notices").body)


def test_the_end_of_the_sidecar_is_told_and_ends_the_stream(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with running(home) as rig:
        events: list[EventView] = []
        for event in follow(home.socket):
            if not events:
                rig.process.send_signal(signal.SIGTERM)
            events.append(event)
        assert isinstance(events[-1], NoticeView)
        assert events[-1].kind == "system.stopping"
        assert rig.process.wait(60) == 0


def test_who_only_follows_does_not_keep_a_sidecar_that_ends_by_itself(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with running(home, "--until-idle") as rig:
        assert all(isinstance(event, ProgressView) for event in follow(home.socket))
        assert rig.process.wait(60) == 0


def test_a_thousand_streams(tmp_path: Path) -> None:
    """All of them are told, they cost little memory, next to nothing while nothing happens, and calls go on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    home = make_home(tmp_path / "home")
    with running(home, listen=True) as rig, ExitStack() as stack, selectors.DefaultSelector() as selector:
        before = used_bytes(rig)
        ask = f"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {rig.token}\r\n\r\n".encode()
        got: dict[socket.socket, bytes] = {}
        for number in range(STREAMS):
            connection = connect(home, rig.port if number % 2 else 0)
            stack.enter_context(closing(connection))
            connection.sendall(ask)
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ)
            got[connection] = b""
        read_until(selector, got, b'"kind":"drive.state"')
        grown = used_bytes(rig) - before
        idle_s, began_s = processor_s(rig), time.monotonic()
        time.sleep(3)
        share = (processor_s(rig) - idle_s) / (time.monotonic() - began_s)
        number = rig.submit("home")
        read_until(selector, got, b'"kind":"backup.succeeded"')
        assert rig.job(number)["state"] == "completed"
        assert rig.tcp("GET", "/health").status == 200
        assert grown / STREAMS <= STREAM_BYTES, f"{grown / STREAMS:,.0f} bytes a stream"
        assert share <= 0.1, f"{share:.1%} of a processor with nothing to tell"


def connect(home: Home, port: int) -> socket.socket:
    if port:
        return socket.create_connection(("127.0.0.1", port), 30)
    connection = socket.socket(socket.AF_UNIX)  # Without a timeout: then a full backlog is waited for.
    connection.connect(str(home.socket))
    return connection


def read_until(selector: selectors.BaseSelector, got: dict[socket.socket, bytes], word: bytes) -> None:
    """Read until the word has come over each connection."""
    deadline = time.monotonic() + 90
    while missing := sum(word not in text for text in got.values()):
        assert time.monotonic() < deadline, f"{missing} have not been told"
        for key, _ in selector.select(5):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            data = connection.recv(65536)
            assert data, got[connection]
            got[connection] += data


def used_bytes(rig: Rig) -> int:
    line = next(each for each in Path(f"/proc/{rig.process.pid}/status").read_text().splitlines() if "VmRSS" in each)
    return int(line.split()[1]) * 1024


def processor_s(rig: Rig) -> float:
    fields = Path(f"/proc/{rig.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# -- the command line --------------------------------------------------------------------------------------------------


def tapefs(home: Home, *arguments: str) -> str:
    command = [sys.executable, "-m", "tapefs", "--home", str(home.path), "events", *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=60).stdout


def test_the_command_tells_what_was_and_what_is(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    command = [sys.executable, "-u", "-m", "tapefs", "--home", str(home.path), "events", "--follow", "--json", "-n0"]
    with running(home) as rig:
        rig.wait_job(rig.submit("one"), "completed")
        wait_until(lambda: told(rig)[-1]["kind"] == "backup.succeeded", "not told")
        assert "Job 1 (one) is done" in tapefs(home).splitlines()[-1]
        assert [json.loads(line)["kind"] for line in tapefs(home, "--json", "--kind", "backup.s*").splitlines()] == [
            "backup.started",
            "backup.succeeded",
        ]
    number = json.loads(tapefs(home, "--json", "-n", "1"))["number"]  # Without a sidecar.
    follower = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert follower.stdout is not None
    assert follower.stderr is not None
    try:
        assert "waiting for it" in follower.stderr.readline()
        with running(home):
            line = json.loads(follower.stdout.readline())
            assert (line["kind"], line["number"] > number) == ("system.started", True)
        assert json.loads(follower.stdout.readline())["kind"] == "system.stopping"
    finally:
        follower.send_signal(signal.SIGINT)
        follower.communicate(timeout=60)
