"""The sidecar over HTTP: short calls, pages of what is long, streams of events; beside a constant answer of Starlette.

What one machine answers in a second says little of another; the peer (`http_constant`) is the same server with nothing
behind it, asked in the same minute by the same program. Processor times are of the server's process.
"""

from __future__ import annotations

import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from tapefs.bench.http_load import Load, load
from tapefs.bench.made_catalog import fill_ledger
from tapefs.bench.stand import Result, Stand, tapefs
from tapefs.home import Home

JOBS, SETS, ENTRIES, STREAMS = 100_000, 10_000, 130_000, 1000
#: Of each set, and the tapes that all of them lie on.
SEGMENTS, TAPES = 3, 100
#: Connections that ask at one time, and for how long.
CONNECTIONS, SECONDS = 16, 5.0
RATE = 1000.0
#: Beside a backup, ours and theirs in turn: single ones differ by a factor of ten.
_TURNS = 3
_BUSY = Path("/usr")


def run(place: Stand) -> list[Result]:
    """Measure, and return the lines of the table."""
    with ExitStack() as stack:
        home = place.new_home("home")
        fill_ledger(home, jobs=JOBS, sets=SETS, tapes=TAPES, segments=SEGMENTS)
        folder = place.folder / "many"
        folder.mkdir()
        for number in range(ENTRIES):
            (folder / f"a file {number:06}").touch()
        port, peer_port = _free_port(), _free_port()
        server = stack.enter_context(_serving(tapefs(home, "serve", "--listen", f"127.0.0.1:{port}"), port))
        peer = stack.enter_context(
            _serving([sys.executable, "-m", "tapefs.bench.http_constant", str(peer_port)], peer_port)
        )
        token = home.token.read_text().strip()
        ours, theirs = _Server(port, token, server), _Server(peer_port, "", peer)
        print(f"{JOBS:,} jobs and {SETS:,} sets in the ledger; {CONNECTIONS} connections that stay open")
        results = [*_fast(ours, theirs), *_pages(ours, theirs, home, folder), _streams(home, ours)]
        return [*results, *_beside_a_backup(home, ours, theirs)]


class _Server:
    """One of the two that are asked."""

    def __init__(self, port: int, token: str, process: subprocess.Popen[bytes]) -> None:
        self.port, self.token, self.process = port, token, process

    def ask(self, target: str, rate: float = 0.0) -> tuple[Load, float]:
        """Return how it answers, and the microseconds of a processor for one answer."""
        before_s = self.processor_s()
        found = load(self.port, target, self.token, seconds=SECONDS, connections=CONNECTIONS, rate=rate)
        if found.errors:
            raise RuntimeError(f"{found.errors} answers to {target} were no good")
        return found, (self.processor_s() - before_s) / (found.per_s * SECONDS) * 1e6

    def processor_s(self) -> float:
        """Return how much it has used of processors."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def used_bytes(self) -> int:
        """Return how much memory it has."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) * 1024


def _fast(ours: _Server, theirs: _Server) -> list[Result]:
    """As fast as it goes."""
    (mine, my_us), (other, other_us) = ours.ask("/api/v1/status"), theirs.ask("/health")
    return [
        _result("status calls, a second", f"{mine.per_s:,.0f}", f"{other.per_s:,.0f}", mine.per_s / other.per_s),
        _result("processor for one", f"{my_us:,.0f} us", f"{other_us:,.0f} us", my_us / other_us),
    ]


