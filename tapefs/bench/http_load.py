"""Asks an HTTP server over connections that stay open, and measures each answer: a process of its own. Blocking.

    .venv/bin/python -m tapefs.bench.http_load PORT TARGET TOKEN SECONDS CONNECTIONS RATE

RATE 0 asks again as soon as an answer has come; else so many requests a second are due, and an answer's time counts
from the moment when its request was due, so that a server that stalls is not asked less. Prints a Load as JSON.
"""

from __future__ import annotations

import re
import selectors
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field

import msgspec

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_LAST = re.compile(rb"^connection: *close", re.IGNORECASE | re.MULTILINE)
_PIECE_BYTES = 256 * 1024


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    per_s: float
    p50_ms: float
    p99_ms: float
    worst_ms: float
    #: Answers with another status than 200, and connections that were closed.
    errors: int


@dataclass(slots=True, eq=False)
class _Client:
    connection: socket.socket
    since_s: float = 0.0
    got: bytearray = field(default_factory=bytearray)
    needed: int = 0


def load(port: int, target: str, token: str, *, seconds: float, connections: int, rate: float = 0.0) -> Load:
    """Have a process of its own ask, and return what came of it."""
    arguments = map(str, (port, target, token, seconds, connections, rate))
    command = [sys.executable, "-m", "tapefs.bench.http_load", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=seconds + 60)
    return msgspec.json.decode(done.stdout, type=Load)


class _Asking:
    """One run."""

    def __init__(self, port: int, target: str, token: str, connections: int, rate: float) -> None:
        head = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n"
        self._request = head.encode()
        self._selector = selectors.EpollSelector()
        self._idle: deque[_Client] = deque()
        self._rate = rate
        self._times_s: list[float] = []
        self._errors = 0
        self._port = port
        for _ in range(connections):
            self._connect()

    def _connect(self) -> None:
        client = _Client(socket.create_connection(("127.0.0.1", self._port), 30))
        client.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(client.connection, selectors.EVENT_READ, client)
        self._idle.append(client)

    def run(self, seconds: float) -> Load:
        """Ask for so long."""
        began_s = time.perf_counter()
        due_s, end_s = began_s, began_s + seconds
        while (now_s := time.perf_counter()) < end_s:
            while self._idle and (not self._rate or due_s <= now_s):
                self._ask(self._idle.popleft(), due_s if self._rate else now_s)
                due_s += 1 / self._rate if self._rate else 0.0
            wait_s = max(due_s - now_s, 0.0) if self._rate and self._idle else 1.0
            for key, _ in self._selector.select(min(wait_s, end_s - now_s)):
                self._read(key.data)
        return self._result(time.perf_counter() - began_s)

    def _ask(self, client: _Client, since_s: float) -> None:
        client.since_s, client.needed = since_s, 0
        client.got.clear()
        client.connection.sendall(self._request)

    def _read(self, client: _Client) -> None:
        data = client.connection.recv(_PIECE_BYTES)
        client.got += data
        if not data:
            self._errors += 1
            self._selector.unregister(client.connection)
            return
        if not client.needed:
            head = client.got.find(b"\r\n\r\n")
            length = _LENGTH.search(client.got, 0, head) if head >= 0 else None
            if length is None:
                return
            client.needed = head + 4 + int(length[1])
        if len(client.got) >= client.needed:
            self._times_s.append(time.perf_counter() - client.since_s)
            self._errors += not client.got.startswith(b"HTTP/1.1 200")
            if _LAST.search(client.got):  # Hypercorn ends a connection after a thousand answers.
                self._selector.unregister(client.connection)
                client.connection.close()
                self._connect()
            else:
                self._idle.append(client)

    def _result(self, seconds: float) -> Load:
        times = sorted(self._times_s) or [0.0]
        return Load(
            per_s=len(self._times_s) / seconds,
            p50_ms=times[len(times) // 2] * 1000,
            p99_ms=times[len(times) * 99 // 100] * 1000,
            worst_ms=times[-1] * 1000,
            errors=self._errors,
        )


def main() -> None:
    """Ask as the arguments say."""
    port, target, token, seconds, connections, rate = sys.argv[1:]
    found = _Asking(int(port), target, token, int(connections), float(rate)).run(float(seconds))
    sys.stdout.write(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
