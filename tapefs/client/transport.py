"""HTTP to a sidecar over its Unix socket or TCP. Blocking.

Only the standard library: importing an HTTP client library costs more than a whole listing command may take.
"""

from __future__ import annotations

import errno
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tapefs import __version__
from tapefs.client.address import Address, tls_context
from tapefs.client.calling import Head, Taker
from tapefs.errors import (
    HomeError,
    NoRoom,
    NoSuchThing,
    NotNow,
    RecallTimedOut,
    TapefsError,
    TooManyRequests,
    Unreachable,
    UsageError,
)
from tapefs.socket_name import socket_name

#: What an HTTP status means here; other statuses from 400 on are a plain TapefsError.
ERRORS: dict[int, type[TapefsError]] = {
    400: UsageError,
    401: HomeError,
    403: HomeError,
    404: NoSuchThing,
    409: NotNow,
    422: UsageError,
    429: TooManyRequests,
    503: Unreachable,
    504: RecallTimedOut,
    507: NoRoom,
}


#: Answered, without a word of the sidecar's own, to a call that it does not have.
_NO_SUCH_CALL, _NOTHING_SAID = (404, 405), ("Not Found", "Method Not Allowed")
STATUS = "/api/v1/status"
#: The sidecar closes idle connections after 5 s.
_KEPT_S = 4.0
#: Connections over TCP that are kept for the next request.
_MOST_KEPT = 4
_PIECE_BYTES = 256 * 1024
#: Of a body that nobody takes so much is read: a sentence and where to ask.
NOT_TAKEN_BYTES = 64 * 1024


class SocketConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        """Connect. Raises Unreachable."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self.timeout)
        try:
            with socket_name(self._path) as name:
                connection.connect(name)
        except OSError as error:
            connection.close()
            raise not_there(self._path, error) from error
        self.sock = connection


class TcpConnection(http.client.HTTPConnection):
    """An HTTP connection over TCP, with TLS where there is a context."""

    def __init__(self, address: Address, context: ssl.SSLContext | None, timeout_s: float | None) -> None:
        super().__init__(address.host, address.port, timeout=timeout_s)
        self._address = address
        self._context = context

    def connect(self) -> None:
        """Connect. Raises Unreachable; HomeError for a certificate that is not believed."""
        try:
            super().connect()
            if self._context is not None:
                self.sock = self._context.wrap_socket(self.sock, server_hostname=self._address.host)
        except ssl.SSLCertVerificationError as error:
            self.close()
            raise distrusted(self._address, error) from error
        except OSError as error:
            self.close()
            raise Unreachable(f"no sidecar answers on {self._address} ({error.strerror or error})") from error


def distrusted(address: Address, error: ssl.SSLCertVerificationError) -> HomeError:
    """Return what a certificate means that no CA has signed."""
    return HomeError(
        f"the certificate of {address} is not believed ({error.verify_message}): name its CA (TAPEFS_CA), or "
        "its fingerprint (TAPEFS_PIN)"
    )


def not_there(path: Path, error: OSError) -> TapefsError:
    """Return what a failed connect means."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return HomeError(f"no permission to use {path}: be root, or the owner of the state folder")
    return Unreachable(f"no sidecar answers on {path} ({error.strerror}): start one with `tapefs serve`")


def connection_to(address: Address, timeout_s: float | None) -> http.client.HTTPConnection:
    """Return a connection of its own to an address, not yet made."""
    if address.socket is not None:
        return SocketConnection(address.socket, timeout_s)
    return TcpConnection(address, tls_context(address) if address.is_tls else None, timeout_s)


class Transport:
    """Requests with JSON in both directions. May be used by several threads.

    Over a Unix socket each has a connection of its own: a connect takes microseconds, and nothing goes stale between
    two of them. Over TCP connections are kept for seconds, as TLS needs milliseconds and round trips to begin one.
    """

    def __init__(self, where: Path | Address, timeout_s: float = 60.0) -> None:
        self._address = where if isinstance(where, Address) else Address(socket=where)
        self._timeout_s = timeout_s
        self._kept: list[tuple[float, TcpConnection]] = []
        self._lock = threading.Lock()
        self._context: ssl.SSLContext | None = None

    def request(self, method: str, path: str, body: object = None) -> bytes:
        """Send one request and return the body of its answer.

        Raises Unreachable when the sidecar goes away, and the error that belongs to the status.
        """
        return self.exchange(method, path, body).data

    def exchange(self, method: str, path: str, body: object = None) -> Head:
        """Send one request and return its answer with the headers. Raises as request."""
        head = self._exchange(method, path, {}, body, None)
        if head.status >= 300:
            raise self._refusal(path, head)
        return head

    def fetch(self, path: str, headers: Mapping[str, str], taker: Taker) -> Head:
        """Have the bytes of an answer taken; one that the taker does not want comes as `data`. Raises as request."""
        head = self._exchange("GET", path, headers, None, taker)
        if head.status >= 300 and head.status != 416:
            raise self._refusal(path, head)
        return head

    def close(self) -> None:
        """Close what is kept. Harmless twice; the next request connects again."""
        with self._lock:
            kept, self._kept = self._kept, []
        for _, connection in kept:
            connection.close()

    def _exchange(self, method: str, path: str, headers: Mapping[str, str], body: object, taker: Taker | None) -> Head:
        data = None if body is None else json.dumps(body).encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        ends = {"Connection": "close"} if self._address.socket is not None else {}
        headers = {**self._address.headers(), **kind, **ends, **headers}
        # What must not arrive twice does not go into a connection that may have been closed just now.
        connection, is_kept = self._take() if method in ("GET", "HEAD") else (self._connection(), False)
        try:
            with connection_errors(self._address):
                try:
                    connection.request(method, path, data, headers)
                    answer = connection.getresponse()
                except (http.client.RemoteDisconnected, ConnectionError):
                    if not is_kept:
                        raise
                    connection.close()
                    connection.request(method, path, data, headers)
                    answer = connection.getresponse()
                head = _receive(answer, taker)
        except BaseException:
            connection.close()
            raise
        self._keep(connection, answer)
        return head

    def _connection(self) -> http.client.HTTPConnection:
        address = self._address
        if address.socket is not None:
            return SocketConnection(address.socket, self._timeout_s)
        if address.is_tls and self._context is None:
            self._context = tls_context(address)
        return TcpConnection(address, self._context, self._timeout_s)

    def _take(self) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            while self._kept:
                since_s, connection = self._kept.pop()
                if time.monotonic() - since_s < _KEPT_S:
                    return connection, True
                connection.close()
        return self._connection(), False

    def _keep(self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse) -> None:
        if isinstance(connection, TcpConnection) and answer.isclosed() and not answer.will_close:
            with self._lock:
                if len(self._kept) < _MOST_KEPT:
                    self._kept.append((time.monotonic(), connection))
                    return
        connection.close()

    def _refusal(self, path: str, head: Head) -> TapefsError:
        """Return what an answer stands for; where a call is not known at all, that another version answers."""
        error = error_of(head.status, head.data, head.headers)
        if not is_unknown_call(path, head.status, error):
            return error
        try:
            version = json.loads(self.request("GET", STATUS))["version"]
        except (TapefsError, ValueError, KeyError, TypeError):
            return error
        return other_version(version)