def _pages(ours: _Server, theirs: _Server, home: Home, folder: Path) -> list[Result]:
    """Pages of what is long, one after the other."""
    subprocess.run(tapefs(home, "backup", folder, "--name", "many"), stdout=subprocess.DEVNULL, check=True)
    inside = f"/api/v1/files/jobs/many/latest{str(folder).rstrip('/')}"
    other = _one_by_one(theirs, ["/health"])
    lines = []
    for what, target, goal_ms in (
        (f"a page of {JOBS:,} jobs", f"/api/v1/jobs?limit=50&offset={JOBS // 2}", None),
        (f"a page of {JOBS:,} jobs by state", f"/api/v1/jobs?limit=50&offset={JOBS // 5}&state=failed", None),
        (f"a page of a folder with {ENTRIES:,} entries", f"{inside}?start={ENTRIES // 2}", 20.0),
        ("a page of a thousand of it", f"{inside}?limit=1000", None),
        (f"what becomes of {SETS:,} sets, the first page", "/api/v1/expire?limit=50", 200.0),
    ):
        ms = _one_by_one(ours, [target])
        lines.append(_result(what, f"{ms:.1f} ms", f"{other:.1f} ms", ms / other, goal_ms, ms))
    return lines


def _one_by_one(server: _Server, targets: Sequence[str]) -> float:
    """Return the median of the milliseconds of an answer, over a connection that stays open."""
    times = []
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        for target in [*targets] * 40:
            began_s = time.perf_counter()
            connection.request("GET", target, headers={"Authorization": f"Bearer {server.token}"})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{target}: {answer.status} {body[:200]!r}")
            times.append(time.perf_counter() - began_s)
    return sorted(times)[len(times) // 2] * 1000


def _streams(home: Home, ours: _Server) -> Result:
    """Open streams of events: what they cost while nothing happens."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, STREAMS + 500), hard), hard))
    before = ours.used_bytes()
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(STREAMS):
            connection = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
            connection.connect(str(home.socket))
            connection.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            selector.register(connection, selectors.EVENT_READ)
        told: set[int] = set()
        while len(told) < STREAMS:
            for key, _ in selector.select(30):
                connection = key.fileobj  # type: ignore[assignment]
                told |= {key.fd} if b"drive.state" in connection.recv(65536) else set()
        each = (ours.used_bytes() - before) / STREAMS
        used_s, began_s = ours.processor_s(), time.monotonic()
        time.sleep(SECONDS)
        share = (ours.processor_s() - used_s) / (time.monotonic() - began_s)
    what = f"{STREAMS:,} streams of events, nothing to tell"
    return _result(what, f"{each / 1024:.0f} KiB each, {share:.1%} of a processor", "-", None)


def _beside_a_backup(home: Home, ours: _Server, theirs: _Server) -> list[Result]:
    """A thousand calls a second are due, whatever else goes on."""
    command = tapefs(home, "backup", _BUSY, "--name", "busy", "--level", "9")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as busy:
        try:
            time.sleep(3)
            turns = [(ours.ask("/api/v1/status", RATE)[0], theirs.ask("/health", RATE)[0]) for _ in range(_TURNS)]
            if busy.poll() is not None:
                raise RuntimeError(f"the backup of {_BUSY} was over too soon")
        finally:
            busy.send_signal(signal.SIGINT)
            busy.wait(60)
    what = f"{RATE:,.0f} calls a second beside a backup"
    mine, other = (median(turn[side].per_s for turn in turns) for side in (0, 1))
    mine_ms, other_ms = ([turn[side].p99_ms for turn in turns] for side in (0, 1))
    ratio = median(mine_ms) / median(other_ms)
    return [
        _result(f"{what}: answered", f"{mine:,.0f}", f"{other:,.0f}", mine / other),
        _result(f"{what}: p99, turn by turn", _ms(mine_ms), _ms(other_ms), ratio, 20.0, median(mine_ms)),
    ]


def _ms(times: Sequence[float]) -> str:
    return f"{', '.join(f'{each:.0f}' for each in times)} ms"


def _result(
    what: str, ours: str, theirs: str, ratio: float | None, goal_ms: float | None = None, ms: float = 0.0
) -> Result:
    goal = "" if goal_ms is None else f"<= {goal_ms:.0f} ms"
    return Result(what, ours, "a constant", theirs, ratio, goal, None if goal_ms is None else ms <= goal_ms)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _serving(command: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the end of the block; yield when it answers. Raises RuntimeError when it does not."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[-1]} does not serve")
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _answers(port: int) -> bool:
    try:
        with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", "/health")
            return connection.getresponse().status < 500
    except OSError:
        return False
