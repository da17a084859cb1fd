"""Nobody who names a URL can have us reach where he could not."""

from __future__ import annotations

import socket
import threading

import pytest
import trio

from sidecar.notices import posting
from sidecar.notices.posting import (
    LONGEST_ANSWER_BYTES,
    PostFailed,
    TargetPolicy,
    TargetRefused,
    check_url,
    is_public,
    post,
    resolve,
)
from tests.notices.receiver import receiving, resolver_of

OWN = TargetPolicy(allow_private=True, allow_http=True)
PLAIN = TargetPolicy(allow_http=True)
STRICT = TargetPolicy()

PRIVATE = [
    "127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
    "255.255.255.255", "224.0.0.1", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1",
    "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "64:ff9b::7f00:1",
    "64:ff9b::a00:1", "2002:7f00:1::", "2002:c0a8:101::1", "::127.0.0.1", "2001:db8::1", "fd00:ec2::254", "no address",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_the_public_internet(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2002:808:808::1", "::ffff:8.8.8.8"])
def test_what_is(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/", "file:///etc/passwd", "gopher://x", "http://example.org/", "https://", "https:///x",
        "https://user@example.org/", "https://user:pass@example.org/", "https://example.org@127.0.0.1/",
        "https://exa mple.org/", "https://example.org/\r\nX: y", "https://example.org\\@127.0.0.1/", "https://[::1",
        "https://example.org:99999/", "https://example.org:0/", "https://exämple.org/", "//example.org/", "",
    ],
)  # fmt: skip
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(TargetRefused) as caught:
        check_url(url, STRICT)
    assert "pass" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "[::1]", "[::ffff:127.0.0.1]", "localhost"],
)
async def test_no_spelling_of_this_machine_is_reached(host: str) -> None:
    """With the resolver of the system: it understands all of these."""
    with receiving() as receiver:
        with pytest.raises((TargetRefused, PostFailed)):
            await post(f"http://{host}:{receiver.port}/", b"{}", {}, PLAIN)
        assert receiver.posted == []


async def test_the_spellings_do_lead_here() -> None:
    """Else the test above would show nothing."""
    assert await resolve("2130706433", 80) == ["127.0.0.1"]
    assert await resolve("0177.0.0.1", 80) == ["127.0.0.1"]
    with receiving() as receiver:
        assert (await post(f"http://2130706433:{receiver.port}/x?y=1", b"{}", {}, OWN)).status == 200
        assert receiver.posted[0].path == "/x?y=1"
        assert receiver.posted[0].headers["Host"] == f"2130706433:{receiver.port}"


async def test_a_name_is_looked_up_once() -> None:
    """Public at first, this machine a moment later: what was looked at is what is connected to."""
    asked: list[str] = []
    connected: list[str] = []
    answers = resolver_of(["8.8.8.8"], ["127.0.0.1"])

    async def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return await answers(host, port)  # type: ignore[misc, no-any-return]

    async def connect(host: str, port: int) -> trio.SocketStream:
        connected.append(host)
        raise OSError("not in a test")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trio, "open_tcp_stream", connect)
        with pytest.raises(PostFailed):
            await post("http://rebinding.example/", b"", {}, PLAIN, resolver=resolver)
    assert (asked, connected) == (["rebinding.example"], ["8.8.8.8"])


async def test_one_private_address_among_public_ones_is_enough() -> None:
    with pytest.raises(TargetRefused, match="allow_private"):
        await post("http://x.example/", b"", {}, PLAIN, resolver=resolver_of(["8.8.8.8", "127.0.0.1"]))  # type: ignore[arg-type]


async def test_redirects_are_not_followed() -> None:
    with receiving() as hidden, receiving() as receiver:
        receiver.answers = [(302, {"Location": f"{hidden.url}/secret"}, b"")]
        assert (await post(receiver.url, b"{}", {}, OWN)).status == 302
        assert hidden.posted == []


async def test_a_long_answer_is_cut() -> None:
    with receiving() as receiver:
        receiver.answers = [(200, {}, b"x" * (3 * LONGEST_ANSWER_BYTES))]
        assert len((await post(receiver.url, b"", {}, OWN)).body) == LONGEST_ANSWER_BYTES


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"])
async def test_one_that_dawdles_is_left(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it says nothing, or drips."""
    monkeypatch.setattr(posting, "DEADLINE_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(said)
                for _ in range(7):
                    if over.wait(0.1):
                        break
                    if said:
                        connection.sendall(b"x")

        thread = threading.Thread(target=serve)
        thread.start()
        began = trio.current_time()
        with pytest.raises(PostFailed, match="no answer within"):
            await post(f"http://127.0.0.1:{server.getsockname()[1]}/", b"", {}, OWN)
        assert trio.current_time() - began < 30
        over.set()
        thread.join()


async def test_no_http_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 mail.example ESMTP\r\n" * 3)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(PostFailed):
            await post(f"http://127.0.0.1:{server.getsockname()[1]}/", b"", {}, OWN)
        thread.join()
