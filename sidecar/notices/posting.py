"""POST to somebody else's server, so that whoever names the server cannot have us reach into our own network.

Trio only. The name is resolved once, every address that comes back must be one of the public internet, and the
connection goes to the very address that was looked at: a name that means something else a moment later (DNS rebinding)
changes nothing. Redirects are answers like any other, and never followed. All takes at most DEADLINE_S, and no more
than LONGEST_ANSWER_BYTES are read.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import h11
import trio

from tapefs.errors import TapefsError, UsageError

DEADLINE_S = 5.0
LONGEST_ANSWER_BYTES = 64 * 1024
#: What OpenSSL says of a certificate that is signed by itself, or by somebody unknown.
_UNKNOWN_SIGNERS = frozenset({18, 19, 20, 21})
_PIECE_BYTES = 16 * 1024
#: Networks whose addresses carry an IPv4 address, which has to be looked at instead, and where its lowest bit stands.
_CARRIERS = (
    (ipaddress.IPv6Network("::ffff:0:0/96"), 0),
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
    (ipaddress.IPv6Network("::/96"), 0),
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]


class TargetRefused(UsageError):
    """A URL that we do not send anything to."""


class PostFailed(TapefsError):
    """The other side could not be reached, or did not take it; `can_retry` says if a later attempt may succeed."""

    def __init__(self, message: str, *, can_retry: bool = True) -> None:
        super().__init__(message)
        self.can_retry = can_retry


@dataclass(frozen=True, slots=True)
class TargetPolicy:
    """What may be reached."""

    #: Addresses that are not of the public internet, too.
    allow_private: bool = False
    #: Without TLS, too.
    allow_http: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the other side said."""

    status: int
    body: bytes


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a name. Raises OSError."""
    found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def check_url(url: str, policy: TargetPolicy) -> SplitResult:
    """Return the parts of a URL that may be posted to as far as it can be told without a network.

    Raises TargetRefused, whose message never holds the URL: that may have a secret in it.
    """
    if re.search(r"[\x00-\x20\x7f\\]", url):
        raise TargetRefused("the URL holds spaces, backslashes or control characters")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise TargetRefused(f"this is no URL: {error}") from error
    if parts.scheme not in ("https", "http") or not host:
        raise TargetRefused("the URL must begin with https:// and name a host")
    if parts.scheme == "http" and not policy.allow_http:
        raise TargetRefused("the URL must begin with https://; `allow_http` in tapefs.toml permits others")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise TargetRefused("the URL must not hold a user or a password")
    if port == 0 or not host.isascii():
        raise TargetRefused("the URL has a port or a host that cannot be meant")
    return parts


def is_public(text: str) -> bool:
    """Is that an address of the public internet? Whatever is carried in an IPv6 address counts."""
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        for network, offset in _CARRIERS:
            if address in network:
                address = ipaddress.IPv4Address((int(address) >> offset) & 0xFFFFFFFF)
                break
    is_special = address.is_multicast or address.is_reserved or address.is_unspecified or address.is_loopback
    return address.is_global and not (is_special or address.is_link_local or address.is_private)


async def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    policy: TargetPolicy,
    *,
    resolver: Resolver = resolve,
    tls: ssl.SSLContext | None = None,
) -> Answer:
    """Send a body and return the answer, whatever its status. Raises TargetRefused, PostFailed."""
    parts = check_url(url, policy)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with trio.fail_after(DEADLINE_S):
            address = await _address_of(parts.hostname or "", port, policy, resolver)
            return await _exchange(parts, address, port, body, headers, tls)
    except trio.TooSlowError:
        raise PostFailed(f"no answer within {DEADLINE_S:.0f} s") from None
    except trio.BrokenResourceError as error:
        raise PostFailed(_sentence(error)) from error
    except (OSError, ssl.SSLError) as error:
        raise PostFailed(f"the connection failed: {error.__cause__ or error}") from error
    except h11.RemoteProtocolError as error:
        raise PostFailed(f"what came back is no HTTP: {error}") from error


def _sentence(error: trio.BrokenResourceError) -> str:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        hint = "; `ca_file` of the channel names who is" if cause.verify_code in _UNKNOWN_SIGNERS else ""
        return f"its certificate is not believed: {cause.verify_message}{hint}"
    return f"the connection failed: {cause or error}"


async def _address_of(host: str, port: int, policy: TargetPolicy, resolver: Resolver) -> str:
    found = await resolver(host, port)
    if not found:
        raise PostFailed("the host has no address")
    if not policy.allow_private and not all(is_public(address) for address in found):
        raise TargetRefused("the host is not on the public internet: `allow_private` in tapefs.toml permits others")
    return found[0]


async def _exchange(
    parts: SplitResult, address: str, port: int, body: bytes, headers: Mapping[str, str], tls: ssl.SSLContext | None
) -> Answer:
    stream: trio.abc.Stream = await trio.open_tcp_stream(address, port)
    if parts.scheme == "https":
        stream = trio.SSLStream(
            stream, tls or ssl.create_default_context(), server_hostname=parts.hostname, https_compatible=True
        )
    try:
        connection = h11.Connection(h11.CLIENT)
        await stream.send_all(_request(connection, parts, body, headers))
        return await _answer(connection, stream)
    finally:
        await trio.aclose_forcefully(stream)


def _request(connection: h11.Connection, parts: SplitResult, body: bytes, headers: Mapping[str, str]) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    all_headers = {
        "Host": parts.netloc,
        "User-Agent": "tapefs",
        "Connection": "close",
        "Content-Length": str(len(body)),
        **headers,
    }
    try:
        head = h11.Request(method="POST", target=target, headers=list(all_headers.items()))
    except (h11.LocalProtocolError, UnicodeEncodeError) as error:
        raise TargetRefused(f"the URL or a header cannot be sent: {error}") from error
    pieces = [connection.send(head), connection.send(h11.Data(data=body)), connection.send(h11.EndOfMessage())]
    return b"".join(piece for piece in pieces if piece)


async def _answer(connection: h11.Connection, stream: trio.abc.Stream) -> Answer:
    """Read the answer; what is longer than the limit is cut there."""
    status, body = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some(_PIECE_BYTES)))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) >= LONGEST_ANSWER_BYTES:
                return Answer(status, bytes(body[:LONGEST_ANSWER_BYTES]))
        elif isinstance(event, h11.EndOfMessage | h11.ConnectionClosed):
            return Answer(status, bytes(body))