def _receive(answer: http.client.HTTPResponse, taker: Taker | None) -> Head:
    headers = {name.lower(): value for name, value in answer.getheaders()}
    head = Head(answer.status, headers)
    if taker is None or answer.status >= 300:
        return Head(answer.status, headers, answer.read())
    if not taker.begin(head):
        return Head(answer.status, headers, answer.read(NOT_TAKEN_BYTES))
    # `read` with a size ends quietly where the connection breaks; what is missing is told by the taker.
    while data := answer.read(_PIECE_BYTES):
        taker.take(data)
    if answer.length:
        raise http.client.IncompleteRead(b"", answer.length)
    return head


class LineStream:
    """The lines of an endless answer, as they come; read by one thread."""

    def __init__(
        self, where: Path | Address, target: str, silence_s: float, headers: Mapping[str, str] | None = None
    ) -> None:
        """Ask for `target`; silence for more than `silence_s` means the sidecar is gone.

        Raises as Transport.request.
        """
        self._address = where if isinstance(where, Address) else Address(socket=where)
        self._connection = connection_to(self._address, silence_s)
        try:
            with connection_errors(self._address):
                self._connection.request("GET", target, headers=self._address.headers() | dict(headers or {}))
                self._answer = self._connection.getresponse()
                refusal = self._answer.read() if self._answer.status >= 300 else None
            if refusal is not None:
                raise error_of(self._answer.status, refusal, dict(self._answer.getheaders()))
        except BaseException:
            self._connection.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        """Yield lines until the sidecar ends the answer. Raises Unreachable when it goes away."""
        while True:
            with connection_errors(self._address):
                line = self._answer.readline()
            if not line:
                return
            yield line

    def end(self) -> None:
        """End the answer, from any thread; one that waits in it gets an end or Unreachable. Harmless twice."""
        if self._connection.sock is not None:
            with suppress(OSError):  # The other side may have closed it already.
                self._connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of the connection; no other thread may read it now. Harmless twice."""
        self._answer.close()
        self._connection.close()


@contextmanager
def lines(
    where: Path | Address, target: str, silence_s: float, headers: Mapping[str, str]
) -> Iterator[Iterator[bytes]]:
    """Have the lines of an answer inside the block. Raises as LineStream."""
    with closing(LineStream(where, target, silence_s, headers)) as stream:
        yield iter(stream)


@contextmanager
def connection_errors(where: Path | Address) -> Iterator[None]:
    """Turn what http.client and the socket raise into Unreachable."""
    try:
        yield
    except TimeoutError as error:
        raise Unreachable(f"the sidecar on {where} does not answer in time: look at its log") from error
    except (http.client.HTTPException, OSError) as error:
        raise WentAway(f"the sidecar on {where} went away: see `tapefs jobs`, and its log") from error


class WentAway(Unreachable):
    """The sidecar was there, and the connection broke: nobody knows whether the request has had its effect."""


def error_of(status: int, data: bytes, headers: Mapping[str, str] | None = None) -> TapefsError:
    """Return the error that an answer stands for, with the sidecar's own words."""
    try:
        detail = json.loads(data)["detail"]
    except (ValueError, KeyError, TypeError):
        detail = f"the sidecar answered with status {status}"
    kind = ERRORS.get(status, TapefsError)
    if kind is TooManyRequests:
        return TooManyRequests(str(detail), retry_after_s(headers or {}))
    return kind(str(detail))


def retry_after_s(headers: Mapping[str, str], usual_s: float = 1.0) -> float:
    """Return the seconds of a Retry-After; dates are not among what the sidecar sends."""
    text = next((value for name, value in headers.items() if name.lower() == "retry-after"), "")
    return float(text) if text.isdecimal() else usual_s


def is_unknown_call(path: str, status: int, error: TapefsError) -> bool:
    """Is it a call that the sidecar does not have, not a thing?"""
    return path != STATUS and status in _NO_SUCH_CALL and str(error) in _NOTHING_SAID


def other_version(version: object) -> NotNow:
    """Return what it means that a sidecar lacks a call."""
    whose = f"is version {version}, this is {__version__}" if version != __version__ else "is older than this program"
    return NotNow(f"the sidecar that runs does not know what it was asked: it {whose}; restart it")
