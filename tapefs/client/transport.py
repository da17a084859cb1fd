"""HTTP over the sidecar's Unix socket. Blocking.

Only the standard library: importing an HTTP client library costs more than a whole listing command may take.
"""

from __future__ import annotations

import errno
import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tapefs import __version__
from tapefs.errors import HomeError, NoRoom, NoSuchThing, NotNow, RecallTimedOut, TapefsError, Unreachable, UsageError
from tapefs.socket_name import socket_name

#: What an HTTP status means here; other statuses from 400 on are a plain TapefsError.
ERRORS: dict[int, type[TapefsError]] = {
    400: UsageError,
    401: HomeError,
    403: HomeError,
    404: NoSuchThing,
    409: NotNow,
    422: UsageError,
    503: Unreachable,
    504: RecallTimedOut,
    507: NoRoom,
}


#: Answered, without a word of the sidecar's own, to a call that it does not have.
_NO_SUCH_CALL, _NOTHING_SAID = (404, 405), ("Not Found", "Method Not Allowed")
_STATUS = "/api/v1/status"


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


def not_there(path: Path, error: OSError) -> TapefsError:
    """Return what a failed connect means."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return HomeError(f"no permission to use {path}: be root, or the owner of the state folder")
    return Unreachable(f"no sidecar answers on {path} ({error.strerror}): start one with `tapefs serve`")


class Transport:
    """Requests with JSON in both directions, each on a connection of its own: nothing goes stale between two of them.

    A connect to a Unix socket takes microseconds. May be used by several threads.
    """

    def __init__(self, path: Path, timeout_s: float = 60.0) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def request(self, method: str, path: str, body: object = None) -> bytes:
        """Send one request and return the body of its answer.

        Raises Unreachable when the sidecar goes away, and the error that belongs to the status.
        """
        connection = SocketConnection(self._path, self._timeout_s)
        headers = {"Connection": "close"} | ({} if body is None else {"Content-Type": "application/json"})
        with closing(connection), connection_errors(self._path):
            connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
            answer = connection.getresponse()
            data = answer.read()
        if answer.status >= 400:
            raise self._refusal(path, answer.status, data)
        return data

    def _refusal(self, path: str, status: int, data: bytes) -> TapefsError:
        """Return what an answer stands for; where a call is not known at all, that another version answers."""
        error = error_of(status, data)
        if path == _STATUS or not (status in _NO_SUCH_CALL and str(error) in _NOTHING_SAID):
            return error
        try:
            version = json.loads(self.request("GET", _STATUS))["version"]
        except (TapefsError, ValueError, KeyError, TypeError):
            return error
        whose = (
            f"is version {version}, this is {__version__}" if version != __version__ else "is older than this program"
        )
        return NotNow(f"the sidecar that runs does not know what it was asked: it {whose}; restart it")


class LineStream:
    """The lines of an endless answer, as they come; read by one thread."""

    def __init__(self, path: Path, target: str, silence_s: float) -> None:
        """Ask for `target`; silence for more than `silence_s` means the sidecar is gone.

        Raises as Transport.request.
        """
        self._path = path
        self._connection = SocketConnection(path, silence_s)
        try:
            with connection_errors(path):
                self._connection.request("GET", target)
                self._answer = self._connection.getresponse()
                refusal = self._answer.read() if self._answer.status >= 400 else None
            if refusal is not None:
                raise error_of(self._answer.status, refusal)
        except BaseException:
            self._connection.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        """Yield lines until the sidecar ends the answer. Raises Unreachable when it goes away."""
        while True:
            with connection_errors(self._path):
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
def connection_errors(path: Path) -> Iterator[None]:
    """Turn what http.client and the socket raise into Unreachable."""
    try:
        yield
    except TimeoutError as error:
        raise Unreachable(f"the sidecar on {path} does not answer in time: look at its log") from error
    except (http.client.HTTPException, OSError) as error:
        raise Unreachable(f"the sidecar on {path} went away: see `tapefs jobs`, and its log") from error


def error_of(status: int, data: bytes) -> TapefsError:
    """Return the error that an answer stands for, with the sidecar's own words."""
    try:
        detail = json.loads(data)["detail"]
    except (ValueError, KeyError, TypeError):
        detail = f"the sidecar answered with status {status}"
    return ERRORS.get(status, TapefsError)(str(detail))
