"""Who may ask, and how much: tokens, hosts, peers of the Unix socket, sizes and times of bodies."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
import trio
from starlette.types import Message, Scope

from sidecar.http.gates import BodyLimits
from tests.sidecar.rig import Rig, make_home, running

PUT = {"type": "http", "method": "PUT", "path": "/", "headers": [(b"transfer-encoding", b"chunked")]}
EVERYTHING = ["/health", "/api/v1/status", "/api/v1/arrivals", "/api/backup/tasks", "/api/tape/list"]


@pytest.mark.parametrize("path", EVERYTHING)
def test_tcp_needs_the_token_for_everything(rig: Rig, path: str) -> None:
    for token in (None, "wrong", rig.token[:-1], rig.token + "x", "ä"):
        answer = rig.tcp("GET", path, token=token)
        assert answer.status == 401, token
        assert rig.token not in json.dumps(answer.body)
    assert rig.tcp("GET", path, token=None, Authorization=f"Basic {rig.token}").status == 401


def test_a_wrong_token_is_told_so_even_where_nothing_is(rig: Rig) -> None:
    assert rig.tcp("GET", "/nothing", token="wrong").status == 401
    assert rig.tcp("GET", "/nothing", token=None).status == 404


def test_the_right_token_opens(rig: Rig) -> None:
    assert rig.tcp("GET", "/health").status == 200
    assert rig.tcp("GET", "/health", token=None, Authorization=f"bearer  {rig.token} ").status == 200


@pytest.mark.parametrize(
    "host", ["attacker.example", "attacker.example:8080", "127.0.0.1.attacker.example", "[::1", ""]
)
def test_foreign_hosts_are_refused(rig: Rig, host: str) -> None:
    assert rig.tcp("GET", "/health", Host=host).status == 400


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "127.8.8.8", "[::1]:8080"])
def test_loopback_hosts_are_accepted(rig: Rig, host: str) -> None:
    assert rig.tcp("GET", "/health", Host=host).status == 200


def test_no_secret_in_the_log(rig: Rig) -> None:
    rig.tcp("GET", "/health")
    rig.tcp("GET", f"/api/nothing?token={rig.token}", token=None)
    assert rig.token not in (rig.home.path / "stderr.log").read_text()


def test_long_bodies(rig: Rig) -> None:
    answer = rig.unix("POST", "/api/v1/jobs", raw=b"[" + b" " * 1024**2 + b"]")
    assert answer.status == 413
    assert rig.unix("POST", "/api/v1/jobs", raw=b" " * 1024**2).status == 422


def test_long_bodies_of_unknown_length(rig: Rig) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", rig.port, timeout=60)
    pieces = (b" " * 65536 for _ in range(17))
    headers = {"Authorization": f"Bearer {rig.token}", "Transfer-Encoding": "chunked"}
    connection.request("POST", "/api/v1/jobs", pieces, headers, encode_chunked=True)
    assert connection.getresponse().status == 413
    connection.close()


def test_a_body_that_nobody_wants_leaves_nothing_behind(tmp_path: Path) -> None:
    """A body that no handler reads must not keep the connection's task for ever, though we keep our end open."""
    with running(make_home(tmp_path / "home"), "--until-idle") as rig:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(60)
            peer.connect(str(rig.home.socket))
            peer.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 300000000\r\n\r\n")
            with suppress(OSError):
                for _ in range(300):
                    peer.sendall(b"x" * 65536)
            assert rig.process.wait(60) == 0


def test_headers_without_end(rig: Rig) -> None:
    with socket.create_connection(("127.0.0.1", rig.port)) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000)
        assert peer.recv(100).startswith(b"HTTP/1.1 431")


async def test_a_body_that_trickles_has_a_deadline(autojump_clock: trio.abc.Clock) -> None:
    """30 s in all, however often another byte comes."""

    async def app(scope: Scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        while (await receive())["more_body"]:
            pass

    async def receive() -> Message:
        await trio.sleep(1)
        return {"type": "http.request", "body": b"x", "more_body": True}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    began = trio.current_time()
    await BodyLimits(app)(PUT, receive, send)
    assert sent[0]["status"] == 408
    assert 29 < trio.current_time() - began < 40


@pytest.mark.parametrize(("pieces", "left"), [(50, 0), (10**9, 10**9)])
async def test_what_nobody_reads_is_thrown_away(autojump_clock: trio.abc.Clock, pieces: int, left: int) -> None:
    """The server's reading task waits for somebody to take the body; but not for a body without end."""
    remaining = pieces

    async def app(scope: Scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        await trio.sleep(0)

    async def receive() -> Message:
        nonlocal remaining
        await trio.sleep(0.01)
        remaining -= 1
        return {"type": "http.request", "body": b"x", "more_body": remaining > 0}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    began = trio.current_time()
    await BodyLimits(app)(PUT, receive, send)
    assert remaining <= left
    assert trio.current_time() - began < 3


def test_websockets_are_not_served(rig: Rig) -> None:
    key = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
    with socket.create_connection(("127.0.0.1", rig.port)) as peer:
        peer.settimeout(60)
        peer.sendall(f"GET / HTTP/1.1\r\nHost: x\r\n{key}Sec-WebSocket-Version: 13\r\n\r\n".encode())
        assert not peer.recv(100).startswith(b"HTTP/1.1 101")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
def test_the_unix_socket_admits_root_and_the_owner_alone() -> None:
    """Even a peer that may connect by the file's mode is turned away by its uid, before a byte is read."""
    folder = Path(tempfile.mkdtemp(prefix="tapefs-"))
    try:
        folder.chmod(0o755)
        home = make_home(folder / "home")
        os.chown(home.path, 65533, 65533)
        home.path.chmod(0o755)
        with running(home):
            status = home.socket.stat()
            assert (status.st_uid, status.st_mode & 0o777) == (65533, 0o600)
            home.socket.chmod(0o777)
            assert _status_as(0, home.socket) == 200
            assert _status_as(65533, home.socket) == 200
            assert _status_as(65534, home.socket) == 403
    finally:
        shutil.rmtree(folder)


def _status_as(uid: int, path: Path) -> int:
    program = """
import os, socket, sys
os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))
peer = socket.socket(socket.AF_UNIX); peer.connect(sys.argv[2])
peer.sendall(b"GET /health HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
print(peer.recv(1000).split()[1].decode())
"""
    done = subprocess.run([sys.executable, "-c", program, str(uid), str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_long_path_of_the_state_folder(tmp_path: Path) -> None:
    """A socket's address holds 107 bytes; longer paths go by way of the folder."""
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    with running(make_home(folder / "home")) as rig:
        assert len(str(rig.home.socket)) > 107
        assert rig.unix("GET", "/health").status == 200
    assert not rig.home.socket.exists()


def test_idle_connections_are_closed(rig: Rig) -> None:
    with socket.create_connection(("127.0.0.1", rig.port)) as peer:
        peer.settimeout(60)
        began = time.monotonic()
        assert peer.recv(1) == b""
        assert time.monotonic() - began < 10
