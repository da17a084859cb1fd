"""A sidecar in a process of its own, with the scripted mover, and how to talk to it over both kinds of socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from catalog.lmdb_ledger import LmdbLedger
from catalog.records import Segment, SetState
from tapefs.client.transport import LineStream, SocketConnection
from tapefs.home import Home
from tapefs.setup_home import NewHome, create_home
from tests.catalog.builders import job_of
from tests.forking.client import Process, start
from tests.ports import free_port
from tests.sidecar import seeds

ROOT = Path(__file__).parents[2]
#: What is slower hangs: nobody waits so long for an answer or an end, on the slowest machine.
PATIENCE_S = 60.0


def make_home(folder: Path, *, tapes: int = 3, drives: int = 1, tape_bytes: int = 4 * 1024**2) -> Home:
    return create_home(NewHome(path=folder, tapes=tapes, tape_bytes=tape_bytes, drives=drives), time.time_ns())


def seed_set(
    home: Home,
    name: str = "seeded",
    *,
    tape: int = 0,
    frames: int = seeds.FRAMES,
    layout: Sequence[tuple[int, int]] = seeds.LAYOUT,
) -> list[Segment]:
    """Put a complete set into the ledger; return its segments."""
    with LmdbLedger.open(home.ledger) as ledger:
        now = time.time_ns()
        number = ledger.add_job(job_of(name, job_id=str(uuid4()), sources=(os.fsencode(ROOT),))).number
        backup_set = seeds.begin(ledger, ledger.queue_job(number, now), now)
        seeds.write(ledger, backup_set, ledger.volumes()[tape].volume_id, now, frames, layout)
        seeds.complete_all(ledger, now)
        return ledger.segments(backup_set.set_id)


@dataclass
class Answer:
    status: int
    body: Any
    headers: dict[str, str]

    @property
    def detail(self) -> Any:
        return self.body["detail"]


class Rig:
    """A running sidecar."""

    def __init__(self, home: Home, process: Process, port: int) -> None:
        self.home, self.process, self.port = home, process, port

    @property
    def token(self) -> str:
        return self.home.token.read_text().strip()

    def unix(self, method: str, path: str, body: object = None, *, raw: bytes | None = None) -> Answer:
        return _ask(SocketConnection(self.home.socket, PATIENCE_S), method, path, body, raw, {})

    def tcp(self, method: str, path: str, body: object = None, *, token: str | None = "", **headers: str) -> Answer:
        """`token` None sends none; empty the right one."""
        if token is not None:
            headers["Authorization"] = f"Bearer {token or self.token}"
        return _ask(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S), method, path, body, None, headers)

    @contextmanager
    def arrivals(self) -> Iterator[Iterator[dict[str, Any]]]:
        """The stream, behind its greeting, without pings."""
        stream = LineStream(self.home.socket, "/api/v1/arrivals", PATIENCE_S)
        try:
            lines = (json.loads(line) for line in stream)
            assert next(lines) == {"hello": 1}
            yield (line for line in lines if "ping" not in line)
        finally:
            stream.close()

    def submit(self, name: str, source: Path = ROOT / "tests") -> int:
        answer = self.unix("POST", "/api/v1/jobs", {"name": name, "sources": [str(source)]})
        assert answer.status == 202, answer
        return int(answer.body["number"])

    def job(self, number: int) -> Any:
        return self.unix("GET", f"/api/v1/jobs/{number}").body

    def wait_job(self, number: int, *states: str) -> Any:
        wait_until(lambda: self.job(number)["state"] in states, f"job {number} is {self.job(number)['state']}")
        return self.job(number)

    def wait_progress(self, number: int) -> None:
        wait_until(lambda: self.job(number)["trouble_count"] == 120, "no progress")

    def commands(self, kind: str) -> list[Any]:
        """What the mover was told of that kind."""
        log = self.home.path / "fake.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [json.loads(line.partition(" ")[2]) for line in lines if line.startswith(f"{kind} ")]

    def mover_pid(self) -> int:
        """The pid of the mover of the only drive."""
        return self._child("fake_mover")

    def mount_pid(self) -> int:
        return self._child("mount")

    def _child(self, word: str) -> int:
        """The pid of the child that has this word among its arguments or at the end of one."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        found = [pid for pid in children if any(part.endswith(word) for part in arguments_of(pid))]
        assert len(found) == 1, children
        return int(found[0])

    def stop(self) -> tuple[int, float]:
        """SIGTERM; return exit code and seconds."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S), time.monotonic() - began


def arguments_of(pid: str) -> list[str]:
    """The command line; empty when it has ended meanwhile."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def _ask(
    connection: HTTPConnection, method: str, path: str, body: object, raw: bytes | None, headers: dict[str, str]
) -> Answer:
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    with closing(connection):
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        text = answer.read()
        return Answer(answer.status, json.loads(text) if text else None, dict(answer.headers))


def spawn(
    home: Home,
    *options: str,
    stderr: int | IO[str] = subprocess.PIPE,
    pass_fds: Sequence[int] = (),
    is_real: bool = False,
    **variables: str,
) -> Process:
    """Run a sidecar, forked from a process that has its modules already."""
    program = ["-m", "tapefs", "--home", str(home.path), "serve"]
    if not is_real:
        program = ["-m", "tests.sidecar.serve_with_fake", "--home", str(home.path)]
    return start(*program, *options, env=os.environ | variables, stderr=stderr, pass_fds=pass_fds)


@contextmanager
def running(home: Home, *options: str, listen: bool = False, is_real: bool = False) -> Iterator[Rig]:
    """A sidecar that is ready; ended with SIGTERM, and its standard error must hold no traceback.

    `is_real`: with real movers, on the virtual library.
    """
    # A real one always listens: not on the usual port, which another test or service may have.
    port = free_port() if listen or is_real else 0
    place = ["--listen", f"127.0.0.1:{port}"] if port else []
    reader, writer = os.pipe()
    log = home.path / "stderr.log"
    with log.open("a") as errors:
        process = spawn(
            home, *place, *options, stderr=errors, pass_fds=[writer], is_real=is_real, TAPEFS_READY_FD=str(writer)
        )
    os.close(writer)
    try:
        with os.fdopen(reader) as words:
            assert words.readline() == "ready\n", log.read_text()
        yield Rig(home, process, port)
    finally:
        _end(process)
        text = log.read_text()
        assert "Traceback" not in text, text


def _end(process: Process) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait()


def wait_until(is_true: Callable[[], bool], message: str, seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, message
        time.sleep(0.02)


def waiter(segment: Segment, first: int, last: int, **more: object) -> dict[str, object]:
    return {"id": str(uuid4()), "segment": segment.segment_id, "first": first, "last": last} | more


def set_states(home: Home) -> list[SetState]:
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        return [backup_set.state for backup_set in ledger.backup_sets()]
