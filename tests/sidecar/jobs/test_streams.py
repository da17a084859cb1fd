"""Streams over HTTP and by the command, with real movers: what ends well is a set, whatever breaks off is none."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from catalog.lmdb_ledger import LmdbLedger
from catalog.records import JobState, SetState, VolumeState
from tapefs.home import Home, open_home
from tapefs.setup_home import NewHome, create_home
from tapefs.socket_name import socket_name
from tests.sidecar.rig import Rig, running, wait_until

_MIB = 1024**2
PART = _MIB


def home_with(folder: Path, *, idle_s: float = 3600, tapes: int = 3, tape_bytes: int = 64 * _MIB) -> Home:
    create_home(NewHome(path=folder, tapes=tapes, tape_bytes=tape_bytes, drives=1), 10**18)
    toml = folder / "tapefs.toml"
    settings = f"[backup]\nstream_part_bytes = {PART}\nstream_idle_s = {idle_s}\n"
    toml.write_text(toml.read_text().replace("[backup]\n", settings))
    return open_home(folder)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return home_with(tmp_path / "home")


@pytest.fixture
def rig(home: Home) -> Iterator[Rig]:
    with running(home, listen=True, is_real=True) as rig:
        yield rig


class Sender:
    """A client that says byte by byte what goes over the socket."""

    def __init__(self, home: Home, name: str = "dump.sql", query: str = "", head: str = "") -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        with socket_name(home.socket) as path:
            self._socket.connect(path)
        head = head or "Transfer-Encoding: chunked\r\n"
        self.say(f"POST /api/v1/streams/{name}{query} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n".encode())

    def say(self, data: bytes) -> None:
        self._socket.sendall(data)

    def send(self, data: bytes) -> None:
        for start in range(0, len(data), 65536):
            piece = data[start : start + 65536]
            self.say(b"%x\r\n%b\r\n" % (len(piece), piece))

    def end(self) -> tuple[int, Any]:
        self.say(b"0\r\n\r\n")
        return self.answer()

    def answer(self) -> tuple[int, Any]:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
        )
        while len(body) < length:
            body += self._more()
        return int(head.split()[1]), json.loads(body)

    def _more(self) -> bytes:
        piece = self._socket.recv(65536)
        assert piece, "the sidecar hung up"
        return piece

    def close(self) -> None:
        self._socket.close()


def send(home: Home, data: bytes, **more: str) -> tuple[int, Any]:
    sender = Sender(home, **more)
    try:
        sender.send(data)
        return sender.end()
    finally:
        sender.close()


def came(rig: Rig, size: int, name: str = "dump.sql") -> None:
    """Wait until so many bytes have come of a stream."""

    def is_there() -> bool:
        return any(each["name"] == name and each["bytes"] >= size for each in rig.unix("GET", "/api/v1/streams").body)

    wait_until(is_there, f"{size} bytes of the stream")


def content(home: Home, set_id: str, tmp_path: Path, name: str = "dump.sql") -> bytes:
    out = tmp_path / f"out-{set_id}"
    run(home, "restore", set_id, "--to", str(out))
    return (out / name).read_bytes()


def run(home: Home, *arguments: str, ok: bool = True, **more: Any) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "tapefs", "--home", str(home.path), *arguments]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, **more)
    assert (done.returncode == 0) is ok, done.stderr.decode() + done.stdout.decode()
    return done


def states(home: Home) -> list[SetState]:
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        return [each.state for each in ledger.backup_sets()]


def test_a_body_of_any_length(rig: Rig, tmp_path: Path) -> None:
    """Longer than what any other call takes, and than the file that it goes through."""
    data = random.Random(1).randbytes(9 * _MIB + 5)
    status, stored = send(rig.home, data)
    assert (status, stored["name"], stored["bytes"]) == (200, "dump.sql", len(data)), stored
    assert content(rig.home, stored["set_id"], tmp_path) == data
    job = rig.job(stored["job"])
    assert (job["state"], job["name"], job["stream"], job["type"]) == ("completed", "dump.sql", "dump.sql", "full")
    assert rig.unix("GET", "/api/v1/streams").body == []
    again = send(rig.home, b"")
    assert (again[0], again[1]["job"], again[1]["bytes"]) == (200, stored["job"], 0)
    assert content(rig.home, again[1]["set_id"], tmp_path) == b""
    audit = (rig.home.path / "audit" / "audit.jsonl").read_text()
    assert "POST /api/v1/streams/{name}" in audit
    run(rig.home, "verify", stored["set_id"])


def test_an_announced_length(rig: Rig, tmp_path: Path) -> None:
    sender = Sender(rig.home, head=f"Content-Length: {3 * _MIB}\r\n", query="?job=nightly")
    sender.say(bytes(3 * _MIB))
    status, stored = sender.answer()
    sender.close()
    assert (status, rig.job(stored["job"])["name"]) == (200, "nightly")
    assert content(rig.home, stored["set_id"], tmp_path) == bytes(3 * _MIB)
    short = Sender(rig.home, name="short", head="Content-Length: 100\r\n")
    short.say(bytes(99))
    came_job(rig, "short")
    short.close()
    failed = rig.wait_job(2, "failed")
    assert failed["error"] == "the client broke off before the stream's end; 0 bytes had come", failed


def came_job(rig: Rig, name: str) -> None:
    """Wait until the job of a stream is queued: it is there, pending, a moment before that."""

    def is_queued() -> bool:
        jobs = rig.unix("GET", "/api/v1/jobs").body
        return any(job["name"] == name and job["state"] != "pending" for job in jobs)

    wait_until(is_queued, "the job")


def test_larger_than_a_tape(tmp_path: Path) -> None:
    home = home_with(tmp_path / "home", tapes=8, tape_bytes=16 * _MIB)
    data = random.Random(2).randbytes(12 * _MIB)
    with running(home, listen=True, is_real=True) as rig:
        status, stored = send(home, data)
        assert status == 200, stored
        (shown,) = [each for each in json.loads(run(home, "sets", "--json").stdout)]
        assert len(shown["tapes"]) > 1, shown
        assert hashlib.sha256(content(rig.home, stored["set_id"], tmp_path)).digest() == hashlib.sha256(data).digest()


def test_a_client_that_dies_leaves_no_set(rig: Rig) -> None:
    sender = Sender(rig.home)
    sender.send(bytes(4 * _MIB))
    came(rig, 3 * _MIB)
    sender.close()
    job = rig.wait_job(1, "failed")
    assert "the client broke off before the stream's end" in job["error"]
    assert states(rig.home) == [SetState.FAILED]
    status, stored = send(rig.home, b"whole")
    assert (status, stored["job"]) == (200, 1)
    assert states(rig.home) == [SetState.FAILED, SetState.COMPLETE]


def test_a_slow_client_has_no_drive_until_its_first_part_is_there(rig: Rig, tmp_path: Path) -> None:
    sender = Sender(rig.home, name="slow")
    sender.send(bytes(_MIB))
    came(rig, _MIB, "slow")
    job = rig.job(1)
    assert (job["state"], job["waits_for"]) == ("queued", f"for its client to send more or to end: {_MIB} bytes so far")
    # Meanwhile the drive does other work.
    (tmp_path / "file").write_text("text")
    number = rig.submit("other", tmp_path / "file")
    assert rig.wait_job(number, "completed", "failed")["state"] == "completed"
    assert rig.job(1)["state"] == "queued"
    status, _ = sender.end()
    sender.close()
    assert status == 200


def test_a_silent_client_is_given_up(tmp_path: Path) -> None:
    home = home_with(tmp_path / "home", idle_s=0.5)
    with running(home, listen=True, is_real=True) as rig:
        sender = Sender(home)
        sender.send(bytes(3 * _MIB))
        status, answer = sender.answer()
        assert (status, answer["detail"]) == (408, "nothing has come from the client for 0.5 s")
        sender.close()
        assert rig.wait_job(1, "failed")["error"].startswith("nothing has come from the client for")
        assert states(home) == [SetState.FAILED]


def test_two_of_one_name_and_what_a_stream_cannot(rig: Rig) -> None:
    sender = Sender(rig.home)
    came_job(rig, "dump.sql")
    status, answer = send(rig.home, b"x", query="?job=other")
    assert status == 409
    assert "is on its way already" in answer["detail"]
    assert rig.unix("POST", "/api/v1/jobs/1/pause").status == 409
    assert rig.unix("DELETE", "/api/v1/streams/nothing").status == 404
    assert rig.unix("POST", "/api/v1/jobs/1/cancel").status == 202
    status, answer = sender.answer()
    assert (status, rig.job(1)["state"]) == (409, "cancelled"), answer
    sender.close()
    for call in ("run", "resume"):
        refused = rig.unix("POST", f"/api/v1/jobs/1/{call}")
        assert refused.status == 409
    assert send(rig.home, b"x", name="..%2fx")[0] in (404, 422)
    assert send(rig.home, b"x", query="?job=77")[0] == 404
    assert send(rig.home, b"x", name="b", query="?job=1")[0] == 422
    body = {"name": "a", "stream": "a", "run": False}
    assert rig.unix("POST", "/api/v1/jobs", {**body, "type": "mirror"}).status == 422
    assert rig.unix("POST", "/api/v1/jobs", {**body, "retries": 1}).status == 422
    assert rig.unix("POST", "/api/v1/jobs", {**body, "sources": ["/etc"]}).status == 422
    made = rig.unix("POST", "/api/v1/jobs", {**body, "codec": "tar", "retention_days": 3})
    number = made.body["number"]
    assert send(rig.home, b"x", name="a", query=f"?job={number}")[1]["job"] == number
    assert rig.job(number)["codec"] == "tar"


def test_cancelled_in_the_middle(rig: Rig) -> None:
    sender = Sender(rig.home)
    sender.send(bytes(4 * _MIB))
    rig.wait_job(1, "running")
    rig.unix("POST", "/api/v1/jobs/1/cancel")
    status, _ = sender.answer()
    sender.close()
    assert (status, rig.job(1)["state"]) == (409, "cancelled")
    assert states(rig.home) == [SetState.FAILED]


@pytest.mark.parametrize("has_begun", [True, False])
def test_the_sidecar_is_killed(home: Home, has_begun: bool) -> None:
    """Running or waiting: the stream is gone, its job fails at the next start, and nothing of it is left on disk."""
    with running(home, listen=True, is_real=True) as rig:
        sender = Sender(home)
        sender.send(bytes(4 * _MIB if has_begun else 100_000))
        if has_begun:
            rig.wait_job(1, "running")
        else:
            came_job(rig, "dump.sql")
        rig.process.kill()
        rig.process.wait()
        sender.close()
    with running(home, listen=True, is_real=True) as rig:
        job = rig.job(1)
        assert job["state"] == "failed"
        assert "it stores a stream, which cannot be read again" in job["error"]
        assert list((home.path / "spool").iterdir()) == []
        assert send(home, b"again")[0] == 200
    assert states(home)[-1] is SetState.COMPLETE


def test_the_mover_is_killed(rig: Rig) -> None:
    sender = Sender(rig.home)
    sender.send(bytes(4 * _MIB))
    rig.wait_job(1, "running")
    os.kill(rig._child("tapefs.mover"), signal.SIGKILL)
    status, answer = sender.answer()
    sender.close()
    assert (status, answer["status"]) == (503, 503)
    assert "cannot be read again" in answer["detail"] or "ended unexpectedly" in answer["detail"]
    assert rig.job(1)["state"] == "failed"
    assert states(rig.home) in ([], [SetState.FAILED])
    assert send(rig.home, b"again")[0] == 200


@pytest.mark.parametrize("came_whole", [False, True])
def test_the_sidecar_is_told_to_end(home: Home, came_whole: bool) -> None:
    """Who sends is told so, whether his job waits or runs; nothing is queued that nobody sends any more."""
    with running(home, listen=True, is_real=True) as rig:
        sender = Sender(home)
        sender.send(bytes(4 * _MIB))
        rig.wait_job(1, "running")
        waiting = Sender(home, name="waiting")
        waiting.send(b"a little")
        came_job(rig, "waiting")
        if came_whole:
            rig.unix("POST", "/api/v1/queue/pause", {"reason": "so that it waits"})
            waiting.say(b"0\r\n\r\n")
            wait_until(lambda: stream_of(rig, "waiting")["is_whole"], "the end")
        os.kill(rig.process.pid, signal.SIGTERM)
        for each, number in ((sender, 1), (waiting, 2)):
            status, answer = each.answer()
            assert (status, answer["status"]) == (503, 503), answer
            assert f"job {number} " in answer["detail"]
            assert re.search("(send|sent|have it sent) (it )?anew|before the stream's end", answer["detail"]), answer
            each.close()
        assert rig.process.wait(60) == 0
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        assert [job.state for job in ledger.jobs()] == [JobState.FAILED] * 2
        assert ledger.verify() == []


def stream_of(rig: Rig, name: str) -> Any:
    return next(each for each in rig.unix("GET", "/api/v1/streams").body if each["name"] == name)


def test_the_command(home: Home, tmp_path: Path) -> None:
    """No sidecar runs: the command starts one for itself."""
    data = random.Random(5).randbytes(5 * _MIB)
    done = run(home, "backup", "--stdin", "dump.sql", "--job", "nightly", "--codec", "tar", input=data)
    set_id = done.stdout.decode().strip()
    assert content(home, set_id, tmp_path) == data
    done = run(home, "backup", "--stdin", "hi", "--command", "--", "sh", "-c", "echo hello; echo told >&2")
    assert content(home, done.stdout.decode().strip(), tmp_path, "hi") == b"hello\n"
    assert b"told" in done.stderr
    failed = run(
        home, "backup", "--stdin", "hi", "--command", "--", "sh", "-c", "head -c 3000000 /dev/zero; exit 3", ok=False
    )
    assert b"sh failed with exit code 3: nothing of it is kept" in failed.stderr
    assert failed.stdout == b""
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        job = ledger.jobs()[-1]
        assert job.state is JobState.FAILED
        assert job.error.startswith("sh failed with exit code 3: nothing of it is kept; "), job.error
    for wrong in (["--command"], ["/etc"], ["--no-wait"]):
        refused = run(home, "backup", "--stdin", "x", *wrong, ok=False, input=b"")
        assert refused.returncode == 2, refused.stderr
    assert run(home, "backup", ok=False).returncode == 2
    missing = run(home, "backup", "--stdin", "x", "--command", "--", "/no/such/program", ok=False)
    assert b"/no/such/program cannot be run: No such file or directory" in missing.stderr


def test_the_command_is_killed(rig: Rig) -> None:
    command = [sys.executable, "-m", "tapefs", "--home", str(rig.home.path), "backup", "--stdin", "dump.sql"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(bytes(3 * _MIB))
        process.stdin.flush()
        came(rig, 2 * _MIB)
        process.kill()
    assert rig.wait_job(1, "failed")["error"].startswith("the client broke off before the stream's end")


def test_no_tape_is_told_to_who_sends(tmp_path: Path) -> None:
    """The client hears it while it still has much to send, and does not wait for ever."""
    home = home_with(tmp_path / "home", tapes=1, tape_bytes=4 * _MIB)
    data = random.Random(6).randbytes(30 * _MIB)
    with running(home, listen=True, is_real=True):
        done = run(home, "backup", "--stdin", "dump.sql", ok=False, input=data)
        # A client that does not look for an answer before it has sent everything is not kept hanging.
        sender = Sender(home)
        with pytest.raises(OSError, match=r"Broken pipe|reset by peer"):
            sender.send(data)
        sender.close()
        sender = Sender(home)
        sender.send(bytes(2 * _MIB))
        status, answer = sender.answer()
        sender.close()
    assert (status, answer["status"], answer["title"]) == (507, 507, "Insufficient Storage")
    assert "are too few for a segment" in answer["detail"]
    assert b"are too few for a segment" in done.stderr, done.stderr
    assert b"Traceback" not in done.stderr


def test_the_last_tape_is_full(tmp_path: Path) -> None:
    """What came to tape before is of a failed set; tape and ledger agree."""
    home = home_with(tmp_path / "home", tapes=1, tape_bytes=16 * _MIB)
    with running(home, listen=True, is_real=True) as rig:
        sender = Sender(home)
        with suppress(BrokenPipeError, ConnectionResetError):
            sender.send(random.Random(7).randbytes(30 * _MIB))
        status, answer = sender.answer()
        sender.close()
        assert (status, answer["status"]) == (507, 507), answer
        assert rig.job(1)["state"] == "failed"
        assert rig.job(1)["error"] in answer["detail"]
        assert states(home) == [SetState.FAILED]
        refused = run(home, "restore", "dump.sql", "--to", str(tmp_path / "out"), ok=False)
        assert b"has no complete set" in refused.stderr
        with LmdbLedger.open(home.ledger, readonly=True) as ledger:
            assert ledger.verify() == []
            [tape] = ledger.volumes()
            assert ledger.intents(tape.volume_id) == []
        assert tape.state is VolumeState.FULL
        run(home, "check")
        status, answer = send(home, b"small")
        assert (status, rig.job(1)["runs"]) == (507, 2)
        assert "put a blank tape into the library" in answer["detail"]
