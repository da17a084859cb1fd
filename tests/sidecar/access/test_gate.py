"""The gate of TCP: headers that are not certain, hosts, addresses, numbers of requests."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio
from starlette.datastructures import Headers
from starlette.types import Message

from sidecar.access.addresses import Addresses, plain
from sidecar.access.hosts import Hosts
from sidecar.http.callers import Role
from sidecar.http.listeners import Connection, Connections
from sidecar.http.statuses import WrongHost
from tapefs.settings.access import HttpSettings, Trusted
from tests.sidecar.access.rig import raw_request, serving
from tests.sidecar.rig import Rig, wait_until


def request(rig: Rig, *headers: str, body: bytes = b"", method: str = "POST") -> bytes:
    lines = [f"{method} /api/v1/jobs HTTP/1.1", f"Authorization: Bearer {rig.token}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize(
    "headers",
    [
        ("Host: localhost", "Content-Length: 2", "Transfer-Encoding: chunked"),
        ("Host: localhost", "Host: evil.example"),
        ("Host: localhost", "Authorization: Bearer x"),
        ("Host: localhost", "Origin: http://localhost", "Origin: http://evil.example"),
        ("Host: localhost", "Content-Length: 2", "Content-Length: 3"),
        ("Host: localhost", *(f"X-{number}: 1" for number in range(101))),
    ],
)
def test_headers_that_are_not_certain(rig: Rig, headers: tuple[str, ...]) -> None:
    """400, and nothing that stands behind is taken for another request."""
    smuggled = request(rig, "Host: localhost", method="GET")
    answer = raw_request(rig, request(rig, *headers, body=b"0\r\n\r\n" + smuggled))
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize(
    "asks",
    [
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YQ==\r\n",
    ],
)
def test_nobody_gets_another_protocol(rig: Rig, asks: bytes) -> None:
    """Whoever asks for one is served by HTTP/1, and so is what he sends next."""
    head = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
    answer = raw_request(rig, head + asks + b"\r\n" + head + b"Connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 2
    assert answer.count(b'{"status":"ok"}') == 2


def test_http2_is_not_spoken(rig: Rig) -> None:
    answer = raw_request(rig, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    assert answer.startswith(b"HTTP/1.1 400")


def test_a_line_break_is_no_end_of_a_path(rig: Rig) -> None:
    """Else the same call would stand under another path in the audit log, and slip through what goes by the path."""
    for path in ("/api/v1/session%0A", "/api/v1/expire%0A", "/health/live%0A"):
        assert rig.tcp("GET", path).status == 404


def test_what_is_answered_is_what_it_says(rig: Rig) -> None:
    """Nothing is guessed to be a page or a script."""
    for path in ("/api/v1/jobs", "/nothing", "/api/v1/content/README"):
        assert rig.tcp("GET", path).headers["x-content-type-options"] == "nosniff", path


@pytest.mark.parametrize(
    ("listen", "header", "is_ours"),
    [
        ("127.0.0.1", "localhost:8080", True),
        ("127.0.0.1", "LocalHost.", True),
        ("127.0.0.1", "[::1]:8080", True),
        ("127.0.0.1", "[::1", False),
        ("127.0.0.1", "[0:0:0:0:0:0:0:1]", True),
        ("127.0.0.1", "archive.example.org:443", True),
        ("127.0.0.1", "ARCHIVE.example.org", True),
        ("127.0.0.1", "archive.example.org.evil.example", False),
        ("127.0.0.1", "10.0.0.1", False),
        ("127.0.0.1", "localhost@evil.example", False),
        ("127.0.0.1", "127.0.0.1:80:80", False),
        ("127.0.0.1", "", False),
        ("0.0.0.0", "10.0.0.1:8080", True),
        ("::", "[fe80::1]", True),
        ("::", "evil.example", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("fd00::1", "[FD00::1]:1", True),
    ],
)
def test_hosts(listen: str, header: str, is_ours: bool) -> None:
    hosts = Hosts(listen, ["archive.example.org"])
    if is_ours:
        hosts.check(header)
    else:
        with pytest.raises(WrongHost):
            hosts.check(header)


SETTINGS = HttpSettings(
    trusted=(Trusted(address="10.1.0.0/16", role="operator", uid=7), Trusted(address="::1", role="viewer")),
    proxies=("10.9.9.9", "10.9.8.0/24"),
)


@pytest.mark.parametrize(
    ("peer", "headers", "role"),
    [
        ("10.1.2.3", {}, Role.OPERATOR),
        ("::ffff:10.1.2.3", {}, Role.OPERATOR),
        ("10.2.0.1", {}, None),
        ("::1", {}, Role.VIEWER),
        # Through a proxy that nobody has named: who knows from where.
        ("10.1.2.3", {"X-Forwarded-For": "10.1.2.4"}, None),
        ("10.1.2.3", {"Via": "1.1 proxy"}, None),
        ("10.2.0.1", {"X-Forwarded-For": "10.1.2.3"}, None),
        # Through ours: it has added whom it has seen; what stands before that anybody can write.
        ("10.9.9.9", {"X-Forwarded-For": "10.1.2.3"}, Role.OPERATOR),
        ("10.9.9.9", {"X-Forwarded-For": "10.1.2.3, 192.0.2.1"}, None),
        ("10.9.9.9", {"X-Forwarded-For": "192.0.2.1, 10.1.2.3, 10.9.8.1"}, Role.OPERATOR),
        ("10.9.9.9", {"X-Forwarded-For": "10.1.2.3, unknown"}, None),
        ("10.9.9.9", {"X-Forwarded-For": ""}, None),
        ("10.9.9.9", {}, None),
    ],
)
def test_addresses_that_need_no_token(peer: str, headers: dict[str, str], role: Role | None) -> None:
    addresses = Addresses(SETTINGS)
    caller = addresses.trusted(addresses.origin(peer, Headers(headers), is_tls=False))
    assert (caller.role if caller is not None else None) == role
    assert caller is None or role is not Role.OPERATOR or caller.uid == 7


def test_only_named_proxies_tell_of_tls() -> None:
    addresses, headers = Addresses(SETTINGS), Headers({"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"})
    assert addresses.origin("10.9.9.9", headers, is_tls=False).is_encrypted
    assert not addresses.origin("10.1.1.1", headers, is_tls=False).is_encrypted
    assert addresses.origin("10.1.1.1", Headers(), is_tls=True).is_encrypted


def test_addresses_are_written_in_one_way() -> None:
    assert plain("::ffff:1.2.3.4") == "1.2.3.4"
    assert plain("fe80::1%eth0") == "fe80::1"
    assert plain("nowhere") == "nowhere"


def test_trusted_addresses_are_served_and_told(tmp_path: Path) -> None:
    trusted = '[[http.trusted]]\naddress = "127.0.0.0/8"\nrole = "operator"\nuid = 1234'
    with serving(tmp_path / "home", trusted) as rig:
        assert rig.tcp("GET", "/api/v1/session", token=None).body["uid"] == 1234
        assert rig.tcp("POST", "/api/v1/jobs/99/run", token=None).status == 404
        assert rig.tcp("GET", "/api/v1/tokens", token=None).status == 403
        assert rig.tcp("GET", "/health", token="wrong").status == 401
        assert rig.tcp("GET", "/health", token=None, **{"X-Forwarded-For": "127.0.0.1"}).status == 401
        # A page of another site makes a browser on this host send it.
        assert rig.tcp("POST", "/api/v1/jobs/99/run", token=None, Origin="http://evil.example").status == 403
        [warning] = rig.unix("GET", "/api/v1/status").body["warnings"]
        assert "127.0.0.0/8 as operator" in warning
        assert "127.0.0.0/8 as operator" in (rig.home.path / "stderr.log").read_text()


def test_requests_are_counted(tmp_path: Path) -> None:
    with serving(tmp_path / "home", "", "requests_per_minute = 20\nunknown_per_minute = 5") as rig:
        statuses = [rig.tcp("GET", "/health").status for _ in range(21)]
        assert statuses == [200] * 20 + [429]
        assert [rig.tcp("GET", "/health", token=None).status for _ in range(6)] == [401] * 5 + [429]
        assert rig.unix("GET", "/health").status == 200
        token = rig.unix("POST", "/api/v1/tokens", {"role": "viewer"}).body["secret"]
        assert rig.tcp("GET", "/health", token=token).status == 200, "another caller is none the worse"


def test_requests_at_one_time_are_counted(tmp_path: Path) -> None:
    with serving(tmp_path / "home", "", "requests_at_once = 2") as rig:
        held = []
        for _ in range(2):
            peer = socket.create_connection(("127.0.0.1", rig.port), timeout=60)
            head = f"GET /api/v1/arrivals HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {rig.token}\r\n\r\n"
            peer.sendall(head.encode())
            assert peer.recv(100).startswith(b"HTTP/1.1 200")
            held.append(peer)
        assert rig.tcp("GET", "/health").status == 429
        held.pop().close()
        wait_until(lambda: rig.tcp("GET", "/health").status == 200, "what has ended goes on counting")
        held.pop().close()


def test_wrong_tokens_are_counted(tmp_path: Path) -> None:
    with serving(tmp_path / "home", "") as rig:
        statuses = {rig.tcp("GET", "/health", token="wrong").status for _ in range(61)}
        assert statuses == {401, 429}
        assert rig.unix("GET", "/health").status == 200


async def test_a_client_that_takes_nothing_is_cut_off(autojump_clock: trio.abc.Clock) -> None:
    """A minute after what it does not take; others, and one that takes a little now and then, are left alone."""
    connections = Connections()

    def connection(name: str) -> Connection:
        ours, theirs = trio.socket.socketpair()
        held.extend((ours, theirs))
        return Connection(trio.SocketStream(ours), None, name)

    async def stuck(message: Message) -> None:
        await trio.sleep(600)

    async def taken(message: Message) -> None:
        await trio.sleep(50)

    held: list[trio.socket.SocketType] = []
    slow, quick = connection("slow"), connection("quick")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connections.watch)
        nursery.start_soon(connections.watched(slow, stuck), {})
        for _ in range(4):
            await connections.watched(quick, taken)({})
        assert slow.stream.socket.fileno() == -1
        assert quick.stream.socket.fileno() != -1
        nursery.cancel_scope.cancel()
    for each in held:
        each.close()
